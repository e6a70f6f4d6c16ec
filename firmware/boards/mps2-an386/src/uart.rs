//! UART0, a CMSDK APB UART (Arm DDI 0479 §4.3): one byte of buffer each way, no FIFO.
//!
//! Reception is by interrupt into a ring; transmission writes directly and asks for an interrupt only when the
//! transmitter is full, so that whoever waits can sleep.

use core::cell::RefCell;
use core::convert::Infallible;

use critical_section::Mutex;
use embedded_io::{ErrorType, Read, ReadReady, Write, WriteReady};
use heapless::Deque;

use keyferry_firmware::protocol::link::rates::BASE;

use crate::interrupt;
use crate::mmio::Register;

/// Bytes the receive ring holds: more than the largest window a station may have in flight.
const RING_SIZE: usize = 4096;

/// Received byte, or byte to send.
const DATA: Register<0x4000_4000> = Register;
/// Buffer states.
const STATE: Register<0x4000_4004> = Register;
/// Enables.
const CONTROL: Register<0x4000_4008> = Register;
/// Pending interrupts; write ones to clear.
const INTERRUPT_STATUS: Register<0x4000_400c> = Register;
/// Clock cycles for each bit, at least 16.
const BAUD_DIVIDER: Register<0x4000_4010> = Register;

/// [`STATE`]: the transmit buffer is full.
const TX_FULL: u32 = 1 << 0;
/// [`STATE`]: a received byte waits.
const RX_FULL: u32 = 1 << 1;

/// [`CONTROL`]: the transmitter is on.
const TX_ENABLE: u32 = 1 << 0;
/// [`CONTROL`]: the receiver is on.
const RX_ENABLE: u32 = 1 << 1;
/// [`CONTROL`]: interrupt when a byte has left the transmit buffer.
const TX_INTERRUPT_ENABLE: u32 = 1 << 2;
/// [`CONTROL`]: interrupt when a byte arrives.
const RX_INTERRUPT_ENABLE: u32 = 1 << 3;

/// [`INTERRUPT_STATUS`]: transmit.
const TX_INTERRUPT: u32 = 1 << 0;
/// [`INTERRUPT_STATUS`]: receive.
const RX_INTERRUPT: u32 = 1 << 1;

/// Rates besides the base rate, in baud: the divider of a 25 MHz clock comes within 1 % of them, and is at least 16. QEMU passes bytes on
/// at any setting; a real board needs the right one.
pub const RATES: &[u32] = &[230_400, 460_800, 921_600, 1_500_000];

/// Bytes that arrived and nobody has read.
static RING: Mutex<RefCell<Deque<u8, RING_SIZE>>> = Mutex::new(RefCell::new(Deque::new()));

/// The UART. It owns the transmit side; the receive side is the ring that the interrupt fills.
pub struct Uart {
    /// In baud.
    rate: u32,
}

impl Uart {
    /// Switches the UART on. Called once, before interrupts 0 and 1 are unmasked.
    pub fn start() -> Self {
        let mut uart = Self { rate: 0 };
        uart.set_rate(BASE);
        INTERRUPT_STATUS.write(TX_INTERRUPT | RX_INTERRUPT);
        CONTROL.write(TX_ENABLE | RX_ENABLE | RX_INTERRUPT_ENABLE);
        // Half a byte from before a reset means nothing. And QEMU 7.2 looks for input only while the receiver is on, and does
        // not notice that it has been switched on: this read makes it look, or a device that was reset would stay deaf.
        let _ = DATA.read();
        uart
    }

    /// Runs the line at this rate, in baud. Called when the transmitter is empty.
    fn set_rate(&mut self, rate: u32) {
        self.rate = rate;
        BAUD_DIVIDER.write(crate::clock::FREQUENCY_HZ / rate);
    }

    /// Changes to this rate once the transmitter is empty, and says whether the line runs at it.
    pub(crate) fn run_at(&mut self, rate: u32) -> bool {
        if rate != self.rate && STATE.read() & TX_FULL == 0 {
            // The byte before may still be on the wire (DDI 0479 has no flag for that): give it time.
            let byte = crate::clock::FREQUENCY_HZ / self.rate * 11;
            cortex_m::asm::delay(byte);
            self.set_rate(rate);
        }
        rate == self.rate
    }
}

/// Sets and clears bits of [`CONTROL`], which interrupt handlers change as well.
fn change_control(set: u32, clear: u32) {
    critical_section::with(|_| CONTROL.write(CONTROL.read() & !clear | set));
}

/// Interrupt 0: moves what arrived into the ring.
///
/// When the ring is full the byte stays in the UART and the interrupt goes off until somebody reads; on a real line
/// later bytes are then lost, and the frames' checks notice. QEMU waits instead.
pub fn on_receive() {
    INTERRUPT_STATUS.write(RX_INTERRUPT);
    critical_section::with(|cs| {
        let mut ring = RING.borrow_ref_mut(cs);
        while STATE.read() & RX_FULL != 0 {
            if ring.is_full() {
                change_control(0, RX_INTERRUPT_ENABLE);
                break;
            }
            // DATA is 8 bits wide (DDI 0479 table 4-7). The ring has room, see above.
            let _ = ring.push_back(DATA.read() as u8);
        }
    });
}

/// Interrupt 1: room to transmit; whoever waited for it is awake now.
pub fn on_transmit() {
    INTERRUPT_STATUS.write(TX_INTERRUPT);
    change_control(0, TX_INTERRUPT_ENABLE);
}

impl ErrorType for Uart {
    /// The UART has no errors of its own: lost or changed bytes show in the frames.
    type Error = Infallible;
}

impl ReadReady for Uart {
    fn read_ready(&mut self) -> Result<bool, Self::Error> {
        Ok(critical_section::with(|cs| !RING.borrow_ref(cs).is_empty()))
    }
}

impl Read for Uart {
    /// Sleeps until at least one byte is there, then takes what is there and fits.
    fn read(&mut self, out: &mut [u8]) -> Result<usize, Self::Error> {
        if out.is_empty() {
            return Ok(0);
        }
        loop {
            interrupt::clear();
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
                if CONTROL.read() & RX_INTERRUPT_ENABLE == 0 {
                    // The ring was full. The byte that waited in the UART raises no second interrupt: take it now.
                    change_control(RX_INTERRUPT_ENABLE, 0);
                    on_receive();
                }
                return Ok(count);
            }
            interrupt::sleep();
        }
    }
}

impl WriteReady for Uart {
    /// When it says no, an interrupt follows as soon as there is room.
    fn write_ready(&mut self) -> Result<bool, Self::Error> {
        if STATE.read() & TX_FULL == 0 {
            return Ok(true);
        }
        change_control(TX_INTERRUPT_ENABLE, 0);
        // The buffer may have emptied before its interrupt was on.
        Ok(STATE.read() & TX_FULL == 0)
    }
}

impl Write for Uart {
    /// Sleeps until at least one byte can go, then sends as many as go without waiting.
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Self::Error> {
        if bytes.is_empty() {
            return Ok(0);
        }
        loop {
            interrupt::clear();
            if self.write_ready()? {
                break;
            }
            interrupt::sleep();
        }
        let mut count = 0;
        for byte in bytes {
            if STATE.read() & TX_FULL != 0 {
                break;
            }
            DATA.write(u32::from(*byte));
            count += 1;
        }
        Ok(count)
    }

    /// Nothing to do: bytes are with the transmitter when `write` returns.
    fn flush(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }
}
