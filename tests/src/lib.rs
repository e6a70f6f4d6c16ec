//! What keyferry's tests share: a whole device on the desk with the station's end of the line, and software stand-ins for
//! a token. The real parts stand beside: tokens in SoftHSM, NSS and kryoptic, boards in QEMU.

pub mod audited;
pub mod board;
#[cfg(unix)]
pub mod broker;
pub mod command;
pub mod derivation;
pub mod desk;
pub mod faults;
pub mod fuzz;
pub mod guide;
pub mod led;
pub mod line;
pub mod long_log;
pub mod mitm;
pub mod openssl;
pub mod orders;
#[cfg(unix)]
pub mod postgres;
#[cfg(target_os = "linux")]
pub mod process;
pub mod pyca;
#[cfg(unix)]
pub mod relay;
pub mod search;
pub mod software;
pub mod spoiled;
pub mod strict;
pub mod tokens;
