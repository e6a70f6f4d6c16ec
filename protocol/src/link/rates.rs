//! Line rates as a set of bits: bit n stands for the n-th of [`ALL`].

/// The rate at which a session is opened unless the ends agreed on another, in baud.
pub const BASE: u32 = 115_200;

/// The rates that a session can switch to, in baud, slowest first.
pub const ALL: [u32; 8] = [
    230_400, 460_800, 921_600, 1_000_000, 1_500_000, 2_000_000, 3_000_000, 4_000_000,
];

/// How long both ends wait for a good frame at a new rate before they go back to the base rate, in milliseconds.
pub const TRIAL: super::Millis = 500;

/// How long either end stays at another rate than the base rate without a good frame, once there was one, in milliseconds.
pub const PATIENCE: super::Millis = 5_000;

/// The set of these rates; rates that are not in [`ALL`] are left out.
#[must_use]
pub fn set_of(rates: &[u32]) -> u16 {
    (0..)
        .zip(ALL)
        .filter(|(_, rate)| rates.contains(rate))
        .fold(0, |set, (bit, _)| set | 1 << bit)
}

/// The rates of a set, fastest first.
pub fn of_set(set: u16) -> impl Iterator<Item = u32> {
    (0..)
        .zip(ALL)
        .filter(move |(bit, _)| set & 1 << bit != 0)
        .map(|(_, rate)| rate)
        .collect::<heapless::Vec<u32, { ALL.len() }>>()
        .into_iter()
        .rev()
}

/// Time of a byte on the line in nanoseconds: ten bits, with start and stop bit.
#[must_use]
pub const fn byte_time(baud: u32) -> u64 {
    10_000_000_000 / if baud == 0 { 1 } else { baud as u64 }
}
