//! The stack's end: what happens when it is reached.
//!
//! The memory map puts the stack at the bottom of the data, above program memory, which nothing may write: physical memory protection
//! (RISC-V privileged architecture, 3.7) makes it so, for machine mode as well. A stack that grows into it faults. So does an interrupt
//! that comes when less than a kilobyte is left: before a trap takes its frame, the stack is looked at, and where there is no room, the
//! trap begins on a fresh one, says what happened, and resets the board.

use core::arch::global_asm;

use keyferry_board::panic::report;
use riscv::register::{Permission, Range, pmpaddr0, pmpcfg0};

use crate::panic::reset;

/// Program memory: see `memory.x`.
const PROGRAM: usize = 0x8000_0000;
/// Its length in bytes, a power of two to which it is aligned.
const LENGTH: usize = 4 << 20;

/// Makes writing to program memory a fault, until the next reset. Called once, first of all.
pub(crate) fn start() {
    // SAFETY: program memory stays readable and executable, and nothing writes it.
    unsafe {
        // A naturally aligned power of two: the ones at the end tell how large (3.7.1, address matching).
        pmpaddr0::write((PROGRAM >> 2) | ((LENGTH >> 3) - 1));
        pmpcfg0::set_pmp(0, Range::NAPOT, Permission::RX, true);
    }
}

// Changes no register on the way back: `mscratch` is in no other use.
global_asm!(
    r#".section .trap.start, "ax"
    .global _pre_default_start_trap
_pre_default_start_trap:
    csrw mscratch, t0
    la t0, _stack_limit
    bltu sp, t0, 1f
    csrr t0, mscratch
    j _pre_default_start_trap_ret
1:  la sp, _stack_start
    j {overflowed}"#,
    overflowed = sym overflowed,
);

/// There was no room for a trap.
extern "C" fn overflowed() -> ! {
    riscv::interrupt::disable();
    report(|| defmt::error!("stack overflow"));
    reset()
}
