//! The stack's end on a Cortex-M: what happens when it is reached.
//!
//! A board's memory map puts the stack at the very bottom of RAM, below everything static, so that it cannot grow into anything. What lies
//! below RAM is not a fault everywhere, so the memory protection unit (Armv7-M manual, B3.5) makes it one: no access to the 128 MiB below
//! [`RAM`]. The fault has a handler of its own, which begins on a fresh stack, says what happened, and resets the board.
//!
//! One case is left to the watchdog: an overflow inside a critical section, where interrupts are masked, escalates to a hard fault that
//! cannot be entered without a stack, and the processor locks up (Armv7-M manual, B1.5.15).

use core::arch::global_asm;

use cortex_m::Peripherals;
use cortex_m::peripheral::SCB;
use cortex_m::peripheral::scb::Exception;

use crate::panic::report;

/// Where the RAM of the boards begins, and the stack in it ends.
const RAM: u32 = 0x2000_0000;

/// Length of what nothing may touch: a power of two, so that the region is aligned to it. It leaves out the nRF52840's information
/// registers at 0x1000_0000.
const GUARD: u32 = 1 << 27;

/// `MPU_RASR`: never executed, no access, the region's length as an exponent less one, enabled (Armv7-M manual, B3.5.9).
const NO_ACCESS: u32 = 1 << 28 | (GUARD.trailing_zeros() - 1) << 1 | 1;

/// `MPU_CTRL`: on, not in the handlers of hard faults, and all else as without it (Armv7-M manual, B3.5.5).
const ON: u32 = 1 << 2 | 1;

/// Makes what lies below the stack a fault. Called once, first of all.
pub fn start(core: &mut Peripherals) {
    const { assert!((RAM - GUARD).is_multiple_of(GUARD)) };
    // SAFETY: takes away access to addresses below RAM, where no board has anything that Rust uses.
    unsafe {
        core.MPU.rnr.write(0);
        core.MPU.rbar.write(RAM - GUARD);
        core.MPU.rasr.write(NO_ACCESS);
        core.MPU.ctrl.write(ON);
    }
    core.SCB.enable(Exception::MemoryManagement);
    cortex_m::asm::dsb();
    cortex_m::asm::isb();
}

// There is no stack to push anything to: it begins again, at its beginning. Nothing returns to what was in it.
global_asm!(
    r#".section .text.MemoryManagement, "ax"
    .global MemoryManagement
    .type MemoryManagement, %function
    .thumb_func
MemoryManagement:
    mrs r0, msp
    ldr r1, =_stack_start
    msr msp, r1
    ldr r1, =keyferry_memory_fault
    bx r1
    .pool"#
);

/// The memory protection unit has refused an access; `stack` is where the stack was.
#[unsafe(no_mangle)]
extern "C" fn keyferry_memory_fault(stack: u32) -> ! {
    cortex_m::interrupt::disable();
    // Stacking of the exception took 32 bytes, or 104 with the floating-point registers, if there was room.
    if stack < RAM + 128 {
        report(|| defmt::error!("stack overflow"));
    } else {
        report(|| defmt::error!("memory fault"));
    }
    SCB::sys_reset()
}
