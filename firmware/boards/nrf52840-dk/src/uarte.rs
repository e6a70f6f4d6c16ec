//! UARTE0 (nRF52840 product specification 1.8, 6.34) on the pins of the DK's USB bridge, without flow control: the link has its own.
//!
//! What arrives goes by DMA into two halves of a buffer in turn, also while the processor stands still for an erase. The peripheral
//! does not tell how far it is in a half, so each received byte also counts a timer on, through the programmable interconnect. A half
//! is longer than all that can arrive during one erase, so that its successor is always named in time.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use keyferry_board::uart::{Registers, on_receive, on_room};
use nrf52840_pac::{P0, PPI, TIMER1, UARTE0, timer0, uarte0};

/// Pins of port 0 (nRF52840 DK hardware user guide, "Virtual COM port").
const TXD: usize = 6;
const RXD: usize = 8;

/// Rates besides the base rate, in baud: those that the peripheral makes to within 1 % (6.34.9.21, BAUDRATE). It makes 921600 only to
/// within 2.1 %.
pub(crate) const RATES: &[u32] = &[230_400, 460_800];

/// Length of a half of the receive buffer in bytes.
const HALF: usize = 4096;
/// Longest erase in milliseconds (4.3.8.1, tERASEPAGE), and the highest rate.
const ERASE: usize = 85;
const _: () = assert!(HALF * 10 * 1000 / 460_800 > ERASE);

/// Most bytes that are sent at a time.
const SEND: usize = 256;

/// Memory that the peripheral reads or writes.
#[repr(C, align(4))]
struct Shared<const N: usize>(UnsafeCell<[u8; N]>);

// SAFETY: who may touch which part when is said where it is touched.
unsafe impl<const N: usize> Sync for Shared<N> {}

static RECEIVED: Shared<{ 2 * HALF }> = Shared(UnsafeCell::new([0; 2 * HALF]));
static SENT: Shared<SEND> = Shared(UnsafeCell::new([0; SEND]));

/// Bytes taken out of [`RECEIVED`] since the receiver was started. Like the timer's count, it wraps.
static TAKEN: AtomicU32 = AtomicU32::new(0);
/// Which half is next.
static SECOND: AtomicBool = AtomicBool::new(false);
/// [`SENT`] is with the peripheral.
static SENDING: AtomicBool = AtomicBool::new(false);

/// Interrupts (6.34.9.14, INTENSET).
const RXDRDY: u32 = 1 << 2;
const ENDTX: u32 = 1 << 8;
const ERROR: u32 = 1 << 9;
const RXSTARTED: u32 = 1 << 19;

fn uarte() -> &'static uarte0::RegisterBlock {
    // SAFETY: the registers are there as long as the chip is; this module alone uses them.
    unsafe { &*UARTE0::ptr() }
}

fn counter() -> &'static timer0::RegisterBlock {
    // SAFETY: as above.
    unsafe { &*TIMER1::ptr() }
}

/// Connects the pins, and has each received byte count the timer on. Called once, before [`Registers::start`].
pub(crate) fn connect(ports: &P0, ppi: &PPI, timer: &TIMER1, uarte: &UARTE0) {
    // SAFETY: values that the registers define. The addresses are those of an event and of a task.
    unsafe {
        ports.outset.write(|w| w.bits(1 << TXD));
        ports.pin_cnf[TXD].write(|w| w.dir().output().input().disconnect());
        ports.pin_cnf[RXD].write(|w| w.dir().input().input().connect().pull().pullup());
        uarte.psel.txd.write(|w| w.bits(TXD as u32));
        uarte.psel.rxd.write(|w| w.bits(RXD as u32));
        timer.mode.write(|w| w.mode().low_power_counter());
        timer.bitmode.write(|w| w.bitmode()._32bit());
        timer.tasks_start.write(|w| w.bits(1));
        ppi.ch[0]
            .eep
            .write(|w| w.bits(uarte.events_rxdrdy.as_ptr() as u32));
        ppi.ch[0]
            .tep
            .write(|w| w.bits(timer.tasks_count.as_ptr() as u32));
        ppi.chenset.write(|w| w.bits(1));
    }
}

/// Begins to receive, at the beginning of the first half.
fn receive() {
    // SAFETY: the buffer is static and nothing else writes it; the registers' values are as defined.
    unsafe {
        counter().tasks_clear.write(|w| w.bits(1));
        TAKEN.store(0, Ordering::Relaxed);
        SECOND.store(false, Ordering::Relaxed);
        name_half();
        uarte().shorts.write(|w| w.endrx_startrx().enabled());
        uarte().tasks_startrx.write(|w| w.bits(1));
    }
}

/// Names the half that is received into when the one under way is full.
fn name_half() {
    let second = SECOND.fetch_xor(true, Ordering::Relaxed);
    let start = RECEIVED.0.get() as usize + if second { HALF } else { 0 };
    // SAFETY: a half of the static buffer, and its length.
    unsafe {
        uarte().rxd.ptr.write(|w| w.bits(start as u32));
        uarte().rxd.maxcnt.write(|w| w.bits(HALF as u32));
    }
}

