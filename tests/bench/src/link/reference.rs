//! What older protocols make of the same cable: the same payload, the same clock.
//!
//! Each is as simple as its description: a station that sends a block and waits, a device that answers.
//! XMODEM-1K and YMODEM are those of Chuck Forsberg's "XMODEM/YMODEM Protocol Reference" (1988), chapters 4 to 7: blocks of 1024
//! bytes between three bytes and a CRC-16, the file's name and length in a block of 128 first, and an empty one at the end.

use anyhow::ensure;
use keyferry::device::port::Port;
use keyferry_firmware::device::Work;
use keyferry_protocol::link::Millis;
use keyferry_tests::line::{Machine, Nanos, SECOND, World};

use super::{Latency, Wire};
use crate::rows::Row;

const STREAM: usize = 64 * 1_024;
const MESSAGE: usize = 4_096;
const BLOCK: usize = 1_024;

/// One step of a protocol: bytes down, of which some are payload, then bytes up.
#[derive(Clone, Copy)]
struct Step {
    down: usize,
    payload: usize,
    up: usize,
}

/// The steps of a transfer.
type Protocol = fn(usize) -> Vec<Step>;

/// COBS frames as long as the block, with CRC-32 and sequence number, and an acknowledgement for each: what link version 0 was.
fn stop_and_wait(bytes: usize) -> Vec<Step> {
    // Header 9, check 4, two zeros, and a byte for each 254.
    let step = Step {
        down: BLOCK + 9 + 4 + 2 + 5,
        payload: BLOCK,
        up: 9 + 4 + 2 + 1,
    };
    vec![step; bytes / BLOCK]
}

fn xmodem_1k(bytes: usize) -> Vec<Step> {
    let block = Step {
        down: 3 + BLOCK + 2,
        payload: BLOCK,
        up: 1,
    };
    let mut steps = vec![block; bytes / BLOCK];
    // End of transmission.
    steps.push(Step {
        down: 1,
        payload: 0,
        up: 1,
    });
    steps
}

fn ymodem(bytes: usize) -> Vec<Step> {
    let header = |up| Step {
        down: 3 + 128 + 2,
        payload: 0,
        up,
    };
    let end = Step {
        down: 1,
        payload: 0,
        up: 1,
    };
    // The header is acknowledged, and the data asked for. The end is refused once, then acknowledged, and the next header asked
    // for.
    let mut steps = vec![header(2)];
    steps.extend(xmodem_1k(bytes));
    steps.extend([end, header(1)]);
    steps
}

/// A device that goes through the steps.
struct Answerer {
    steps: std::vec::IntoIter<Step>,
    now: Nanos,
    got: usize,
    waiting: usize,
    last: Nanos,
    zeros: [u8; 64],
}

impl Machine for Answerer {
    fn clock(&mut self, now: Nanos) {
        self.now = now;
    }

    fn receive(&mut self, bytes: &[u8], _: Millis) {
        self.got += bytes.len();
        while let Some(step) = self.steps.as_slice().first().copied()
            && self.got >= step.down
        {
            self.steps.next();
            self.got -= step.down;
            self.waiting += step.up;
            if step.payload > 0 {
                self.last = self.now;
            }
        }
    }

    fn work(&mut self, _: Millis) -> Work {
        if self.waiting > 0 {
            Work::More
        } else {
            Work::Idle(None)
        }
    }

    fn transmit(&mut self, _: Millis) -> &[u8] {
        &self.zeros[..self.waiting.min(64)]
    }

    fn transmitted(&mut self, count: usize, _: Millis) {
        self.waiting -= count;
    }
}

fn wait(port: &mut dyn Port, mut bytes: usize) -> anyhow::Result<()> {
    let mut buffer = [0; 64];
    while bytes > 0 {
        let until = port.now() + 1_000;
        let count = port.read(&mut buffer, until)?;
        ensure!(count > 0, "no answer");
        bytes -= count.min(bytes);
    }
    Ok(())
}

/// Time from the first byte to the last of the payload, and to the end of the transfer.
fn transfer(wire: Wire, steps: &[Step]) -> anyhow::Result<(Nanos, Nanos)> {
    let all = steps.to_vec();
    let world = World::new(&wire.settings(4_096), move |_| Answerer {
        steps: all.clone().into_iter(),
        now: 0,
        got: 0,
        waiting: 0,
        last: 0,
        zeros: [0; 64],
    });
    let mut port = world.port();
    let begin = world.now();
    for step in steps {
        let block = vec![0x55; step.down];
        let mut rest = &block[..];
        while !rest.is_empty() {
            let count = port.write(rest)?;
            rest = &rest[count..];
            if count == 0 {
                let until = port.now() + 1;
                port.read(&mut [], until)?;
            }
        }
        wait(&mut *port, step.up)?;
        ensure!(world.now() < begin + 600 * SECOND, "it does not arrive");
    }
    let last = world.machine(|device| device.last).unwrap_or_default();
    Ok((last - begin, world.now() - begin))
}

pub(super) fn run() -> anyhow::Result<()> {
    let protocols: [(&str, Protocol); 3] = [
        ("stop-and-wait", stop_and_wait),
        ("xmodem-1k", xmodem_1k),
        ("ymodem", ymodem),
    ];
    for (baud, latency) in [
        (115_200, Latency::Turnaround),
        (921_600, Latency::Turnaround),
        (115_200, Latency::Timer),
    ] {
        let wire = Wire { baud, latency };
        for (name, steps) in protocols {
            let (last, _) = transfer(wire, &steps(STREAM))?;
            let (_, end) = transfer(wire, &steps(MESSAGE))?;
            let place = format!("{baud}/{}/{name}", wire.name());
            let stream = wire.used(STREAM, last);
            Row::new("link", format!("stream-64k/{place}"), "percent", stream).print()?;
            let message = wire.used(MESSAGE, end);
            let case = format!("message-4k-and-answer/{place}");
            Row::new("link", case, "percent", message).print()?;
        }
    }
    Ok(())
}
