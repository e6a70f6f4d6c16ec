//! An application on a provisioned RISC-V virt board: see [`keyferry_emulated::telemetry`].
#![no_std]
#![no_main]

use riscv_rt::entry;

#[entry]
fn main() -> ! {
    let (chip, uart) = keyferry_riscv_virt::start();
    keyferry_emulated::telemetry::send(chip, uart)
}
