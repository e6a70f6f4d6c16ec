//! One end of the link that gets anything.

use std::collections::BTreeSet;

use crc::{CRC_32_ISO_HDLC, Crc};
use keyferry_protocol::link::frame::{LINK_VERSION, TRAILER};
use keyferry_protocol::link::{Event, Link, Millis, SILENCE};

use super::{Device, Input, Station};

static CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

/// A frame of these bytes, with the check that they need, between two zeros.
pub(in crate::fuzz) fn framed(bytes: &[u8]) -> Vec<u8> {
    let check = CRC.checksum(bytes).to_le_bytes();
    let mut frame = vec![0];
    let content = [bytes, &check].concat();
    let mut encoded = vec![0; cobs::max_encoding_length(content.len())];
    let length = cobs::encode(&content, &mut encoded);
    frame.extend(encoded.drain(..length));
    frame.push(0);
    frame
}

/// What a receiver may believe of what it got, found out in the plainest way.
#[derive(Default)]
struct Believable {
    /// Bytes behind the last zero.
    open: Vec<u8>,
    /// Frames of this version with a right check.
    frames: usize,
    /// Their bytes.
    bytes: usize,
    /// What would be the nonces of those that open a session.
    nonces: BTreeSet<u32>,
}

impl Believable {
    fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if *byte != 0 {
                self.open.push(*byte);
                continue;
            }
            let mut frame = std::mem::take(&mut self.open);
            let Ok(length) = cobs::decode_in_place(&mut frame) else {
                continue;
            };
            let frame = frame.get(..length).unwrap_or_default();
            let Some((content, check)) = frame.split_last_chunk::<TRAILER>() else {
                continue;
            };
            let version = content.first().map(|first| first >> 6);
            if version == Some(LINK_VERSION) && CRC.checksum(content).to_le_bytes() == *check {
                self.frames += 1;
                self.bytes += content.len();
                let nonce = content.get(13..17).and_then(|bytes| bytes.try_into().ok());
                self.nonces.extend(nonce.map(u32::from_le_bytes));
            }
        }
    }
}

/// One end that gets anything: bytes as they are, and frames of any content whose check is right.
pub(in crate::fuzz) fn deframer(data: &[u8]) -> bool {
    let mut input = Input(data);
    if input.byte() & 1 == 0 {
        let mut device = Device::new();
        let (believable, now) = bombard(&mut device, input);
        // Whatever it was: a station that comes now is heard.
        let free = (0..).find(|nonce| !believable.nonces.contains(nonce));
        greet(&mut device, free.expect("there are more than that"), now);
        believable.frames > 0
    } else {
        let mut station = Station::new();
        station.open(2, 0);
        station.send(b"hello").expect("there is room");
        bombard(&mut station, input).0.frames > 0
    }
}

/// Feeds an end, and looks at all that it shows.
fn bombard<const RX: usize, const TX: usize, const OUT: usize>(
    end: &mut Link<RX, TX, OUT>,
    mut input: Input<'_>,
) -> (Believable, Millis) {
    let (mut believable, mut now, mut delivered) = (Believable::default(), 0, 0);
    while !input.is_empty() {
        let head = input.byte();
        let piece = input.bytes(usize::from(head & 0x3f));
        let bytes = if head & 0x40 == 0 {
            piece.to_vec()
        } else {
            framed(piece)
        };
        believable.take(&bytes);
        end.receive(&bytes, now);
        if end.event().is_some() {
            assert!(believable.frames > 0 || now >= SILENCE);
        }
        let count = end.front().map_or(0, |front| {
            assert!(front.bytes.len() <= RX);
            assert!(front.consumed + front.bytes.len() <= front.length);
            front.bytes.len()
        });
        end.consume(count);
        delivered += count;
        assert!(
            delivered <= believable.bytes,
            "{delivered} bytes were delivered, and only {} came",
            believable.bytes
        );
        if end.room() > 20 {
            let _ = end.send(&[7; 20]);
        }
        if head & 0x80 != 0 {
            now += Millis::from(input.byte()) * 8;
        }
        let sent = end.transmit(now).len();
        assert!(sent <= OUT);
        end.transmitted(sent, now);
        let _ = (end.deadline(), end.idle(), end.heard_at());
    }
    (believable, now)
}

/// Has a station say hello over a clean line, and expects that it arrives.
fn greet(device: &mut Device, nonce: u32, start: Millis) {
    let mut station = Station::new();
    station.open(nonce, start);
    station.send(b"good morning").expect("there is room");
    for now in start..start + 5_000 {
        let down = station.transmit(now).to_vec();
        station.transmitted(down.len(), now);
        device.receive(&down, now);
        let up = device.transmit(now).to_vec();
        device.transmitted(up.len(), now);
        station.receive(&up, now);
        if device.event() == Some(Event::Opened) {
            // From here on what it shows is of the new session.
            continue;
        }
        let arrived = device
            .front()
            .is_some_and(|front| front.is_complete() && front.bytes == b"good morning");
        if arrived && station.idle() {
            return;
        }
    }
    panic!("a clean greeting does not arrive");
}

/// The frames of a clean session, both ways, so that the fuzzer need not guess how one looks.
pub(in crate::fuzz) fn seeds() -> Vec<Vec<u8>> {
    let (mut station, mut device) = (Station::new(), Device::new());
    station.open(2, 0);
    station.send(b"hello").expect("there is room");
    let (mut to_device, mut to_station) = (vec![0], vec![1]);
    for now in (0..400).step_by(10) {
        if now % 50 == 0 {
            let _ = station.send(b"more");
            let _ = device.send(b"answer");
        }
        let down = station.transmit(now).to_vec();
        station.transmitted(down.len(), now);
        device.receive(&down, now);
        let up = device.transmit(now).to_vec();
        device.transmitted(up.len(), now);
        station.receive(&up, now);
        record(&down, &mut to_device);
        record(&up, &mut to_station);
    }
    vec![to_device, to_station]
}

/// Writes frames down as [`bombard`] reads them: without COBS and check, and a moment after each.
fn record(bytes: &[u8], into: &mut Vec<u8>) {
    for frame in bytes.split(|byte| *byte == 0) {
        let mut frame = frame.to_vec();
        let length = cobs::decode_in_place(&mut frame).unwrap_or_default();
        let content = frame
            .get(..length)
            .and_then(|it| it.split_last_chunk::<TRAILER>());
        let Some((content, _)) = content else {
            continue;
        };
        if let Ok(length @ 1..=0x3f) = u8::try_from(content.len()) {
            into.push(0xc0 | length);
            into.extend(content);
            into.push(1);
        }
    }
}
