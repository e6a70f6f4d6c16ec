//! The link: one end that gets anything, and both ends against each other through a hostile line.
//!
//! Time is virtual. What goes wrong on the line, and when, is what the fuzzer decides; that a line keeps the order of its bytes is
//! what it cannot change, since no cable does.

mod deframer;
mod pair;
mod wire;

use keyferry_protocol::link::Link;

pub(super) use deframer::{deframer, framed, seeds as deframer_seeds};
pub(super) use pair::{pair, seeds as pair_seeds};

/// The device's end: little memory, so that it wraps around and runs full.
type Device = Link<512, 512, 320>;
/// The station's end.
type Station = Link<2048, 2048, 1100>;

/// Takes the fuzzer's bytes apart; gives zeros once there are no more.
pub(super) struct Input<'a>(pub(super) &'a [u8]);

impl<'a> Input<'a> {
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or(0)
    }

    pub(super) fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (front, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        front
    }
}
