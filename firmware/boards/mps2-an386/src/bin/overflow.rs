//! The firmware that overflows its stack once or hangs once, on an Arm MPS2+ AN386 board: see [`keyferry_emulated::overflow`].
#![no_std]
#![no_main]

use cortex_m_rt::entry;

#[entry]
fn main() -> ! {
    let (chip, uart) = keyferry_mps2_an386::start();
    keyferry_emulated::overflow::hang_once(keyferry_mps2_an386::hurry_watchdog);
    keyferry_emulated::overflow::overflow_once(chip, uart)
}
