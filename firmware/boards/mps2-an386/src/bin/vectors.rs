//! Published test vectors on an Arm MPS2+ AN386 board: see [`keyferry_emulated::vectors`].
#![no_std]
#![no_main]

use cortex_m_rt::entry;

#[entry]
fn main() -> ! {
    let (chip, uart) = keyferry_mps2_an386::start();
    keyferry_emulated::vectors::judge(chip, uart)
}
