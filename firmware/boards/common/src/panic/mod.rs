//! The end of everything that must not happen: say where, and start again.
//!
//! No message is formatted: it could carry what the code had at hand. The board's reset must clear all of RAM on its way
//! up.

#[cfg(target_arch = "arm")]
pub mod arm;

use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

/// Whether an end is being reported already.
static REPORTING: AtomicBool = AtomicBool::new(false);

/// Runs `report`, once. A report that fails in its turn (the logger may have been at work) does not begin again: the
/// second call returns at once. Interrupts must be masked, and the caller resets the board afterwards.
pub fn report(report: impl FnOnce()) {
    if !REPORTING.swap(true, Ordering::Relaxed) {
        report();
    }
}

/// Says where a panic was.
pub fn report_panic(info: &PanicInfo<'_>) {
    report(|| match info.location() {
        Some(place) => defmt::error!("panic at {=str}:{=u32}", place.file(), place.line()),
        None => defmt::error!("panic"),
    });
}
