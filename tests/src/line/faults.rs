//! What shall go wrong on a line: plain settings.

use super::Nanos;

/// Everything that can be wrong with a cable. The default is a good one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Faults {
    /// Bit error rate: the chance of each of a character's ten bits to arrive inverted.
    pub ber: f64,
    /// Stretches of bytes that get lost.
    pub drop: Stretches,
    /// Stretches of bytes that are sent twice.
    pub duplicate: Stretches,
    /// Stretches of characters of which every bit is as good as random.
    pub burst: Stretches,
    /// Times in which nothing moves, one way or both; nothing is lost by it.
    pub stall: Spells,
    /// Times in which one direction is dead: whatever is sent into it is lost.
    pub dead: Spells,
    /// What shall happen at a given place or time, beside what happens at random.
    pub planned: Vec<Planned>,
}

/// Faults that hit a stretch of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stretches {
    /// The chance of each byte to begin one.
    pub rate: f64,
    /// The longest, in bytes; each has a random length from 1 to this.
    pub longest: u32,
}

impl Stretches {
    /// So many a byte, of single bytes up to `longest`.
    #[must_use]
    pub const fn new(rate: f64, longest: u32) -> Self {
        Self { rate, longest }
    }
}

/// Faults that last some time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spells {
    /// The chance of each byte to begin one.
    pub rate: f64,
    /// How long each lasts, in nanoseconds.
    pub length: Nanos,
}

impl Spells {
    /// So many a byte, each of this length.
    #[must_use]
    pub const fn new(rate: f64, length: Nanos) -> Self {
        Self { rate, length }
    }
}

/// Directions that a fault hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ways {
    /// From the station to the device.
    Down,
    /// From the device to the station.
    Up,
    /// Both.
    Both,
}

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// So many bytes get lost.
    Drop(u32),
    /// The last so many bytes are sent again.
    Duplicate(u32),
    /// So many characters have random bits.
    Burst(u32),
    /// For so many nanoseconds nothing moves.
    Stall(Nanos),
    /// For so many nanoseconds whatever is sent is lost.
    Dead(Nanos),
}

/// When a planned fault begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// With this byte, counted from 0 over the bytes that the direction has carried; for [`Ways::Both`] over all bytes.
    Byte(u64),
    /// With the first byte after this time.
    Time(Nanos),
}

/// A fault that happens exactly once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    /// What.
    pub fault: Fault,
    /// In which direction. Where both are hit, [`Fault::Stall`] and [`Fault::Dead`] hit them at once; a stretch hits the direction of the byte
    /// that triggers it.
    pub ways: Ways,
    /// When.
    pub when: Trigger,
}
