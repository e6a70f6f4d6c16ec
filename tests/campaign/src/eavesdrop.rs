//! Listens at both ends of both directions with the shipped deframer, and compares: whatever a check lets through behind the
//! cable must be what was sent before it.

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

/// One direction.
#[derive(Default)]
struct Heard {
    before: Ear,
    behind: Ear,
}

/// What was sent in one session. None here is longer than the offsets go.
struct Session {
    nonce: u32,
    /// Once the device has said it.
    number: Option<u16>,
    /// By offset, for each way.
    sent: [Vec<u8>; 2],
}

/// All sessions, the last one last.
#[derive(Default)]
struct Sessions(Vec<Session>);

impl Sessions {
    /// The session that a frame belongs to.
    fn of(&mut self, fields: &Fields) -> Option<&mut Session> {
        let mut from_last = self.0.iter_mut().rev();
        match fields.parameters {
            Some(it) if !fields.has(flag::DEVICE) => from_last.find(|one| one.nonce == it.nonce),
            Some(_) | None => from_last.find(|one| one.number == Some(fields.session)),
        }
    }

    /// The session that a frame belongs to which an end has just sent; it may be the first of it.
    fn begun_by(&mut self, fields: &Fields) -> Option<&mut Session> {
        if let Some(parameters) = fields.parameters {
            let (nonce, device) = (parameters.nonce, fields.has(flag::DEVICE));
            let unanswered = |one: &&mut Session| one.nonce == nonce && one.number.is_none();
            if device && let Some(session) = self.0.iter_mut().find(unanswered) {
                session.number = Some(fields.session);
            } else if self.of(fields).is_none() {
                self.0.push(Session {
                    nonce,
                    number: device.then_some(fields.session),
                    sent: Default::default(),
                });
            }
        }
        self.of(fields)
    }
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
    sessions: Sessions,
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
        let (sessions, trace) = (&mut self.sessions, &mut self.trace);
        self.ways[place(way)].before.hear(bytes, |fields, data| {
            if let Some(trace) = trace {
                let words = format!("{} {}", arrow(way, false), tell(fields, data));
                line(trace, now, &words);
            }
            let Some(session) = sessions.begun_by(fields) else {
                return;
            };
            let stream = &mut session.sent[place(way)];
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
        let (sessions, tally, trace) = (&mut self.sessions, &mut self.tally, &mut self.trace);
        let damaged = self.ways[place(way)].behind.hear(bytes, |fields, data| {
            if let Some(trace) = trace {
                let words = format!("{} {}", arrow(way, true), tell(fields, data));
                line(trace, now, &words);
            }
            // What an end takes for its own echo, or for another session's, it drops.
            if fields.has(flag::DEVICE) != (way == Way::Up) {
                return;
            }
            let Some(session) = sessions.of(fields) else {
                return;
            };
            let stream = &session.sent[place(way)];
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
        for session in &self.sessions.0 {
            let mut rest = &session.sent[place(way)][..];
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
