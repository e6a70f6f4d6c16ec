//! Recordings of a line: the file, and what is found in the bytes of it.

use std::fs;

use keyferry::device::capture::{Decoder, FORMAT, Item, Record, Recording, To, What, describe};
use keyferry_protocol::link::Millis;
use serde_json::{Value, json};

use super::link::{Input, deframer_seeds, framed};

/// A recording's file if it begins as one; else what passed the line: pieces in either direction, and frames whose check is right.
pub(super) fn capture(data: &[u8]) -> bool {
    if data.first() == Some(&b'{') {
        file(data)
    } else {
        line(data)
    }
}

fn file(data: &[u8]) -> bool {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("recording");
    fs::write(&path, data).expect("the folder can be written");
    let Ok(mut recording) = Recording::open(&path) else {
        return false;
    };
    assert_eq!(recording.heading().format, FORMAT);
    let (mut decoder, mut sound) = (Decoder::new(), true);
    for record in recording.by_ref() {
        match record {
            Ok(record) => look_at(&decoder.take(record)),
            Err(error) => {
                assert!(!error.to_string().is_empty());
                sound = false;
            }
        }
    }
    assert!(recording.next().is_none(), "an end is an end");
    assert_eq!(recording.is_cut() && sound, sound && !data.ends_with(b"\n"));
    sound
}

fn line(data: &[u8]) -> bool {
    let (mut input, mut decoder, mut ms, mut found) = (Input(data), Decoder::new(), 0, false);
    while !input.is_empty() {
        let head = input.byte();
        let piece = input.bytes(usize::from(head & 0x3f));
        let bytes = if head & 0x40 == 0 {
            piece.to_vec()
        } else {
            framed(piece)
        };
        let to = if head & 0x80 == 0 {
            To::Device
        } else {
            To::Station
        };
        ms += Millis::from(head);
        let items = decoder.take(Record {
            ms,
            what: What::Bytes { to, bytes },
        });
        look_at(&items);
        found |= items
            .iter()
            .any(|item| matches!(item, Item::Message { .. }));
    }
    let _ = decoder.unfinished();
    found
}

/// What is shown of it to a person.
fn look_at(items: &[Item]) {
    for item in items {
        match item {
            Item::Message { to, bytes, .. } => {
                assert!((1..=usize::from(u16::MAX)).contains(&bytes.len()));
                let description = describe(*to, bytes);
                for (_, value) in &description.fields {
                    assert_plain(value);
                }
            }
            Item::Damaged { length, start, .. } => {
                assert!(start.len() <= 32 && start.len() <= *length);
            }
            Item::Frame { .. } | Item::Baud { .. } | Item::Gone { .. } => {}
        }
    }
}

/// No value may steer a terminal.
fn assert_plain(value: &Value) {
    match value {
        Value::String(text) => assert!(!text.chars().any(char::is_control), "{text:?}"),
        Value::Array(values) => values.iter().for_each(assert_plain),
        Value::Object(fields) => fields.values().for_each(assert_plain),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// A file, and a session in both directions.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    let sides = deframer_seeds();
    let mut mixed = Vec::new();
    // Behind the first byte stand a head, as many bytes as it says, and a moment, again and again.
    for (side, direction) in sides.iter().zip([0, 0x80]) {
        let mut rest = Input(side.get(1..).unwrap_or_default());
        while !rest.is_empty() {
            let length = rest.byte() & 0x3f;
            mixed.push(direction | 0x40 | length);
            mixed.extend(rest.bytes(usize::from(length)));
            rest.byte();
        }
    }
    let lines = [
        json!({ "keyferry-capture": FORMAT, "port": "desk", "started": "2026-01-01T00:00:00Z" }),
        json!({ "ms": 0, "baud": 115_200 }),
        json!({ "ms": 3, "to": "device", "hex": hex::encode(framed(&[0x41, 1, 0, 0])) }),
        json!({ "ms": 4, "to": "station", "hex": hex::encode(b"boot\r\n\0") }),
        json!({ "ms": 9, "gone": "unplugged" }),
    ];
    let file: String = lines.iter().map(|line| format!("{line}\n")).collect();
    vec![mixed, file.into_bytes()]
}
