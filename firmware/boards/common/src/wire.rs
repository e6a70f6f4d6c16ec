//! A bare board's serial port and clock, as the main loop sees them.

use core::convert::Infallible;
use core::marker::PhantomData;

use embedded_io::{Read as _, ReadReady as _, Write as _, WriteReady as _};
use keyferry_firmware::device::{Millis, Operations};

use crate::turn::Line;
use crate::uart::{Registers, Uart};
use crate::{Clock, wake};

/// The serial port, and a clock.
pub struct Wire<R, C> {
    serial: Uart<R>,
    clock: PhantomData<C>,
    note: fn(Operations),
}

impl<R: Registers, C: Clock> Wire<R, C> {
    /// The two; `note` is told what the device has done so far, in each turn.
    #[must_use]
    pub fn new(serial: Uart<R>, note: fn(Operations)) -> Self {
        Self {
            serial,
            clock: PhantomData,
            note,
        }
    }
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
        (self.note)(operations);
    }
}
