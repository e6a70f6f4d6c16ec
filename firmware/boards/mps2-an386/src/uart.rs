//! UART0, a CMSDK APB UART (Arm DDI 0479 §4.3): one byte of buffer each way, no FIFO.

use keyferry_board::uart::Registers;

use crate::mmio::Register;

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

/// The UART's registers, as the shared driver sees them.
pub struct Cmsdk;

/// Interrupt 0 is being handled.
pub fn acknowledge_receive() {
    INTERRUPT_STATUS.write(RX_INTERRUPT);
}

/// Interrupt 1 is being handled.
pub fn acknowledge_transmit() {
    INTERRUPT_STATUS.write(TX_INTERRUPT);
}

/// Sets and clears bits of [`CONTROL`].
fn change_control(bits: u32, on: bool) {
    let control = CONTROL.read();
    CONTROL.write(if on { control | bits } else { control & !bits });
}

impl Registers for Cmsdk {
    fn start() {
        INTERRUPT_STATUS.write(TX_INTERRUPT | RX_INTERRUPT);
        CONTROL.write(TX_ENABLE | RX_ENABLE | RX_INTERRUPT_ENABLE);
        // Half a byte from before a reset means nothing. And QEMU 7.2 looks for input only while the receiver is on, and does
        // not notice that it has been switched on: this read makes it look, or a device that was reset would stay deaf.
        let _ = DATA.read();
    }

    fn set_rate(rate: u32, before: Option<u32>) {
        if let Some(before) = before {
            // The byte before may still be on the wire (DDI 0479 has no flag for that): give it time.
            cortex_m::asm::delay(crate::clock::FREQUENCY_HZ / before * 11);
        }
        BAUD_DIVIDER.write(crate::clock::FREQUENCY_HZ / rate);
    }

    fn take() -> Option<u8> {
        // DATA is 8 bits wide (DDI 0479 table 4-7).
        (STATE.read() & RX_FULL != 0).then(|| DATA.read() as u8)
    }

    fn has_room() -> bool {
        STATE.read() & TX_FULL == 0
    }

    fn send(bytes: &[u8]) -> usize {
        let mut count = 0;
        for byte in bytes {
            if !Self::has_room() {
                break;
            }
            DATA.write(u32::from(*byte));
            count += 1;
        }
        count
    }

    fn listens() -> bool {
        CONTROL.read() & RX_INTERRUPT_ENABLE != 0
    }

    fn listen(on: bool) {
        change_control(RX_INTERRUPT_ENABLE, on);
    }

    fn await_room(on: bool) {
        change_control(TX_INTERRUPT_ENABLE, on);
    }
}
