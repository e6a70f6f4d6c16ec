//! How often the real commands wait for a device after its greeting, and what a session costs in bytes.
#![cfg(unix)]

use std::sync::{Arc, Mutex};

use keyferry::device::flow;
use keyferry::device::session::Session;
use keyferry_protocol::identity::{Challenge, Signature};
use keyferry_protocol::message::{Reply, Request};
use keyferry_protocol::suite::UnwrapAlgorithm;
use keyferry_tests::desk::{Desk, Direction, OnDesk};
use keyferry_tests::mitm::{Fate, Mitm};
use keyferry_tests::relay::Relay;
use keyferry_tests::software::{SoftAuthority, aes_key, hmac_key, p256_key, rsa_key, wrap};
use keyferry_tests::tokens::Scratch;

/// What went over a line.
#[derive(Default)]
struct Seen {
    /// Greetings.
    greetings: usize,
    /// Questions after the greeting that the station waited for an answer to. Blobs ask nothing, progress answers nothing, and a
    /// message that is sent again, or one behind another, is no new turn.
    turns: usize,
    asked: bool,
}

impl Seen {
    fn note(&mut self, direction: Direction, message: &[u8]) {
        match direction {
            Direction::Down => match Request::decode(message) {
                Ok(Request::Blob { .. }) => {}
                Ok(Request::Hello { .. }) => self.greetings += 1,
                Ok(_) => self.asked = true,
                Err(error) => panic!("{error:?}"),
            },
            Direction::Up => match Reply::decode(message) {
                Ok(Reply::Progress(_) | Reply::Hello(_)) => {}
                Ok(_) => self.turns += usize::from(std::mem::take(&mut self.asked)),
                Err(error) => panic!("{error:?}"),
            },
        }
    }
}

/// A line with a token.
struct Line {
    scratch: Scratch,
    device: OnDesk,
}

impl Line {
    /// With an authority, a CA and five keys, and a blank device.
    fn new() -> Self {
        let scratch = Scratch::new("line");
        for (label, kind, more) in [
            ("authority", "p-256", &["--usage", "sign"][..]),
            ("aes-128", "aes-128", &["--extractable"]),
            ("aes-256", "aes-256", &["--extractable"]),
            ("hmac", "hmac-256", &["--extractable"]),
            ("p-256", "p-256", &["--extractable"]),
            ("rsa", "rsa-2048", &["--extractable"]),
        ] {
            let create = ["key", "create", "--label", label, "--type", kind];
            scratch.done(create.iter().chain(more));
        }
        let ca = scratch.path("ca.pem");
        let create = ["ca", "init", "--create", "--label", "ca", "--out"];
        scratch.done(create.into_iter().chain(ca.to_str()));
        Self {
            scratch,
            device: OnDesk::start(Desk::new(1, 32)),
        }
    }

    fn file(&self, name: &str) -> String {
        self.scratch.path(name).to_str().unwrap().to_owned()
    }

    /// Runs a command that greets the device once; gives the turns after that.
    fn turns(&self, command: &str, more: &[&str]) -> usize {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let notes = Arc::clone(&seen);
        let hands = move |direction, message: &mut Vec<u8>| {
            notes.lock().unwrap().note(direction, message);
            Fate::Pass
        };
        let cable = Relay::to(Box::new(Mitm::new(self.device.port(), hands)));
        let front = ["device", command, "--port", cable.path()];
        let common = ["--authority", "authority", "--allow-test-devices"];
        self.scratch.done(front.iter().chain(&common).chain(more));
        drop(cable);
        let seen = seen.lock().unwrap();
        assert!(seen.greetings > 0);
        println!("{command} {}: {} turns", more.join(" "), seen.turns);
        seen.turns
    }
}

