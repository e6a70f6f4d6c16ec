//! The station's end of a device: its port, its session, the orders it gets and the receipts it answers with.
//!
//! [`port`] alone owns a serial port and a clock; [`capture`] records what passes through one. [`session`] greets and exchanges messages, [`flow`] gives orders, and
//! [`verify`] decides what a signed answer is worth. Nothing is decided from an unsigned message.

pub mod capture;
mod error;
pub mod flow;
pub mod port;
pub mod session;
pub mod verify;
mod witness;

pub use error::DeviceError;
pub use witness::{MakeOrder, Witness};
