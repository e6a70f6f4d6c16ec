//! The port: the one place that owns a serial device and the clock.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use keyferry_protocol::link::Millis;

use super::DeviceError;

/// The baud rate, in bits per second; 8 data bits, no parity, 1 stop bit.
pub const BAUD: u32 = 115_200;

/// Longest time a read waits for bytes, and a write for room.
const TURN: Duration = Duration::from_millis(20);

/// A byte stream to a device.
pub trait Port: Send {
    /// The port's name, for messages.
    fn name(&self) -> &str;

    /// Writes what there is room for, and says how many bytes; 0 if there is none yet.
    ///
    /// # Errors
    /// What the operating system says when the port is gone.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// Reads what is there, waiting a short turn for the first byte; 0 if nothing came.
    ///
    /// # Errors
    /// What the operating system says when the port is gone.
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize>;

    /// Milliseconds since the port was opened.
    fn now(&self) -> Millis;
}

struct SerialPort {
    name: String,
    opened: Instant,
    serial: Box<dyn serialport::SerialPort>,
}

/// Opens a serial device for this process alone.
///
/// # Errors
/// [`DeviceError::PortMissing`], [`DeviceError::PortBusy`], [`DeviceError::Port`].
pub fn open(name: &str) -> Result<Box<dyn Port>, DeviceError> {
    let port = || name.to_owned();
    let serial = serialport::new(name, BAUD)
        .timeout(TURN)
        .open()
        .map_err(|error| match error.kind() {
            serialport::ErrorKind::NoDevice if std::path::Path::new(name).exists() => {
                DeviceError::PortBusy { port: port() }
            }
            serialport::ErrorKind::NoDevice
            | serialport::ErrorKind::Io(io::ErrorKind::NotFound) => {
                DeviceError::PortMissing { port: port() }
            }
            serialport::ErrorKind::Io(io::ErrorKind::PermissionDenied) => {
                DeviceError::PortBusy { port: port() }
            }
            serialport::ErrorKind::InvalidInput
            | serialport::ErrorKind::Unknown
            | serialport::ErrorKind::Io(_) => DeviceError::Port {
                port: port(),
                source: error.into(),
            },
        })?;
    Ok(Box::new(SerialPort {
        name: port(),
        opened: Instant::now(),
        serial,
    }))
}

/// No bytes yet is not an error.
fn or_none(result: io::Result<usize>) -> io::Result<usize> {
    match result {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
            ) =>
        {
            Ok(0)
        }
        other => other,
    }
}

impl Port for SerialPort {
    fn name(&self) -> &str {
        &self.name
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        or_none(self.serial.write(bytes))
    }

    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        or_none(self.serial.read(bytes))
    }

    fn now(&self) -> Millis {
        Millis::try_from(self.opened.elapsed().as_millis()).unwrap_or(Millis::MAX)
    }
}
