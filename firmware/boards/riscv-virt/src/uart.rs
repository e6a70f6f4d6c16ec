//! UART0, an NS16550A without its FIFOs, as it is after a reset: one byte each way (National Semiconductor PC16550D datasheet, section 8,
//! "Registers").
//!
//! With FIFOs, QEMU 7.2 has a timer for bytes that wait in them. The notice that its main loop has to look at that timer gets lost where
//! the processor programs flash at that moment; the timer then stays the first in the queue, where no later alarm gives notice, and the
//! device is deaf for good.

use keyferry_board::uart::{Registers, on_receive, on_room};

use crate::mmio::Register;

/// Received byte, or byte to send; with [`DIVIDER_ACCESS`], the divider's low byte.
const DATA: Register<u8, 0x1000_0000> = Register::new();
/// Interrupt enables; with [`DIVIDER_ACCESS`], the divider's high byte.
const INTERRUPT_ENABLE: Register<u8, 0x1000_0001> = Register::new();
/// How a byte looks on the line.
const LINE_CONTROL: Register<u8, 0x1000_0003> = Register::new();
/// What arrived and what left.
const LINE_STATUS: Register<u8, 0x1000_0005> = Register::new();

/// [`INTERRUPT_ENABLE`]: a byte arrived.
const RX_INTERRUPT: u8 = 1 << 0;
/// [`INTERRUPT_ENABLE`]: the transmit buffer is empty.
const TX_INTERRUPT: u8 = 1 << 1;

/// [`LINE_CONTROL`]: 8 data bits, no parity, 1 stop bit.
const EIGHT_N_ONE: u8 = 0x03;
/// [`LINE_CONTROL`]: the first two registers are the divider.
const DIVIDER_ACCESS: u8 = 1 << 7;

/// [`LINE_STATUS`]: a received byte waits.
const RX_READY: u8 = 1 << 0;
/// [`LINE_STATUS`]: the transmit buffer is empty.
const TX_EMPTY: u8 = 1 << 5;
/// [`LINE_STATUS`]: the transmit buffer and the shift register are empty.
const TX_IDLE: u8 = 1 << 6;

/// The UART's clock in hertz, as the board's device tree says.
const FREQUENCY_HZ: u32 = 3_686_400;
/// Clock cycles for each bit and step of the divider.
const OVERSAMPLING: u32 = 16;

/// Rates besides the base rate, in baud: those that the clock can make. QEMU passes bytes on at any setting; a real board
/// needs the right one.
pub const RATES: &[u32] = &[230_400];

/// The UART's registers, as the shared driver sees them.
pub struct Ns16550;

/// The UART's only interrupt line: moves what arrived, and wakes who waited for room.
pub fn on_interrupt() {
    on_receive::<Ns16550>();
    if Ns16550::has_room() {
        on_room::<Ns16550>();
    }
}

/// Sets or clears a bit of [`INTERRUPT_ENABLE`].
fn change_enable(bit: u8, on: bool) {
    let enables = INTERRUPT_ENABLE.read();
    INTERRUPT_ENABLE.write(if on { enables | bit } else { enables & !bit });
}

impl Registers for Ns16550 {
    fn start() {
        INTERRUPT_ENABLE.write(RX_INTERRUPT);
    }

    fn set_rate(rate: u32, before: Option<u32>) {
        if before.is_some() {
            while LINE_STATUS.read() & TX_IDLE == 0 {}
        }
        let [low, high, ..] = (FREQUENCY_HZ / OVERSAMPLING / rate).to_le_bytes();
        // What these addresses are changes in between: no interrupt may come.
        critical_section::with(|_| {
            LINE_CONTROL.write(EIGHT_N_ONE | DIVIDER_ACCESS);
            DATA.write(low);
            INTERRUPT_ENABLE.write(high);
            LINE_CONTROL.write(EIGHT_N_ONE);
        });
    }

    fn take() -> Option<u8> {
        (LINE_STATUS.read() & RX_READY != 0).then(|| DATA.read())
    }

    fn has_room() -> bool {
        LINE_STATUS.read() & TX_EMPTY != 0
    }

    fn send(bytes: &[u8]) -> usize {
        let mut count = 0;
        for byte in bytes {
            if !Self::has_room() {
                break;
            }
            DATA.write(*byte);
            count += 1;
        }
        count
    }

    fn listens() -> bool {
        INTERRUPT_ENABLE.read() & RX_INTERRUPT != 0
    }

    fn listen(on: bool) {
        change_enable(RX_INTERRUPT, on);
    }

    fn await_room(on: bool) {
        change_enable(TX_INTERRUPT, on);
    }
}
