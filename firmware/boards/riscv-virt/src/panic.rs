//! The end of everything that must not happen: say where, and start again. `__pre_init` clears all of RAM on the way up.

use core::panic::PanicInfo;

use keyferry_board::panic::report;
use riscv::register::{mcause, mepc};

use crate::mmio::Register;

/// The board's test device, which can end or reset the machine.
const FINISHER: Register<u32, 0x0010_0000> = Register::new();
/// [`FINISHER`]: reset (`include/hw/misc/sifive_test.h`).
const RESET: u32 = 0x7777;

/// Resets the board.
pub(crate) fn reset() -> ! {
    FINISHER.write(RESET);
    // The emulator resets the processor a little later.
    loop {
        riscv::asm::wfi();
    }
}

#[cfg(feature = "panic-place")]
#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    riscv::interrupt::disable();
    keyferry_board::panic::report_panic(info);
    reset()
}

// Looks at nothing of what it is given, so that the linker can leave out all places, messages and the formatting of them.
#[cfg(not(feature = "panic-place"))]
#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    riscv::interrupt::disable();
    report(|| defmt::error!("panic"));
    reset()
}

/// An interrupt came that nobody asked for.
pub(crate) fn unexpected_interrupt(number: u32) -> ! {
    riscv::interrupt::disable();
    report(|| defmt::error!("unexpected interrupt {=u32}", number));
    reset()
}

/// Every exception arrives here.
#[unsafe(export_name = "ExceptionHandler")]
fn exception_handler(_: &riscv_rt::TrapFrame) -> ! {
    report(|| {
        defmt::error!(
            "exception {=usize} at {=usize:#010x}",
            mcause::read().code(),
            mepc::read()
        );
    });
    reset()
}

/// Every core interrupt without a handler of its own arrives here.
#[unsafe(export_name = "DefaultHandler")]
fn default_handler() -> ! {
    report(|| defmt::error!("unexpected core interrupt {=usize}", mcause::read().code()));
    reset()
}
