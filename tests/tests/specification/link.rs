//! Section 2: frames, flags, timers, rates.

use crc::{CRC_32_ISO_HDLC, Crc};
use keyferry_protocol::link::frame::{Deframed, Deframer, Fields, OPENING_DATA, Sink, flag};
use keyferry_protocol::link::{
    KEEP_ALIVE, LINK_VERSION, Link, Millis, SILENCE, SMALLEST_FRAME, rates,
};

use super::{between, integers, table};

struct Data(Vec<u8>);

impl Sink for Data {
    fn put(&mut self, _: u16, byte: u8) {
        self.0.push(byte);
    }
}

/// A frame as the table says, with another value in each field.
fn frame_of_the_table(data: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    for row in table("### 2.2", &["offset", "size", "field"]) {
        let [offset, size, field] = &row[..] else {
            panic!("{row:?}");
        };
        if !offset.is_empty() {
            assert_eq!(offset.parse(), Ok(frame.len()), "{row:?}");
        }
        let start = frame.len();
        if field.starts_with("link version") {
            frame.push(LINK_VERSION << 6 | flag::OPEN | flag::HELD | flag::DEVICE);
        } else if field.starts_with("session:") {
            frame.extend(0x0102_u16.to_le_bytes());
        } else if field == "number" {
            frame.push(3);
        } else if field.starts_with("offset of") {
            frame.extend(0x0405_u16.to_le_bytes());
        } else if field.starts_with("acknowledgement:") {
            frame.extend(0x0607_u16.to_le_bytes());
        } else if field.starts_with("heard:") {
            frame.push(8);
        } else if field.starts_with("credit:") {
            frame.extend(0x090a_u16.to_le_bytes());
        } else if field.starts_with("length n") {
            frame.extend((data.len() as u16).to_le_bytes());
        } else if field.starts_with("with `OPEN` only") {
            assert!(field.contains("nonce `u32le`, largest data"), "{field}");
            frame.extend(0x0b0c_0d0e_u32.to_le_bytes());
            frame.extend(0x0f10_u16.to_le_bytes());
            frame.extend(0x1112_u16.to_le_bytes());
        } else if field.starts_with("with `HELD` only") {
            assert_eq!(size, "1 + 4 r");
            assert_eq!(integers(field)[..2], [1, 4]);
            frame.push(2);
            for bound in [0x0700_u16, 0x0710, 0x0720, 0x0730] {
                frame.extend(bound.to_le_bytes());
            }
            continue;
        } else if field == "data" {
            assert_eq!(size, "n");
            frame.extend(data);
            continue;
        } else if field.starts_with("CRC-32/ISO-HDLC") {
            let check = Crc::<u32>::new(&CRC_32_ISO_HDLC).checksum(&frame);
            frame.extend(check.to_le_bytes());
        } else {
            panic!("an unknown field: {field}");
        }
        assert_eq!(size.parse(), Ok(frame.len() - start), "{row:?}");
    }
    frame
}

fn read(frame: &[u8]) -> Option<(Fields, Vec<u8>)> {
    let (mut deframer, mut data) = (Deframer::new(), Data(Vec::new()));
    let mut coded = vec![0; cobs::max_encoding_length(frame.len())];
    let length = cobs::encode(frame, &mut coded);
    coded.truncate(length);
    coded.push(0);
    coded
        .iter()
        .find_map(|byte| match deframer.feed(*byte, &mut data) {
            Deframed::Frame(fields, length) => Some((fields, usize::from(length))),
            Deframed::Nothing | Deframed::Damaged => None,
        })
        .map(|(fields, length)| (fields, data.0[..length].to_vec()))
}

#[test]
fn a_frame_built_by_the_table_is_read_as_it_says() {
    let (fields, data) = read(&frame_of_the_table(b"seven b")).expect("a frame");
    assert_eq!(data, b"seven b");
    assert_eq!(fields.flags, flag::OPEN | flag::HELD | flag::DEVICE);
    assert_eq!((fields.session, fields.number), (0x0102, 3));
    assert_eq!((fields.offset, fields.acknowledgement), (0x0405, 0x0607));
    assert_eq!((fields.heard, fields.credit), (8, 0x090a));
    let parameters = fields.parameters.expect("parameters");
    assert_eq!(parameters.nonce, 0x0b0c_0d0e);
    assert_eq!((parameters.max_frame, parameters.rates), (0x0f10, 0x1112));
    assert_eq!(fields.held.as_slice(), [(0x0700, 0x0710), (0x0720, 0x0730)]);
}

#[test]
fn the_link_version_is_in_the_heading_and_the_table() {
    let named = |text: &str| integers(text).first() == Some(&u64::from(LINK_VERSION));
    assert!(named(&between(
        "## 2. The link, version",
        "The link carries"
    )));
    assert!(named(&between("link version (", ")")));
}

#[test]
fn the_flags_are_those_of_the_code() {
    let flags: Vec<(String, u8)> = table("### 2.2", &["flag", "value", "says"])
        .into_iter()
        .map(|row| (row[0].clone(), row[1].parse().expect("a value")))
        .collect();
    let code = [
        ("OPEN", flag::OPEN),
        ("RESET", flag::RESET),
        ("PING", flag::PING),
        ("DAMAGED", flag::DAMAGED),
        ("HELD", flag::HELD),
        ("DEVICE", flag::DEVICE),
    ];
    assert_eq!(flags, code.map(|(name, value)| (name.to_owned(), value)));
}

