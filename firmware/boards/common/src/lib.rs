//! What boards have in common. Nothing here knows whether a board is emulated: who a device is, and where its randomness comes from, it
//! says itself.
//!
//! | part | runs |
//! | --- | --- |
//! | [`turn`], [`flash`] | anywhere |
//! | `uart`, `wire`, `wake`, `panic`, `heap` (RSA only) | on a bare board |
//! | `guard`, `panic::arm` | on an Arm board |
#![no_std]

pub mod flash;
#[cfg(all(target_os = "none", target_arch = "arm"))]
pub mod guard;
#[cfg(all(target_os = "none", feature = "rsa-suites"))]
pub mod heap;
#[cfg(target_os = "none")]
pub mod panic;
pub mod turn;
#[cfg(target_os = "none")]
pub mod uart;
#[cfg(target_os = "none")]
pub mod wake;
#[cfg(target_os = "none")]
pub mod wire;

use keyferry_firmware::device::Millis;

/// A chip's clock and its alarm. There is one, so these are functions and not methods.
pub trait Clock {
    /// Milliseconds since the start.
    fn now() -> Millis;

    /// Has an interrupt come at `deadline`, or before.
    fn set_alarm(deadline: Millis);

    /// No deadline any more.
    fn clear_alarm();
}
