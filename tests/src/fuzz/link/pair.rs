//! Both ends of the link against each other.

use keyferry_protocol::link::{Event, Link, Millis};

use super::wire::{Wire, carry};
use super::{Device, Input, Station};

/// Longest wait for a clean line to deliver all: [`keyferry_protocol::link::SILENCE`] until an end that was cut off notices, and
/// more than the bytes of all messages take.
const PATIENCE: Millis = 60_000;

/// The application's half at one end: what it has sent and what it expects.
#[derive(Default)]
struct Book {
    /// Which of its own sessions it is, as its messages say.
    epoch: u16,
    /// Messages sent in it.
    sent: u16,
    /// The other end's epoch, once a message of this session came.
    peer: Option<u16>,
    /// Messages received in this session.
    received: u16,
    /// The message that is arriving.
    partial: Vec<u8>,
    /// Whether it does not look at what has come.
    asleep: bool,
}

/// The content of a message: who sent it, in which session, at which place, and bytes that follow from that.
fn content(from: u8, epoch: u16, place: u16, length: usize) -> Vec<u8> {
    let mut bytes = vec![from];
    bytes.extend(epoch.to_le_bytes());
    bytes.extend(place.to_le_bytes());
    let seed = usize::from(from) + usize::from(epoch) * 7 + usize::from(place) * 31;
    // Zeros among them: they are what COBS is about.
    bytes.extend((0..length).map(|at| {
        let mixed = (seed + at).wrapping_mul(0x9e37_79b1) >> 11;
        if mixed % 5 == 0 { 0 } else { mixed as u8 }
    }));
    bytes
}

impl Book {
    /// A new session begins.
    fn renew(&mut self) {
        *self = Self {
            epoch: self.epoch + 1,
            asleep: self.asleep,
            ..Self::default()
        };
    }

    /// Sends the next message, if there is room.
    fn send<const RX: usize, const TX: usize, const OUT: usize>(
        &mut self,
        end: &mut Link<RX, TX, OUT>,
        from: u8,
        length: usize,
    ) {
        let message = content(from, self.epoch, self.sent, length);
        if end.send(&message).is_ok() {
            self.sent += 1;
        }
    }

    /// Takes what has come: it must be what the other end has sent next.
    fn look<const RX: usize, const TX: usize, const OUT: usize>(
        &mut self,
        end: &mut Link<RX, TX, OUT>,
        peer: &Self,
        from: u8,
    ) {
        while !self.asleep
            && let Some(front) = end.front()
        {
            assert_eq!(front.consumed, self.partial.len());
            self.partial.extend(front.bytes);
            let (count, whole) = (front.bytes.len(), front.is_complete());
            end.consume(count);
            if !whole {
                break;
            }
            let message = std::mem::take(&mut self.partial);
            let epoch = message
                .get(1..3)
                .and_then(|bytes| bytes.try_into().ok())
                .map(u16::from_le_bytes)
                .expect("no message is shorter than its head");
            let expected = content(from, epoch, self.received, message.len() - 5);
            assert!(message == expected, "what was delivered was never sent");
            assert!(
                *self.peer.get_or_insert(epoch) == epoch,
                "two sessions mixed"
            );
            self.received += 1;
            assert!(epoch < peer.epoch || self.received <= peer.sent);
        }
    }
}

/// Both ends and the line between.
struct Pair {
    now: Millis,
    station: Station,
    device: Device,
    down: Wire,
    up: Wire,
    at_station: Book,
    at_device: Book,
    /// Sessions that the station opened.
    sessions: u32,
    /// Devices that there were.
    devices: u16,
}

/// Who sends.
const STATION: u8 = 0x51;
const DEVICE: u8 = 0xd1;

impl Pair {
    fn new() -> Self {
        let mut pair = Self {
            now: 0,
            station: Station::new(),
            device: Device::offering(0, 0),
            down: Wire::default(),
            up: Wire::default(),
            at_station: Book::default(),
            at_device: Book::default(),
            sessions: 0,
            devices: 1,
        };
        pair.open();
        pair
    }

    /// The station opens a session, as it does after it has lost one.
    fn open(&mut self) {
        self.sessions += 1;
        self.at_station.renew();
        self.station
            .open(self.sessions.wrapping_mul(0x0101_0101), self.now);
        // What the line repeats is what has just passed, never a whole session.
        self.down.twice.clear();
        self.down.twice_left = 0;
        self.at_station.send(&mut self.station, STATION, 8);
    }

