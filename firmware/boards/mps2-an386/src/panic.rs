//! The end of everything that must not happen: say where, and start again.
//!
//! No message is formatted: it could carry what the code had at hand. The reset clears all of RAM on its way up.

use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

use cortex_m::peripheral::SCB;
use cortex_m_rt::{ExceptionFrame, exception};

/// Whether an end is being reported already.
static REPORTING: AtomicBool = AtomicBool::new(false);

/// Runs `report` and resets. A report that fails in its turn (the logger may have been at work) resets at once.
fn end(report: impl FnOnce()) -> ! {
    cortex_m::interrupt::disable();
    if !REPORTING.swap(true, Ordering::Relaxed) {
        report();
    }
    SCB::sys_reset()
}

#[cfg(feature = "panic-place")]
#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    end(|| match info.location() {
        Some(place) => defmt::error!("panic at {=str}:{=u32}", place.file(), place.line()),
        None => defmt::error!("panic"),
    })
}

// Looks at nothing of what it is given, so that the linker can leave out all places, messages and the formatting of them.
#[cfg(not(feature = "panic-place"))]
#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    end(|| defmt::error!("panic"))
}

/// An interrupt came that nobody asked for.
pub fn unexpected_interrupt(number: i16) -> ! {
    end(|| defmt::error!("unexpected interrupt {=i16}", number))
}

#[exception]
// SAFETY: reports and resets, relying on nothing that the fault may have broken but the logger.
unsafe fn HardFault(frame: &ExceptionFrame) -> ! {
    end(|| defmt::error!("hard fault at {=u32:#010x}", frame.pc()))
}
