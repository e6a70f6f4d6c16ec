//! A serial device.
//!
//! It is opened for one process. `TIOCEXCL` keeps others out (tty_ioctl(4)), but not root, and not whoever had it open before; so
//! the device is locked as well (flock(2)), as other well-behaved programs do.

use std::io::{self, ErrorKind};
use std::path::Path;

use serial2::SerialPort;

use super::stream::{Source, Stream};
use super::{BAUD, Port, PortError, holder};

/// Opens a serial device for this process alone.
pub(super) fn open(path: &Path) -> Result<Box<dyn Port>, PortError> {
    let port = path.display().to_string();
    let mut serial = exclusive(path, &port)?;
    configure(&mut serial).map_err(|source| refused(path, &port, source))?;
    let has_rate = !is_pseudo_terminal(path);
    Ok(Box::new(Stream::new(port, Exclusive { serial, has_rate })))
}

/// A serial device that nobody else can open.
struct Exclusive {
    serial: SerialPort,
    has_rate: bool,
}

impl Exclusive {
    fn set_rate(&mut self, baud: u32) -> io::Result<bool> {
        if self.has_rate {
            set_baud(&mut self.serial, baud)?;
        }
        Ok(self.has_rate)
    }
}

/// Whether it only looks like a serial device: what is written comes out at its other end whatever the rate (pts(4)).
fn is_pseudo_terminal(path: &Path) -> bool {
    cfg!(target_os = "linux")
        && path
            .canonicalize()
            .is_ok_and(|path| path.starts_with("/dev/pts"))
}

/// 8 data bits, no parity, 1 stop bit, every byte as it is.
fn configure(serial: &mut SerialPort) -> io::Result<()> {
    let mut settings = serial.get_configuration()?;
    settings.set_raw();
    settings.set_baud_rate(BAUD)?;
    serial.set_configuration(&settings)?;
    patient(serial)
}

fn set_baud(serial: &mut SerialPort, baud: u32) -> io::Result<()> {
    let mut settings = serial.get_configuration()?;
    settings.set_baud_rate(baud)?;
    serial.set_configuration(&settings)
}

fn refused(path: &Path, port: &str, source: io::Error) -> PortError {
    let port = port.to_owned();
    match source.kind() {
        ErrorKind::NotFound => PortError::Missing { port },
        ErrorKind::ResourceBusy | ErrorKind::WouldBlock => PortError::Busy {
            port,
            holder: holder::find(path),
        },
        // Windows says of a COM port that another program has it, that access is denied.
        ErrorKind::PermissionDenied if cfg!(windows) => PortError::Busy { port, holder: None },
        ErrorKind::PermissionDenied => PortError::Forbidden { port },
        ErrorKind::IsADirectory => PortError::NotSerial { port },
        _ => PortError::Failed { port, source },
    }
}

#[cfg(unix)]
fn exclusive(path: &Path, port: &str) -> Result<SerialPort, PortError> {
    use std::fs::TryLockError;
    use std::os::fd::OwnedFd;
    use std::os::unix::fs::OpenOptionsExt;

    use nix::fcntl::OFlag;
    use rustix::termios;

    // The device must neither become the terminal that controls this process, nor let the opening wait for a carrier.
    let flags = OFlag::O_NOCTTY | OFlag::O_NONBLOCK;
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(flags.bits())
        .open(path)
        .map_err(|source| refused(path, port, source))?;
    if !termios::isatty(&file) {
        return Err(PortError::NotSerial {
            port: port.to_owned(),
        });
    }
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => refused(path, port, ErrorKind::WouldBlock.into()),
        TryLockError::Error(source) => refused(path, port, source),
    })?;
    termios::ioctl_tiocexcl(&file).map_err(|error| refused(path, port, error.into()))?;
    Ok(SerialPort::from(OwnedFd::from(file)))
}

/// Reads and writes wait by themselves nowhere: see [`Stream`].
#[cfg(unix)]
fn patient(serial: &mut SerialPort) -> io::Result<()> {
    serial.set_read_timeout(std::time::Duration::ZERO)?;
    serial.set_write_timeout(std::time::Duration::ZERO)
}

#[cfg(unix)]
impl Source for Exclusive {
    fn set_baud(&mut self, baud: u32) -> io::Result<bool> {
        self.set_rate(baud)
    }
}

#[cfg(unix)]
impl std::os::fd::AsFd for Exclusive {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.serial.as_fd()
    }
}

/// A device that somebody keeps open, as an emulator does with its pseudo-terminal, stays exclusive until it is told otherwise.
#[cfg(unix)]
impl Drop for Exclusive {
    fn drop(&mut self) {
        // It fails for a device that is gone.
        let _ = rustix::termios::ioctl_tiocnxcl(&self.serial);
    }
}

/// COM ports are exclusive by themselves.
#[cfg(not(unix))]
fn exclusive(path: &Path, port: &str) -> Result<SerialPort, PortError> {
    SerialPort::open(path, BAUD).map_err(|source| refused(path, port, source))
}

/// Writes wait no longer than this; reads are told each time.
#[cfg(not(unix))]
fn patient(serial: &mut SerialPort) -> io::Result<()> {
    serial.set_write_timeout(std::time::Duration::from_millis(1))
}

#[cfg(not(unix))]
impl Source for Exclusive {
    fn set_baud(&mut self, baud: u32) -> io::Result<bool> {
        self.set_rate(baud)
    }

    fn set_patience(&mut self, patience: std::time::Duration) -> io::Result<()> {
        self.serial.set_read_timeout(patience)
    }
}

impl io::Read for Exclusive {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.serial.read(bytes)
    }
}

impl io::Write for Exclusive {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.serial.write(bytes)
    }

    /// Written is written: nobody waits until it has left.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    /// A pseudo-terminal keeps settings as a real device does, also a rate that has no constant of its own (termios(3)).
    #[test]
    fn the_rate_is_set() {
        let pair = nix::pty::openpty(None, None).unwrap();
        let mut serial = SerialPort::from(pair.slave);
        configure(&mut serial).unwrap();
        for baud in [BAUD, 921_600, 1_234_567, 4_000_000] {
            set_baud(&mut serial, baud).unwrap();
            let settings = rustix::termios::tcgetattr(&serial).unwrap();
            assert_eq!(settings.output_speed(), baud);
            assert_eq!(settings.input_speed(), baud);
        }
    }
}
