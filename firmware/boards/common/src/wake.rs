//! Sleeping until the next interrupt without missing any.
//!
//! Every handler sets one flag. A loop clears the flag, looks at everything it waits for, and calls [`sleep`], which
//! returns at once if an interrupt has come since: no wake-up is lost, whatever the loop waits for.

use core::arch::asm;
use core::sync::atomic::{AtomicBool, Ordering};

/// Whether an interrupt has come since [`clear`].
static HAPPENED: AtomicBool = AtomicBool::new(false);

/// Says that an interrupt has come. Each handler calls it.
pub fn note() {
    HAPPENED.store(true, Ordering::Relaxed);
}

/// Starts a turn of a waiting loop: forgets the interrupts so far.
pub fn clear() {
    HAPPENED.store(false, Ordering::Relaxed);
}

/// Sleeps until an interrupt, unless one has come since [`clear`]. Not for use inside a critical section, where its
/// handler could not run.
pub fn sleep() {
    critical_section::with(|_| {
        if !HAPPENED.load(Ordering::Relaxed) {
            // A pending interrupt ends the wait even while all are masked (Armv7-M manual, B1.5.19; RISC-V privileged
            // architecture, 3.3.3), so none slips in between.
            // SAFETY: the instruction has this name on both architectures and changes neither memory nor registers. The
            // compiler takes it for one that may touch memory, so nothing moves across it.
            unsafe { asm!("wfi", options(nostack, preserves_flags)) };
        }
    });
}
