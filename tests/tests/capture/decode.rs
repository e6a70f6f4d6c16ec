//! What is found in a recording.

use keyferry::device::capture::{Item, To};
use keyferry::device::flow;
use keyferry::device::session::Session;
use keyferry_protocol::identity::Challenge;
use keyferry_protocol::link::{Front, Link};
use keyferry_protocol::suite::UnwrapAlgorithm;
use keyferry_tests::command::{self, Answer};
use keyferry_tests::desk::{Desk, Direction, OnDesk};
use keyferry_tests::relay::Relay;
use keyferry_tests::software::{SoftAuthority, aes_key, hmac_key, wrap};
use serde_json::Value;

use super::{items, messages, recorded};

/// Enrols a device and gives it two keys.
fn work(port: Box<dyn keyferry::device::port::Port>) {
    let authority = SoftAuthority::new(0);
    let mut session = Session::open(port).unwrap();
    let mut quiet = |_| {};
    let statement = flow::enroll(
        &mut session,
        &authority,
        UnwrapAlgorithm::P256,
        Challenge([9; 32]),
        &mut quiet,
    )
    .unwrap();
    let shipment = wrap(&statement, &[aes_key(32, 1), hmac_key(2)], 1);
    flow::inject(
        &mut session,
        &authority,
        &statement,
        &shipment,
        Challenge([3; 32]),
        &mut quiet,
    )
    .unwrap();
}

#[test]
fn a_whole_session_is_told_message_by_message() {
    let folder = tempfile::tempdir().unwrap();
    let device = OnDesk::start(Desk::new(5, 64));
    let (port, path) = recorded(device.port(), folder.path(), "session");
    work(port);
    let found = items(&path);
    assert!(!found.iter().any(|item| matches!(
        item,
        Item::Damaged { .. } | Item::Gone { .. } | Item::Frame { again: true, .. }
    )));
    let told = messages(&found);
    let of = |to: To, name: &str| -> Vec<&Value> {
        told.iter()
            .filter(|(where_to, what, _)| *where_to == to && *what == name)
            .map(|(_, _, fields)| fields)
            .collect()
    };
    assert!(
        told.iter().all(|(_, name, _)| *name != "unknown"),
        "{told:?}"
    );
    assert_eq!(of(To::Device, "hello").len(), 1);
    let [hello] = of(To::Station, "hello")[..] else {
        panic!("{told:?}");
    };
    assert_eq!(hello["device"], "05".repeat(16));
    assert_eq!(hello["board"], "desk");
    assert_eq!(hello["state"], "blank");

    let [enroll, inject] = of(To::Device, "order")[..] else {
        panic!("{told:?}");
    };
    assert_eq!(enroll["kind"], "enroll");
    assert_eq!(enroll["unwrap"], "p-256");
    assert_eq!(inject["kind"], "inject");
    assert_eq!(inject["slots"].as_array().unwrap().len(), 2);
    assert_eq!(
        inject["counter"].as_u64().unwrap(),
        enroll["counter"].as_u64().unwrap() + 1
    );
    let blobs: u64 = of(To::Device, "blob")
        .iter()
        .map(|blob| blob["bytes"].as_u64().unwrap())
        .sum();
    assert_eq!(inject["blob_bytes"].as_u64().unwrap(), blobs);

    let [enrolled, injected] = of(To::Station, "receipt")[..] else {
        panic!("{told:?}");
    };
    assert_eq!(enrolled["outcome"], "applied");
    assert_eq!(injected["state"], "provisioned");
    assert_eq!(injected["proofs"].as_array().unwrap().len(), 2);
    assert!(!of(To::Station, "progress").is_empty());
}

