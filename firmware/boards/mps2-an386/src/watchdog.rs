//! The CMSDK APB watchdog (Arm DDI 0479 §4.5): the first time it reaches zero it raises the non-maskable interrupt, the second time it
//! resets the board.

use cortex_m::peripheral::SCB;
use cortex_m_rt::exception;
use keyferry_board::panic::report;
use keyferry_firmware::device::Millis;

use crate::clock::FREQUENCY_HZ;
use crate::mmio::Register;

/// What it starts from again.
const RELOAD: Register<0x4000_8000> = Register;
/// Enables.
const CONTROL: Register<0x4000_8008> = Register;
/// Any write clears its interrupt and starts it again.
const CLEAR: Register<0x4000_800c> = Register;
/// Unlocks the others.
const LOCK: Register<0x4000_8c00> = Register;

/// [`LOCK`]: what unlocks.
const UNLOCK: u32 = 0x1acc_e551;
/// [`CONTROL`]: it counts, and interrupts at zero.
const INTERRUPT: u32 = 1 << 0;
/// [`CONTROL`]: it resets at the second zero.
const RESET: u32 = 1 << 1;

/// How long it waits, in seconds. The longest piece of work takes a few; an emulator's clock runs on while a busy machine lets it wait,
/// and the counter ends at 171.
const PATIENCE: u32 = 120;

/// How long the board may sleep at most, in milliseconds.
const SLEEP: Millis = PATIENCE as Millis * 1000 / 4;

/// Starts it. It is never stopped.
pub(crate) fn start() {
    LOCK.write(UNLOCK);
    RELOAD.write(PATIENCE * FREQUENCY_HZ);
    CONTROL.write(INTERRUPT | RESET);
    LOCK.write(0);
}

/// Has it wait for a second only, until the next reset, for the test that it ends a device that hangs.
pub fn hurry() {
    LOCK.write(UNLOCK);
    RELOAD.write(FREQUENCY_HZ);
    LOCK.write(0);
}

/// Feeds it, and tells when to feed it again at the latest.
pub(crate) fn feed() -> Millis {
    LOCK.write(UNLOCK);
    CLEAR.write(1);
    LOCK.write(0);
    SLEEP
}

/// It has waited long enough.
#[exception]
// SAFETY: reports and resets, relying on nothing that the code it interrupts may be in the middle of but the logger.
unsafe fn NonMaskableInt() {
    cortex_m::interrupt::disable();
    report(|| defmt::error!("the watchdog was not fed"));
    SCB::sys_reset()
}
