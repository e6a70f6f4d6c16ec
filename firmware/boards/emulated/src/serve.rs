//! The firmware on a board in an emulator.

use defmt_semihosting as _;
use keyferry_firmware::Platform as _;
use keyferry_firmware::device::Device;

use crate::semihosting::{Semihosting, arguments};
use crate::{Board, Chip, tally};
use keyferry_board::Clock;
use keyferry_board::turn::{FRAME, RECEIVED, turn};
use keyferry_board::uart::{Registers, Uart};
use keyferry_board::wire::Wire;

/// Greets the log, and serves the line for ever.
pub fn serve<C: Chip + Clock, R: Registers>(chip: C, serial: Uart<R>) -> ! {
    let board = board(chip);
    defmt::info!(
        "keyferry {=str} on {=str}, device {=[u8]:02x}",
        board.description().firmware,
        board.description().board,
        board.device_id().0
    );
    let mut wire = Wire::<_, C>::new(serial, tally::note);
    // On this stack, which is never left: a static cell would need room for the device twice while it moves there.
    let mut device: Device<_, RECEIVED, FRAME> = Device::new(board);
    let Ok(never) = turn(&mut wire, &mut device);
    match never {}
}

/// The board that the emulator's command line describes.
pub(crate) fn board<C: Chip>(chip: C) -> Board<C, Semihosting> {
    Board::new(chip, Semihosting, arguments())
}
