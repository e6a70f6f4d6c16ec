//! The port: the one place that owns a line to a device and the clock.
//!
//! A [`Port`] moves bytes and knows no frame; what the bytes mean is the session's business. It never waits for room to write and
//! never for written bytes to leave: whoever fills the line must be free to listen.

mod error;
mod holder;
mod latency;
mod name;
mod present;
mod serial;
mod socket;
#[cfg_attr(unix, path = "stream_unix.rs")]
#[cfg_attr(not(unix), path = "stream_other.rs")]
mod stream;

use std::io;
use std::path::Path;

use keyferry_protocol::link::Millis;

pub use error::PortError;
pub use holder::Holder;
pub use latency::{SYSFS, SlowTimer, lower};
pub use name::{Name, NameError};
pub use present::{Look, Mark};

/// The baud rate that every device begins with, in bits per second; 8 data bits, no parity, 1 stop bit.
pub const BAUD: u32 = 115_200;

/// A byte stream to a device.
pub trait Port: Send {
    /// The port's name, for messages.
    fn name(&self) -> &str;

    /// Writes what there is room for now, and says how many bytes; 0 if there is no room. Never waits.
    ///
    /// # Errors
    /// What the operating system says when the port is gone.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// Reads what is there. If that is nothing, waits for the first byte, until [`Self::now`] would say `until` at the longest; 0
    /// if none came. May come back before, with 0, once there is room again for what a write had to leave.
    ///
    /// # Errors
    /// What the operating system says when the port is gone.
    fn read(&mut self, bytes: &mut [u8], until: Millis) -> io::Result<usize>;

    /// Milliseconds since the port was opened.
    fn now(&self) -> Millis;

    /// Sets the baud rate, in bits per second, for bytes that are written from now on, after those before have gone. `Ok(false)`:
    /// this kind of port has no rate.
    ///
    /// # Errors
    /// What the operating system says, also where it cannot do that rate.
    fn set_baud(&mut self, baud: u32) -> io::Result<bool>;
}

/// Opens a port, for this process alone where the port lets that be said; see [`Name`] for how ports are named.
///
/// # Errors
/// [`PortError`].
pub fn open(name: &str) -> Result<Box<dyn Port>, PortError> {
    open_telling(name, Path::new(SYSFS), &mut |_| {})
}

/// Opens a port as [`open`] does, and tells of an adapter that will be slow. Where Linux shows its devices is `sysfs`: [`SYSFS`].
///
/// # Errors
/// [`PortError`].
pub fn open_telling(
    name: &str,
    sysfs: &Path,
    on_slow: &mut dyn FnMut(SlowTimer),
) -> Result<Box<dyn Port>, PortError> {
    match name.parse()? {
        Name::Serial(path) => {
            let port = serial::open(&path)?;
            if let Err(slow) = lower(sysfs, &path) {
                on_slow(slow);
            }
            Ok(port)
        }
        Name::Tcp { host, number } => socket::tcp(name, &host, number),
        Name::Unix(path) => socket::unix(name, &path),
    }
}
