//! A serial device.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use keyferry_protocol::link::Millis;

use super::super::DeviceError;
use super::{BAUD, Port};

struct SerialPort {
    name: String,
    opened: Instant,
    serial: Box<dyn serialport::SerialPort>,
}

/// Opens a serial device for this process alone.
pub(super) fn open(name: &str) -> Result<Box<dyn Port>, DeviceError> {
    let port = || name.to_owned();
    let serial = serialport::new(name, BAUD)
        .timeout(Duration::ZERO)
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
        self.serial.set_timeout(Duration::ZERO)?;
        or_none(self.serial.write(bytes))
    }

    fn read(&mut self, bytes: &mut [u8], until: Millis) -> io::Result<usize> {
        let patience = Duration::from_millis(until.saturating_sub(self.now()));
        self.serial.set_timeout(patience)?;
        or_none(self.serial.read(bytes))
    }

    fn now(&self) -> Millis {
        Millis::try_from(self.opened.elapsed().as_millis()).unwrap_or(Millis::MAX)
    }
    fn set_baud(&mut self, baud: u32) -> io::Result<bool> {
        self.serial.set_baud_rate(baud)?;
        Ok(true)
    }
}
