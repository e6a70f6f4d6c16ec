//! How much of the wire the link uses, in virtual time: the shipped state machines at both ends of a simulated cable, and what
//! older protocols make of the same cable. Nothing is derived: bytes are moved, and the clock is read.

mod reference;
mod session;
mod stream;

use keyferry_tests::line::{Adapter, Board, MILLISECOND, Nanos, Settings};

use crate::rows::Row;

/// A cable to measure on.
#[derive(Clone, Copy)]
struct Wire {
    baud: u32,
    latency: Latency,
}

/// What an answer waits for besides the wire.
#[derive(Clone, Copy)]
enum Latency {
    /// One millisecond from the last bit of a question to the first of its answer.
    Turnaround,
    /// The latency timer of a USB adapter as it comes out of the box, 16 ms, and the millisecond.
    Timer,
}

impl Wire {
    const fn name(self) -> &'static str {
        match self.latency {
            Latency::Turnaround => "1-ms-turnaround",
            Latency::Timer => "16-ms-timer",
        }
    }

    /// The simulated cable. `ring` bytes are received while the device's main loop is busy.
    fn settings(self, ring: usize) -> Settings {
        Settings {
            station_baud: self.baud,
            device_baud: self.baud,
            down_latency: MILLISECOND / 2,
            up_latency: MILLISECOND / 2,
            adapter: match self.latency {
                Latency::Turnaround => None,
                Latency::Timer => Some(Adapter::SLOW),
            },
            board: Board {
                receive_ring: ring,
                boot_time: 0,
                ..Board::default()
            },
            ..Settings::default()
        }
    }

    /// Time of so many bytes on the wire alone.
    fn time_of(self, bytes: usize) -> Nanos {
        bytes as u64 * 10 * 1_000_000_000 / u64::from(self.baud)
    }

    /// Share of the wire that these bytes of payload had in this time, in percent.
    fn used(self, bytes: usize, time: Nanos) -> f64 {
        100.0 * self.time_of(bytes) as f64 / time as f64
    }
}

/// The rows.
///
/// # Errors
/// If something does not arrive.
pub(crate) fn run() -> anyhow::Result<()> {
    stream::run()?;
    reference::run()?;
    session::run()?;
    Row::new(
        "link",
        "state-beside-the-buffers",
        "bytes",
        stream::STATE as f64,
    )
    .at_most(1_023.0)
    .print()
}