#[test]
fn damage_is_shown_and_every_message_is_told_once_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (clean, clean_path) = recorded(
        OnDesk::start(Desk::new(5, 64)).port(),
        folder.path(),
        "clean",
    );
    work(clean);
    let mut passed = 0_usize;
    let device = OnDesk::start(Desk::new(5, 64));
    // One bit in some hundred bytes, both ways. The recording is at the station's end.
    let line = device.port_through(move |_: Direction, bytes| {
        for byte in bytes {
            passed += 1;
            if passed.is_multiple_of(401) {
                *byte ^= 0x10;
            }
        }
    });
    let (bad, bad_path) = recorded(line, folder.path(), "bad");
    work(bad);
    let found = items(&bad_path);
    let damaged = found
        .iter()
        .filter(|item| {
            matches!(
                item,
                Item::Damaged {
                    to: To::Station,
                    ..
                }
            )
        })
        .count();
    let again = found
        .iter()
        .filter(|item| matches!(item, Item::Frame { again: true, .. }))
        .count();
    assert!(damaged > 0, "nothing was damaged");
    assert!(again > 0, "nothing was repeated");
    let without_progress = |items: &[Item]| -> Vec<(To, &'static str)> {
        messages(items)
            .into_iter()
            .map(|(to, name, _)| (to, name))
            .filter(|(_, name)| *name != "progress")
            .collect()
    };
    assert_eq!(
        without_progress(&found),
        without_progress(&items(&clean_path))
    );
}

#[test]
fn the_command_shows_people_and_scripts_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("info.capture");
    let relay = Relay::to(OnDesk::start(Desk::new(5, 64)).port());
    let answer = Answer::of(
        command::keyferry()
            .args(["device", "info", "--port", relay.path(), "--capture"])
            .arg(&path),
    );
    assert_eq!(answer.code, 0, "{answer:?}");
    let decode = |json: &[&str]| {
        let answer = Answer::of(
            command::keyferry()
                .args(json)
                .args(["line", "decode"])
                .arg(&path),
        );
        assert_eq!(answer.code, 0, "{answer:?}");
        answer
    };
    let scripts = decode(&["--json"]);
    let events: Vec<Value> = scripts
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let first = &events[0];
    assert_eq!(first["item"], "frame");
    assert_eq!(first["to"], "device");
    assert_eq!(first["flags"], serde_json::json!(["OPEN"]));
    assert_eq!(first["offset"], 0);
    let last = events.last().unwrap();
    let count = |item: &str| events.iter().filter(|event| event["item"] == item).count();
    assert_eq!(last["frames"], count("frame"));
    assert_eq!(last["messages"], count("message"));
    assert_eq!(last["damaged"], 0);
    assert_eq!(last["cut"], false);
    assert_eq!(last["port"], relay.path());

    let people = decode(&[]);
    let lines = |part: &str| {
        people
            .stdout
            .lines()
            .filter(|line| line.contains(part))
            .count()
    };
    assert_eq!(
        lines("> device") + lines("< station"),
        count("frame") + count("message")
    );
    assert_eq!(lines("hello  version"), 1, "{people:?}");
    assert_eq!(lines("OPEN  nonce"), count_open(&events));
    assert_eq!(people.stderr, "");
}

fn count_open(events: &[Value]) -> usize {
    events
        .iter()
        .filter(|event| event.get("nonce").is_some())
        .count()
}

/// The example of the specification is read as it says there.
#[test]
fn the_example_of_the_specification_is_read() {
    let specification = include_str!("../../../protocol/SPEC.md");
    let example = specification
        .lines()
        .find(|line| line.starts_with("00 ") && line.ends_with(" 00"))
        .expect("an example of a frame");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("example");
    let heading = r#"{"keyferry-capture":1,"port":"p","started":"s"}"#;
    let record = format!(
        r#"{{"ms":7,"to":"device","hex":"{}"}}"#,
        example.replace(' ', "")
    );
    std::fs::write(&path, format!("{heading}\n{record}\n")).unwrap();
    let found = items(&path);
    let [
        Item::Frame { ms: 7, fields, .. },
        Item::Message { bytes, .. },
    ] = &found[..]
    else {
        panic!("{found:?}");
    };
    assert_eq!(fields.session, 0);
    assert_eq!(fields.parameters.unwrap().nonce, 0x0a0b_0c0d);
    assert_eq!(bytes, b"Hi");
}

/// Frames in an order of the test's choice, beside a station that gets the same.
struct ByHand {
    station: End,
    lines: Vec<String>,
}

type End = Link<2_048, 2_048, 512>;

fn next(end: &mut End) -> Vec<u8> {
    let frame = end.transmit(0).to_vec();
    end.transmitted(frame.len(), 0);
    frame
}

