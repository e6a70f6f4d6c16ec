//! Where a test finds the count of private-key operations: in RAM, behind a mark that stands there once.
//!
//! The emulator can write the RAM down at any moment, and so the count needs no message, which would be one more thing that anybody at
//! the line could ask for.

use core::sync::atomic::{AtomicU32, Ordering};

use keyferry_firmware::device::Operations;

/// What a test looks for; the counts follow as 32-bit numbers, little-endian, in the order of the fields of [`Operations`].
const MARK: [u8; 16] = *b"private-key uses";

/// Mark and counts.
#[repr(C)]
struct Tally {
    mark: [u8; 16],
    counts: [AtomicU32; 5],
}

// Nothing in this image reads it.
#[used]
static TALLY: Tally = Tally {
    mark: MARK,
    counts: [const { AtomicU32::new(0) }; 5],
};

/// Writes the counts down.
pub(crate) fn note(operations: Operations) {
    for (place, count) in TALLY.counts.iter().zip(operations.counts()) {
        place.store(count, Ordering::Relaxed);
    }
}
