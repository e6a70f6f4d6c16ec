//! The receiving half of a UART, 8N1: it waits for a falling edge, then samples the middle of ten bits by its own clock.

use super::{CHARACTER_BITS, Nanos, half_bits};

/// A receiver.
pub(super) struct Receiver {
    baud: u32,
    state: State,
}

/// What it is doing.
#[derive(Clone, Copy)]
enum State {
    /// Waits for a falling edge.
    Idle,
    /// Has sampled `taken` bits of the character whose start bit began at `edge`.
    Character { edge: Nanos, taken: u64, bits: u16 },
    /// The stop bit was low: waits for the line to rise.
    Break,
}

/// A byte that was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Received {
    pub(super) at: Nanos,
    pub(super) byte: u8,
    /// Whether there was a stop bit.
    pub(super) framed: bool,
}

impl Receiver {
    pub(super) const fn new(baud: u32) -> Self {
        Self {
            baud,
            state: State::Idle,
        }
    }

    pub(super) const fn baud(&self) -> u32 {
        self.baud
    }

    /// Another rate from now on. Half a character is forgotten.
    pub(super) const fn set_baud(&mut self, baud: u32) {
        *self = Self::new(baud);
    }

    /// Whether the next falling edge begins a character.
    pub(super) const fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle)
    }

    /// When the character that has begun has been received if the line stays quiet.
    pub(super) fn completes(&self) -> Option<Nanos> {
        match self.state {
            // A level counts when it has been seen for a moment.
            State::Character { edge, .. } => Some(sample(edge, CHARACTER_BITS - 1, self.baud) + 1),
            State::Idle | State::Break => None,
        }
    }

    /// The line is at this level from `from` until `to`.
    pub(super) fn level(
        &mut self,
        from: Nanos,
        to: Nanos,
        high: bool,
        mut received: impl FnMut(Received),
    ) {
        loop {
            match self.state {
                State::Idle if high => return,
                State::Idle => {
                    self.state = State::Character {
                        edge: from,
                        taken: 0,
                        bits: 0,
                    };
                }
                State::Break if high => self.state = State::Idle,
                State::Break => return,
                State::Character { edge, taken, bits } => {
                    let at = sample(edge, taken, self.baud);
                    if at >= to {
                        return;
                    }
                    let bits = bits | u16::from(high) << taken;
                    self.state = if taken == 0 && high {
                        // A spike, no start bit.
                        State::Idle
                    } else if taken < CHARACTER_BITS - 1 {
                        let taken = taken + 1;
                        State::Character { edge, taken, bits }
                    } else {
                        let byte = (bits >> 1 & 0xff) as u8;
                        let framed = high;
                        received(Received { at, byte, framed });
                        if high { State::Idle } else { State::Break }
                    };
                }
            }
        }
    }
}

/// When the bit with this number is sampled.
fn sample(edge: Nanos, bit: u64, baud: u32) -> Nanos {
    edge + half_bits(2 * bit + 1, baud)
}
