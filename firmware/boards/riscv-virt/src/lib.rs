//! The RISC-V virt board (RV32IMAC) that QEMU emulates: its interrupts, clock and drivers.
#![no_std]

mod cfi;
mod clock;
mod guard;
mod interrupt;
mod mmio;
mod panic;
mod uart;

use core::arch::global_asm;

use keyferry_board::Clock;
use keyferry_board::uart::Uart;
use keyferry_emulated::Chip;
use keyferry_firmware::device::Millis;

use crate::cfi::CfiNor;
pub use crate::uart::Ns16550;

/// Sectors of the key store's area: the four that a store needs at least. The fullest device fits into one.
const STORE_SECTORS: u32 = 4;

/// The key store's area: the beginning of the board's second flash bank. The first bank would be the boot program's.
type Flash = CfiNor<0x2200_0000, STORE_SECTORS>;

/// The chip. It has no LED.
pub struct RiscvVirt;

/// Switches everything on. Called once, first of all.
#[must_use]
pub fn start() -> (RiscvVirt, Uart<Ns16550>) {
    guard::start();
    #[cfg(feature = "rsa-suites")]
    keyferry_board::heap::start();
    clock::start();
    let uart = Uart::start();
    interrupt::enable();
    (RiscvVirt, uart)
}

impl Chip for RiscvVirt {
    const NAME: &'static str = "riscv-virt";
    const RATES: &'static [u32] = uart::RATES;
    type Flash = Flash;

    fn flash(&mut self) -> Flash {
        Flash::find()
    }

    /// There is no watchdog, but this board must not sleep without an alarm. QEMU stops looking for bytes while its serial port has no room,
    /// and learns that there is room again by a notice that gets lost where the processor programs flash at that moment. Setting an alarm,
    /// the only one that its machine has, has it look.
    fn feed_watchdog(&mut self) -> Option<Millis> {
        Some(1_000)
    }
}

impl Clock for RiscvVirt {
    fn now() -> Millis {
        clock::now()
    }

    fn set_alarm(deadline: Millis) {
        clock::set_alarm(deadline);
    }

    fn clear_alarm() {
        clock::clear_alarm();
    }
}

// Clears all of RAM before anything is in it. No stack is in use yet, and the return address stays in its register.
global_asm!(
    r#".section .init.pre_init, "ax"
    .global __pre_init
__pre_init:
    la t0, _ram_start
    la t1, _ram_end
1:  sw zero, 0(t0)
    addi t0, t0, 4
    bltu t0, t1, 1b
    ret"#
);
