//! The firmware on a board in an emulator.

use core::convert::Infallible;
use core::marker::PhantomData;

use defmt_semihosting as _;
use embedded_io::{Read, ReadReady, Write, WriteReady};
use keyferry_firmware::Platform as _;
use keyferry_firmware::device::{Device, Millis, Operations};
use keyferry_firmware::protocol::MAX_BLOB;

use crate::semihosting::{Semihosting, arguments};
use crate::turn::{Line, turn};
use crate::uart::{Registers, Uart};
use crate::{Board, Chip, Clock, tally, wake};

/// What the device can receive before it deals with it, and the longest frame it sends, in bytes. An image without RSA is for small
/// parts: it takes shorter orders, and its frames cost a little more of the line.
const RECEIVED: usize = if cfg!(feature = "rsa-suites") {
    MAX_BLOB
} else {
    1_536
};
const FRAME: usize = if cfg!(feature = "rsa-suites") {
    1_024
} else {
    512
};

/// Greets the log, and serves the line for ever.
pub fn serve<C: Chip + Clock, R: Registers>(chip: C, serial: Uart<R>) -> ! {
    let board = board(chip);
    defmt::info!(
        "keyferry {=str} on {=str}, device {=[u8]:02x}",
        board.description().firmware,
        board.description().board,
        board.device_id().0
    );
    let mut wire = Wire {
        serial,
        clock: PhantomData::<C>,
    };
    // On this stack, which is never left: a static cell would need room for the device twice while it moves there.
    let mut device: Device<_, RECEIVED, FRAME> = Device::new(board);
    let Ok(never) = turn(&mut wire, &mut device);
    match never {}
}

/// The board that the emulator's command line describes.
pub(crate) fn board<C: Chip>(chip: C) -> Board<C, Semihosting> {
    Board::new(chip, Semihosting, arguments())
}

/// The chip's serial port and its clock.
struct Wire<R, C> {
    serial: Uart<R>,
    clock: PhantomData<C>,
}

impl<R: Registers, C: Clock> Line for Wire<R, C> {
    type Error = Infallible;

    fn now(&self) -> Millis {
        C::now()
    }

    fn begin_turn(&mut self) {
        wake::clear();
    }

    fn has_received(&mut self) -> Result<bool, Infallible> {
        self.serial.read_ready()
    }

    fn receive(&mut self, bytes: &mut [u8]) -> Result<usize, Infallible> {
        self.serial.read(bytes)
    }

    fn follow(&mut self, rate: u32) -> bool {
        self.serial.follow(rate)
    }

    fn can_send(&mut self) -> Result<bool, Infallible> {
        self.serial.write_ready()
    }

    fn send(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        self.serial.write(bytes)
    }

    fn sleep(&mut self, deadline: Option<Millis>) -> Result<(), Infallible> {
        if let Some(deadline) = deadline {
            C::set_alarm(deadline);
        }
        wake::sleep();
        if deadline.is_some() {
            C::clear_alarm();
        }
        Ok(())
    }

    fn note(&mut self, operations: Operations) {
        tally::note(operations);
    }
}
