//! A device in this process.

use std::convert::Infallible;
use std::fs::OpenOptions;
use std::io;
use std::thread::{self, JoinHandle};

use keyferry_board::turn::{Line as _, turn};
use keyferry_emulated::nor::NorModel;
use keyferry_emulated::{Board, Chip, telemetry};
use keyferry_firmware::device;
use keyferry_firmware::protocol::link::rates;

use crate::NativeError;
use crate::flash::{Flash, FlashFile};
use crate::folder::Machine;
use crate::line::{End, LineError, Port};
use crate::panic::lives;
use crate::settings::Settings;
use crate::wire::ResetButton;

/// Bytes of a device's stack. Pages that are never used take no memory.
const STACK: usize = 2 * 1024 * 1024;

/// A device that runs on a thread of its own. It runs until the process ends, or until its line is no more.
pub struct Device {
    port: String,
    button: ResetButton,
    thread: JoinHandle<LineError>,
}

/// The chip: there is none.
struct Native {
    flash: FlashFile,
}

impl Chip for Native {
    const NAME: &'static str = "native";
    // Its line has no rate: all are the same to it.
    const RATES: &'static [u32] = &rates::ALL;
    type Flash = Flash;

    fn flash(&mut self) -> Flash {
        NorModel::over(self.flash.clone())
    }
}

/// What a life of a device does.
type Life = fn(&mut Port, Board<Native, Machine>) -> Result<Infallible, End>;

impl Device {
    /// Starts a device. When this returns, its serial port exists.
    ///
    /// # Errors
    /// [`NativeError`] if its flash file or its serial port cannot be had.
    pub fn start(settings: Settings) -> Result<Self, NativeError> {
        Self::live(settings, |port, board| {
            turn(port, &mut device::Device::<_>::new(board))
        })
    }

    /// Starts an application on a provisioned device instead: see [`telemetry`].
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_telemetry(settings: Settings) -> Result<Self, NativeError> {
        Self::live(settings, |port, board| {
            port.write_all(telemetry::line(board).as_bytes())?;
            loop {
                // What is received is nothing to it; it sleeps until it is reset.
                port.has_received()?;
                port.receive(&mut [0; 64])?;
                port.sleep(None)?;
            }
        })
    }

    fn live(settings: Settings, life: Life) -> Result<Self, NativeError> {
        let flash = FlashFile::open(&settings.flash)?;
        let capture = settings
            .capture
            .as_ref()
            .map(|path| OpenOptions::new().create(true).append(true).open(path))
            .transpose()
            .map_err(LineError::Capture)?;
        let mut port = Port::make(&settings.line, capture)?;
        let (name, button) = (port.name().to_owned(), port.reset_button());
        let id = settings.arguments().device_id;
        let thread = thread::Builder::new()
            .name(format!("device {id}"))
            .stack_size(STACK)
            .spawn(move || {
                loop {
                    let ended = lives(|| {
                        let chip = Native {
                            flash: flash.clone(),
                        };
                        life(&mut port, Board::new(chip, Machine, settings.arguments()))
                    });
                    let Err(end) = ended;
                    match end {
                        End::Reset => {}
                        End::Broken(error) => return error,
                    }
                }
            })
            .map_err(LineError::Failed)?;
        Ok(Self {
            port: name,
            button,
            thread,
        })
    }

    /// The serial port, as one names it to `--port`.
    #[must_use]
    pub fn port(&self) -> &str {
        &self.port
    }

    /// What resets it, as its reset button does.
    #[must_use]
    pub fn reset_button(&self) -> ResetButton {
        self.button.clone()
    }

    /// Waits until the device runs no more, and says why.
    #[must_use]
    pub fn wait(self) -> LineError {
        self.thread
            .join()
            .unwrap_or_else(|_| LineError::Failed(io::ErrorKind::BrokenPipe.into()))
    }
}
