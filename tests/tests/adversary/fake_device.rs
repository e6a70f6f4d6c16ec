//! A device that says it is another: real firmware with keys of its own, under the id of one that is known, or with what the known one
//! has signed. Nothing is wrapped for it.

use std::fs;

use keyferry::device::flow;
use keyferry::device::port::Port;
use keyferry::device::session::Session;
use keyferry_protocol::identity::{DeviceId, Fingerprint};
use keyferry_protocol::message::{Reply, Request};
use keyferry_tests::desk::{Desk, Direction, OnDesk};
use keyferry_tests::mitm::{Fate, Mitm, reply};
use keyferry_tests::relay::Relay;

use crate::line::Line;

const NUMBER: u8 = 95;
const OPEN: [&str; 4] = ["--policy", "open", "--unwrap", "p-256"];
const KEYS: [&str; 2] = ["--key", "mac@0"];

/// Another board with the number of the known one: it was started once more, so that its keys are others.
fn double() -> OnDesk {
    let board = OnDesk::start(Desk::new(NUMBER, 32));
    OnDesk::start(Desk::with_flash(NUMBER, board.stop()))
}

/// The identity that a device greets with.
fn identity(device: &OnDesk) -> Fingerprint {
    Session::open(device.port()).unwrap().greeting().identity
}

/// A line that knows one device, and a fake that another station has enrolled under the same authority.
fn known_and_fake() -> (Line, OnDesk, OnDesk) {
    let line = Line::new("line");
    let known = OnDesk::start(Desk::new(NUMBER, 32));
    let fake = double();
    let cable = Relay::to(known.port());
    line.done("enroll", cable.path(), &OPEN);
    drop(cable);
    // Without books: the attacker has found a station of the same plant that keeps none.
    let cable = Relay::to(fake.port());
    let enroll = ["device", "enroll", "--port", cable.path(), "--authority"];
    let more = ["authority", "--allow-test-devices"];
    line.scratch
        .done(enroll.into_iter().chain(more).chain(OPEN));
    drop(cable);
    assert_ne!(identity(&known), identity(&fake));
    (line, known, fake)
}

/// Has the line inject into whatever is on the port, under this policy.
fn turned_away(line: &Line, port: Box<dyn Port>, policy: &[&str], code: i32, words: &str) {
    let cable = Relay::to(port);
    let more = [policy, &KEYS].concat();
    line.refused("inject", cable.path(), &more, code, words);
    drop(cable);
    // Nothing was wrapped, much less proved.
    assert_eq!(line.tally(), [0; 4]);
}

#[test]
fn a_fake_under_a_known_id_is_refused_by_registry_and_allowlist_and_even_where_the_room_is_trusted()
{
    let (line, known, fake) = known_and_fake();
    let id = DeviceId([NUMBER; 16]);
    let allowed = line.file("allowed.txt");
    fs::write(&allowed, format!("{id} {}\n", identity(&known))).unwrap();
    let strange = line.file("strange.txt");
    fs::write(
        &strange,
        format!("{} {}\n", DeviceId([1; 16]), identity(&known)),
    )
    .unwrap();
    let (his, its) = (identity(&fake).to_string(), identity(&known).to_string());

    turned_away(&line, fake.port(), &["--policy", "registry"], 5, &his);
    turned_away(&line, fake.port(), &["--policy", "open"], 5, &its);
    turned_away(
        &line,
        fake.port(),
        &["--policy", "allowlist", "--allowlist", &allowed],
        5,
        &his,
    );
    turned_away(&line, fake.port(), &["--identity", &its], 5, &his);
    // Valid in every way, and on no list.
    turned_away(
        &line,
        known.port(),
        &["--policy", "allowlist", "--allowlist", &strange],
        5,
        &id.to_string(),
    );
    // The real one is served.
    let cable = Relay::to(known.port());
    let policy = ["--policy", "allowlist", "--allowlist", &allowed];
    line.done("inject", cable.path(), &[&policy[..], &KEYS].concat());
}

