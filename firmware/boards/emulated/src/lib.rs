//! What keyferry's emulated boards have in common besides what all boards have: the emulator's command line, which stands for silicon,
//! and an application. A board brings a [`Chip`] and the `Registers` of its serial port.
//!
//! Device id, fuses and entropy of an emulated board come from the machine that it runs on: its images are for tests only, and their
//! statement says so.
//!
//! | part | runs |
//! | --- | --- |
//! | [`nor`], [`Board`] with [`Host`] and [`arguments`] | anywhere |
//! | `faults` (feature `flash-faults`, or its tests) | anywhere; its journal in an emulator |
//! | `serve`, `telemetry::send`, `vectors` | in an emulator with semihosting (feature `semihosting`) |
#![no_std]

pub mod arguments;
mod board;
mod entropy;
#[cfg(any(test, feature = "flash-faults"))]
pub mod faults;
mod host;
pub mod nor;
#[cfg(feature = "semihosting")]
pub mod overflow;
#[cfg(feature = "semihosting")]
mod semihosting;
#[cfg(feature = "semihosting")]
mod serve;
#[cfg(feature = "semihosting")]
mod tally;
pub mod telemetry;
#[cfg(feature = "semihosting")]
pub mod vectors;

use embedded_storage::nor_flash::NorFlash;
use keyferry_firmware::device::Millis;

pub use board::Board;
pub use host::Host;
#[cfg(feature = "semihosting")]
pub use serve::serve;

/// A chip: what differs from board to board.
pub trait Chip {
    /// The board's name.
    const NAME: &'static str;
    /// Line rates in baud besides the base rate: see [`keyferry_firmware::Platform::line_rates`].
    const RATES: &'static [u32];
    /// The key store's flash.
    type Flash: NorFlash;

    /// The key store's flash. Called once.
    fn flash(&mut self) -> Self::Flash;

    /// Feeds the watchdog, where there is one: see [`keyferry_firmware::Platform::feed_watchdog`].
    fn feed_watchdog(&mut self) -> Option<Millis> {
        None
    }

    /// Whether there is a status LED.
    const HAS_LED: bool = false;

    /// Switches the status LED, where there is one.
    fn light(&mut self, lit: bool) {
        let _ = lit;
    }

    /// Counts what unwrapping costs, where the chip has a meter.
    #[cfg(feature = "measure")]
    fn measure(&mut self, mark: keyferry_firmware::platform::Mark) {
        let _ = mark;
    }
}
