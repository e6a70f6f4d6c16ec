//! The latency timer of USB serial adapters: how long a chip keeps bytes back in the hope of more. FTDI's chips come with 16 ms, which
//! is what every round trip then costs.
//!
//! On Linux an adapter with such a timer has the attribute `latency_timer` in sysfs, in milliseconds (drivers/usb/serial/ftdi_sio.c).
//! What has no such attribute has no such timer: pseudo-terminals, CDC-ACM, real UARTs, sockets. The value stays until the adapter
//! is unplugged. On other systems the driver's own settings hold it, and nothing is done here.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

/// Where Linux shows its devices.
pub const SYSFS: &str = "/sys";

/// What the timer is set to, in milliseconds: the least that the chips can do.
const LOWEST: u32 = 1;

/// An adapter whose latency timer could not be lowered. It works, slowly.
#[derive(Debug)]
pub struct SlowTimer {
    /// The adapter's device, `ttyUSB0`.
    pub device: String,
    /// How long it keeps bytes back, in milliseconds, if that can be read.
    pub milliseconds: Option<u32>,
    /// What the operating system said.
    pub source: io::Error,
}

impl fmt::Display for SlowTimer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the adapter {} is slow: it keeps bytes back",
            self.device
        )?;
        if let Some(milliseconds) = self.milliseconds {
            write!(f, " for up to {milliseconds} ms")?;
        }
        write!(f, ", and its latency timer cannot be set ({})", self.source)
    }
}

impl SlowTimer {
    /// The next move, for a person.
    #[must_use]
    pub fn hint(&self) -> String {
        format!(
            "`setserial /dev/{0} low_latency` lowers it until the adapter is unplugged; for good, a udev rule: \
             SUBSYSTEM==\"usb-serial\", DRIVER==\"ftdi_sio\", ATTR{{latency_timer}}=\"{LOWEST}\"",
            self.device
        )
    }
}

/// Lowers the latency timer of the adapter behind the serial device `port`, if it has one. `sysfs` is where that is mounted:
/// [`SYSFS`].
///
/// # Errors
/// [`SlowTimer`]: it has one, and it is not lowered now.
pub fn lower(sysfs: &Path, port: &Path) -> Result<(), SlowTimer> {
    // Stable names under /dev/serial are links to the device.
    let real = port.canonicalize();
    let Some(device) = real.as_deref().unwrap_or(port).file_name() else {
        return Ok(());
    };
    let timer = sysfs
        .join("bus/usb-serial/devices")
        .join(device)
        .join("latency_timer");
    if !timer.exists() {
        return Ok(());
    }
    let before = value(&timer);
    if matches!(before, Ok(milliseconds) if milliseconds <= LOWEST) {
        return Ok(());
    }
    let lowered = write(&timer).and_then(|()| match value(&timer)? {
        ..=LOWEST => Ok(()),
        _ => Err(io::Error::other("the driver keeps its own value")),
    });
    lowered.map_err(|source| SlowTimer {
        device: device.to_string_lossy().into_owned(),
        milliseconds: before.ok(),
        source,
    })
}

/// The timer's value, in milliseconds.
fn value(timer: &Path) -> io::Result<u32> {
    let mut text = String::new();
    // An attribute has one line; a number of milliseconds has less than this.
    File::open(timer)?.take(16).read_to_string(&mut text)?;
    text.trim()
        .parse()
        .map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Writes the lowest value. The attribute exists: nothing may be made in its place.
fn write(timer: &Path) -> io::Result<()> {
    OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(timer)?
        .write_all(LOWEST.to_string().as_bytes())
}
