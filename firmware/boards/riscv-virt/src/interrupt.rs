//! The interrupts: the machine timer's, which [`crate::clock`] handles, and the UART's, which comes through the
//! platform-level interrupt controller (RISC-V PLIC specification 1.0).

use keyferry_board::wake;
use riscv::interrupt::Interrupt;
use riscv::register::mie;

use crate::mmio::Register;
use crate::{panic, uart};

pub use wake::note;

/// The UART's number at the controller (`virt.c`, `UART0_IRQ`).
const UART: u32 = 10;

/// How urgent the UART is: anything but 0, which is never.
const UART_PRIORITY: Register<u32, { 0x0c00_0000 + 4 * UART as usize }> = Register::new();
/// Sources 0 to 31 that hart 0 hears of in machine mode, one bit each.
const ENABLES: Register<u32, 0x0c00_2000> = Register::new();
/// How urgent a source must be more than.
const THRESHOLD: Register<u32, 0x0c20_0000> = Register::new();
/// Reading claims the most urgent source; writing completes it.
const CLAIM: Register<u32, 0x0c20_0004> = Register::new();

/// Lets the interrupts through. Called once, when the peripherals are set up.
pub fn enable() {
    UART_PRIORITY.write(1);
    ENABLES.write(1 << UART);
    THRESHOLD.write(0);
    // SAFETY: no code relies on these interrupts being masked for more than a critical section, which masks them all.
    unsafe {
        mie::set_mext();
        riscv::interrupt::enable();
    }
}

/// A source asks for attention.
#[riscv_rt::core_interrupt(Interrupt::MachineExternal)]
fn on_external() {
    wake::note();
    match CLAIM.read() {
        // Somebody else has claimed it, or it has gone away.
        0 => {}
        UART => {
            uart::on_interrupt();
            CLAIM.write(UART);
        }
        number => panic::unexpected_interrupt(number),
    }
}
