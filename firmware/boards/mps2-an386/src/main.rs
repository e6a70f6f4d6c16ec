//! keyferry's firmware on the Arm MPS2+ AN386 board that QEMU emulates.
#![no_std]
#![no_main]

use cortex_m_rt::entry;

#[entry]
fn main() -> ! {
    let (chip, uart) = keyferry_mps2_an386::start();
    keyferry_emulated::serve(chip, uart)
}
