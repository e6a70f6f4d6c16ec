//! The interrupts: which ones, and who handles them.

use cortex_m::Peripherals;
use cortex_m::interrupt::InterruptNumber;
use cortex_m::peripheral::NVIC;
use cortex_m_rt::exception;
use keyferry_board::uart::{on_receive, on_room};
use keyferry_board::{panic, wake};

use crate::uart::Cmsdk;
use crate::{clock, uart};

/// The interrupts in use (Arm DAI 0386, interrupt assignments).
#[derive(Clone, Copy)]
enum Line {
    /// UART 0 received a byte.
    UartReceive = 0,
    /// UART 0 has room to transmit.
    UartTransmit = 1,
    /// CMSDK timer 0 reached zero.
    Timer0 = 8,
    /// CMSDK timer 1 reached zero.
    Timer1 = 9,
}

impl Line {
    /// All of them.
    const ALL: [Self; 4] = [
        Self::UartReceive,
        Self::UartTransmit,
        Self::Timer0,
        Self::Timer1,
    ];
}

// SAFETY: each number is that of one interrupt of this board and never changes.
unsafe impl InterruptNumber for Line {
    fn number(self) -> u16 {
        self as u16
    }
}

/// How urgent the interrupts are: less than a fault, so that one in their handlers has its own handler, too.
const PRIORITY: u8 = 0x80;

/// Lets the interrupts through. Called once, when the peripherals are set up.
pub fn enable(core: &mut Peripherals) {
    for line in Line::ALL {
        // SAFETY: no critical section relies on priorities: all mask all interrupts.
        unsafe { core.NVIC.set_priority(line, PRIORITY) };
        // SAFETY: no code relies on these interrupts being masked for more than a critical section, which masks them all.
        unsafe { NVIC::unmask(line) };
    }
}

/// How many interrupts the vector table has places for: up to the last in use. None after it is ever unmasked.
const PLACES: usize = Line::Timer1 as usize + 1;

unsafe extern "C" {
    /// The symbol of the handler below.
    #[link_name = "DefaultHandler"]
    fn default_handler();
}

/// The vector table after the exceptions (Armv7-M Architecture Reference Manual, B1.5.3). Not the one of `cortex-m-rt`, which has all 240
/// places that the architecture knows.
// SAFETY: the section is the one that the linker script of `cortex-m-rt` places behind the exceptions, and the name its own.
#[unsafe(link_section = ".vector_table.interrupts")]
#[unsafe(no_mangle)]
static __INTERRUPTS: [unsafe extern "C" fn(); PLACES] = [default_handler; PLACES];

/// Every interrupt arrives here: the vector table holds this handler in all places.
#[exception]
// SAFETY: the handler touches shared state only inside critical sections and through atomics.
unsafe fn DefaultHandler(number: i16) {
    wake::note();
    match number {
        0 => {
            uart::acknowledge_receive();
            on_receive::<Cmsdk>();
        }
        1 => {
            uart::acknowledge_transmit();
            on_room::<Cmsdk>();
        }
        8 => clock::on_wrap(),
        9 => clock::on_alarm(),
        _ => panic::arm::unexpected_interrupt(number),
    }
}
