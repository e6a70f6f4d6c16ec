//! The link, version 0: messages as frames on a byte stream, one in flight in each direction.
//!
//! A [`Link`] takes bytes and the time and gives back bytes, messages and a deadline. It owns no port and no clock, so the
//! same code runs at both ends. This version is stop-and-wait and replaceable; nothing outside this file knows a frame.
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 1 | link version, 0 |
//! | 1 | 1 | flags: 1 data, 2 open, 4 reset, 8 repeat |
//! | 2 | 2 | session, little-endian, chosen by the station |
//! | 4 | 1 | sequence number of this data frame |
//! | 5 | 1 | acknowledgement: the sequence number expected next from the other end |
//! | 6 | 1 | credit: further data frames the sender can take |
//! | 7 | 2 | payload length in bytes, little-endian |
//! | 9 | n | payload |
//! | 9 + n | 4 | CRC-32/ISO-HDLC of all before it, little-endian |
//!
//! A frame is COBS-encoded and stands between two zero bytes.

use crc::{CRC_32_ISO_HDLC, Crc};

use crate::MAX_MESSAGE;

/// Milliseconds since any fixed moment, from a clock that never goes back.
pub type Millis = u64;

/// The link version in every frame.
pub const LINK_VERSION: u8 = 0;

/// Time to wait for an acknowledgement before a frame is sent again, in milliseconds.
pub const RETRY_AFTER: Millis = 1_000;

/// How often a frame is sent in all before the link counts as lost.
pub const TRIES: u8 = 8;

const HEADER: usize = 9;
const TRAILER: usize = 4;
const MAX_FRAME: usize = HEADER + MAX_MESSAGE + TRAILER;
/// COBS adds one byte for each 254 begun, and a zero byte stands at either end.
const MAX_ENCODED: usize = MAX_FRAME + MAX_FRAME / 254 + 1 + 2;
/// A frame without payload never needs a second COBS group.
const MAX_CONTROL: usize = HEADER + TRAILER + 1 + 2;

const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

/// The frame carries a message.
const DATA: u8 = 1;
/// The frame opens a session; a data frame.
const OPEN: u8 = 2;
/// The sender knows nothing of the session.
const RESET: u8 = 4;
/// A frame arrived damaged: send again what is not acknowledged.
const REPEAT: u8 = 8;

/// What came of received bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A message is complete: see [`Link::message`].
    Message,
    /// The other end opened a new session and this is its first message: see [`Link::message`].
    Opened,
    /// The other end has lost the session: it was restarted.
    Reset,
}

/// The link cannot carry on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkError {
    /// The message is longer than [`MAX_MESSAGE`].
    TooLong,
    /// The message before is not acknowledged yet.
    Busy,
    /// No session is open.
    Closed,
    /// A frame was sent [`TRIES`] times and never acknowledged.
    Lost,
}

impl core::fmt::Display for LinkError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::TooLong => "the message is too long for the link",
            Self::Busy => "the message before is not acknowledged yet",
            Self::Closed => "no session is open",
            Self::Lost => "the other end does not acknowledge",
        })
    }
}

impl core::error::Error for LinkError {}

/// A frame's fields, without payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fields {
    flags: u8,
    session: u16,
    sequence: u8,
    acknowledgement: u8,
}

/// Encodes a frame into `out` and gives back its length; 0 if `out` is too small, which the sizes above rule out.
fn encode(fields: Fields, payload: &[u8], out: &mut [u8]) -> usize {
    let mut header = [0; HEADER];
    header[0] = LINK_VERSION;
    header[1] = fields.flags;
    header[2..4].copy_from_slice(&fields.session.to_le_bytes());
    header[4] = fields.sequence;
    header[5] = fields.acknowledgement;
    header[6] = 1;
    let length = u16::try_from(payload.len()).unwrap_or(u16::MAX);
    header[7..9].copy_from_slice(&length.to_le_bytes());
    let mut digest = CRC.digest();
    digest.update(&header);
    digest.update(payload);
    let check = digest.finalize().to_le_bytes();

    let Some((first, rest)) = out.split_first_mut() else {
        return 0;
    };
    *first = 0;
    let mut encoder = cobs::CobsEncoder::new(rest);
    let pushed = encoder
        .push(&header)
        .and_then(|()| encoder.push(payload))
        .and_then(|()| encoder.push(&check));
    if pushed.is_err() {
        return 0;
    }
    let end = 1 + encoder.finalize();
    match out.get_mut(end) {
        Some(last) => {
            *last = 0;
            end + 1
        }
        None => 0,
    }
}

