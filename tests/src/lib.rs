//! What keyferry's tests share: a whole device on the desk with the station's end of the line, and software stand-ins for
//! a token. The real parts stand beside: a token in [`softhsm`], boards in the emulator.

pub mod board;
pub mod command;
pub mod desk;
pub mod software;
