//! An application on a provisioned Arm MPS2+ AN386 board: see [`keyferry_emulated::telemetry`].
#![no_std]
#![no_main]

use cortex_m_rt::entry;

#[entry]
fn main() -> ! {
    let (chip, uart) = keyferry_mps2_an386::start();
    keyferry_emulated::telemetry::send(chip, uart)
}
