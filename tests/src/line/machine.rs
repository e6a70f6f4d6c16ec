//! The device at the far end of a line.

use keyferry_firmware::Platform;
use keyferry_firmware::device::{Device, Operations, Work};
use keyferry_protocol::link::Millis;

use super::Nanos;

/// What a board's main loop drives: the shape of [`Device`]. `now` counts from the device's last start.
pub trait Machine: Send {
    /// The world's time, before each round of the main loop, for whoever measures finer than the device.
    fn clock(&mut self, _now: Nanos) {}

    /// Takes bytes from the line.
    fn receive(&mut self, bytes: &[u8], now: Millis);

    /// Does one bounded piece of work.
    fn work(&mut self, now: Millis) -> Work;

    /// Nanoseconds that the last piece of work took. Meanwhile the main loop does nothing else.
    fn cost(&mut self) -> Nanos {
        0
    }

    /// Bytes that wait to be sent.
    fn transmit(&mut self, now: Millis) -> &[u8];

    /// The first `count` bytes of [`Self::transmit`] are in the transmitter.
    fn transmitted(&mut self, count: usize, now: Millis);

    /// The baud rate it wants. The board changes to it when the transmitter is empty. `None`: the board's own.
    fn baud(&self) -> Option<u32> {
        None
    }
}

impl<P: Platform + Send> Machine for Device<P>
where
    P::Flash: Send,
{
    fn receive(&mut self, bytes: &[u8], now: Millis) {
        Device::receive(self, bytes, now);
    }

    fn work(&mut self, now: Millis) -> Work {
        Device::work(self, now)
    }

    fn transmit(&mut self, now: Millis) -> &[u8] {
        Device::transmit(self, now)
    }

    fn transmitted(&mut self, count: usize, now: Millis) {
        Device::transmitted(self, count, now);
    }

    fn baud(&self) -> Option<u32> {
        Some(self.rate())
    }
}

/// A device whose private-key operations take their time.
pub struct Priced<P: Platform> {
    /// The device.
    pub device: Device<P>,
    /// Nanoseconds of one private-key operation.
    pub operation: Nanos,
    /// Nanoseconds that all operations since start took.
    pub computed: Nanos,
    counted: u64,
}

impl<P: Platform> Priced<P> {
    /// The device with this price.
    pub const fn new(device: Device<P>, operation: Nanos) -> Self {
        Self {
            device,
            operation,
            computed: 0,
            counted: 0,
        }
    }
}

impl<P: Platform + Send> Machine for Priced<P>
where
    P::Flash: Send,
{
    fn receive(&mut self, bytes: &[u8], now: Millis) {
        self.device.receive(bytes, now);
    }

    fn work(&mut self, now: Millis) -> Work {
        self.device.work(now)
    }

    fn cost(&mut self) -> Nanos {
        let Operations {
            unwrap,
            receipt,
            voucher,
            proof,
            status,
        } = self.device.operations();
        let all = [unwrap, receipt, voucher, proof, status];
        let count = all.into_iter().map(u64::from).sum();
        let new = count - self.counted;
        self.counted = count;
        let cost = new * self.operation;
        self.computed += cost;
        cost
    }

    fn transmit(&mut self, now: Millis) -> &[u8] {
        self.device.transmit(now)
    }

    fn transmitted(&mut self, count: usize, now: Millis) {
        self.device.transmitted(count, now);
    }

    fn baud(&self) -> Option<u32> {
        Some(self.device.rate())
    }
}
