//! The port: the one place that owns a serial device and the clock.
//!
//! A [`Port`] moves bytes and knows no frame; what the bytes mean is the session's business.

mod serial;

use std::io;

use keyferry_protocol::link::Millis;

use super::DeviceError;

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
    /// if none came.
    ///
    /// # Errors
    /// What the operating system says when the port is gone.
    fn read(&mut self, bytes: &mut [u8], until: Millis) -> io::Result<usize>;

    /// Milliseconds since the port was opened.
    fn now(&self) -> Millis;

    /// Sets the baud rate, in bits per second, for bytes that are written from now on; whoever calls has waited until those before
    /// have gone. `Ok(false)`: this kind of port has no rate.
    ///
    /// # Errors
    /// What the operating system says, also where it cannot do that rate.
    fn set_baud(&mut self, baud: u32) -> io::Result<bool>;
}

/// Opens a serial device for this process alone.
///
/// # Errors
/// [`DeviceError::PortMissing`], [`DeviceError::PortBusy`], [`DeviceError::Port`].
pub fn open(name: &str) -> Result<Box<dyn Port>, DeviceError> {
    serial::open(name)
}
