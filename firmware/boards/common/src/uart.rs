//! A serial port over whatever UART the chip has.
//!
//! Reception is by interrupt into a ring; transmission writes directly and asks for an interrupt only when the
//! transmitter is full, so that whoever waits can sleep.

use core::cell::RefCell;
use core::convert::Infallible;
use core::marker::PhantomData;

use critical_section::Mutex;
use embedded_io::{ErrorType, Read, ReadReady, Write, WriteReady};
use heapless::Deque;
use keyferry_firmware::protocol::link::rates::BASE;

use crate::wake;

/// Bytes the receive ring holds: more than the largest window a station may have in flight.
const RING_SIZE: usize = if cfg!(feature = "rsa-suites") {
    4_096
} else {
    2_048
};

/// Bytes that arrived and nobody has read.
static RING: Mutex<RefCell<Deque<u8, RING_SIZE>>> = Mutex::new(RefCell::new(Deque::new()));

/// A UART's registers. There is one UART, so these are functions and not methods; those that change enables are called
/// with interrupts masked.
pub trait Registers {
    /// Switches the UART on, at no rate yet, with the receive interrupt on and the transmit interrupt off.
    fn start();

    /// Runs the line at `rate`, in baud, from `before`, which is `None` at the start. Called when [`Self::has_room`];
    /// where the last byte may then still be on the wire, it waits for it.
    fn set_rate(rate: u32, before: Option<u32>);

    /// Takes a byte that arrived, if there is one.
    fn take() -> Option<u8>;

    /// Whether at least one byte can be sent now.
    fn has_room() -> bool;

    /// Sends as many of the bytes as go without waiting; at least one if [`Self::has_room`].
    fn send(bytes: &[u8]) -> usize;

    /// Whether a byte that arrives raises an interrupt.
    fn listens() -> bool;

    /// Has bytes that arrive raise an interrupt, or not.
    fn listen(on: bool);

    /// Has room to send raise an interrupt, or not.
    fn await_room(on: bool);
}

/// The UART. It owns the transmit side; the receive side is the ring that `on_receive` fills.
pub struct Uart<R> {
    /// In baud.
    rate: u32,
    registers: PhantomData<R>,
}

impl<R: Registers> Uart<R> {
    /// Switches the UART on. Called once, before its interrupts are unmasked.
    #[must_use]
    pub fn start() -> Self {
        R::set_rate(BASE, None);
        R::start();
        Self {
            rate: BASE,
            registers: PhantomData,
        }
    }

    /// Changes to this rate once the transmitter is empty, and says whether the line runs at it.
    pub(crate) fn follow(&mut self, rate: u32) -> bool {
        if rate != self.rate && R::has_room() {
            R::set_rate(rate, Some(self.rate));
            self.rate = rate;
        }
        rate == self.rate
    }
}

/// The UART's receive interrupt: moves what arrived into the ring.
///
/// When the ring is full the bytes stay in the UART and the interrupt goes off until somebody reads; on a real line
/// later bytes are then lost, and the frames' checks notice. QEMU waits instead.
pub fn on_receive<R: Registers>() {
    critical_section::with(|cs| {
        let mut ring = RING.borrow_ref_mut(cs);
        loop {
            if ring.is_full() {
                R::listen(false);
                break;
            }
            let Some(byte) = R::take() else { break };
            // The ring has room, see above.
            let _ = ring.push_back(byte);
        }
    });
}

/// The UART's transmit interrupt: whoever waited for room is awake now.
pub fn on_room<R: Registers>() {
    critical_section::with(|_| R::await_room(false));
}

impl<R> ErrorType for Uart<R> {
    /// The UART has no errors of its own: lost or changed bytes show in the frames.
    type Error = Infallible;
}

impl<R: Registers> ReadReady for Uart<R> {
    fn read_ready(&mut self) -> Result<bool, Self::Error> {
        Ok(critical_section::with(|cs| !RING.borrow_ref(cs).is_empty()))
    }
}

impl<R: Registers> Read for Uart<R> {
    /// Sleeps until at least one byte is there, then takes what is there and fits.
    fn read(&mut self, out: &mut [u8]) -> Result<usize, Self::Error> {
        if out.is_empty() {
            return Ok(0);
        }
        loop {
            wake::clear();
            let count = critical_section::with(|cs| {
                let mut ring = RING.borrow_ref_mut(cs);
                let received = core::iter::from_fn(|| ring.pop_front());
                let mut count = 0;
                for (byte, received) in out.iter_mut().zip(received) {
                    *byte = received;
                    count += 1;
                }
                count
            });
            if count > 0 {
                if !R::listens() {
                    // The ring was full. The bytes that waited in the UART may raise no second interrupt: take them now.
                    critical_section::with(|_| R::listen(true));
                    on_receive::<R>();
                }
                return Ok(count);
            }
            wake::sleep();
        }
    }
}

impl<R: Registers> WriteReady for Uart<R> {
    /// When it says no, an interrupt follows as soon as there is room.
    fn write_ready(&mut self) -> Result<bool, Self::Error> {
        if R::has_room() {
            return Ok(true);
        }
        critical_section::with(|_| R::await_room(true));
        // The room may have come before its interrupt was on.
        Ok(R::has_room())
    }
}

impl<R: Registers> Write for Uart<R> {
    /// Sleeps until at least one byte can go, then sends as many as go without waiting.
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Self::Error> {
        if bytes.is_empty() {
            return Ok(0);
        }
        loop {
            wake::clear();
            if self.write_ready()? {
                return Ok(R::send(bytes));
            }
            wake::sleep();
        }
    }

    /// Nothing to do: bytes are with the transmitter when `write` returns.
    fn flush(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }
}
