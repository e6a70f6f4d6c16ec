//! The watchdog (nRF52840 product specification 1.8, 6.36): it counts on the 32 768 Hz clock, also while the processor sleeps or has
//! locked up, and not while a debugger has stopped it. Once started it cannot be stopped, and a reset by software leaves it as it is.

use keyferry_firmware::device::Millis;
use nrf52840_pac::WDT;

use crate::clock::FREQUENCY_HZ;

/// How long it waits, in seconds. The longest piece of work is one private-key operation with RSA-4096.
const PATIENCE: u32 = 60;

/// How long the board may sleep at most, in milliseconds.
const SLEEP: Millis = PATIENCE as Millis * 1000 / 4;

/// What feeds it.
const RELOAD: u32 = 0x6e52_4635;

/// Starts it.
pub(crate) fn start(watchdog: &WDT) {
    // SAFETY: values that the registers define; none of them touches memory. While it runs, all but the task are ignored.
    unsafe {
        watchdog.crv.write(|w| w.bits(PATIENCE * FREQUENCY_HZ - 1));
        watchdog.config.write(|w| w.sleep().run().halt().pause());
        watchdog.rren.write(|w| w.bits(1));
        watchdog.tasks_start.write(|w| w.bits(1));
    }
    feed();
}

/// Feeds it, and tells when to feed it again at the latest.
pub(crate) fn feed() -> Millis {
    // SAFETY: the register is there as long as the chip is, and only this function writes it.
    unsafe { (*WDT::ptr()).rr[0].write(|w| w.bits(RELOAD)) };
    SLEEP
}
