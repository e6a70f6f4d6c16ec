//! One frame: its fields, its bytes, and the taking apart of bytes that arrive one by one.
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 1 | link version in the upper two bits, flags in the lower six |
//! | 1 | 2 | session |
//! | 3 | 1 | number of this frame |
//! | 4 | 2 | offset of its first data byte in the sender's stream |
//! | 6 | 2 | acknowledgement: the offset expected next |
//! | 8 | 1 | number of the last frame heard |
//! | 9 | 2 | credit: bytes that may come beyond the acknowledgement |
//! | 11 | 2 | length of the data in bytes, n |
//! | 13 | 8 | with `OPEN`: parameters |
//! | | 1 + 4 r | with `HELD`: count r, then start and end of each range held beyond the acknowledgement |
//! | | n | data |
//! | | 4 | CRC-32/ISO-HDLC of all before it |
//!
//! Numbers are little-endian. A frame is COBS-encoded; a zero byte stands before and after it, and one between two frames.

use cobs::{DecodeResult, DecoderState};
use crc::{CRC_32_ISO_HDLC, Crc, Digest, NoTable};

use super::ranges::{MAX_RANGES, Ranges};

/// The link version in every frame.
pub const LINK_VERSION: u8 = 1;

/// Length of the fixed fields in bytes.
pub const HEADER: usize = 13;
/// Length of the parameters in bytes.
const PARAMETERS: usize = 8;
/// Longest list of ranges in bytes.
const RANGES: usize = 1 + 4 * MAX_RANGES;
/// Length of the check in bytes.
pub const TRAILER: usize = 4;
/// Most bytes of a frame that are not data.
const MAX_FIELDS: usize = HEADER + PARAMETERS + RANGES + TRAILER;

/// Most bytes of data that a frame which opens a session carries: they arrive before there is a place for them.
pub const OPENING_DATA: usize = 32;

static CRC: Crc<u32, NoTable> = Crc::<u32, NoTable>::new(&CRC_32_ISO_HDLC);

/// What a frame says besides its data. Each is one bit of the first byte.
pub mod flag {
    /// The session is new: parameters follow the header.
    pub const OPEN: u8 = 1;
    /// The session is over, or not known.
    pub const RESET: u8 = 2;
    /// The other end shall acknowledge although there is no data.
    pub const PING: u8 = 4;
    /// Something arrived that was no frame.
    pub const DAMAGED: u8 = 8;
    /// Ranges beyond the acknowledgement are held already, and listed.
    pub const HELD: u8 = 16;
    /// The device sent this frame.
    pub const DEVICE: u8 = 32;
}

/// What the ends tell each other as a session opens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parameters {
    /// Chosen by the station at random, sent back by the device: tells which opening frame this answers.
    pub nonce: u32,
    /// Most bytes of data in a frame that this end likes to receive.
    pub max_frame: u16,
    /// Line rates that this end can switch to: see [`super::rates`].
    pub rates: u16,
}

/// The fields of a frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    /// See [`flag`].
    pub flags: u8,
    /// The session, by the number that the device gave it; 0 from a station that does not know it yet.
    pub session: u16,
    /// The number of this frame, if it has data or `PING`.
    pub number: u8,
    /// Where its data begins in the sender's stream.
    pub offset: u16,
    /// The offset that the sender of this frame expects next.
    pub acknowledgement: u16,
    /// The number of the last frame that it heard.
    pub heard: u8,
    /// How many bytes beyond the acknowledgement it has room for.
    pub credit: u16,
    /// With `OPEN`.
    pub parameters: Option<Parameters>,
    /// Ranges beyond the acknowledgement that it holds.
    pub held: Ranges,
}

