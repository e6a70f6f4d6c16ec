//! A man in the middle of the line who understands it: whole messages pass through his hands, and what he changes goes on in
//! frames with the right length and checksum. The layout of a frame is that of SPEC.md, written anew from there.

use std::collections::VecDeque;
use std::io;

use crc::{CRC_32_ISO_HDLC, Crc};
use keyferry::device::port::Port;
use keyferry_protocol::MAX_MESSAGE;
use keyferry_protocol::link::Millis;
use keyferry_protocol::message::{Reply, Request};

use crate::desk::Direction;

const HEADER: usize = 9;
const TRAILER: usize = 4;
/// Where the payload's length stands.
const LENGTH: std::ops::Range<usize> = 7..9;
const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes on, as it is now.
    Pass,
    /// The station's cable is pulled before the message gets through; the next session finds it plugged in again.
    Cut,
}

/// A port whose messages pass through somebody's hands.
pub struct Mitm<F> {
    port: Box<dyn Port>,
    hands: F,
    down: Vec<u8>,
    up: Vec<u8>,
    waiting: VecDeque<u8>,
    cut: bool,
}

impl<F: FnMut(Direction, &mut Vec<u8>) -> Fate + Send> Mitm<F> {
    /// Puts `hands` before `port`. They get each message, also those that are sent again.
    pub fn new(port: Box<dyn Port>, hands: F) -> Self {
        Self {
            port,
            hands,
            down: Vec::new(),
            up: Vec::new(),
            waiting: VecDeque::new(),
            cut: false,
        }
    }

    /// Takes bytes of one direction, and gives those that go on.
    fn pass(&mut self, direction: Direction, bytes: &[u8]) -> Vec<u8> {
        let mut onward = Vec::new();
        for byte in bytes {
            let pending = match direction {
                Direction::Down => &mut self.down,
                Direction::Up => &mut self.up,
            };
            if *byte != 0 {
                pending.push(*byte);
                continue;
            }
            let encoded = std::mem::take(pending);
            let frame = decode(&encoded);
            let rewritten = match frame {
                Some(mut frame) if frame.len() > HEADER => {
                    let mut payload = frame.split_off(HEADER);
                    match (self.hands)(direction, &mut payload) {
                        Fate::Pass => encode(frame, &payload),
                        Fate::Cut => {
                            self.cut = true;
                            continue;
                        }
                    }
                }
                // Without a message, or damaged: as it came.
                Some(_) | None => encoded,
            };
            onward.extend(rewritten);
            onward.push(0);
        }
        onward
    }

    fn pulled(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.cut) {
            self.waiting.clear();
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(())
    }
}

/// Header and payload of a frame, without its checksum.
fn decode(encoded: &[u8]) -> Option<Vec<u8>> {
    let mut frame = encoded.to_vec();
    let length = cobs::decode_in_place(&mut frame).ok()?;
    frame.truncate(length);
    let body = length.checked_sub(TRAILER).filter(|body| *body >= HEADER)?;
    let check = frame.split_off(body);
    (CRC.checksum(&frame).to_le_bytes() == check[..]).then_some(frame)
}

/// The frame with this header, but for the payload's length, and this payload.
fn encode(mut header: Vec<u8>, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("a message fits into a frame");
    header[LENGTH].copy_from_slice(&length.to_le_bytes());
    header.extend_from_slice(payload);
    header.extend(CRC.checksum(&header).to_le_bytes());
    let mut encoded = vec![0; cobs::max_encoding_length(header.len())];
    let length = cobs::encode(&header, &mut encoded);
    encoded.truncate(length);
    encoded
}

impl<F: FnMut(Direction, &mut Vec<u8>) -> Fate + Send> Port for Mitm<F> {
    fn name(&self) -> &str {
        self.port.name()
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let onward = self.pass(Direction::Down, bytes);
        // All of it: what has been changed must not pass twice.
        let mut sent = 0;
        while sent < onward.len() {
            sent += self.port.write(&onward[sent..])?;
        }
        self.pulled()?;
        Ok(bytes.len())
    }

    fn read(&mut self, bytes: &mut [u8], until: Millis) -> io::Result<usize> {
        if self.waiting.is_empty() {
            let mut buffer = [0; 1024];
            let count = self.port.read(&mut buffer, until)?;
            let onward = self.pass(Direction::Up, &buffer[..count]);
            self.waiting.extend(onward);
            self.pulled()?;
        }
        let count = self.waiting.len().min(bytes.len());
        for (place, byte) in bytes.iter_mut().zip(self.waiting.drain(..count)) {
            *place = byte;
        }
        Ok(count)
    }

    fn now(&self) -> Millis {
        self.port.now()
    }

    fn set_baud(&mut self, baud: u32) -> io::Result<bool> {
        self.port.set_baud(baud)
    }
}

/// Hands that change replies only.
pub fn replies(
    mut change: impl FnMut(Reply<'_>, &mut Vec<u8>) + Send,
) -> impl FnMut(Direction, &mut Vec<u8>) -> Fate + Send {
    move |direction, message| {
        if direction == Direction::Up {
            let copy = message.clone();
            if let Ok(reply) = Reply::decode(&copy) {
                change(reply, message);
            }
        }
        Fate::Pass
    }
}

/// Hands that change requests only.
pub fn requests(
    mut change: impl FnMut(Request<'_>, &mut Vec<u8>) + Send,
) -> impl FnMut(Direction, &mut Vec<u8>) -> Fate + Send {
    move |direction, message| {
        if direction == Direction::Down {
            let copy = message.clone();
            if let Ok(request) = Request::decode(&copy) {
                change(request, message);
            }
        }
        Fate::Pass
    }
}

/// The bytes of a reply.
///
/// # Panics
/// If it is too long for a message.
#[must_use]
pub fn reply(reply: &Reply<'_>) -> Vec<u8> {
    let mut buffer = [0; MAX_MESSAGE];
    reply
        .encode(&mut buffer)
        .expect("a reply of a test fits")
        .to_vec()
}

/// The bytes of a request.
///
/// # Panics
/// If it is too long for a message.
#[must_use]
pub fn request(request: &Request<'_>) -> Vec<u8> {
    let mut buffer = [0; MAX_MESSAGE];
    request
        .encode(&mut buffer)
        .expect("a request of a test fits")
        .to_vec()
}
