//! What really went wrong on a line, counted where it happened.

use std::ops::{Add, AddAssign};

use serde_json::{Value, json};

use super::Way;

/// Faults that were injected, and what the line did by itself. A fault that met no byte is not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// From the station to the device.
    pub down: Tally,
    /// From the device to the station.
    pub up: Tally,
    /// Resets of the device.
    pub resets: u64,
}

impl Counts {
    /// Both directions together.
    #[must_use]
    pub fn sum(&self) -> Tally {
        self.down + self.up
    }

    pub(super) const fn way_mut(&mut self, way: Way) -> &mut Tally {
        match way {
            Way::Down => &mut self.down,
            Way::Up => &mut self.up,
        }
    }

    /// As JSON: an object for each direction.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({ "down": self.down.to_json(), "up": self.up.to_json(), "resets": self.resets })
    }
}

/// Sums of several lines.
impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.down += other.down;
        self.up += other.up;
        self.resets += other.resets;
    }
}

macro_rules! tally {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// Counts of one direction.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Tally {
            $($(#[doc = $doc])+ pub $name: u64,)+
        }

        impl Tally {
            /// As JSON: the names of the fields with their values.
            #[must_use]
            pub fn to_json(&self) -> Value {
                json!({ $(stringify!($name): self.$name,)+ })
            }
        }

        impl Add for Tally {
            type Output = Self;

            fn add(self, other: Self) -> Self {
                Self { $($name: self.$name + other.$name,)+ }
            }
        }

        impl AddAssign for Tally {
            fn add_assign(&mut self, other: Self) {
                *self = *self + other;
            }
        }
    };
}

tally! {
    /// Characters put on the wire, repeated ones too.
    characters,
    /// Bytes that came out at the other end.
    delivered,
    /// Bits inverted at the bit error rate.
    bit_errors,
    /// Bursts of errors.
    bursts,
    /// Bits inverted by bursts.
    burst_bits,
    /// Characters whose stop bit was not one; their bytes come out as they were sampled.
    framing_errors,
    /// Stretches lost.
    drops,
    /// Bytes lost with them.
    dropped_bytes,
    /// Stretches sent twice.
    duplicates,
    /// Bytes sent again with them.
    duplicated_bytes,
    /// Stalls that held a byte back.
    stalls,
    /// Times in which the direction was dead and swallowed a byte.
    dead_spells,
    /// Bytes swallowed.
    dead_bytes,
    /// Bytes that found the receive ring of the device full, or the device without power.
    overruns,
}
