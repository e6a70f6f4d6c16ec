//! A millisecond clock and an alarm, from the two CMSDK APB timers (Arm DDI 0479 §4.2).
//!
//! Timer 0 runs freely and interrupts only when it wraps, every 172 s: an idle device is not woken by its own clock.
//! Timer 1 is the alarm that ends a sleep at a deadline.

use core::cell::Cell;

use critical_section::Mutex;
use keyferry_firmware::device::Millis;

use crate::mmio::Register;

/// The board's system clock in hertz (Arm DAI 0386, clocks).
pub const FREQUENCY_HZ: u32 = 25_000_000;

/// Timer ticks in a millisecond.
const TICKS_PER_MILLI: u32 = FREQUENCY_HZ / 1000;

/// Timer 0: enables.
const WRAP_CONTROL: Register<0x4000_0000> = Register;
/// Timer 0: counts down.
const WRAP_VALUE: Register<0x4000_0004> = Register;
/// Timer 0's value again, for measuring short stretches: ticks of the system clock until it wraps. [`now`] tells the time.
#[cfg(feature = "measure")]
pub const TICKS_LEFT: Register<0x4000_0004> = Register;
/// Timer 0: what it starts from again.
const WRAP_RELOAD: Register<0x4000_0008> = Register;
/// Timer 0: whether it has reached zero; write one to clear.
const WRAP_INTERRUPT: Register<0x4000_000c> = Register;

/// Timer 1: enables.
const ALARM_CONTROL: Register<0x4000_1000> = Register;
/// Timer 1: counts down.
const ALARM_VALUE: Register<0x4000_1004> = Register;
/// Timer 1: what it starts from again; zero stops it.
const ALARM_RELOAD: Register<0x4000_1008> = Register;
/// Timer 1: whether it has reached zero; write one to clear.
const ALARM_INTERRUPT: Register<0x4000_100c> = Register;

/// Control: counting is on.
const ENABLE: u32 = 1 << 0;
/// Control: interrupt at zero.
const INTERRUPT_ENABLE: u32 = 1 << 3;

/// How often timer 0 has wrapped.
static WRAPS: Mutex<Cell<u32>> = Mutex::new(Cell::new(0));

/// Starts the clock at zero. Called once, before interrupts 8 and 9 are unmasked.
pub fn start() {
    WRAP_CONTROL.write(0);
    WRAP_RELOAD.write(u32::MAX);
    WRAP_VALUE.write(u32::MAX);
    WRAP_INTERRUPT.write(1);
    WRAP_CONTROL.write(ENABLE | INTERRUPT_ENABLE);
    ALARM_CONTROL.write(0);
    ALARM_RELOAD.write(0);
    ALARM_INTERRUPT.write(1);
}

/// Milliseconds since [`start`].
pub fn now() -> Millis {
    let (wraps, value) = critical_section::with(|cs| {
        let wraps = WRAPS.borrow(cs).get();
        let value = WRAP_VALUE.read();
        if WRAP_INTERRUPT.read() & 1 == 0 {
            (wraps, value)
        } else {
            // It has wrapped and the handler could not run yet. The value may be from before the wrap: read it again.
            (wraps.wrapping_add(1), WRAP_VALUE.read())
        }
    });
    let ticks = u64::from(wraps) << 32 | u64::from(u32::MAX - value);
    ticks / u64::from(TICKS_PER_MILLI)
}

/// Interrupt 8: timer 0 has wrapped.
pub fn on_wrap() {
    critical_section::with(|cs| {
        WRAP_INTERRUPT.write(1);
        let wraps = WRAPS.borrow(cs);
        wraps.set(wraps.get().wrapping_add(1));
    });
}

/// Has an interrupt come at `deadline`, or at once if that has passed. A deadline further away than the timer can count
/// (172 s) comes early; the waiting loop then asks again.
pub fn set_alarm(deadline: Millis) {
    let millis = u32::try_from(deadline.saturating_sub(now())).unwrap_or(u32::MAX);
    // Never zero: that would stop the timer before it fires. A millisecond more, for `now` rounds down.
    let ticks = millis.saturating_add(1).saturating_mul(TICKS_PER_MILLI);
    ALARM_CONTROL.write(0);
    ALARM_VALUE.write(ticks);
    ALARM_CONTROL.write(ENABLE | INTERRUPT_ENABLE);
}

/// No deadline any more.
pub fn clear_alarm() {
    ALARM_CONTROL.write(0);
    ALARM_INTERRUPT.write(1);
}

/// Interrupt 9: the deadline is here.
pub fn on_alarm() {
    clear_alarm();
}

defmt::timestamp!("{=u64:ms}", now());
