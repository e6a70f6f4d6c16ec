//! A bad serial cable, byte by byte, in virtual time, and the same from the same seed.
//!
//! It knows nothing of frames and messages: bytes go in at a time and come out at a time. What it does to them is what a
//! real line does. The wire takes ten bit times a byte; a receiver samples the sender's bits, so that a flipped start bit, or another
//! baud rate, loses and garbles characters as it does on a real UART; a USB adapter holds bytes back; the operating
//! system's buffer fills up; a device that computes does not empty its ring. [`Faults`] says what else goes wrong, and
//! [`Counts`] says what did.
//!
//! - [`Cable`] is the line alone. Whoever drives it owns the clock: a simulation in virtual time, or [`Proxy`] in real
//!   time, which therefore has the same faults.
//! - [`World`] has a device ([`Machine`]) at the far end and is the station's port at the near one. Time passes only while the
//!   station waits.
//!
//! Not simulated: noise on an idle line, which would begin characters that nobody sent, and clocks that drift.
//!
//! It must never repair anything, and never look at what it carries.

mod cable;
mod counts;
mod faults;
mod injector;
mod machine;
#[cfg(unix)]
mod proxy;
mod receiver;
mod settings;
mod wire;
mod words;
mod world;

pub use cable::Cable;
pub use counts::{Counts, Tally};
pub use faults::{Fault, Faults, Planned, Spells, Stretches, Trigger, Ways};
pub use machine::{Machine, Priced};
#[cfg(unix)]
pub use proxy::{Proxy, ProxyError};
pub use settings::{Adapter, Board, Settings};
pub use words::{SpellWord, StretchWord, WordError, Words, rate, time};
pub use world::World;

/// Nanoseconds since the line was made.
pub type Nanos = u64;

/// One microsecond.
pub const MICROSECOND: Nanos = 1_000;
/// One millisecond.
pub const MILLISECOND: Nanos = 1_000_000;
/// One second.
pub const SECOND: Nanos = 1_000_000_000;

/// Bits of a character on the wire: start bit, eight data bits, stop bit.
pub const CHARACTER_BITS: u64 = 10;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the station to the device.
    Down,
    /// From the device to the station.
    Up,
}

impl Way {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::Down, Self::Up];

    /// Place in an array that holds something for each way.
    const fn index(self) -> usize {
        match self {
            Self::Down => 0,
            Self::Up => 1,
        }
    }
}

/// One end of the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The station with its adapter.
    Station,
    /// The device.
    Device,
}

/// The time that this many half bits take at this baud rate. Counted from one edge, so that nothing adds up.
fn half_bits(count: u64, baud: u32) -> Nanos {
    (count * (SECOND / 2)).div_ceil(u64::from(baud.max(1)))
}

/// The time that a character takes at this baud rate, in nanoseconds.
#[must_use]
pub fn character_time(baud: u32) -> Nanos {
    half_bits(2 * CHARACTER_BITS, baud)
}
