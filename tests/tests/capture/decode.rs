//! What is found in a recording.

use keyferry::device::capture::{Item, To};
use keyferry::device::flow;
use keyferry::device::session::Session;
use keyferry_protocol::identity::Challenge;
use keyferry_protocol::link::Link;
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

/// A device that is restarted amid the opening takes the session up under another number: the station believes the first, and so does who
/// reads the recording.
#[test]
fn what_a_restarted_device_says_belongs_to_no_session() {
    type End = Link<2_048, 2_048, 512>;
    fn next(end: &mut End) -> Vec<u8> {
        let frame = end.transmit(0).to_vec();
        end.transmitted(frame.len(), 0);
        frame
    }
    let (mut station, mut first, mut second) = (
        End::new(),
        End::offering(0, 0x0100),
        End::offering(0, 0x0200),
    );
    let mut lines = vec![r#"{"keyferry-capture":1,"port":"p","started":"s"}"#.to_owned()];
    let mut record = |to: &str, frame: &[u8]| {
        let hex = hex::encode(frame);
        lines.push(format!(r#"{{"ms":7,"to":"{to}","hex":"{hex}"}}"#));
    };
    station.open(1, 0);
    station.send(b"hello").unwrap();
    let opening = next(&mut station);
    record("device", &opening);
    for (device, word) in [(&mut first, b"the first."), (&mut second, b"the second")] {
        device.receive(&opening, 0);
        device.send(word).unwrap();
        let answer = next(device);
        record("station", &answer);
        station.receive(&answer, 0);
    }
    station.send(b"on we go").unwrap();
    record("device", &next(&mut station));
    assert_eq!(station.front().unwrap().bytes, b"the first.");

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("restarted");
    std::fs::write(&path, lines.join("\n") + "\n").unwrap();
    let told: Vec<(To, Vec<u8>)> = items(&path)
        .into_iter()
        .filter_map(|item| match item {
            Item::Message { to, bytes, .. } => Some((to, bytes)),
            _ => None,
        })
        .collect();
    assert_eq!(
        told,
        [
            (To::Device, b"hello".to_vec()),
            (To::Station, b"the first.".to_vec()),
            (To::Device, b"on we go".to_vec()),
        ]
    );
}
