//! The Arm MPS2+ AN386 (Cortex-M4) board that QEMU emulates: its interrupts, clock and drivers.
#![no_std]

mod clock;
mod flash;
mod interrupt;
mod led;
#[cfg(feature = "measure")]
mod meter;
mod mmio;
mod panic;
#[cfg(feature = "measure")]
mod stack;
mod uart;

use core::convert::Infallible;

use defmt_semihosting as _;
use embedded_hal::digital::OutputPin;
use keyferry_emulated::{Chip, Serial};
use keyferry_firmware::device::Millis;

use crate::flash::Flash;
use crate::led::Led;
pub use crate::uart::Uart;

/// The chip.
pub struct Mps2An386 {
    led: Led,
    #[cfg(feature = "measure")]
    meter: meter::Meter,
}

/// Switches everything on. Called once, first of all.
#[must_use]
pub fn start() -> (Mps2An386, Uart) {
    #[cfg(feature = "measure")]
    stack::paint();
    #[cfg(feature = "rsa-suites")]
    keyferry_emulated::heap::start();
    clock::start();
    let uart = Uart::start();
    interrupt::enable();
    let chip = Mps2An386 {
        led: Led::off(),
        #[cfg(feature = "measure")]
        meter: meter::Meter::new(),
    };
    (chip, uart)
}

impl Chip for Mps2An386 {
    const NAME: &'static str = "mps2-an386";
    const RATES: &'static [u32] = uart::RATES;
    type Flash = Flash;

    fn flash(&mut self) -> Flash {
        Flash::new()
    }

    fn led(&mut self) -> &mut impl OutputPin<Error = Infallible> {
        &mut self.led
    }

    fn now() -> Millis {
        clock::now()
    }

    fn clear() {
        interrupt::clear();
    }

    fn sleep() {
        interrupt::sleep();
    }

    fn set_alarm(deadline: Millis) {
        clock::set_alarm(deadline);
    }

    fn clear_alarm() {
        clock::clear_alarm();
    }

    #[cfg(feature = "measure")]
    fn measure(&mut self, mark: keyferry_firmware::platform::Mark) {
        self.meter.take(mark);
    }
}

impl Serial for Uart {
    fn follow(&mut self, rate: u32) -> bool {
        self.run_at(rate)
    }
}
