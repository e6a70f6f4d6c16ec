//! The link alone: long streams of random messages both ways at once, through two links over a bad line. Every message that comes
//! out is compared with the one that went in.
//!
//! Each session has its own messages, known from the run's seed, the session's tag and the message's place. The first message of
//! the station is the tag. When the device is reset, the station opens a new session, with a new tag, and both begin anew.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use keyferry_firmware::device::Work;
use keyferry_protocol::link::{Event, Link, Millis};
use keyferry_tests::line::{Counts, Machine, Nanos, Way, World};

use crate::plan::{Dice, Length, Plan, UP, settings};

/// So many messages each way have more bytes than the offsets of the link count, on most runs: these wrap around.
pub const LONG: u32 = 60;

/// Longest message in bytes: twice the device's receive memory.
const LONGEST: u64 = 4_096;

/// Virtual milliseconds after which a run counts as hung.
const LIMIT: Millis = 20 * 60 * 1000;

/// Longest wait while the port has no room, in milliseconds.
const TURN: Millis = 5;

/// Purpose of the dice that make messages.
const CONTENTS: u64 = 4;

/// The device's end, with 2 KiB of receive memory as a board has it.
type DeviceLink = Link<2_048, 2_112, 640>;

/// The station's end, as the host has it.
type StationLink = Link<16_384, 16_384, 4_096>;

/// What became of one run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// Messages that came out right.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Messages that came out otherwise than they went in.
    pub wrong: u64,
    /// It did not come to an end.
    pub hung: bool,
    /// Sessions that were opened.
    pub sessions: u64,
    /// Nanoseconds until both ends had everything.
    pub time: Nanos,
    /// What the line did.
    pub counts: Counts,
}

/// What both ends are to say, and what has come out.
struct Script {
    seed: u64,
    number: u64,
    /// Tags of the sessions so far.
    tags: Vec<u32>,
    /// How many messages each end has in a session.
    planned: u32,
    messages: u64,
    bytes: u64,
    wrong: u64,
}

impl Script {
    /// The message at this place of the session with this tag.
    fn message(&self, tag: u32, way: Way, place: u32) -> Vec<u8> {
        let side = match way {
            Way::Down => 0,
            Way::Up => 1,
        };
        let which = u64::from(tag) << 32 | u64::from(place) << 1 | side;
        let mut dice = Dice::new(self.seed ^ self.number.rotate_left(24), which, CONTENTS);
        // Short and long ones; and often many zeros, which the frames have to hide.
        let longest = [40, 300, LONGEST][dice.below(3) as usize];
        let mut message = vec![0; 1 + dice.below(longest) as usize];
        if !dice.in_a_hundred(10) {
            dice.fill(&mut message);
        }
        message
    }

    fn check(&mut self, right: bool, bytes: usize) {
        if right {
            self.messages += 1;
            self.bytes += bytes as u64;
        } else {
            self.wrong += 1;
        }
    }
}

type Shared = Arc<Mutex<Script>>;

fn lock(script: &Shared) -> MutexGuard<'_, Script> {
    script.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What one end has sent and got in this session.
#[derive(Default)]
struct Progress {
    /// Place of the message that is going out, and what of it the link has taken.
    sent: u32,
    outgoing: Option<(Vec<u8>, usize)>,
    /// Place of the message that is coming in, and what of it has come.
    got: u32,
    incoming: Vec<u8>,
}

impl Progress {
    /// Hands messages to the link as far as it takes them.
    fn send<const RX: usize, const TX: usize, const OUT: usize>(
        &mut self,
        link: &mut Link<RX, TX, OUT>,
        script: &Shared,
        tag: u32,
        way: Way,
    ) {
        let planned = lock(script).planned;
        while self.sent < planned {
            let (message, taken) = match &mut self.outgoing {
                Some(outgoing) => outgoing,
                none => {
                    let message = lock(script).message(tag, way, self.sent);
                    // A message of which the link cannot take the first byte yet waits.
                    if link.begin(message.len() as u16).is_err() {
                        return;
                    }
                    none.insert((message, 0))
                }
            };
            *taken += link.write(&message[*taken..]);
            if *taken < message.len() {
                return;
            }
            self.outgoing = None;
            self.sent += 1;
        }
    }

    /// Takes what has come; gives each message that is whole to `whole`, with its place.
    fn take<const RX: usize, const TX: usize, const OUT: usize>(
        &mut self,
        link: &mut Link<RX, TX, OUT>,
        mut whole: impl FnMut(u32, &[u8]),
    ) {
        while let Some(front) = link.front() {
            let (count, last) = (front.bytes.len(), front.is_complete());
            self.incoming.extend_from_slice(front.bytes);
            link.consume(count);
            if !last {
                return;
            }
            whole(self.got, &self.incoming);
            self.got += 1;
            self.incoming.clear();
        }
    }
}

/// The device's end.
struct Far {
    link: DeviceLink,
    script: Shared,
    tag: Option<u32>,
    progress: Progress,
}

impl Far {
    fn new(script: Shared, number: u16) -> Self {
        Self {
            link: Link::offering(0, number),
            script,
            tag: None,
            progress: Progress::default(),
        }
    }

