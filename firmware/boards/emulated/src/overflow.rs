//! A deliberate defect, for the test that a stack overflow is caught: the first time that a device runs this image it overflows its
//! stack; after that the image is the firmware. The file `overflowed.txt` in the emulated device's folder tells which.

use core::hint::black_box;

use semihosting::fs::File;

use crate::uart::{Registers, Uart};
use crate::{Chip, Clock, serve};

/// The file.
const MARK: &core::ffi::CStr = c"overflowed.txt";

/// Overflows the stack, or serves the line.
pub fn overflow_once<C: Chip + Clock, R: Registers>(chip: C, serial: Uart<R>) -> ! {
    if File::open(MARK).is_err() {
        defmt::info!("overflowing the stack");
        if File::create(MARK).is_ok() {
            grow(1);
        }
        defmt::error!("the stack has not overflowed");
    }
    serve(chip, serial)
}

/// Takes 256 bytes of stack and more, until there is none.
#[inline(never)]
fn grow(depth: u32) -> u32 {
    let frame = black_box([depth; 64]);
    if depth == 0 {
        return 0;
    }
    // Used after the call, or the frame would be gone by then.
    grow(black_box(depth + 1)).wrapping_add(frame[depth as usize % frame.len()])
}
