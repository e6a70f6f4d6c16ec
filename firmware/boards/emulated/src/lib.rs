//! What keyferry's emulated boards have in common: the emulator's command line, which stands for silicon, the main loop, and an
//! application. A board brings a [`Chip`] and a serial port.
//!
//! An emulated board must be run with semihosting: device id, fuses and entropy come from the emulator's host, so its images are for
//! tests only, and their statement says so.
#![no_std]

mod arguments;
mod board;
mod entropy;
#[cfg(feature = "rsa-suites")]
pub mod heap;
mod tally;
pub mod telemetry;
pub mod vectors;

use core::convert::Infallible;

use embedded_hal::digital::OutputPin;
use embedded_io::{Read, ReadReady, Write, WriteReady};
use embedded_storage::nor_flash::NorFlash;
use keyferry_firmware::Platform as _;
use keyferry_firmware::device::{Device, Millis, Work};

pub use board::Board;

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

    /// The status LED.
    fn led(&mut self) -> &mut impl OutputPin<Error = Infallible>;

    /// Milliseconds since the start.
    fn now() -> Millis;

    /// Begins a turn of a loop that waits: what interrupts after this keeps [`Self::sleep`] from sleeping.
    fn clear();

    /// Sleeps until an interrupt.
    fn sleep();

    /// Has an interrupt come at `deadline`, or before.
    fn set_alarm(deadline: Millis);

    /// No deadline any more.
    fn clear_alarm();

    /// Counts what unwrapping costs.
    #[cfg(feature = "measure")]
    fn measure(&mut self, mark: keyferry_firmware::platform::Mark);
}

/// A board's serial port. It wakes the board when something arrives, and when it has room after it had none.
pub trait Serial:
    Read<Error = Infallible> + ReadReady + Write<Error = Infallible> + WriteReady
{
    /// Changes to this rate in baud once nothing is left to send, and says whether the line runs at it.
    fn follow(&mut self, rate: u32) -> bool;
}

/// Bytes handed to the device at a time.
const CHUNK: usize = 256;

/// The firmware: greets the log, and serves the line for ever.
pub fn serve<C: Chip, S: Serial>(chip: C, mut serial: S) -> ! {
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
fn turn<C: Chip, S: Serial>(
    serial: &mut S,
    device: &mut Device<Board<C>>,
) -> Result<Infallible, Infallible> {
    let mut chunk = [0; CHUNK];
    loop {
        // Whatever interrupt comes after this line keeps the loop from sleeping at its end.
        C::clear();
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
                C::sleep();
                C::clear_alarm();
            }
            Work::Idle(None) => C::sleep(),
        }
    }
}
