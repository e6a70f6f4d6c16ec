//! The receiving half: puts the stream together from frames that come in any order, and hands it on message by message.

use super::frame::Sink;
use super::ranges::{Ranges, distance};

/// The message at the front of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Front<'a> {
    /// Its length in bytes, at least 1.
    pub length: usize,
    /// How many of them were consumed before.
    pub consumed: usize,
    /// Those that have come and are not consumed.
    pub bytes: &'a [u8],
}

impl Front<'_> {
    /// Whether all that is still to be consumed has come.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.consumed + self.bytes.len() >= self.length
    }
}

/// Length of the prefix of a message in bytes: its length, little-endian.
pub(super) const PREFIX: usize = 2;

/// The bytes of the stream from the first that is not consumed.
pub(super) struct Receiver<const RX: usize> {
    buffer: [u8; RX],
    /// Offset in the stream of the first byte of the buffer.
    base: u16,
    /// Bytes from there on without a gap.
    ready: usize,
    /// What is held beyond the first gap.
    held: Ranges,
    /// Of the message at the front: its length, and how much of it is consumed. Zero before its length has come.
    length: u16,
    consumed: u16,
    /// A byte of the frame that is arriving was not kept: there was no room for it.
    cut: bool,
}

impl<const RX: usize> Receiver<RX> {
    #[inline(always)]
    pub(super) const fn new() -> Self {
        // Offsets are 16 bits wide and compared by their signed distance.
        assert!(RX >= 128 && RX <= 32_767, "between 128 bytes and 32 KiB");
        Self {
            buffer: [0; RX],
            base: 0,
            ready: 0,
            held: Ranges::new(),
            length: 0,
            consumed: 0,
            cut: false,
        }
    }

    pub(super) fn restart(&mut self) {
        self.base = 0;
        self.ready = 0;
        self.held.clear();
        self.length = 0;
        self.consumed = 0;
        self.cut = false;
    }

    /// The next byte belongs to another frame.
    pub(super) const fn begin_frame(&mut self) {
        self.cut = false;
    }

    /// The offset expected next.
    pub(super) const fn acknowledgement(&self) -> u16 {
        // Truncation is the point: offsets wrap around.
        self.base.wrapping_add(self.ready as u16)
    }

    /// How many bytes may come beyond [`Self::acknowledgement`].
    pub(super) const fn credit(&self) -> u16 {
        // RX fits, see `new`.
        (RX - self.ready) as u16
    }

    pub(super) const fn held(&self) -> &Ranges {
        &self.held
    }

    /// A good frame has brought these bytes, which are in their place by now.
    pub(super) fn accept(&mut self, offset: u16, length: u16) {
        let start = distance(self.base, offset);
        let end = start + i32::from(length);
        let (Ok(ready), Ok(room)) = (i32::try_from(self.ready), i32::try_from(RX)) else {
            return;
        };
        // What reaches beyond the credit was not kept whole, even if there is room for it by now. A ping has no data, wherever it
        // stands.
        if length == 0 || end <= ready || end > room || self.cut {
            return;
        }
        let after = offset.wrapping_add(length);
        if start <= ready {
            let reached = self.held.absorb(after);
            self.ready = usize::from(reached.wrapping_sub(self.base));
            self.advance();
        } else {
            // Without a place for it, it comes again.
            self.held.insert(offset, after);
        }
    }

    /// The message at the front, once its length is known.
    pub(super) fn front(&self) -> Option<Front<'_>> {
        if self.length == 0 {
            return None;
        }
        let left = usize::from(self.length - self.consumed);
        Some(Front {
            length: usize::from(self.length),
            consumed: usize::from(self.consumed),
            bytes: self.buffer.get(..self.ready.min(left))?,
        })
    }

    /// Consumes bytes of the message at the front; those of the next message stay.
    pub(super) fn consume(&mut self, count: usize) {
        let left = self.length - self.consumed;
        let taken = u16::try_from(count.min(self.ready))
            .unwrap_or(u16::MAX)
            .min(left);
        self.consumed += taken;
        self.drop_front(usize::from(taken));
        self.advance();
    }

    /// Goes on to the next message where one is through. One of no length is none.
    fn advance(&mut self) {
        while self.consumed == self.length && self.ready >= PREFIX {
            self.length = u16::from_le_bytes([self.buffer[0], self.buffer[1]]);
            self.consumed = 0;
            self.drop_front(PREFIX);
        }
        if self.consumed == self.length {
            self.length = 0;
            self.consumed = 0;
        }
    }

    fn drop_front(&mut self, count: usize) {
        // All of it: beyond what is ready stand ranges that are held, and the frame that is arriving.
        self.buffer.copy_within(count.., 0);
        self.ready -= count;
        self.base = self.base.wrapping_add(count as u16);
    }
}

impl<const RX: usize> Sink for Receiver<RX> {
    fn put(&mut self, offset: u16, byte: u8) {
        // A frame that turns out bad has changed nothing that counts: what is ready or held is never written to.
        let Ok(place) = usize::try_from(distance(self.base, offset)) else {
            return;
        };
        if place < self.ready || self.held.end_of(offset).is_some() {
            return;
        }
        match self.buffer.get_mut(place) {
            Some(place) => *place = byte,
            None => self.cut = true,
        }
    }
}
