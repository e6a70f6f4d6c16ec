//! A millisecond clock and an alarm, from RTC1 (nRF52840 product specification 1.8, 6.22), which runs on the 32 768 Hz crystal also
//! while the processor sleeps; and the 64 MHz crystal, without which the UART's rates are not exact enough.

use core::cell::Cell;

use critical_section::Mutex;
use keyferry_board::Clock;
use keyferry_firmware::device::Millis;
use nrf52840_pac::{CLOCK, RTC1};

/// Ticks in a second.
pub(crate) const FREQUENCY_HZ: u32 = 32_768;

/// The counter has 24 bits: it wraps every 512 s.
const WRAP: u64 = 1 << 24;

/// The most ticks ahead that an alarm may be: half of a turn, so that it is never taken for one in the past.
const FURTHEST: u64 = WRAP / 2;

/// The fewest: a compare event one tick ahead may not come (6.22.7).
const NEAREST: u64 = 3;

/// [`RTC1`]'s interrupts: overflow, and compare register 0.
const OVERFLOW: u32 = 1 << 1;
const COMPARE: u32 = 1 << 16;

/// How often the counter has wrapped.
static WRAPS: Mutex<Cell<u32>> = Mutex::new(Cell::new(0));

/// The clock, as the main loop sees it.
pub(crate) struct Rtc;

fn rtc() -> &'static nrf52840_pac::rtc0::RegisterBlock {
    // SAFETY: the registers are there as long as the chip is; the main loop and the interrupt share them as this module says.
    unsafe { &*RTC1::ptr() }
}

/// Starts the crystals, and the clock at zero. Called once, before its interrupt is unmasked.
pub(crate) fn start(clock: &CLOCK, rtc: &RTC1) {
    // SAFETY: one to a task register starts the task, zero to an event register clears the event; neither touches memory.
    unsafe {
        clock.tasks_hfclkstart.write(|w| w.bits(1));
        while clock.events_hfclkstarted.read().bits() == 0 {}
        clock.lfclksrc.write(|w| w.src().xtal());
        clock.tasks_lfclkstart.write(|w| w.bits(1));
        // A quarter of a second.
        while clock.events_lfclkstarted.read().bits() == 0 {}
        rtc.prescaler.write(|w| w.bits(0));
        rtc.events_ovrflw.write(|w| w.bits(0));
        rtc.intenset.write(|w| w.bits(OVERFLOW));
        rtc.tasks_clear.write(|w| w.bits(1));
        rtc.tasks_start.write(|w| w.bits(1));
    }
}

/// Ticks since the start.
fn ticks() -> u64 {
    critical_section::with(|cs| {
        let wraps = WRAPS.borrow(cs).get();
        let count = rtc().counter.read().bits();
        let (wraps, count) = if rtc().events_ovrflw.read().bits() == 0 {
            (wraps, count)
        } else {
            // It has wrapped and the handler could not run yet. The count may be from before the wrap: read it again.
            (wraps.wrapping_add(1), rtc().counter.read().bits())
        };
        u64::from(wraps) * WRAP + u64::from(count)
    })
}

/// Milliseconds since the start.
pub(crate) fn now() -> Millis {
    ticks() * 1000 / u64::from(FREQUENCY_HZ)
}

impl Clock for Rtc {
    fn now() -> Millis {
        now()
    }

    /// A deadline further away than the counter can tell comes early; the waiting loop then asks again.
    fn set_alarm(deadline: Millis) {
        let now = ticks();
        // A tick more, for `now` rounds down.
        let then = deadline.saturating_mul(u64::from(FREQUENCY_HZ)) / 1000 + 1;
        let then = then.clamp(now + NEAREST, now + FURTHEST);
        // SAFETY: the register takes 24 bits, and these are they; no memory is touched.
        unsafe {
            rtc().events_compare[0].write(|w| w.bits(0));
            rtc().cc[0].write(|w| w.bits((then % WRAP) as u32));
            rtc().intenset.write(|w| w.bits(COMPARE));
        }
    }

    fn clear_alarm() {
        // SAFETY: as above.
        unsafe {
            rtc().intenclr.write(|w| w.bits(COMPARE));
            rtc().events_compare[0].write(|w| w.bits(0));
        }
    }
}

/// RTC1's interrupt: a wrap, or the deadline.
pub(crate) fn on_interrupt() {
    critical_section::with(|cs| {
        if rtc().events_ovrflw.read().bits() != 0 {
            // SAFETY: clears the event.
            unsafe { rtc().events_ovrflw.write(|w| w.bits(0)) };
            let wraps = WRAPS.borrow(cs);
            wraps.set(wraps.get().wrapping_add(1));
        }
    });
    if rtc().events_compare[0].read().bits() != 0 {
        Rtc::clear_alarm();
    }
}

defmt::timestamp!("{=u64:ms}", now());
