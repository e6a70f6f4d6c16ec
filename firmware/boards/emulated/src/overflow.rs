//! Deliberate defects, for the tests that they are caught: the first time that a device runs this image it overflows its stack, or hangs
//! where the file `hang.txt` is in its folder; after that the image is the firmware. The file `overflowed.txt` tells which.

use core::ffi::CStr;
use core::hint::{black_box, spin_loop};

use semihosting::fs::File;

use crate::{Chip, serve};
use keyferry_board::Clock;
use keyferry_board::uart::{Registers, Uart};

/// It has happened.
const MARK: &CStr = c"overflowed.txt";
/// It is to hang.
const HANG: &CStr = c"hang.txt";

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

/// Does nothing for ever where the device's folder says so, when `hurry` has told the watchdog to wait no longer than a test does. Called
/// before [`overflow_once`].
pub fn hang_once(hurry: fn()) {
    if File::open(HANG).is_ok() && File::open(MARK).is_err() && File::create(MARK).is_ok() {
        defmt::info!("hanging");
        hurry();
        loop {
            spin_loop();
        }
    }
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