/// Decodes the bytes between two zeros in place, and gives back the fields and where the payload stands.
fn decode(encoded: &mut [u8]) -> Option<(Fields, core::ops::Range<usize>)> {
    let length = cobs::decode_in_place(encoded).ok()?;
    let frame = encoded.get(..length)?;
    let (body, check) = frame.split_last_chunk::<TRAILER>()?;
    let (header, payload) = body.split_first_chunk::<HEADER>()?;
    let stated = u16::from_le_bytes([header[7], header[8]]);
    if header[0] != LINK_VERSION
        || usize::from(stated) != payload.len()
        || payload.len() > MAX_MESSAGE
        || CRC.checksum(body) != u32::from_le_bytes(*check)
    {
        return None;
    }
    let fields = Fields {
        flags: header[1],
        session: u16::from_le_bytes([header[2], header[3]]),
        sequence: header[4],
        acknowledgement: header[5],
    };
    Some((fields, HEADER..HEADER + payload.len()))
}

/// The message that waits for its acknowledgement.
#[derive(Clone, Copy, Debug)]
struct InFlight {
    sequence: u8,
    /// Bytes of the encoded frame already handed to the port, in this attempt.
    sent: usize,
    tries: u8,
    /// When the frame is sent again; set when its last byte goes out.
    again_at: Option<Millis>,
}

/// One end of the link.
pub struct Link {
    session: Option<u16>,
    received: [u8; MAX_ENCODED],
    received_length: usize,
    /// Bytes up to the next zero are thrown away: too many came for a frame.
    overrun: bool,
    message: core::ops::Range<usize>,
    expected: u8,
    frame: [u8; MAX_ENCODED],
    frame_length: usize,
    next_sequence: u8,
    in_flight: Option<InFlight>,
    control: [u8; MAX_CONTROL],
    control_length: usize,
    control_sent: usize,
}

impl Default for Link {
    fn default() -> Self {
        Self::new()
    }
}