/// A blank device gets its keys in three turns after the greetings, an enrolled one in two, however many keys there are and whether
/// it gets a certificate with them.
#[test]
fn a_device_is_asked_two_or_three_times() {
    let line = Line::new();
    let open = ["--policy", "open"];
    let ca = line.file("ca.pem");
    let certified = ["--ca-key", "ca", "--ca-certificate", &ca];
    let enroll = [&open[..], &["--unwrap", "p-256"]].concat();
    assert_eq!(line.turns("enroll", &enroll), 1);
    let keys = ["aes-128", "aes-256", "hmac", "p-256", "rsa"];
    let keys: Vec<&str> = keys.iter().flat_map(|key| ["--key", key]).collect();
    let all = [&open[..], &certified, &keys].concat();
    assert_eq!(line.turns("inject", &all), 2);
    // The certificate is there now.
    let again = [&open[..], &certified, &keys[..2], &["--version", "2"]].concat();
    assert_eq!(line.turns("inject", &again), 2);
    let mut session = Session::open(line.device.port()).unwrap();
    assert!(session.greeting().certified);
    assert!(flow::certificate(&mut session).unwrap().is_some());
    assert_eq!(line.turns("prove", &[&open[..], &keys[..2]].concat()), 2);
}

/// The messages of one session as bytes of what they carry.
#[derive(Debug, Default)]
struct Cost {
    hello: usize,
    hello_reply: usize,
    order_message: usize,
    order: usize,
    blob_messages: usize,
    blobs: usize,
    progress: usize,
    receipt_message: usize,
    receipt: usize,
}

impl Cost {
    fn note(&mut self, direction: Direction, message: &[u8]) {
        match direction {
            Direction::Down => match Request::decode(message).unwrap() {
                Request::Hello { .. } => self.hello += message.len(),
                Request::Order { order, .. } => {
                    self.order_message += message.len();
                    self.order += order.len();
                }
                Request::Blob { bytes } => {
                    self.blob_messages += message.len();
                    self.blobs += bytes.len();
                }
                other => panic!("{other:?}"),
            },
            Direction::Up => match Reply::decode(message).unwrap() {
                Reply::Hello(_) => self.hello_reply += message.len(),
                Reply::Progress(_) => self.progress += message.len(),
                Reply::Receipt { receipt, .. } => {
                    self.receipt_message += message.len();
                    self.receipt += receipt.len();
                }
                other => panic!("{other:?}"),
            },
        }
    }

    /// All bytes of all messages.
    fn all(&self) -> usize {
        self.hello
            + self.hello_reply
            + self.order_message
            + self.blob_messages
            + self.progress
            + self.receipt_message
    }

    /// Order, receipt and their signatures, and the blobs: what no layout could leave out.
    fn bare(&self) -> usize {
        self.order + self.receipt + 2 * Signature::LENGTH + self.blobs
    }
}

/// The messages around orders, receipts and blobs are small beside them.
#[test]
fn a_session_costs_little_more_than_what_is_signed_and_its_blobs() {
    // The labels and types of `cargo xtask demo`.
    let labels = [
        "sensor-aes-128",
        "sensor-aes-256",
        "telemetry-hmac",
        "tls-p-256",
        "tls-rsa-2048",
    ];
    let keys = [
        aes_key(16, 1),
        aes_key(32, 2),
        hmac_key(3),
        p256_key(4),
        rsa_key(5),
    ];
    for unwrap in [UnwrapAlgorithm::Rsa2048, UnwrapAlgorithm::P256] {
        let device = OnDesk::start(Desk::new(1, 32));
        let authority = SoftAuthority::new(0);
        let mut session = Session::open(device.port()).unwrap();
        let nonce = Challenge([9; 32]);
        let mut statement =
            flow::enroll(&mut session, &authority, unwrap, nonce, &mut |_| {}).unwrap();
        let mut shipment = wrap(&statement, &keys, 1);
        for (parcel, label) in shipment.parcels.iter_mut().zip(labels) {
            parcel.label = heapless::String::try_from(label).unwrap();
        }
        drop(session);

        let cost = Arc::new(Mutex::new(Cost::default()));
        let notes = Arc::clone(&cost);
        let hands = move |direction, message: &mut Vec<u8>| {
            notes.lock().unwrap().note(direction, message);
            Fate::Pass
        };
        let port = Mitm::new(device.port(), hands);
        let mut session = Session::open(Box::new(port)).unwrap();
        statement.standing.challenge = session.greeting().challenge;
        let challenge = Challenge([3; 32]);
        flow::inject(
            &mut session,
            &authority,
            &statement,
            &shipment,
            challenge,
            &mut |_| {},
        )
        .unwrap();
        let cost = cost.lock().unwrap();
        println!(
            "{unwrap}: {cost:?}; {} bytes in all, {} bare",
            cost.all(),
            cost.bare()
        );
        assert!(cost.all() * 100 <= cost.bare() * 109, "{unwrap}");
    }
}