    /// Lets a millisecond pass.
    fn step(&mut self) {
        let arrived = self.down.arrived(self.now);
        self.device.receive(&arrived, self.now);
        match self.device.event() {
            Some(Event::Opened) => self.at_device.renew(),
            Some(Event::Reset | Event::Lost) | None => {}
        }
        self.at_device
            .look(&mut self.device, &self.at_station, STATION);
        let arrived = self.up.arrived(self.now);
        self.station.receive(&arrived, self.now);
        let over = matches!(self.station.event(), Some(Event::Reset | Event::Lost));
        if over {
            self.open();
        }
        self.at_station
            .look(&mut self.station, &self.at_device, DEVICE);
        carry(&mut self.station, &mut self.down, self.now);
        carry(&mut self.device, &mut self.up, self.now);
        self.now += 1;
    }

    /// One thing that the fuzzer wants.
    fn act(&mut self, input: &mut Input<'_>) {
        let (what, much) = (input.byte(), input.byte());
        let count = usize::from(much);
        let upwards = what & 0x10 != 0;
        let now = self.now;
        let wire = if upwards {
            &mut self.up
        } else {
            &mut self.down
        };
        match what & 0x0f {
            0 => wire.drop += count,
            1 => wire.flip.push_back((count, 1 << (what >> 5))),
            2 => {
                // Shorter than any frame, or the line would be an adversary.
                for byte in input.bytes(count % 12) {
                    wire.push(*byte, now);
                }
            }
            3 => wire.twice_left = count,
            4 => wire.latency = Millis::from(much),
            5 if upwards => self.at_device.send(&mut self.device, DEVICE, count * 2),
            5 => self.at_station.send(&mut self.station, STATION, count * 2),
            6 if upwards => {
                // Far from where the one before can have come to.
                self.device = Device::offering(0, self.devices.wrapping_mul(0x0200));
                self.devices += 1;
                self.at_device.asleep = false;
            }
            6 => {
                self.station = Station::new();
                self.open();
            }
            7 if upwards => self.at_device.asleep = !self.at_device.asleep,
            7 => self.at_station.asleep = !self.at_station.asleep,
            8 => self.step_for(Millis::from(much) * 16),
            9 if count < 8 => {
                self.station.close();
                self.step_for(10);
                self.open();
            }
            _ => self.step_for(Millis::from(much) / 4 + 1),
        }
    }

    fn step_for(&mut self, time: Millis) {
        for _ in 0..time {
            self.step();
        }
    }

    /// The line is clean and nobody sleeps: all that was sent in the session that is open arrives, and so does what is sent
    /// afterwards.
    fn settle(&mut self) {
        self.down.heal();
        self.up.heal();
        self.at_station.asleep = false;
        self.at_device.asleep = false;
        let deadline = self.now + PATIENCE;
        while !self.is_settled() {
            assert!(self.now < deadline, "a clean line does not deliver");
            self.step();
        }
        let (sent, received) = (self.at_station.sent, self.at_device.sent);
        self.at_station.send(&mut self.station, STATION, 300);
        self.at_device.send(&mut self.device, DEVICE, 300);
        assert_eq!(
            (self.at_station.sent, self.at_device.sent),
            (sent + 1, received + 1),
            "an idle end has room"
        );
        let deadline = self.now + 2_000;
        while !self.is_settled() {
            assert!(self.now < deadline, "a clean line is slow");
            self.step();
        }
    }

    /// Whether both ends are in the same session, and have all of it.
    fn is_settled(&self) -> bool {
        self.at_device.peer == Some(self.at_station.epoch)
            && self.at_device.received == self.at_station.sent
            && self.at_station.received == self.at_device.sent
            && self.station.idle()
            && self.device.idle()
            // One that was restarted is idle too; the station is told once it says something.
            && self.device.is_open()
    }
}

/// Both ends against each other. The input says what happens.
pub(in crate::fuzz) fn pair(data: &[u8]) -> bool {
    // Enough for anything to happen, and little enough to be fast.
    let mut input = Input(data.get(..256).unwrap_or(data));
    let mut pair = Pair::new();
    let sessions = pair.sessions;
    let something = !input.is_empty();
    while !input.is_empty() {
        pair.act(&mut input);
    }
    pair.settle();
    // Whether the first session has lived through it.
    something && pair.sessions == sessions
}

/// What may happen, one thing after the other, and none of it ends the session.
pub(in crate::fuzz) fn seeds() -> Vec<Vec<u8>> {
    let send_and_wait = [5, 60, 0x15, 60, 15, 255];
    let bad = [
        0x20, 9, 0x21, 40, 2, 5, 1, 2, 3, 4, 5, 3, 80, 0x10, 7, 0x11, 90, 4, 20,
    ];
    let slow = [0x17, 0, 5, 250, 5, 250, 8, 20, 0x17, 0, 8, 3];
    vec![
        send_and_wait.to_vec(),
        [&send_and_wait[..], &bad, &send_and_wait, &bad].concat(),
        [&slow[..], &bad, &slow].concat(),
    ]
}
