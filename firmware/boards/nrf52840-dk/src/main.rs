//! keyferry's firmware on Nordic's nRF52840 DK.
#![no_std]
#![no_main]

use cortex_m_rt::entry;

#[entry]
fn main() -> ! {
    keyferry_nrf52840_dk::run()
}