impl Fields {
    /// Whether the flag is set.
    #[must_use]
    pub const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Most bytes of data in a frame whose encoding must fit into `room` bytes.
#[must_use]
pub const fn data_that_fits(room: usize) -> usize {
    // COBS adds one byte for each 254 begun, and a zero stands at either end.
    room.saturating_sub(2 + 1 + room / 254 + MAX_FIELDS)
}

/// Encodes a frame into `out` and gives back its length; 0 if `out` is too small, which [`data_that_fits`] rules out.
pub(super) fn encode(fields: &Fields, data: &[u8], lead: bool, out: &mut [u8]) -> usize {
    let mut flags = fields.flags & !(flag::OPEN | flag::HELD);
    let held = fields.held.as_slice();
    if fields.parameters.is_some() {
        flags |= flag::OPEN;
    }
    if !held.is_empty() {
        flags |= flag::HELD;
    }
    let mut front = [0; HEADER + PARAMETERS + RANGES];
    let mut length = 0;
    let mut put = |bytes: &[u8]| {
        if let Some(place) = front.get_mut(length..length + bytes.len()) {
            place.copy_from_slice(bytes);
            length += bytes.len();
        }
    };
    put(&[LINK_VERSION << 6 | flags]);
    put(&fields.session.to_le_bytes());
    put(&[fields.number]);
    put(&fields.offset.to_le_bytes());
    put(&fields.acknowledgement.to_le_bytes());
    put(&[fields.heard]);
    put(&fields.credit.to_le_bytes());
    put(&u16::try_from(data.len()).unwrap_or(u16::MAX).to_le_bytes());
    if let Some(parameters) = fields.parameters {
        put(&parameters.nonce.to_le_bytes());
        put(&parameters.max_frame.to_le_bytes());
        put(&parameters.rates.to_le_bytes());
    }
    if let (false, Ok(count)) = (held.is_empty(), u8::try_from(held.len())) {
        put(&[count]);
        for (start, end) in held {
            put(&start.to_le_bytes());
            put(&end.to_le_bytes());
        }
    }
    let front = &front[..length];
    let mut digest = CRC.digest();
    digest.update(front);
    digest.update(data);
    let check = digest.finalize().to_le_bytes();

    let start = usize::from(lead);
    if let (true, Some(first)) = (lead, out.first_mut()) {
        *first = 0;
    }
    let Some(room) = out.get_mut(start..) else {
        return 0;
    };
    let mut encoder = cobs::CobsEncoder::new(room);
    let pushed = encoder
        .push(front)
        .and_then(|()| encoder.push(data))
        .and_then(|()| encoder.push(&check));
    if pushed.is_err() {
        return 0;
    }
    let end = start + encoder.finalize();
    match out.get_mut(end) {
        Some(last) => {
            *last = 0;
            end + 1
        }
        None => 0,
    }
}

/// Where the data of a frame goes while nobody knows yet whether the frame is good.
pub trait Sink {
    /// Takes the byte at this offset of the stream, if there is a free place for it.
    fn put(&mut self, offset: u16, byte: u8);
}

/// What came of one more byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deframed {
    /// Nothing yet.
    Nothing,
    /// A frame with this many bytes of data.
    Frame(Fields, u16),
    /// Something between two zeros that is no frame.
    Damaged,
}

/// Takes frames apart as their bytes arrive. Keeps the fields; the data goes where it belongs at once.
pub struct Deframer {
    cobs: DecoderState,
    /// Decoded bytes of this frame so far; [`usize::MAX`] once it cannot become a frame.
    count: usize,
    /// Fields, then the data of an opening frame.
    front: [u8; HEADER + PARAMETERS + RANGES + OPENING_DATA],
    /// Length of the fields, once known.
    fields_length: usize,
    check: [u8; TRAILER],
    digest: Digest<'static, u32, NoTable>,
}

impl Default for Deframer {
    fn default() -> Self {
        Self::new()
    }
}

/// [`Deframer::count`] of what cannot become a frame any more.
const LOST: usize = usize::MAX;

impl Deframer {
    /// Nothing has arrived.
    #[must_use]
    #[inline(always)]
    pub const fn new() -> Self {
        Self {
            cobs: DecoderState::Idle,
            count: 0,
            front: [0; HEADER + PARAMETERS + RANGES + OPENING_DATA],
            fields_length: HEADER,
            check: [0; TRAILER],
            digest: CRC.digest(),
        }
    }

    /// The data of the opening frame that was complete last, at most [`OPENING_DATA`] bytes.
    #[must_use]
    pub fn opening_data(&self, length: u16) -> &[u8] {
        let end = self.fields_length + usize::from(length).min(OPENING_DATA);
        self.front.get(self.fields_length..end).unwrap_or(&[])
    }