/// A message of this end, in one frame.
fn saying(end: &mut End, message: &[u8]) -> Vec<u8> {
    end.send(message).unwrap();
    next(end)
}

impl ByHand {
    /// With the opening frame.
    fn new() -> (Self, Vec<u8>) {
        let mut by_hand = Self {
            station: End::new(),
            lines: vec![r#"{"keyferry-capture":1,"port":"p","started":"s"}"#.to_owned()],
        };
        by_hand.station.open(1, 0);
        let opening = by_hand.say(b"hello");
        (by_hand, opening)
    }

    fn record(&mut self, to: &str, frame: &[u8]) {
        let hex = hex::encode(frame);
        self.lines
            .push(format!(r#"{{"ms":7,"to":"{to}","hex":"{hex}"}}"#));
    }

    fn say(&mut self, message: &[u8]) -> Vec<u8> {
        let frame = saying(&mut self.station, message);
        self.record("device", &frame);
        frame
    }

    fn hear(&mut self, frame: &[u8]) {
        self.record("station", frame);
        self.station.receive(frame, 0);
    }

    /// The messages in the recording, as text.
    fn told(&self) -> Vec<(To, String)> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("by-hand");
        std::fs::write(&path, self.lines.join("\n") + "\n").unwrap();
        items(&path)
            .into_iter()
            .filter_map(|item| match item {
                Item::Message { to, bytes, .. } => Some((to, String::from_utf8(bytes).unwrap())),
                _ => None,
            })
            .collect()
    }

    /// The messages that the station has got.
    fn got(&mut self) -> Vec<(To, String)> {
        let mut got = Vec::new();
        while let Some(front) = self.station.front().filter(Front::is_complete) {
            let text = String::from_utf8(front.bytes.to_vec()).unwrap();
            let length = front.length;
            self.station.consume(length);
            got.push((To::Station, text));
        }
        got
    }
}

/// A device that is restarted amid the opening takes the session up under another number: the station believes the first, and so does who
/// reads the recording.
#[test]
fn what_a_restarted_device_says_belongs_to_no_session() {
    let (mut by_hand, opening) = ByHand::new();
    for (number, word) in [(0x0100, b"the first."), (0x0200, b"the second")] {
        let mut device = End::offering(0, number);
        device.receive(&opening, 0);
        by_hand.hear(&saying(&mut device, word));
    }
    assert_eq!(by_hand.got(), [(To::Station, "the first.".to_owned())]);
    by_hand.say(b"on we go");
    let told = by_hand.told();
    let told: Vec<_> = told.iter().map(|(to, text)| (*to, &text[..])).collect();
    assert_eq!(
        told,
        [
            (To::Device, "hello"),
            (To::Station, "the first."),
            (To::Device, "on we go")
        ]
    );
}

/// SPEC: M-43
#[test]
fn what_comes_twice_is_read_as_it_came_first() {
    let (mut by_hand, opening) = ByHand::new();
    let (mut device, mut other) = (End::new(), End::new());
    for end in [&mut device, &mut other] {
        end.receive(&opening, 0);
    }
    by_hand.hear(&next(&mut device));
    let (first, second) = (saying(&mut device, b"one"), saying(&mut device, b"two"));
    saying(&mut other, b"ONE");
    let forged = saying(&mut other, b"TWO");
    for frame in [&second, &forged, &first] {
        by_hand.hear(frame);
    }
    let got = by_hand.got();
    assert_eq!(got.len(), 2);
    assert_eq!(by_hand.told()[1..], got);
    assert_eq!(got[1].1, "two");
}

/// SPEC: M-8
#[test]
fn what_comes_after_the_end_of_a_session_belongs_to_none() {
    let (mut by_hand, opening) = ByHand::new();
    let mut device = End::new();
    device.receive(&opening, 0);
    by_hand.hear(&saying(&mut device, b"welcome"));
    let late = saying(&mut device, b"late");
    device.close();
    let reset = next(&mut device);
    let got = by_hand.got();
    by_hand.hear(&reset);
    by_hand.hear(&late);
    assert!(by_hand.got().is_empty() && !by_hand.station.is_open());
    assert_eq!(by_hand.told()[1..], got);
}
