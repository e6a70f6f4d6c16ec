//! The device's end of a session: requests in, replies out. (Under construction; the interface is fixed.)

use crate::Platform;

/// Milliseconds since any fixed moment, from a clock that never goes back.
pub type Millis = u64;

/// What the board should do after [`Device::work`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Send what [`Device::transmit`] gives, feed what arrived, and call again at once.
    More,
    /// Nothing to do before bytes arrive or, where given, the clock reaches this value.
    Idle(Option<Millis>),
}

/// A device.
pub struct Device<P: Platform> {
    platform: P,
}

impl<P: Platform> Device<P> {
    /// Opens the key store and gets ready for a station. Never fails: what is wrong shows in the greeting.
    pub fn new(platform: P) -> Self {
        Self { platform }
    }

    /// Takes bytes from the line.
    pub fn receive(&mut self, bytes: &[u8], now: Millis) {
        let _ = (bytes, now, &mut self.platform);
    }

    /// Does one bounded piece of work.
    pub fn work(&mut self, now: Millis) -> Work {
        let _ = now;
        Work::Idle(None)
    }

    /// Bytes that wait to be sent.
    pub fn transmit(&mut self, now: Millis) -> &[u8] {
        let _ = now;
        &[]
    }

    /// Says that the first `count` bytes of [`Self::transmit`] have gone out.
    pub fn transmitted(&mut self, count: usize) {
        let _ = count;
    }
}
