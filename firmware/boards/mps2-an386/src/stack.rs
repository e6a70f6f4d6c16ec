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
    let bottom = &raw const _stack_end;
    let top = (&raw const _stack_start) as usize;
    let words = (top - bottom as usize) / size_of::<u32>();
    // SAFETY: as above, and RAM can be read up to the stack's beginning.
    let painted =
        (0..words).take_while(|index| unsafe { bottom.add(*index).read_volatile() } == PAINT);
    top - bottom as usize - painted.count() * size_of::<u32>()
}
