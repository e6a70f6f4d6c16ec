//! Listens at both ends of both directions with the shipped deframer, and compares: whatever a check lets through behind the
//! cable must be what was sent before it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use keyferry_protocol::link::frame::{Deframed, Deframer, Fields, Sink, flag};
use keyferry_tests::line::{MILLISECOND, Nanos, Way};

/// Collects the data of a frame.
#[derive(Default)]
struct Data(Vec<u8>);

impl Sink for Data {
    fn put(&mut self, _offset: u16, byte: u8) {
        self.0.push(byte);
    }
}

/// One place where somebody listens.
#[derive(Default)]
struct Ear {
    deframer: Deframer,
    data: Data,
}

impl Ear {
    /// Gives each good frame with its data to `frame`, and says how often something was damaged.
    fn hear(&mut self, bytes: &[u8], mut frame: impl FnMut(&Fields, &[u8])) -> usize {
        let mut damaged = 0;
        for byte in bytes {
            match self.deframer.feed(*byte, &mut self.data) {
                Deframed::Nothing => continue,
                Deframed::Damaged => damaged += 1,
                Deframed::Frame(fields, length) => {
                    // A frame that was cut short by a zero may have left bytes of its own before.
                    let start = self.data.0.len().saturating_sub(usize::from(length));
                    frame(&fields, &self.data.0[start..]);
                }
            }
            self.data.0.clear();
        }
        damaged
    }
}

/// What was sent one way in one session, by offset. No session here is longer than the offsets go.
type Streams = BTreeMap<u16, Vec<u8>>;

/// One direction.
#[derive(Default)]
struct Heard {
    before: Ear,
    behind: Ear,
    sent: Streams,
}

/// What has come through the cable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Bytes of data in frames that passed the check behind the cable.
    pub passed: u64,
    /// Those of them that were not sent so.
    pub wrong: u64,
}

/// Somebody who listens.
#[derive(Default)]
pub struct Eavesdropper {
    ways: [Heard; 2],
    tally: Tally,
    /// What was heard, for people; `None`: nobody wants to know.
    trace: Option<String>,
}

impl Eavesdropper {
    /// One that also writes down every frame.
    #[must_use]
    pub fn tracing() -> Self {
        Self {
            trace: Some(String::new()),
            ..Self::default()
        }
    }

    /// What was written down.
    pub fn take_trace(&mut self) -> String {
        self.trace.take().unwrap_or_default()
    }

    /// Writes something down among the frames.
    pub fn note(&mut self, now: Nanos, words: &str) {
        if let Some(trace) = &mut self.trace {
            line(trace, now, words);
        }
    }

    /// What has come through so far.
    #[must_use]
    pub const fn tally(&self) -> Tally {
        self.tally
    }

    /// The device was restarted: what it was sending or hearing is cut.
    pub fn restarted(&mut self, now: Nanos) {
        self.ways[place(Way::Down)].behind = Ear::default();
        self.ways[place(Way::Up)].before = Ear::default();
        self.note(now, "-- the device starts");
    }

    /// An end hands these bytes to the cable.
    pub fn sends(&mut self, way: Way, bytes: &[u8], now: Nanos) {
        let Heard { before, sent, .. } = &mut self.ways[place(way)];
        let trace = &mut self.trace;
        before.hear(bytes, |fields, data| {
            if let Some(trace) = trace {
                let words = format!("{} {}", arrow(way, false), tell(fields, data));
                line(trace, now, &words);
            }
            let stream = sent.entry(fields.session).or_default();
            let start = usize::from(fields.offset);
            let end = start + data.len();
            if stream.len() < end {
                stream.resize(end, 0);
            }
            stream[start..end].copy_from_slice(data);
        });
    }

    /// An end gets these bytes from the cable.
    pub fn gets(&mut self, way: Way, bytes: &[u8], now: Nanos) {
        let Heard { behind, sent, .. } = &mut self.ways[place(way)];
        let (tally, trace) = (&mut self.tally, &mut self.trace);
        let damaged = behind.hear(bytes, |fields, data| {
            if let Some(trace) = trace {
                let words = format!("{} {}", arrow(way, true), tell(fields, data));
                line(trace, now, &words);
            }
            // What an end takes for its own echo, or for another session's, it drops.
            if fields.has(flag::DEVICE) != (way == Way::Up) {
                return;
            }
            let Some(stream) = sent.get(&fields.session) else {
                return;
            };
            for (offset, byte) in (usize::from(fields.offset)..).zip(data) {
                tally.passed += 1;
                tally.wrong += u64::from(stream.get(offset) != Some(byte));
            }
        });
        for _ in 0..damaged {
            let words = format!("{} (damaged)", arrow(way, true));
            self.note(now, &words);
        }
    }

    /// The messages that an end has sent, session by session: a last one may be cut.
    #[must_use]
    pub fn messages(&self, way: Way) -> Vec<Vec<u8>> {
        let mut messages = Vec::new();
        for stream in self.ways[place(way)].sent.values() {
            let mut rest = &stream[..];
            while let Some((prefix, after)) = rest.split_first_chunk() {
                let length = usize::from(u16::from_le_bytes(*prefix));
                let Some((message, after)) = after.split_at_checked(length) else {
                    break;
                };
                messages.push(message.to_vec());
                rest = after;
            }
        }
        messages
    }
}

const fn place(way: Way) -> usize {
    match way {
        Way::Down => 0,
        Way::Up => 1,
    }
}

/// From the station to the device points right.
const fn arrow(way: Way, behind: bool) -> &'static str {
    match (way, behind) {
        (Way::Down, false) => "station |->          ",
        (Way::Down, true) => "              ->| device",
        (Way::Up, false) => "              <-| device",
        (Way::Up, true) => "station |<-          ",
    }
}

fn line(trace: &mut String, now: Nanos, words: &str) {
    // A string takes everything.
    let _ = writeln!(
        trace,
        "{:>12.3} ms  {words}",
        now as f64 / MILLISECOND as f64
    );
}

fn tell(fields: &Fields, data: &[u8]) -> String {
    let mut words = format!("{:04x}", fields.session);
    for (bit, name) in [
        (flag::OPEN, "OPEN"),
        (flag::RESET, "RESET"),
        (flag::PING, "PING"),
        (flag::DAMAGED, "DAMAGED"),
    ] {
        if fields.has(bit) {
            let _ = write!(words, " {name}");
        }
    }
    if !data.is_empty() || fields.has(flag::PING) {
        let end = usize::from(fields.offset) + data.len();
        let _ = write!(words, " #{} {}..{end}", fields.number, fields.offset);
    }
    let Fields {
        acknowledgement,
        heard,
        credit,
        ..
    } = fields;
    let _ = write!(
        words,
        " ack {acknowledgement} heard {heard} credit {credit}"
    );
    for (start, end) in fields.held.as_slice() {
        let _ = write!(words, " held {start}..{end}");
    }
    words
}
