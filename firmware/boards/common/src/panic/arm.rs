//! How everything that must not happen ends on a Cortex-M. The reset clears all of RAM on its way up.

use core::panic::PanicInfo;

use cortex_m::peripheral::SCB;
use cortex_m_rt::{ExceptionFrame, exception};

use super::report;

#[cfg(feature = "panic-place")]
#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    cortex_m::interrupt::disable();
    super::report_panic(info);
    SCB::sys_reset()
}

// Looks at nothing of what it is given, so that the linker can leave out all places, messages and the formatting of them.
#[cfg(not(feature = "panic-place"))]
#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    cortex_m::interrupt::disable();
    report(|| defmt::error!("panic"));
    SCB::sys_reset()
}

/// An interrupt came that nobody asked for.
pub fn unexpected_interrupt(number: i16) -> ! {
    cortex_m::interrupt::disable();
    report(|| defmt::error!("unexpected interrupt {=i16}", number));
    SCB::sys_reset()
}

#[exception]
// SAFETY: reports and resets, relying on nothing that the fault may have broken but the logger.
unsafe fn HardFault(frame: &ExceptionFrame) -> ! {
    cortex_m::interrupt::disable();
    report(|| defmt::error!("hard fault at {=u32:#010x}", frame.pc()));
    SCB::sys_reset()
}