    fn go_on(&mut self) {
        if self.link.event().is_some() {
            self.tag = None;
            self.progress = Progress::default();
        }
        let Self {
            link,
            script,
            tag,
            progress,
        } = self;
        progress.take(link, |place, message| {
            let mut script = lock(script);
            let right = match (place.checked_sub(1), *tag) {
                (None, _) => {
                    *tag = <[u8; 4]>::try_from(message).ok().map(u32::from_le_bytes);
                    tag.is_some_and(|tag| script.tags.contains(&tag))
                }
                (Some(place), Some(tag)) => message == script.message(tag, Way::Down, place),
                (Some(_), None) => false,
            };
            script.check(right, message.len());
        });
        if let Some(tag) = *tag {
            progress.send(link, script, tag, Way::Up);
        }
    }
}

impl Machine for Far {
    fn receive(&mut self, bytes: &[u8], now: Millis) {
        self.link.receive(bytes, now);
        self.go_on();
    }

    fn work(&mut self, now: Millis) -> Work {
        self.go_on();
        if self.link.transmit(now).is_empty() {
            Work::Idle(self.link.deadline())
        } else {
            Work::More
        }
    }

    fn transmit(&mut self, now: Millis) -> &[u8] {
        self.go_on();
        self.link.transmit(now)
    }

    fn transmitted(&mut self, count: usize, now: Millis) {
        self.link.transmitted(count, now);
    }
}

/// The run with this number, of so many messages each way, on a line with these faults.
///
/// # Panics
/// If the port fails, which this line's does not.
#[must_use]
pub fn run(plan: &Plan, seed: u64, number: u64, messages: u32) -> Outcome {
    let mut dice = Dice::new(seed, number, 3);
    let script = Arc::new(Mutex::new(Script {
        seed,
        number,
        tags: Vec::new(),
        planned: messages,
        messages: 0,
        bytes: 0,
        wrong: 0,
    }));
    let far = Arc::clone(&script);
    let settings = settings(plan.faults.clone(), dice.any());
    let mut starts = Dice::new(seed, number, 6);
    let world = World::new(&settings, move |_| {
        Far::new(Arc::clone(&far), starts.any() as u16)
    });
    world.pass(UP);
    for reset in &plan.resets {
        world.reset_after(*reset);
    }
    let begun = world.now();
    let mut near = Near {
        link: Box::new(Link::new()),
        script: Arc::clone(&script),
        dice,
        progress: Progress::default(),
        sessions: 0,
        tag: 0,
    };
    let hung = !near.talk(&world);
    let script = lock(&script);
    Outcome {
        messages: script.messages,
        bytes: script.bytes,
        wrong: script.wrong,
        hung,
        sessions: near.sessions,
        time: world.now() - begun,
        counts: world.counts(),
    }
}

/// The station's end.
struct Near {
    link: Box<StationLink>,
    script: Shared,
    dice: Dice,
    progress: Progress,
    sessions: u64,
    tag: u32,
}

impl Near {
    fn open(&mut self, now: Millis) {
        self.sessions += 1;
        self.tag = self.dice.any() as u32;
        lock(&self.script).tags.push(self.tag);
        self.progress = Progress::default();
        self.link.open(self.tag, now);
        // A link that has just been opened takes a short message.
        let _ = self.link.send(&self.tag.to_le_bytes());
    }

    /// Runs until both ends have everything, or something came out wrong; says whether it came to an end.
    fn talk(&mut self, world: &World<Far>) -> bool {
        let mut port = world.port();
        let mut buffer = [0; 4_096];
        self.open(port.now());
        loop {
            if self.go_on(world) {
                return true;
            }
            let now = port.now();
            if now > LIMIT {
                return false;
            }
            let mut until = self.link.deadline().unwrap_or(now).min(LIMIT + 1);
            loop {
                let waiting = self.link.transmit(now);
                if waiting.is_empty() {
                    break;
                }
                let count = port.write(waiting).expect("the cable is in");
                if count == 0 {
                    until = until.min(now + TURN);
                    break;
                }
                self.link.transmitted(count, now);
            }
            if let Some(Event::Reset | Event::Lost | Event::Opened) = self.link.event() {
                self.open(now);
                continue;
            }
            let count = port.read(&mut buffer, until).expect("the cable is in");
            self.link.receive(&buffer[..count], port.now());
            if let Some(Event::Reset | Event::Lost | Event::Opened) = self.link.event() {
                self.open(port.now());
            }
        }
    }

    /// Takes and gives messages; says whether the run is over.
    fn go_on(&mut self, world: &World<Far>) -> bool {
        let (script, tag) = (&self.script, self.tag);
        self.progress.take(&mut *self.link, |place, message| {
            let mut script = lock(script);
            let right = message == script.message(tag, Way::Up, place);
            script.check(right, message.len());
        });
        self.progress.send(&mut *self.link, script, tag, Way::Down);
        if lock(script).wrong > 0 {
            return true;
        }
        let all = lock(script).planned;
        let Progress { sent, got, .. } = self.progress;
        sent == all
            && got == all
            && self.link.idle()
            // The tag came before.
            && world.machine(|far| far.tag == Some(tag) && far.progress.got == all + 1) == Some(true)
    }
}

/// The plan of the run with this number, of so many messages each way.
#[must_use]
pub fn plan(seed: u64, number: u64, messages: u32, ber: f64) -> Plan {
    // Faults are laid within about what a run without faults puts on the wire.
    let each = u64::from(messages) * 1_000;
    let length = Length {
        down: each,
        up: each,
    };
    Plan::draw(&mut Dice::new(seed, number, 5), ber, length)
}
