//! The main loop of a board: it carries bytes between the line and the device, has the device work, and sleeps when there is nothing to
//! do. It knows neither what kind of line there is nor whether the board is emulated.

use core::convert::Infallible;

use keyferry_firmware::Platform;
use keyferry_firmware::device::{Device, Millis, Operations, Work};
use keyferry_firmware::protocol::MAX_BLOB;

/// What the device can receive before it deals with it, in bytes. An image without RSA is for small
/// parts: it takes shorter orders, and its frames cost a little more of the line.
pub const RECEIVED: usize = if cfg!(feature = "rsa-suites") {
    MAX_BLOB
} else {
    1_536
};
/// The longest frame that it sends, in bytes.
pub const FRAME: usize = if cfg!(feature = "rsa-suites") {
    1_024
} else {
    512
};

/// Bytes handed to the device at a time.
const CHUNK: usize = 256;

/// The line and the clock of one device.
pub trait Line {
    /// Why the loop ends.
    type Error;

    /// Milliseconds since any fixed moment, from a clock that never goes back.
    fn now(&self) -> Millis;

    /// Begins a turn: whatever happens after this keeps the loop from sleeping at the turn's end.
    fn begin_turn(&mut self);

    /// Whether bytes have arrived.
    ///
    /// # Errors
    /// [`Self::Error`] if the line is no more.
    fn has_received(&mut self) -> Result<bool, Self::Error>;

    /// Takes what has arrived and fits into `bytes`, and gives its length. Never waits for more.
    ///
    /// # Errors
    /// [`Self::Error`] if the line is no more.
    fn receive(&mut self, bytes: &mut [u8]) -> Result<usize, Self::Error>;

    /// Changes to this rate, in baud, when what was sent is on the wire, and says whether the line runs at it.
    fn follow(&mut self, rate: u32) -> bool;

    /// Whether bytes can be sent now. After a no, the end of that ends a sleep.
    ///
    /// # Errors
    /// [`Self::Error`] if the line is no more.
    fn can_send(&mut self) -> Result<bool, Self::Error>;

    /// Sends as many of `bytes` as there is room for, and gives their number.
    ///
    /// # Errors
    /// [`Self::Error`] if the line is no more.
    fn send(&mut self, bytes: &[u8]) -> Result<usize, Self::Error>;

    /// Sleeps until something happens on the line, or until `deadline`; not at all if it has happened in this turn.
    ///
    /// # Errors
    /// [`Self::Error`] if the line is no more.
    fn sleep(&mut self, deadline: Option<Millis>) -> Result<(), Self::Error>;

    /// Looks at what the device has done so far.
    fn note(&mut self, operations: Operations) {
        let _ = operations;
    }
}

/// Turns the crank, for ever.
///
/// # Errors
/// Those of the line.
pub fn turn<L: Line, P: Platform, const RX: usize, const OUT: usize>(
    line: &mut L,
    device: &mut Device<P, RX, OUT>,
) -> Result<Infallible, L::Error> {
    let mut chunk = [0; CHUNK];
    loop {
        line.begin_turn();
        if line.has_received()? {
            let count = line.receive(&mut chunk)?;
            device.receive(&chunk[..count], line.now());
        }
        let work = device.work(line.now());
        line.note(device.operations());

        let sends = !device.transmit(line.now()).is_empty();
        if line.follow(device.rate()) && sends && line.can_send()? {
            let now = line.now();
            let count = line.send(device.transmit(now))?;
            device.transmitted(count, line.now());
            // What went out may have made room for more work.
            continue;
        }
        match work {
            Work::More => {}
            // More had arrived than one chunk takes.
            Work::Idle(_) if line.has_received()? => {}
            Work::Idle(deadline) => line.sleep(deadline)?,
        }
    }
}
