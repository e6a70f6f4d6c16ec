//! Published test vectors on a RISC-V virt board: see [`keyferry_emulated::vectors`].
#![no_std]
#![no_main]

use riscv_rt::entry;

#[entry]
fn main() -> ! {
    let (chip, uart) = keyferry_riscv_virt::start();
    keyferry_emulated::vectors::judge(chip, uart)
}
