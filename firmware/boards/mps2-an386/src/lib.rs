//! The Arm MPS2+ AN386 (Cortex-M4) board that QEMU emulates: its interrupts, clock and drivers.
#![no_std]

mod clock;
mod flash;
mod interrupt;
mod led;
#[cfg(feature = "measure")]
mod meter;
mod mmio;
#[cfg(feature = "measure")]
mod stack;
mod uart;
mod watchdog;

use embedded_hal::digital::OutputPin as _;
use keyferry_board::Clock;
use keyferry_board::uart::Uart;
use keyferry_emulated::Chip;
use keyferry_emulated::nor::NorModel;
use keyferry_firmware::device::Millis;

use crate::flash::{Flash, Psram};
use crate::led::Led;
pub use crate::uart::Cmsdk;
pub use crate::watchdog::hurry as hurry_watchdog;

/// The chip.
pub struct Mps2An386 {
    led: Led,
    #[cfg(feature = "measure")]
    meter: meter::Meter,
}

/// Switches everything on. Called once, first of all.
#[must_use]
pub fn start() -> (Mps2An386, Uart<Cmsdk>) {
    #[cfg(feature = "measure")]
    stack::paint();
    // SAFETY: nobody else has the processor's own peripherals: this is called once, first of all.
    let mut core = unsafe { cortex_m::Peripherals::steal() };
    keyferry_board::guard::start(&mut core);
    #[cfg(feature = "rsa-suites")]
    keyferry_board::heap::start();
    clock::start();
    let uart = Uart::start();
    interrupt::enable(&mut core);
    watchdog::start();
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
        NorModel::over(Psram::new())
    }

    fn feed_watchdog(&mut self) -> Option<Millis> {
        Some(watchdog::feed())
    }

    const HAS_LED: bool = true;

    fn light(&mut self, lit: bool) {
        // Setting it cannot fail: its error is Infallible.
        let Ok(()) = self.led.set_state(lit.into());
    }

    #[cfg(feature = "measure")]
    fn measure(&mut self, mark: keyferry_firmware::platform::Mark) {
        self.meter.take(mark);
    }
}

impl Clock for Mps2An386 {
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
