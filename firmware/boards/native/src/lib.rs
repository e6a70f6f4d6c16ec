//! keyferry's firmware as a process of the host: a board without a machine, for many devices at once and for systems that QEMU does not
//! run on.
//!
//! A [`Device`] is a value: several live in one process, each on a thread of its own, and share nothing. What they are made of is
//! the library that real boards use, and the main loop that the emulated ones use. Their flash is a file that outlives the
//! process, however it ends; it does not outlive a power cut of the host's own.
//!
//! Root key and vendor key are plain files, and what a process does with keys its host can see: these devices are for tests, and their
//! statement says so.

mod device;
mod flash;
mod fleet;
mod folder;
mod line;
mod panic;
mod run;
mod settings;
mod wire;

pub use device::Device;
pub use flash::FlashFileError;
pub use line::LineError;
pub use panic::report_places;
pub use run::run;
pub use settings::{LineKind, Settings, SettingsError};
pub use wire::ResetButton;

/// Why a device does not run.
#[derive(Debug, thiserror::Error)]
pub enum NativeError {
    /// The arguments are not understood.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The flash file cannot be used.
    #[error(transparent)]
    Flash(#[from] FlashFileError),
    /// The serial port cannot be made, or is no more.
    #[error(transparent)]
    Line(#[from] LineError),
}

impl NativeError {
    /// What to do about it, for people.
    #[must_use]
    pub const fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Settings(error) => Some(error.hint()),
            Self::Flash(error) => Some(error.hint()),
            Self::Line(error) => error.hint(),
        }
    }
}