/// Stops receiving and begins again: after an error on the line nobody knows whether a byte was counted that is not in the buffer. Some
/// bytes are lost; the link has them sent again.
fn receive_again() {
    // SAFETY: tasks and events as defined; what is in the buffer is given up.
    unsafe {
        uarte().shorts.write(|w| w.bits(0));
        uarte().events_rxto.write(|w| w.bits(0));
        uarte().tasks_stoprx.write(|w| w.bits(1));
        // Five bytes' time at most (6.34.4), half a millisecond at the base rate.
        for _ in 0..100_000 {
            if uarte().events_rxto.read().bits() != 0 {
                break;
            }
        }
        uarte().events_rxstarted.write(|w| w.bits(0));
    }
    receive();
}

/// The peripheral's only interrupt.
pub(crate) fn on_interrupt() {
    let uarte = uarte();
    // SAFETY: zeros clear events, and ones the causes of errors.
    unsafe {
        if uarte.events_error.read().bits() != 0 {
            uarte.events_error.write(|w| w.bits(0));
            uarte
                .errorsrc
                .write(|w| w.bits(uarte.errorsrc.read().bits()));
            // What arrived before goes first.
            on_receive::<Uarte0>();
            receive_again();
        }
        if uarte.events_rxstarted.read().bits() != 0 {
            uarte.events_rxstarted.write(|w| w.bits(0));
            name_half();
        }
        if uarte.events_rxdrdy.read().bits() != 0 {
            uarte.events_rxdrdy.write(|w| w.bits(0));
            on_receive::<Uarte0>();
        }
        if uarte.events_endtx.read().bits() != 0 {
            uarte.events_endtx.write(|w| w.bits(0));
            SENDING.store(false, Ordering::Release);
            on_room::<Uarte0>();
        }
    }
}

/// The registers, as the shared driver sees them.
pub(crate) struct Uarte0;

impl Registers for Uarte0 {
    fn start() {
        uarte().enable.write(|w| w.enable().enabled());
        receive();
        // SAFETY: bits of the register that its table has.
        unsafe {
            uarte()
                .intenset
                .write(|w| w.bits(RXDRDY | ENDTX | ERROR | RXSTARTED));
        }
    }

    // All that was sent is on the wire when the transmitter has room again: the event comes with the end of the last byte.
    fn set_rate(rate: u32, _: Option<u32>) {
        uarte().baudrate.write(|w| match rate {
            230_400 => w.baudrate().baud230400(),
            460_800 => w.baudrate().baud460800(),
            // The base rate; the device asks for none but these.
            _ => w.baudrate().baud115200(),
        });
    }

    fn take() -> Option<u8> {
        // SAFETY: a task; its result is in the register at once.
        unsafe { counter().tasks_capture[0].write(|w| w.bits(1)) };
        let taken = TAKEN.load(Ordering::Relaxed);
        if counter().cc[0].read().bits() == taken {
            return None;
        }
        TAKEN.store(taken.wrapping_add(1), Ordering::Relaxed);
        let place = taken as usize % (2 * HALF);
        // SAFETY: in the buffer. The peripheral has written this byte, and comes back to it only when the whole other half has been
        // received: the link never has that much under way. Volatile, for the compiler does not see it written.
        Some(unsafe { RECEIVED.0.get().cast::<u8>().add(place).read_volatile() })
    }

    fn has_room() -> bool {
        !SENDING.load(Ordering::Acquire)
    }

    fn send(bytes: &[u8]) -> usize {
        if !Self::has_room() {
            return 0;
        }
        let count = bytes.len().min(SEND);
        if count == 0 {
            return 0;
        }
        SENDING.store(true, Ordering::Relaxed);
        // SAFETY: the peripheral is through with the buffer, and the interrupt does not touch it; it is static.
        unsafe {
            let buffer = SENT.0.get().cast::<u8>();
            buffer.copy_from_nonoverlapping(bytes.as_ptr(), count);
            // The bytes are in memory before the peripheral reads them.
            cortex_m::asm::dmb();
            uarte().txd.ptr.write(|w| w.bits(buffer as u32));
            uarte().txd.maxcnt.write(|w| w.bits(count as u32));
            uarte().tasks_starttx.write(|w| w.bits(1));
        }
        count
    }

    fn listens() -> bool {
        uarte().intenset.read().bits() & RXDRDY != 0
    }

    fn listen(on: bool) {
        // SAFETY: one bit of the register that its table has.
        unsafe {
            if on {
                uarte().intenset.write(|w| w.bits(RXDRDY));
            } else {
                uarte().intenclr.write(|w| w.bits(RXDRDY));
            }
        }
    }

    // The end of a transmission always interrupts.
    fn await_room(_: bool) {}
}
