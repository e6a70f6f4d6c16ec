//! keyferry's firmware on the Arm MPS2+ AN386 (Cortex-M4) board that QEMU emulates.
//!
//! The board owns interrupts, clock and drivers, and turns the crank of the portable [`Device`]: bytes in, work, bytes
//! out, sleep. It must be run with semihosting: device id, fuses and entropy come from the emulator's host, so this image
//! is for tests only, and its statement says so.
#![no_std]
#![no_main]

mod arguments;
mod board;
mod clock;
mod entropy;
mod flash;
#[cfg(feature = "rsa")]
mod heap;
mod interrupt;
mod led;
#[cfg(feature = "measure")]
mod meter;
mod mmio;
mod panic;
mod tally;
mod uart;

use cortex_m_rt::entry;
use defmt_semihosting as _;
use embedded_io::{Read, ReadReady, Write, WriteReady};
use keyferry_firmware::Platform;
use keyferry_firmware::device::{Device, Work};

use crate::arguments::Arguments;
use crate::board::Board;
use crate::uart::Uart;

/// Bytes handed to the device at a time.
const CHUNK: usize = 256;

#[entry]
fn main() -> ! {
    #[cfg(feature = "rsa")]
    heap::start();
    clock::start();
    let mut uart = Uart::start();
    interrupt::enable();

    let board = Board::new(Arguments::read());
    defmt::info!(
        "keyferry {=str} on {=str}, device {=[u8]:02x}",
        board.description().firmware,
        board.description().board,
        board.device_id().0
    );
    // On this stack, which `main` never leaves: a static cell would need room for the device twice while it moves there.
    let mut device = Device::new(board);
    let Ok(never) = run(&mut uart, &mut device);
    match never {}
}

/// Turns the crank, for ever.
fn run(
    uart: &mut Uart,
    device: &mut Device<Board>,
) -> Result<core::convert::Infallible, core::convert::Infallible> {
    let mut chunk = [0; CHUNK];
    loop {
        // Whatever interrupt comes after this line keeps the loop from sleeping at its end.
        interrupt::clear();
        if uart.read_ready()? {
            let count = uart.read(&mut chunk)?;
            device.receive(&chunk[..count], clock::now());
        }
        let work = device.work(clock::now());
        tally::note(device.operations());

        let waiting = device.transmit(clock::now());
        let sends = !waiting.is_empty();
        if uart.follow(device.rate()) && sends && uart.write_ready()? {
            let waiting = device.transmit(clock::now());
            let count = uart.write(waiting)?;
            device.transmitted(count, clock::now());
            // What went out may have made room for more work.
            continue;
        }
        match work {
            Work::More => {}
            // More had arrived than one chunk takes.
            Work::Idle(_) if uart.read_ready()? => {}
            Work::Idle(Some(deadline)) => {
                clock::set_alarm(deadline);
                interrupt::sleep();
                clock::clear_alarm();
            }
            Work::Idle(None) => interrupt::sleep(),
        }
    }
}