    /// Takes one byte from the line.
    pub fn feed(&mut self, byte: u8, sink: &mut impl Sink) -> Deframed {
        if byte == 0 {
            if matches!(self.cobs, DecoderState::Idle) {
                return Deframed::Nothing;
            }
            // The decoder starts anew, whatever it says.
            let whole = matches!(self.cobs.feed(0), Ok(DecodeResult::DataComplete));
            self.cobs = DecoderState::Idle;
            let count = core::mem::take(&mut self.count);
            let digest = core::mem::replace(&mut self.digest, CRC.digest());
            return match self.fields() {
                Some((fields, length))
                    if whole
                        && count == self.fields_length + usize::from(length) + TRAILER
                        && self.passes(digest) =>
                {
                    Deframed::Frame(fields, length)
                }
                Some(_) | None => Deframed::Damaged,
            };
        }
        match self.cobs.feed(byte) {
            Ok(DecodeResult::DataContinue(decoded)) => self.take(decoded, sink),
            // The first byte after a zero.
            Ok(DecodeResult::DataStart) => {
                self.count = 0;
                self.fields_length = HEADER;
            }
            Ok(DecodeResult::NoData | DecodeResult::DataComplete) => {}
            Err(_) => self.count = LOST,
        }
        Deframed::Nothing
    }

    #[cfg(not(feature = "unchecked"))]
    fn passes(&self, digest: Digest<'static, u32, NoTable>) -> bool {
        digest.finalize() == u32::from_le_bytes(self.check)
    }

    /// Only in the build that shows what the check is for: every frame passes.
    #[cfg(feature = "unchecked")]
    fn passes(&self, _: Digest<'static, u32, NoTable>) -> bool {
        true
    }

    fn u16_at(&self, offset: usize) -> u16 {
        match self.front.get(offset..offset + 2) {
            Some(&[low, high]) => u16::from_le_bytes([low, high]),
            Some(_) | None => 0,
        }
    }

    fn take(&mut self, byte: u8, sink: &mut impl Sink) {
        if self.count == LOST {
            return;
        }
        let index = self.count;
        self.count += 1;
        if index < self.fields_length {
            self.front[index] = byte;
            self.digest.update(&[byte]);
            if self.count == HEADER {
                if self.front[0] >> 6 != LINK_VERSION {
                    self.count = LOST;
                    return;
                }
                let flags = self.front[0];
                self.fields_length += if flags & flag::OPEN == 0 {
                    0
                } else {
                    PARAMETERS
                };
                self.fields_length += usize::from(flags & flag::HELD != 0);
            } else if index == self.ranges_at() && self.front[0] & flag::HELD != 0 {
                let count = usize::from(byte);
                if !(1..=MAX_RANGES).contains(&count) {
                    self.count = LOST;
                    return;
                }
                self.fields_length += 4 * count;
            }
            return;
        }
        let length = usize::from(self.u16_at(11));
        let place = index - self.fields_length;
        if place < length {
            self.digest.update(&[byte]);
            // Truncation is the point: offsets wrap around, and the length is a u16.
            sink.put(self.u16_at(4).wrapping_add(place as u16), byte);
            if self.front[0] & flag::OPEN != 0
                && place < OPENING_DATA
                && let Some(kept) = self.front.get_mut(index)
            {
                *kept = byte;
            }
        } else if let Some(kept) = self.check.get_mut(place - length) {
            *kept = byte;
        } else {
            self.count = LOST;
        }
    }

    /// Where the count of ranges stands, in a frame that has them.
    fn ranges_at(&self) -> usize {
        HEADER
            + if self.front[0] & flag::OPEN == 0 {
                0
            } else {
                PARAMETERS
            }
    }

    fn fields(&self) -> Option<(Fields, u16)> {
        let flags = self.front[0] & 0x3f;
        if flags & (flag::OPEN | flag::RESET) == flag::OPEN | flag::RESET {
            return None;
        }
        let parameters = (flags & flag::OPEN != 0).then(|| Parameters {
            nonce: u32::from(self.u16_at(HEADER)) | u32::from(self.u16_at(HEADER + 2)) << 16,
            max_frame: self.u16_at(HEADER + 4),
            rates: self.u16_at(HEADER + 6),
        });
        let mut held = Ranges::new();
        if flags & flag::HELD != 0 {
            let mut at = self.ranges_at() + 1;
            while at < self.fields_length {
                if !held.push(self.u16_at(at), self.u16_at(at + 2)) {
                    return None;
                }
                at += 4;
            }
        }
        let fields = Fields {
            flags,
            session: self.u16_at(1),
            number: self.front[3],
            offset: self.u16_at(4),
            acknowledgement: self.u16_at(6),
            heard: self.front[8],
            credit: self.u16_at(9),
            parameters,
            held,
        };
        Some((fields, self.u16_at(11)))
    }
}
