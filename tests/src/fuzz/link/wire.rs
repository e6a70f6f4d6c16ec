//! A line in one direction, as hostile as the fuzzer wants it.

use std::collections::VecDeque;

use keyferry_protocol::link::{Link, Millis};

/// Bytes that the line carries in a millisecond: about 115200 baud.
const BYTES_PER_MILLISECOND: usize = 12;

/// A line in one direction, and what is about to happen to the bytes on it.
#[derive(Default)]
pub(super) struct Wire {
    /// Bytes under way, each with the moment of its arrival.
    bytes: VecDeque<(Millis, u8)>,
    pub(super) latency: Millis,
    pub(super) drop: usize,
    /// Bytes until one is damaged, and how.
    pub(super) flip: VecDeque<(usize, u8)>,
    /// Bytes that come once more behind those that follow.
    pub(super) twice: Vec<u8>,
    pub(super) twice_left: usize,
}

impl Wire {
    pub(super) fn put(&mut self, byte: u8, now: Millis) {
        if self.drop > 0 {
            self.drop -= 1;
            return;
        }
        let mut byte = byte;
        if let Some((left, mask)) = self.flip.front_mut() {
            if *left == 0 {
                byte ^= *mask;
                self.flip.pop_front();
            } else {
                *left -= 1;
            }
        }
        self.push(byte, now);
        if self.twice_left > 0 {
            self.twice.push(byte);
            self.twice_left -= 1;
            if self.twice_left == 0 {
                for byte in std::mem::take(&mut self.twice) {
                    self.push(byte, now);
                }
            }
        }
    }

    /// Bytes keep their order, whatever happens to the delay.
    pub(super) fn push(&mut self, byte: u8, now: Millis) {
        let last = self.bytes.back().map_or(0, |(at, _)| *at);
        self.bytes.push_back((last.max(now + self.latency), byte));
    }

    pub(super) fn arrived(&mut self, now: Millis) -> Vec<u8> {
        let count = self.bytes.partition_point(|(at, _)| *at <= now);
        self.bytes.drain(..count).map(|(_, byte)| byte).collect()
    }

    /// From now on the line is clean. What is on it stays.
    pub(super) fn heal(&mut self) {
        self.drop = 0;
        self.flip.clear();
        self.twice.clear();
        self.twice_left = 0;
        self.latency = 1;
    }
}

/// Puts what an end has to send onto the line, as far as a millisecond carries it.
pub(super) fn carry<const RX: usize, const TX: usize, const OUT: usize>(
    end: &mut Link<RX, TX, OUT>,
    wire: &mut Wire,
    now: Millis,
) {
    let mut room = BYTES_PER_MILLISECOND;
    while room > 0 {
        let bytes = end.transmit(now);
        let count = bytes.len().min(room);
        if count == 0 {
            return;
        }
        bytes
            .iter()
            .take(count)
            .for_each(|byte| wire.put(*byte, now));
        end.transmitted(count, now);
        room -= count;
    }
}
