//! What keyferry's emulated boards have in common: the emulator's command line, which stands for silicon, the main loop, and an
//! application. A board brings a [`Chip`] and the [`uart::Registers`] of its serial port.
//!
//! An emulated board must be run with semihosting: device id, fuses and entropy come from the emulator's host, so its images are for
//! tests only, and their statement says so.
#![no_std]

mod arguments;
mod board;
mod entropy;
#[cfg(feature = "rsa-suites")]
pub mod heap;
pub mod panic;
mod tally;
pub mod telemetry;
pub mod uart;
pub mod vectors;
pub mod wake;

use core::convert::Infallible;

use defmt_semihosting as _;
use embedded_io::{Read, ReadReady, Write, WriteReady};
use embedded_storage::nor_flash::NorFlash;
use keyferry_firmware::Platform as _;
use keyferry_firmware::device::{Device, Millis, Work};

pub use board::Board;

use uart::{Registers, Uart};

/// A chip: what differs from board to board.
pub trait Chip {
    /// The board's name.
    const NAME: &'static str;
    /// Line rates in baud besides the base rate: see [`keyferry_firmware::Platform::line_rates`].
    const RATES: &'static [u32];
    /// The key store's flash.
    type Flash: NorFlash;

    /// The key store's flash. Called once.
    fn flash(&mut self) -> Self::Flash;

    /// Switches the status LED, where there is one.
    fn light(&mut self, lit: bool) {
        let _ = lit;
    }

    /// Milliseconds since the start.
    fn now() -> Millis;

    /// Has an interrupt come at `deadline`, or before.
    fn set_alarm(deadline: Millis);

    /// No deadline any more.
    fn clear_alarm();

    /// Counts what unwrapping costs, where the chip has a meter.
    #[cfg(feature = "measure")]
    fn measure(&mut self, mark: keyferry_firmware::platform::Mark) {
        let _ = mark;
    }
}

/// Bytes handed to the device at a time.
const CHUNK: usize = 256;

/// The firmware: greets the log, and serves the line for ever.
pub fn serve<C: Chip, R: Registers>(chip: C, mut serial: Uart<R>) -> ! {
    let board = Board::new(chip);
    defmt::info!(
        "keyferry {=str} on {=str}, device {=[u8]:02x}",
        board.description().firmware,
        board.description().board,
        board.device_id().0
    );
    // On this stack, which is never left: a static cell would need room for the device twice while it moves there.
    let mut device = Device::new(board);
    let Ok(never) = turn(&mut serial, &mut device);
    match never {}
}

/// Turns the crank, for ever.
fn turn<C: Chip, R: Registers>(
    serial: &mut Uart<R>,
    device: &mut Device<Board<C>>,
) -> Result<Infallible, Infallible> {
    let mut chunk = [0; CHUNK];
    loop {
        // Whatever interrupt comes after this line keeps the loop from sleeping at its end.
        wake::clear();
        if serial.read_ready()? {
            let count = serial.read(&mut chunk)?;
            device.receive(&chunk[..count], C::now());
        }
        let work = device.work(C::now());
        tally::note(device.operations());

        let waiting = device.transmit(C::now());
        let sends = !waiting.is_empty();
        if serial.follow(device.rate()) && sends && serial.write_ready()? {
            let waiting = device.transmit(C::now());
            let count = serial.write(waiting)?;
            device.transmitted(count, C::now());
            // What went out may have made room for more work.
            continue;
        }
        match work {
            Work::More => {}
            // More had arrived than one chunk takes.
            Work::Idle(_) if serial.read_ready()? => {}
            Work::Idle(Some(deadline)) => {
                C::set_alarm(deadline);
                wake::sleep();
                C::clear_alarm();
            }
            Work::Idle(None) => wake::sleep(),
        }
    }
}
