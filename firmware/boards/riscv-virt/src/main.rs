//! keyferry's firmware on the RISC-V virt board that QEMU emulates.
#![no_std]
#![no_main]

use riscv_rt::entry;

#[entry]
fn main() -> ! {
    let (chip, uart) = keyferry_riscv_virt::start();
    keyferry_emulated::serve(chip, uart)
}
