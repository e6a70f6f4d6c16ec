//! A stream of messages, and one message with its answer, between two links.

use anyhow::{Context as _, bail, ensure};
use keyferry::device::port::Port;
use keyferry_firmware::device::Work;
use keyferry_protocol::link::{Event, Link, Millis};
use keyferry_tests::line::{Machine, Nanos, SECOND, World};

use super::{Latency, Wire};
use crate::rows::Row;

/// Bytes of the device's memory for receiving that the interrupt needs; the link has the rest.
const RING: usize = 64;
/// A device with 2 KiB for receiving, and one with 4.
const SMALL: usize = 2_048 - RING;
const LARGE: usize = 4_096 - RING;

/// What a device has for sending: its unacknowledged bytes, and one frame.
const TRANSMIT: usize = 2_112;
const FRAME: usize = 640;

/// RAM of the small device's state machine beside its buffers, in bytes.
pub(super) const STATE: usize = Link::<SMALL, TRANSMIT, FRAME>::STATE;

type Station = Link<16_384, 16_384, 4_096>;

/// The stream is 64 messages of a kibibyte.
const STREAM: usize = 64 * 1_024;
const PIECE: usize = 1_024;
/// The message with an answer.
const MESSAGE: usize = 4_096;

const ANSWER: &[u8] = b"done";

/// A byte of the payload.
fn payload(index: usize) -> u8 {
    (index * 31 % 251) as u8
}

/// A device that takes everything at once, checks it, and answers when it has `wanted` bytes.
struct Taker<const RX: usize> {
    link: Link<RX, TRANSMIT, FRAME>,
    now: Nanos,
    wanted: usize,
    got: usize,
    wrong: usize,
    last: Nanos,
}

impl<const RX: usize> Taker<RX> {
    fn new(wanted: usize) -> Self {
        Self {
            link: Link::new(),
            now: 0,
            wanted,
            got: 0,
            wrong: 0,
            last: 0,
        }
    }
}

impl<const RX: usize> Machine for Taker<RX> {
    fn clock(&mut self, now: Nanos) {
        self.now = now;
    }

    fn receive(&mut self, bytes: &[u8], now: Millis) {
        self.link.receive(bytes, now);
        if self.link.event() == Some(Event::Opened) {
            self.got = 0;
        }
        while let Some(front) = self.link.front().filter(|front| !front.bytes.is_empty()) {
            let count = front.bytes.len();
            // The first message opens the session, and is not part of the payload.
            if front.length > 1 {
                for (index, byte) in (self.got..).zip(front.bytes) {
                    self.wrong += usize::from(*byte != payload(index));
                }
                self.got += count;
                self.last = self.now;
            }
            self.link.consume(count);
            if self.got == self.wanted {
                // It has room for its only answer.
                let _ = self.link.send(ANSWER);
            }
        }
    }

    fn work(&mut self, now: Millis) -> Work {
        if self.link.transmit(now).is_empty() {
            Work::Idle(self.link.deadline())
        } else {
            Work::More
        }
    }

    fn transmit(&mut self, now: Millis) -> &[u8] {
        self.link.transmit(now)
    }

    fn transmitted(&mut self, count: usize, now: Millis) {
        self.link.transmitted(count, now);
    }
}

/// What happened, in nanoseconds since the first byte of payload was handed to the port.
struct Times {
    delivered: Nanos,
    answered: Nanos,
}

/// Writes what the link has and reads what has come or comes before its deadline.
fn turn(link: &mut Station, port: &mut dyn Port) -> anyhow::Result<()> {
    let mut left = false;
    loop {
        let now = port.now();
        let bytes = link.transmit(now);
        if bytes.is_empty() {
            break;
        }
        let count = port.write(bytes)?;
        if count == 0 {
            left = true;
            break;
        }
        link.transmitted(count, now);
    }
    let deadline = link.deadline().unwrap_or(Millis::MAX);
    let until = if left { port.now() + 1 } else { deadline };
    let mut buffer = [0; 4_096];
    let count = port.read(&mut buffer, until)?;
    link.receive(&buffer[..count], port.now());
    match link.event() {
        None => Ok(()),
        Some(event) => bail!("the session ended: {event:?}"),
    }
}

/// Sends `all` bytes in messages of `piece` over a clean cable, and waits for the answer.
fn send<const RX: usize>(wire: Wire, all: usize, piece: usize) -> anyhow::Result<Times> {
    let world = World::new(&wire.settings(RING), move |_| Taker::<RX>::new(all));
    let mut port = world.port();
    let mut link = Box::new(Station::new());
    link.set_rate(wire.baud);
    link.open(1, port.now());
    link.send(b"!")?;
    while !link.idle() {
        turn(&mut link, &mut *port)?;
    }

    let begin = world.now();
    let bytes: Vec<u8> = (0..all).map(payload).collect();
    let mut messages = bytes.chunks(piece);
    let mut rest: &[u8] = &[];
    let mut more = true;
    let answered = loop {
        while rest.is_empty() && more && link.room_to_write() > 0 {
            match messages.next() {
                Some(message) => {
                    link.begin(u16::try_from(message.len())?)?;
                    rest = message;
                }
                None => more = false,
            }
            rest = &rest[link.write(rest)..];
        }
        rest = &rest[link.write(rest)..];
        if let Some(front) = link.front().filter(|front| front.is_complete()) {
            ensure!(front.bytes == ANSWER, "another answer");
            break world.now();
        }
        turn(&mut link, &mut *port)?;
        ensure!(world.now() < begin + 60 * SECOND, "it does not arrive");
    };
    let (got, wrong, last) = world
        .machine(|taker| (taker.got, taker.wrong, taker.last))
        .context("no device")?;
    ensure!(got == all && wrong == 0, "{got} bytes, {wrong} wrong");
    Ok(Times {
        delivered: last - begin,
        answered: answered - begin,
    })
}

fn rows<const RX: usize>(wire: Wire, stream: f64, message: f64) -> anyhow::Result<()> {
    let memory = RX + RING;
    let end = format!("{}/{}/{memory}-byte-device", wire.baud, wire.name());
    let times = send::<RX>(wire, STREAM, PIECE)?;
    Row::new(
        "link",
        format!("stream-64k/{end}"),
        "percent",
        wire.used(STREAM, times.delivered),
    )
    .at_least(stream)
    .print()?;
    let times = send::<RX>(wire, MESSAGE, MESSAGE)?;
    Row::new(
        "link",
        format!("message-4k-and-answer/{end}"),
        "percent",
        wire.used(MESSAGE, times.answered),
    )
    .at_least(message)
    .print()
}

pub(super) fn run() -> anyhow::Result<()> {
    let wire = |baud, latency| Wire { baud, latency };
    rows::<SMALL>(wire(115_200, Latency::Turnaround), 97.0, 95.0)?;
    rows::<LARGE>(wire(921_600, Latency::Turnaround), 97.0, 95.0)?;
    rows::<SMALL>(wire(115_200, Latency::Timer), 97.0, 92.0)
}
