//! A few ranges of a byte stream, named by 16-bit offsets that wrap around.

use heapless::Vec;

/// How many ranges a set holds, and a frame carries.
pub(crate) const MAX_RANGES: usize = 4;

/// How far `offset` lies behind `base`; negative if it lies before it. True as long as both are less than 32768 bytes apart.
pub(super) fn distance(base: u16, offset: u16) -> i32 {
    i32::from(offset.wrapping_sub(base).cast_signed())
}

/// Ranges from a start to the offset after their last byte, in order and apart from each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(Vec<(u16, u16), MAX_RANGES>);

impl Ranges {
    #[inline(always)]
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    /// The ranges.
    #[must_use]
    pub fn as_slice(&self) -> &[(u16, u16)] {
        &self.0
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Takes a range as it was received; nothing is merged. Says whether there was a place for it.
    pub(super) fn push(&mut self, start: u16, end: u16) -> bool {
        self.0.push((start, end)).is_ok()
    }

    /// Whether each begins after the one before, none is empty, and all lie within the `length` bytes after `base`.
    pub(super) fn are_rising(&self, base: u16, length: usize) -> bool {
        let mut reached = 0;
        self.0.iter().all(|(start, end)| {
            let start = usize::from(start.wrapping_sub(base));
            let end = usize::from(end.wrapping_sub(base));
            let rising = reached <= start && start < end;
            reached = end;
            rising
        }) && reached <= length
    }

    /// Where the range that `offset` is in ends, if there is one.
    pub(super) fn end_of(&self, offset: u16) -> Option<u16> {
        self.0
            .iter()
            .find(|(start, end)| distance(*start, offset) >= 0 && distance(offset, *end) > 0)
            .map(|(_, end)| *end)
    }

    /// Adds a range, and merges it with those that it touches. Says whether there was a place for it.
    pub(super) fn insert(&mut self, mut start: u16, mut end: u16) -> bool {
        self.0.retain(|(first, last)| {
            let apart = distance(*last, start) > 0 || distance(end, *first) > 0;
            if !apart {
                if distance(*first, start) > 0 {
                    start = *first;
                }
                if distance(end, *last) > 0 {
                    end = *last;
                }
            }
            apart
        });
        let place = self
            .0
            .iter()
            .position(|(first, _)| distance(start, *first) > 0)
            .unwrap_or(self.0.len());
        self.0.insert(place, (start, end)).is_ok()
    }

    /// Takes out the ranges that begin at or before `offset`, and says how far they reach beyond it.
    pub(super) fn absorb(&mut self, mut offset: u16) -> u16 {
        self.0.retain(|(start, end)| {
            let apart = distance(offset, *start) > 0;
            if !apart && distance(offset, *end) > 0 {
                offset = *end;
            }
            apart
        });
        offset
    }
}
