//! The interrupts: which ones, and who handles them.

use cortex_m::Peripherals;
use cortex_m::peripheral::NVIC;
use cortex_m_rt::exception;
use keyferry_board::{panic, wake};
use nrf52840_pac::Interrupt;

use crate::{clock, uarte};

/// How urgent the interrupts are: less than a fault, so that one in their handlers has its own handler, too.
const PRIORITY: u8 = 0x80;

/// Those in use.
const ALL: [Interrupt; 2] = [Interrupt::UARTE0_UART0, Interrupt::RTC1];

/// Lets the interrupts through. Called once, when the peripherals are set up.
pub(crate) fn enable(core: &mut Peripherals) {
    for line in ALL {
        // SAFETY: no critical section relies on priorities: all mask all interrupts.
        unsafe { core.NVIC.set_priority(line, PRIORITY) };
        // SAFETY: no code relies on these interrupts being masked for more than a critical section, which masks them all.
        unsafe { NVIC::unmask(line) };
    }
}

/// Every interrupt arrives here: the vector table holds this handler in all places.
#[exception]
// SAFETY: the handler touches shared state only inside critical sections and through atomics.
unsafe fn DefaultHandler(number: i16) {
    const UARTE: i16 = Interrupt::UARTE0_UART0 as i16;
    const RTC: i16 = Interrupt::RTC1 as i16;
    wake::note();
    match number {
        UARTE => uarte::on_interrupt(),
        RTC => clock::on_interrupt(),
        _ => panic::arm::unexpected_interrupt(number),
    }
}