impl Link {
    /// A link with no session.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            session: None,
            received: [0; MAX_ENCODED],
            received_length: 0,
            overrun: false,
            message: 0..0,
            expected: 0,
            frame: [0; MAX_ENCODED],
            frame_length: 0,
            next_sequence: 0,
            in_flight: None,
            control: [0; MAX_CONTROL],
            control_length: 0,
            control_sent: 0,
        }
    }

    /// Opens a session with its first message; what was under way is dropped. `session` should differ from the last one.
    ///
    /// # Errors
    /// [`LinkError::TooLong`].
    pub fn open(&mut self, session: u16, message: &[u8]) -> Result<(), LinkError> {
        self.restart(session);
        self.send_frame(OPEN | DATA, message)
    }

    /// Sends a message.
    ///
    /// # Errors
    /// [`LinkError::TooLong`], [`LinkError::Busy`] while the message before is not acknowledged, [`LinkError::Closed`].
    pub fn send(&mut self, message: &[u8]) -> Result<(), LinkError> {
        self.send_frame(DATA, message)
    }

    /// Whether [`Self::send`] would be taken.
    #[must_use]
    pub const fn ready(&self) -> bool {
        self.session.is_some() && self.in_flight.is_none()
    }

    /// Takes received bytes up to the end of the first frame that means something, and says how many those were. The
    /// rest is to be given again, after the event is dealt with.
    pub fn receive(&mut self, bytes: &[u8]) -> (usize, Option<Event>) {
        for (index, &byte) in bytes.iter().enumerate() {
            if byte != 0 {
                if let Some(place) = self.received.get_mut(self.received_length) {
                    *place = byte;
                    self.received_length += 1;
                } else {
                    self.overrun = true;
                }
                continue;
            }
            let length = core::mem::take(&mut self.received_length);
            let overrun = core::mem::take(&mut self.overrun);
            if length == 0 {
                continue;
            }
            let frame = if overrun {
                None
            } else {
                decode(&mut self.received[..length])
            };
            let event = match frame {
                Some((fields, payload)) => self.take(fields, payload),
                None => {
                    self.damaged();
                    None
                }
            };
            if event.is_some() {
                return (index + 1, event);
            }
        }
        (bytes.len(), None)
    }

    /// The message of the last [`Event::Message`] or [`Event::Opened`]; valid until [`Self::receive`] is called again.
    #[must_use]
    pub fn message(&self) -> &[u8] {
        self.received.get(self.message.clone()).unwrap_or(&[])
    }

    /// Bytes to send now, if any.
    ///
    /// # Errors
    /// [`LinkError::Lost`] once the last try has gone unanswered; the session is then closed.
    pub fn transmit(&mut self, now: Millis) -> Result<&[u8], LinkError> {
        let mid_frame = self
            .in_flight
            .is_some_and(|frame| frame.sent > 0 && frame.sent < self.frame_length);
        if !mid_frame && self.control_sent < self.control_length {
            return Ok(&self.control[self.control_sent..self.control_length]);
        }
        let Some(frame) = &mut self.in_flight else {
            return Ok(&[]);
        };
        if frame.again_at.is_some_and(|at| now >= at) {
            if frame.tries >= TRIES {
                self.session = None;
                self.in_flight = None;
                return Err(LinkError::Lost);
            }
            frame.again_at = None;
            frame.sent = 0;
        }
        Ok(&self.frame[frame.sent..self.frame_length])
    }

    /// Says that the first `count` bytes of [`Self::transmit`] have gone out.
    pub fn transmitted(&mut self, count: usize, now: Millis) {
        let mid_frame = self
            .in_flight
            .is_some_and(|frame| frame.sent > 0 && frame.sent < self.frame_length);
        if !mid_frame && self.control_sent < self.control_length {
            self.control_sent = (self.control_sent + count).min(self.control_length);
            return;
        }
        if let Some(frame) = &mut self.in_flight {
            frame.sent = (frame.sent + count).min(self.frame_length);
            if frame.sent == self.frame_length && frame.again_at.is_none() {
                frame.tries += 1;
                frame.again_at = Some(now + RETRY_AFTER);
            }
        }
    }

    /// When [`Self::transmit`] is to be asked again even if nothing arrives.
    #[must_use]
    pub fn deadline(&self) -> Option<Millis> {
        self.in_flight.and_then(|frame| frame.again_at)
    }

    fn restart(&mut self, session: u16) {
        self.session = Some(session);
        self.expected = 0;
        self.next_sequence = 0;
        self.in_flight = None;
        self.control_length = 0;
        self.control_sent = 0;
    }

    fn send_frame(&mut self, flags: u8, message: &[u8]) -> Result<(), LinkError> {
        let session = self.session.ok_or(LinkError::Closed)?;
        if message.len() > MAX_MESSAGE {
            return Err(LinkError::TooLong);
        }
        if self.in_flight.is_some() {
            return Err(LinkError::Busy);
        }
        let fields = Fields {
            flags,
            session,
            sequence: self.next_sequence,
            acknowledgement: self.expected,
        };
        self.frame_length = encode(fields, message, &mut self.frame);
        self.in_flight = Some(InFlight {
            sequence: self.next_sequence,
            sent: 0,
            tries: 0,
            again_at: None,
        });
        self.next_sequence = self.next_sequence.wrapping_add(1);
        Ok(())
    }

    /// Queues a frame without payload. A newer one replaces one that has not begun to go out: it says all the older did.
    fn send_control(&mut self, flags: u8, session: u16) {
        let idle = self.control_sent == 0 || self.control_sent == self.control_length;
        if idle {
            let fields = Fields {
                flags,
                session,
                sequence: 0,
                acknowledgement: self.expected,
            };
            self.control_length = encode(fields, &[], &mut self.control);
            self.control_sent = 0;
        }
    }

    fn damaged(&mut self) {
        if let Some(session) = self.session {
            self.send_control(REPEAT, session);
        }
    }

    fn take(&mut self, fields: Fields, payload: core::ops::Range<usize>) -> Option<Event> {
        let data = fields.flags & DATA != 0;
        if data && fields.flags & OPEN != 0 && self.session != Some(fields.session) {
            self.restart(fields.session);
            self.expected = fields.sequence.wrapping_add(1);
            self.send_control(0, fields.session);
            self.message = payload;
            return Some(Event::Opened);
        }
        if self.session != Some(fields.session) {
            if data {
                self.send_control(RESET, fields.session);
            }
            return None;
        }
        if fields.flags & RESET != 0 {
            self.session = None;
            self.in_flight = None;
            return Some(Event::Reset);
        }
        if let Some(frame) = &mut self.in_flight {
            if fields.acknowledgement == frame.sequence.wrapping_add(1) {
                self.in_flight = None;
            } else if fields.flags & REPEAT != 0 && frame.again_at.is_some() {
                frame.again_at = Some(0);
            }
        }
        if !data {
            return None;
        }
        if fields.sequence != self.expected {
            // The acknowledgement was lost and this is the same frame again.
            self.send_control(0, fields.session);
            return None;
        }
        self.expected = self.expected.wrapping_add(1);
        self.send_control(0, fields.session);
        self.message = payload;
        Some(Event::Message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    /// Carries bytes from one end to the other, through `line`, and collects what arrives.
    fn carry(
        from: &mut Link,
        to: &mut Link,
        now: Millis,
        line: &mut dyn FnMut(Vec<u8>) -> Vec<u8>,
    ) -> Vec<(Event, Vec<u8>)> {
        let mut events = Vec::new();
        loop {
            let bytes = from.transmit(now).map(<[u8]>::to_vec).unwrap_or_default();
            if bytes.is_empty() {
                return events;
            }
            from.transmitted(bytes.len(), now);
            let bytes = line(bytes);
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let (used, event) = to.receive(rest);
                rest = &rest[used..];
                if let Some(event) = event {
                    events.push((event, to.message().to_vec()));
                }
            }
        }
    }

    fn clean(bytes: Vec<u8>) -> Vec<u8> {
        bytes
    }

    fn opened() -> (Link, Link) {
        let (mut station, mut device) = (Link::new(), Link::new());
        station.open(7, b"hello").unwrap();
        let got = carry(&mut station, &mut device, 0, &mut clean);
        assert_eq!(got, [(Event::Opened, b"hello".to_vec())]);
        carry(&mut device, &mut station, 0, &mut clean);
        assert!(station.ready() && device.ready());
        (station, device)
    }

    #[test]
    fn messages_pass_both_ways() {
        let (mut station, mut device) = opened();
        for round in 0..600_u32 {
            let message: Vec<u8> = (0..round * 3).map(|i| (i % 7) as u8).collect();
            station.send(&message).unwrap();
            assert_eq!(station.send(b"again"), Err(LinkError::Busy));
            let got = carry(&mut station, &mut device, 0, &mut clean);
            assert_eq!(got, [(Event::Message, message.clone())]);
            device.send(&message).unwrap();
            let got = carry(&mut device, &mut station, 0, &mut clean);
            assert_eq!(got, [(Event::Message, message)]);
            assert!(carry(&mut station, &mut device, 0, &mut clean).is_empty());
        }
        assert_eq!(station.send(&[0; MAX_MESSAGE + 1]), Err(LinkError::TooLong));
        station.send(&[0; MAX_MESSAGE]).unwrap();
        assert_eq!(carry(&mut station, &mut device, 0, &mut clean).len(), 1);
    }

    /// SPEC: M-2, M-3, M-4, M-5, M-6
    #[test]
    fn a_frame_damaged_at_any_byte_arrives_once_and_whole() {
        let message = [0x11, 0, 0x22, 0, 0, 0x33];
        let (mut station, _) = opened();
        station.send(&message).unwrap();
        let length = station.transmit(0).unwrap().len();
        for position in 0..length {
            for damage in 1..=255_u8 {
                let (mut station, mut device) = opened();
                station.send(&message).unwrap();
                let mut first = true;
                let mut spoil = |mut bytes: Vec<u8>| {
                    if core::mem::take(&mut first) {
                        bytes[position] ^= damage;
                    }
                    bytes
                };
                let mut events = Vec::new();
                let mut now = 0;
                for _ in 0..4 {
                    events.extend(carry(&mut station, &mut device, now, &mut spoil));
                    assert!(carry(&mut device, &mut station, now, &mut clean).is_empty());
                    now += RETRY_AFTER;
                }
                assert_eq!(
                    events,
                    [(Event::Message, message.to_vec())],
                    "byte {position}"
                );
                assert!(station.ready());
            }
        }
    }

    /// SPEC: M-5
    #[test]
    fn a_lost_acknowledgement_does_not_deliver_twice() {
        let (mut station, mut device) = opened();
        station.send(b"once").unwrap();
        assert_eq!(carry(&mut station, &mut device, 0, &mut clean).len(), 1);
        carry(&mut device, &mut station, 0, &mut |_| Vec::new());
        assert!(!station.ready());
        assert!(carry(&mut station, &mut device, RETRY_AFTER, &mut clean).is_empty());
        carry(&mut device, &mut station, RETRY_AFTER, &mut clean);
        assert!(station.ready());
    }

    /// SPEC: M-7
    #[test]
    fn a_silent_peer_is_given_up_after_the_last_try() {
        let mut station = Link::new();
        station.open(1, b"anyone?").unwrap();
        let mut now = 0;
        for _ in 0..TRIES {
            let length = station.transmit(now).unwrap().len();
            assert!(length > 0);
            station.transmitted(length, now);
            now = station.deadline().unwrap();
        }
        assert_eq!(station.transmit(now), Err(LinkError::Lost));
        assert_eq!(station.send(b"x"), Err(LinkError::Closed));
    }

    /// SPEC: M-8
    #[test]
    fn a_restarted_device_says_so() {
        let (mut station, _) = opened();
        let mut restarted = Link::new();
        station.send(b"still there?").unwrap();
        assert!(carry(&mut station, &mut restarted, 0, &mut clean).is_empty());
        let got = carry(&mut restarted, &mut station, 0, &mut clean);
        assert_eq!(got[0].0, Event::Reset);
    }

    /// SPEC: M-9
    #[test]
    fn a_new_session_drops_the_old() {
        let (_, mut device) = opened();
        device.send(b"stale reply").unwrap();
        let mut station = Link::new();
        station.open(8, b"hello again").unwrap();
        let got = carry(&mut station, &mut device, 0, &mut clean);
        assert_eq!(got, [(Event::Opened, b"hello again".to_vec())]);
        assert!(carry(&mut device, &mut station, 0, &mut clean).is_empty());
        assert!(device.ready());
    }

    /// SPEC: M-2
    #[test]
    fn garbage_and_endless_bytes_are_survived() {
        let (mut station, mut device) = opened();
        let noise: Vec<u8> = (0..20_000_u32).map(|i| (i * 31 % 251) as u8 + 1).collect();
        assert_eq!(device.receive(&noise), (noise.len(), None));
        station.send(b"after the noise").unwrap();
        let got = carry(&mut station, &mut device, 0, &mut clean);
        assert_eq!(got, [(Event::Message, b"after the noise".to_vec())]);
    }

    /// SPEC: M-1
    #[test]
    fn a_frame_has_the_bytes_of_the_specification() {
        let mut link = Link::new();
        link.open(0x0102, b"Hi").unwrap();
        let frame = link.transmit(0).unwrap();
        let hex: std::string::String = frame.iter().map(|b| std::format!("{b:02x}")).collect();
        assert_eq!(hex, "000104030201010301020748693ddf4bf900");
    }
}
