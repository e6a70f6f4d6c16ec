//! How a line and the device at its end are made.

use super::injector::Injector;
use super::{Faults, MICROSECOND, MILLISECOND, Nanos, Way};

/// A line. The default has no adapter, no latency and no faults, and runs at 115200 baud.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Baud rate of the station's end at first.
    pub station_baud: u32,
    /// Baud rate of the device's end at first, and after a reset of a device that has no wish ([`super::Machine::baud`]).
    pub device_baud: u32,
    /// Nanoseconds from the station's write to the wire.
    pub down_latency: Nanos,
    /// Nanoseconds from the adapter, or from the wire if there is none, to the station's read.
    pub up_latency: Nanos,
    /// The USB adapter, if there is one.
    pub adapter: Option<Adapter>,
    /// Bytes that the station's operating system and adapter hold for sending.
    pub system_buffer: usize,
    /// What goes wrong.
    pub faults: Faults,
    /// Chooses among all the runs that these settings describe.
    pub seed: u64,
    /// The device's side.
    pub board: Board,
}

impl Settings {
    /// A rate that no port of a machine comes near: a line in real time that does not slow down what it carries.
    pub const UNPACED: u32 = 12_000_000;

    /// A line in real time with this pace and these faults.
    #[must_use]
    pub fn real_time(baud: u32, faults: Faults, seed: u64) -> Self {
        Self {
            station_baud: baud,
            device_baud: baud,
            faults,
            seed,
            board: Board {
                // The operating system's buffer on the device's side.
                transmit_ring: 4_096,
                ..Board::default()
            },
            ..Self::default()
        }
    }

    /// How many characters go before the first that noise changes, in the direction where that is sooner.
    #[must_use]
    pub fn unharmed(&self) -> u64 {
        let injector = Injector::new(&self.faults, self.seed);
        Way::ALL
            .map(|way| injector.unharmed(way))
            .into_iter()
            .min()
            .unwrap_or(u64::MAX)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            station_baud: 115_200,
            device_baud: 115_200,
            down_latency: 0,
            up_latency: 0,
            adapter: None,
            system_buffer: 4_096,
            faults: Faults::default(),
            seed: 0,
            board: Board::default(),
        }
    }
}

/// A USB adapter: bytes for the station wait in it until a packet is full or the latency timer has run out since the
/// first of them came. (FTDI AN232B-04 §3: 62 bytes beside two of status, 16 ms unless the host sets another value.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adapter {
    /// The latency timer, in nanoseconds.
    pub timer: Nanos,
    /// Bytes of a full packet.
    pub packet: usize,
}

impl Adapter {
    /// As it comes out of the box: 62 bytes, 16 ms.
    pub const SLOW: Self = Self {
        timer: 16 * MILLISECOND,
        packet: 62,
    };
    /// With the low-latency flag: 62 bytes, 1 ms.
    pub const FAST: Self = Self {
        timer: MILLISECOND,
        packet: 62,
    };
}

/// What stands between the wire and the device's main loop.
#[derive(Clone, Debug)]
pub struct Board {
    /// Bytes of the ring that the receive interrupt fills. What comes when it is full is lost.
    pub receive_ring: usize,
    /// Bytes that the transmitter takes before the main loop has to wait.
    pub transmit_ring: usize,
    /// Nanoseconds that one round of the main loop takes at the least.
    pub turn: Nanos,
    /// Nanoseconds from a reset to the first round of the main loop. What arrives meanwhile is lost.
    pub boot_time: Nanos,
    /// What a bootloader says at the beginning of that time, at the device's first baud rate.
    pub chatter: Vec<u8>,
}

impl Default for Board {
    fn default() -> Self {
        Self {
            receive_ring: 4_096,
            transmit_ring: 16,
            turn: 5 * MICROSECOND,
            boot_time: 50 * MILLISECOND,
            chatter: Vec::new(),
        }
    }
}
