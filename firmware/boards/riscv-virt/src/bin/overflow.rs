//! The firmware with a stack that overflows once, on a RISC-V virt board: see [`keyferry_emulated::overflow`].
#![no_std]
#![no_main]

use riscv_rt::entry;

#[entry]
fn main() -> ! {
    let (chip, uart) = keyferry_riscv_virt::start();
    keyferry_emulated::overflow::overflow_once(chip, uart)
}
