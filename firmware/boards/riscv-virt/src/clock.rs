//! A millisecond clock and an alarm, from the machine timer (RISC-V privileged architecture, 3.2.1).

use keyferry_firmware::device::Millis;
use riscv::interrupt::Interrupt;
use riscv::register::mie;

use crate::interrupt;
use crate::mmio::Register;

/// Timer ticks in a millisecond: the board's timebase is 10 MHz.
const TICKS_PER_MILLI: u64 = 10_000;

/// The time at which the timer interrupts, low half.
const COMPARE_LOW: Register<u32, 0x0200_4000> = Register::new();
/// High half.
const COMPARE_HIGH: Register<u32, 0x0200_4004> = Register::new();
/// The time, low half.
const TIME_LOW: Register<u32, 0x0200_bff8> = Register::new();
/// High half.
const TIME_HIGH: Register<u32, 0x0200_bffc> = Register::new();

/// Starts the clock: the time runs by itself, and no alarm is set. Called once, before interrupts are unmasked.
pub fn start() {
    clear_alarm();
    // SAFETY: no code relies on this interrupt being masked for more than a critical section, which masks them all.
    unsafe { mie::set_mtimer() };
}

/// Timer ticks since the machine started.
fn ticks() -> u64 {
    loop {
        let high = TIME_HIGH.read();
        let low = TIME_LOW.read();
        // The low half may have wrapped between the two.
        if TIME_HIGH.read() == high {
            return u64::from(high) << 32 | u64::from(low);
        }
    }
}

/// Milliseconds since the machine started. A reset does not set them back.
pub fn now() -> Millis {
    ticks() / TICKS_PER_MILLI
}

/// Has an interrupt come at this time, in ticks.
fn interrupt_at(time: u64) {
    // Never a time earlier than the old or the new one on the way (privileged architecture, 3.2.1, its example).
    COMPARE_HIGH.write(u32::MAX);
    COMPARE_LOW.write(time as u32);
    COMPARE_HIGH.write((time >> 32) as u32);
}

/// Has an interrupt come at `deadline`, or at once if that has passed.
pub fn set_alarm(deadline: Millis) {
    interrupt_at(deadline.saturating_mul(TICKS_PER_MILLI));
}

/// No deadline any more.
pub fn clear_alarm() {
    interrupt_at(u64::MAX);
}

/// A span of time that a loop may take.
pub struct Patience {
    end: u64,
}

impl Patience {
    /// From now on, so many microseconds.
    pub fn micros(micros: u64) -> Self {
        Self {
            end: ticks().saturating_add(micros.saturating_mul(TICKS_PER_MILLI / 1000)),
        }
    }

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        ticks() >= self.end
    }
}

/// The deadline is here.
#[riscv_rt::core_interrupt(Interrupt::MachineTimer)]
fn on_alarm() {
    interrupt::note();
    clear_alarm();
}

defmt::timestamp!("{=u64:ms}", now());
