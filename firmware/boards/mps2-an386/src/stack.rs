//! How far the stack has grown: what lies below it is painted at the start, and what is no longer painted was in use.
//! Never in a product.

use core::arch::asm;
use core::mem::size_of;

/// The paint. Nothing that the firmware does with its stack is known to write it; were a word of it written at the very end, the
/// figure would be four bytes short.
const PAINT: u32 = 0x5bad_cafe;

/// Bytes below the stack pointer that are left alone: those of the frames that paint.
const MARGIN: usize = 256;

unsafe extern "C" {
    /// Where it ends, from the linker's script.
    static mut _stack_end: u32;
    /// Where the stack begins.
    static _stack_start: u32;
}

/// Paints. Called once, first of all.
pub fn paint() {
    let pointer: usize;
    // SAFETY: reads the stack pointer.
    unsafe { asm!("mov {}, sp", out(reg) pointer, options(nomem, nostack)) };
    let bottom = &raw mut _stack_end;
    let words = (pointer - MARGIN - bottom as usize) / size_of::<u32>();
    for index in 0..words {
        // SAFETY: the part of the stack that is not in use yet.
        unsafe { bottom.add(index).write_volatile(PAINT) };
    }
}

/// The most bytes of stack that were in use at a time.
pub fn peak() -> usize {
    words()
        .skip_while(|word| *word == PAINT)
        .map(|_| size_of::<u32>())
        .sum()
}

/// Zeros in a row, in words, that nothing but the scrubbing leaves at the lowest end of what was in use.
const SCRUBBED: usize = 32;

/// Bytes of stack at most that the scrubbing itself leaves: what it saves while it overwrites.
const ITS_OWN: usize = 64;

/// Called right after the stack was scrubbed: how many bytes were in use below what the scrubbing reached.
pub fn missed() -> usize {
    let (mut missed, mut zeros) = (0, 0);
    for word in words().skip_while(|word| *word == PAINT) {
        zeros = if word == 0 { zeros + 1 } else { 0 };
        if zeros == SCRUBBED {
            break;
        }
        missed += size_of::<u32>();
    }
    missed.saturating_sub((SCRUBBED - 1) * size_of::<u32>() + ITS_OWN)
}

/// The words of the stack from its end up.
fn words() -> impl Iterator<Item = u32> {
    let bottom = &raw const _stack_end;
    let top = (&raw const _stack_start) as usize;
    let count = (top - bottom as usize) / size_of::<u32>();
    // SAFETY: as above, and RAM can be read up to the stack's beginning.
    (0..count).map(move |index| unsafe { bottom.add(index).read_volatile() })
}
