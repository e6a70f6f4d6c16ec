//! The firmware with a stack that overflows once, on a Arm MPS2+ AN386 board: see [`keyferry_emulated::overflow`].
#![no_std]
#![no_main]

use cortex_m_rt::entry;

#[entry]
fn main() -> ! {
    let (chip, uart) = keyferry_mps2_an386::start();
    keyferry_emulated::overflow::overflow_once(chip, uart)
}
