//! Finds the frames and messages in recorded bytes.
//!
//! It looks at the line as the station saw it: what the station wrote may never have arrived. Both directions are put together as
//! their receivers would, so that a message is told once, when its last byte is there, however its frames came.

use keyferry_protocol::link::Millis;
use keyferry_protocol::link::frame::{Deframed, Deframer, Fields, Sink, flag};

use super::{Record, To, What};

/// How many bytes of damage are kept to be shown.
const SHOWN: usize = 32;

/// Offsets of a stream wrap around here.
const OFFSETS: usize = 1 << 16;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A whole frame.
    Frame {
        /// Milliseconds since the port was opened, when its last byte passed.
        ms: Millis,
        /// Where it went.
        to: To,
        /// Its length on the line in bytes, without the zeros around it.
        length: usize,
        /// What it says.
        fields: Box<Fields>,
        /// How many bytes of data it has.
        data: u16,
        /// Whether all its data had passed before.
        again: bool,
    },
    /// Bytes that are no frame: damage, or the text of a bootloader.
    Damaged {
        /// When their end passed.
        ms: Millis,
        /// Where they went.
        to: To,
        /// How many there were, without the zeros around them.
        length: usize,
        /// The first of them, at most 32.
        start: Vec<u8>,
    },
    /// A whole message.
    Message {
        /// When its last byte passed.
        ms: Millis,
        /// Where it went.
        to: To,
        /// Its bytes.
        bytes: Vec<u8>,
    },
    /// The station changed its rate.
    Baud {
        /// When.
        ms: Millis,
        /// Bits per second.
        baud: u32,
    },
    /// The port failed.
    Gone {
        /// When.
        ms: Millis,
        /// What the operating system said.
        reason: String,
    },
}

/// Takes a recording apart.
pub struct Decoder {
    to_device: Direction,
    to_station: Direction,
    /// The nonce of the session whose opening was recorded last.
    nonce: Option<u32>,
    /// The number that the device gave it.
    session: Option<u16>,
}

/// Bytes between two zeros, as they come.
struct Direction {
    deframer: Deframer,
    data: Data,
    length: usize,
    start: Vec<u8>,
    stream: Stream,
}

/// The data of a frame, until it is known whether it is one.
#[derive(Default)]
struct Data(Vec<u8>);

impl Sink for Data {
    fn put(&mut self, _offset: u16, byte: u8) {
        if self.0.len() < OFFSETS {
            self.0.push(byte);
        }
    }
}

/// One direction of a session: bytes in their order, and messages.
struct Stream {
    /// The offset that comes next.
    next: u16,
    /// What has come beyond it, by its offset.
    beyond: Vec<Option<u8>>,
    /// Of the message at the front, its length first.
    message: Vec<u8>,
}

impl Stream {
    fn new() -> Self {
        Self {
            next: 0,
            beyond: vec![None; OFFSETS],
            message: Vec::new(),
        }
    }

    /// Takes a frame's data; says whether any of it is new.
    fn take(&mut self, offset: u16, data: &[u8], messages: &mut Vec<Vec<u8>>) -> bool {
        let mut new = false;
        let mut at = offset;
        for byte in data {
            // Half of the offsets lie ahead, half have passed.
            let ahead = at.wrapping_sub(self.next).cast_signed() >= 0;
            if ahead && let Some(place) = self.beyond.get_mut(usize::from(at)) {
                new |= place.is_none();
                // What is held is kept, whatever comes after.
                place.get_or_insert(*byte);
            }
            at = at.wrapping_add(1);
        }
        while let Some(byte) = self
            .beyond
            .get_mut(usize::from(self.next))
            .and_then(Option::take)
        {
            self.next = self.next.wrapping_add(1);
            self.message.push(byte);
            if let Some((length, message)) = self.message.split_first_chunk::<2>()
                && message.len() == usize::from(u16::from_le_bytes(*length))
            {
                if !message.is_empty() {
                    messages.push(message.to_vec());
                }
                self.message.clear();
            }
        }
        new
    }
}

impl Direction {
    fn new() -> Self {
        Self {
            deframer: Deframer::new(),
            data: Data::default(),
            length: 0,
            start: Vec::new(),
            stream: Stream::new(),
        }
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// Nothing has been recorded.
    #[must_use]
    pub fn new() -> Self {
        Self {
            to_device: Direction::new(),
            to_station: Direction::new(),
            nonce: None,
            session: None,
        }
    }

    /// Takes the next record, and gives what is complete with it.
    #[must_use]
    pub fn take(&mut self, record: Record) -> Vec<Item> {
        let ms = record.ms;
        match record.what {
            What::Baud(baud) => vec![Item::Baud { ms, baud }],
            What::Gone(reason) => vec![Item::Gone { ms, reason }],
            What::Bytes { to, bytes } => {
                let mut items = Vec::new();
                for byte in bytes {
                    self.byte(ms, to, byte, &mut items);
                }
                items
            }
        }
    }

    /// Tells of what has begun and not ended in each direction: how many bytes.
    #[must_use]
    pub const fn unfinished(&self) -> (usize, usize) {
        (self.to_device.length, self.to_station.length)
    }

    fn direction(&mut self, to: To) -> &mut Direction {
        match to {
            To::Device => &mut self.to_device,
            To::Station => &mut self.to_station,
        }
    }

    fn byte(&mut self, ms: Millis, to: To, byte: u8, items: &mut Vec<Item>) {
        let line = self.direction(to);
        let deframed = line.deframer.feed(byte, &mut line.data);
        if byte != 0 {
            line.length += 1;
            if line.start.len() < SHOWN {
                line.start.push(byte);
            }
            return;
        }
        let length = std::mem::take(&mut line.length);
        let start = std::mem::take(&mut line.start);
        let data = std::mem::take(&mut line.data).0;
        match deframed {
            Deframed::Nothing => {}
            Deframed::Damaged => items.push(Item::Damaged {
                ms,
                to,
                length,
                start,
            }),
            Deframed::Frame(fields, count) => {
                let mut messages = Vec::new();
                let new = self.frame(to, &fields, &data, &mut messages);
                items.push(Item::Frame {
                    ms,
                    to,
                    length,
                    fields: Box::new(fields),
                    data: count,
                    again: count > 0 && !new,
                });
                items.extend(
                    messages
                        .into_iter()
                        .map(|bytes| Item::Message { ms, to, bytes }),
                );
            }
        }
    }

    /// Takes a frame's data into its stream; says whether any of it is new.
    fn frame(&mut self, to: To, fields: &Fields, data: &[u8], messages: &mut Vec<Vec<u8>>) -> bool {
        // A looped-back cable carries the station's frames to the station.
        if fields.has(flag::DEVICE) != (to == To::Station) {
            return true;
        }
        match (to, fields.parameters) {
            (To::Device, Some(parameters)) => {
                if self.nonce != Some(parameters.nonce) {
                    self.nonce = Some(parameters.nonce);
                    self.session = None;
                    self.to_device.stream = Stream::new();
                    self.to_station.stream = Stream::new();
                }
            }
            (To::Station, Some(parameters))
                if self.session.is_none() && self.nonce == Some(parameters.nonce) =>
            {
                self.session = Some(fields.session);
            }
            (To::Device | To::Station, _) if self.session == Some(fields.session) => {}
            // Of a session whose beginning was not recorded.
            (To::Device | To::Station, _) => return true,
        }
        if fields.has(flag::RESET) {
            // Whatever comes of it after this is dropped.
            self.session = None;
            self.nonce = None;
            return true;
        }
        self.direction(to)
            .stream
            .take(fields.offset, data, messages)
    }
}