/// What column `to` of the timers says in milliseconds, without the number of an RFC.
fn timer(name: &str) -> Vec<Millis> {
    let rows = table("### 2.3", &["timer", "runs from", "to", "then"]);
    let row = rows.iter().find(|row| row[0] == name).expect(name);
    let text = row[2].replace("(RFC 6298)", "").replace("115200 baud", "");
    let words: Vec<&str> = text.split([' ', ',', ';']).collect();
    words
        .windows(2)
        .filter_map(|pair| {
            let value: Millis = pair[0].parse().ok()?;
            match pair[1] {
                "ms" => Some(value),
                "s" => Some(value * 1000),
                _ => None,
            }
        })
        .collect()
}

#[test]
fn the_timers_are_those_of_the_code() {
    let rows = table("### 2.3", &["timer", "runs from", "to", "then"]);
    assert_eq!(rows.len(), 6, "a timer that no test knows");
    assert_eq!(timer("room"), [KEEP_ALIVE]);
    assert_eq!(timer("keep-alive"), [KEEP_ALIVE]);
    assert_eq!(timer("silence"), [SILENCE]);
    assert_eq!(timer("rate trial"), [rates::TRIAL]);
    assert_eq!(timer("rate"), [rates::PATIENCE]);
}

type Small = Link<2048, 2048, 1100>;

/// A frame that a link has to send, and how long it would be awaited.
fn next_frame(link: &mut Small, now: Millis) -> Vec<u8> {
    let frame = link.transmit(now).to_vec();
    link.transmitted(frame.len(), now);
    frame
}

/// What a measured answer time of nothing leaves is what the table adds.
#[test]
fn the_answer_timer_adds_what_the_table_says() {
    let [added, ..] = timer("answer")[..] else {
        panic!("no times");
    };
    let mut link = Small::new();
    let mut device = Small::new();
    for end in [&mut link, &mut device] {
        end.set_rate(u32::MAX);
    }
    link.open(2, 0);
    link.send(b"Hi").expect("room");
    device.receive(&next_frame(&mut link, 0), 0);
    link.receive(&next_frame(&mut device, 0), 0);
    link.send(b"Ho").expect("room");
    assert!(!next_frame(&mut link, 0).is_empty());
    let due = link.deadline().expect("a deadline");
    // The line itself takes some nanoseconds.
    assert!((added..=added + 1).contains(&due), "{due}");
}

/// The blocks of bytes in section 2.5, which are what two ends really say.
#[test]
fn the_examples_are_what_the_ends_say() {
    let text = super::specification();
    let (_, text) = text.split_once("### 2.5").expect("the examples");
    let (text, _) = text.split_once("### 2.6").expect("the next section");
    let examples: Vec<String> = text
        .split("```text\n")
        .skip(1)
        .map(|block| {
            block
                .split("\n```")
                .next()
                .unwrap_or_default()
                .replace('\n', " ")
        })
        .collect();
    let shown = |frame: &[u8]| {
        let bytes: Vec<String> = frame.iter().map(|byte| format!("{byte:02x}")).collect();
        bytes.join(" ")
    };
    let (mut station, mut device) = (Small::new(), Small::offering(0, 0x0101));
    let mut said = Vec::new();
    station.set_rate(u32::MAX);
    station.open(0x0a0b_0c0d, 0);
    station.send(b"Hi").expect("room");
    let opening = next_frame(&mut station, 0);
    said.push(shown(&opening));
    device.receive(&opening, 0);
    let length = device.front().expect("the message").length;
    device.consume(length);
    let answer = next_frame(&mut device, 0);
    said.push(shown(&answer));
    station.receive(&answer, 0);
    station.send(&[0x55; 1500]).expect("room");
    let lost = next_frame(&mut station, 0);
    let second = next_frame(&mut station, 0);
    assert!(lost.len() > 1000 && second.len() > 400);
    device.receive(&second, 100);
    let holds = next_frame(&mut device, 100);
    said.push(shown(&holds));
    assert_eq!(examples, said);
}

/// A station that nobody answers repeats its `OPEN` when the table says.
#[test]
fn an_answer_is_awaited_as_long_as_the_table_says() {
    let [_, first, longest] = timer("answer")[..] else {
        panic!("three times");
    };
    let nth = between("doubled with each after the ", " in a row");
    let quick = ["first", "second", "third", "fourth", "fifth"]
        .iter()
        .position(|word| *word == nth)
        .expect("an ordinal");
    let mut link = Link::<2048, 2048, 512>::new();
    link.open(2, 0);
    link.send(b"Hi").expect("room");
    let (mut now, mut waits) = (0, Vec::new());
    for _ in 0..9 {
        let count = link.transmit(now).len();
        assert!(count > 0, "nothing goes out at {now} after {waits:?}");
        link.transmitted(count, now);
        let due = link.deadline().expect("a deadline");
        waits.push(due - now);
        now = due;
    }
    // The first runs from the last bit: some milliseconds more.
    let line = 20;
    let mut expected = first;
    for (index, wait) in waits.iter().enumerate() {
        if index > quick + 1 {
            expected = (expected * 2).min(longest);
        }
        assert!(
            (expected..=expected + line).contains(wait),
            "{waits:?}, wait {index}"
        );
    }
}

#[test]
fn the_rates_and_bounds_are_those_of_the_code() {
    let listed = integers(&between("The bits of `rates` are", "baud"));
    assert_eq!(listed, rates::ALL.map(u64::from));
    let base = integers(&between("found at", "baud"));
    assert_eq!(base, [u64::from(rates::BASE)]);
    let opening = integers(&between("offset 0, and at most", "bytes of data"));
    assert_eq!(opening, [OPENING_DATA as u64]);
    let smallest = integers(&between("with each loss down to", "bytes"));
    assert_eq!(smallest, [u64::from(SMALLEST_FRAME)]);
}
