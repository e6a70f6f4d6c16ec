//! Interrupts, and sleeping until the next one without missing any.
//!
//! Every handler sets one flag. A loop clears the flag, looks at everything it waits for, and calls [`sleep`], which
//! returns at once if an interrupt has come since: no wake-up is lost, whatever the loop waits for.

use core::sync::atomic::{AtomicBool, Ordering};

use cortex_m::interrupt::InterruptNumber;
use cortex_m::peripheral::NVIC;
use cortex_m_rt::exception;

use crate::{clock, panic, uart};

/// Whether an interrupt has come since [`clear`].
static HAPPENED: AtomicBool = AtomicBool::new(false);

/// The interrupts in use (Arm DAI 0386, interrupt assignments).
#[derive(Clone, Copy)]
enum Line {
    /// UART 0 received a byte.
    UartReceive = 0,
    /// UART 0 has room to transmit.
    UartTransmit = 1,
    /// CMSDK timer 0 reached zero.
    Timer0 = 8,
    /// CMSDK timer 1 reached zero.
    Timer1 = 9,
}

impl Line {
    /// All of them.
    const ALL: [Self; 4] = [
        Self::UartReceive,
        Self::UartTransmit,
        Self::Timer0,
        Self::Timer1,
    ];
}

// SAFETY: each number is that of one interrupt of this board and never changes.
unsafe impl InterruptNumber for Line {
    fn number(self) -> u16 {
        self as u16
    }
}

/// Lets the interrupts through. Called once, when the peripherals are set up.
pub fn enable() {
    for line in Line::ALL {
        // SAFETY: no code relies on these interrupts being masked for more than a critical section, which masks them all.
        unsafe { NVIC::unmask(line) };
    }
}

/// Starts a turn of a waiting loop: forgets the interrupts so far.
pub fn clear() {
    HAPPENED.store(false, Ordering::Relaxed);
}

/// Sleeps until an interrupt, unless one has come since [`clear`].
pub fn sleep() {
    cortex_m::interrupt::disable();
    if !HAPPENED.load(Ordering::Relaxed) {
        // A pending interrupt ends `wfi` even while masked (Armv7-M manual, B1.5.19), so none slips in between.
        cortex_m::asm::wfi();
    }
    // SAFETY: not inside a critical section: only waiting loops of the main thread call this.
    unsafe { cortex_m::interrupt::enable() };
}

/// Every interrupt arrives here: without a device crate the vector table holds this handler in all places.
#[exception]
// SAFETY: the handler touches shared state only inside critical sections and through atomics.
unsafe fn DefaultHandler(number: i16) {
    HAPPENED.store(true, Ordering::Relaxed);
    match number {
        0 => uart::on_receive(),
        1 => uart::on_transmit(),
        8 => clock::on_wrap(),
        9 => clock::on_alarm(),
        _ => panic::unexpected_interrupt(number),
    }
}