#[test]
fn a_serial_number_enrols_one_device_once() {
    let line = Line::new("line");
    let serials = line.file("serials.txt");
    fs::write(&serials, format!("{}\n", DeviceId([NUMBER; 16]))).unwrap();
    let policy = ["--policy", "serial-list", "--serials", &serials];
    let enroll = [&policy[..], &["--unwrap", "p-256"]].concat();
    let first = OnDesk::start(Desk::new(NUMBER, 32));
    line.done("enroll", Relay::to(first.port()).path(), &enroll);

    let second = double();
    let cable = Relay::to(second.port());
    line.refused("enroll", cable.path(), &enroll, 5, "identity key");
    drop(cable);
    let unlisted = OnDesk::start(Desk::new(NUMBER + 1, 32));
    let cable = Relay::to(unlisted.port());
    let id = DeviceId([NUMBER + 1; 16]).to_string();
    line.refused("enroll", cable.path(), &enroll, 5, &id);
    drop(cable);
    // The first is still the one that counts.
    let cable = Relay::to(first.port());
    let more = [&["--policy", "registry"][..], &KEYS].concat();
    line.done("inject", cable.path(), &more);
}

/// The known device is certified. The fake shows its certificate: plainly; greeting with its identity; and with the known device on a
/// second line, which signs whatever it is asked to sign.
#[test]
fn a_certificate_of_another_device_helps_no_fake() {
    let (mut line, known, fake) = known_and_fake();
    let ca = line.file("ca.pem");
    let cable = Relay::to(known.port());
    let issue = ["--ca-key", "ca", "--ca-certificate", &ca];
    let more = [&["--policy", "registry"][..], &issue, &KEYS].concat();
    line.done("inject", cable.path(), &more);
    drop(cable);
    let before = line.tally();
    let certificate = flow::certificate(&mut Session::open(known.port()).unwrap())
        .unwrap()
        .unwrap();
    let identity = identity(&known);

    // The registry would not be fooled anyway.
    line.registry = false;
    let policy = ["--policy", "certificate", "--ca", &ca];
    let more = [&policy[..], &KEYS, &["--version", "2"]].concat();
    // How far the fake goes, and how the command ends.
    for (lies, code, words) in [
        (0, 5, "has no certificate"),
        (1, 5, "certificate"),
        (2, 4, "signature is not the device's"),
        // The order is addressed to the key that signed the status, which is not in this device.
        (3, 4, "for another device or for other keys"),
    ] {
        let certificate = certificate.clone();
        let helper = known.clone();
        let mut asked = None;
        let hands = move |direction, message: &mut Vec<u8>| {
            let copy = message.clone();
            if direction == Direction::Down {
                if let Ok(Request::Status { order, nonce }) = Request::decode(&copy) {
                    asked = Some((order, nonce));
                }
                return Fate::Pass;
            }
            match Reply::decode(&copy) {
                Ok(Reply::Refused(_)) if lies >= 1 && asked.is_none() => {
                    // In place of "no certificate".
                    *message = reply(&Reply::Certificate {
                        bytes: &certificate,
                    });
                }
                Ok(Reply::Hello(mut hello)) if lies >= 2 => {
                    hello.identity = identity;
                    *message = reply(&Reply::Hello(hello));
                }
                Ok(Reply::Status { .. }) if lies >= 3 => {
                    let (order, nonce) = asked.unwrap();
                    let question = Request::Status { order, nonce };
                    let mut session = Session::open(helper.port()).unwrap();
                    *message = session.exchange(&question, &mut |_| {}).unwrap();
                }
                Ok(_) | Err(_) => {}
            }
            Fate::Pass
        };
        let cable = Relay::to(Box::new(Mitm::new(fake.port(), hands)));
        println!("lies: {lies}");
        line.refused("inject", cable.path(), &more, code, words);
        drop(cable);
        assert_eq!(line.tally(), before, "lies: {lies}");
    }
    let cable = Relay::to(known.port());
    line.done("inject", cable.path(), &more);
}
