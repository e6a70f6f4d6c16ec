//! The socket: whose it is, what may come through it, and what happens to it.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use keyferry::broker::wire::{self, Reply, Request};
use keyferry_tests::broker::{Broker, serve, socket};
use keyferry_tests::command::{self, Answer};
use keyferry_tests::tokens::{PIN, Scratch, set_mode};
use nix::sys::signal::Signal;

use crate::{OPEN, token};

fn connect(broker: &Broker) -> UnixStream {
    let stream = UnixStream::connect(broker.socket()).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    stream
}

/// Sends bytes, and gives the reply, if the broker has one.
fn send(broker: &Broker, bytes: &[u8]) -> Option<Reply> {
    let mut stream = connect(broker);
    let _ = stream.write_all(bytes);
    let frame = wire::read_frame(&mut stream).ok()??;
    Some(wire::decode(&frame).unwrap())
}

fn framed(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap();
    [&length.to_le_bytes(), bytes].concat()
}

fn is_alive(broker: &Broker) {
    let described = framed(&wire::encode(&Request::Describe).unwrap());
    assert!(matches!(
        send(broker, &described),
        Some(Reply::Described(_))
    ));
}

fn fails(reply: Option<Reply>, words: &str) {
    let Some(Reply::Failed(failed)) = reply else {
        panic!("{reply:?}");
    };
    assert_eq!(failed.exit, 2, "{failed:?}");
    assert!(failed.error.contains(words), "{failed:?}");
}

#[test]
fn socket_folder_and_log_are_their_owners_alone() {
    let scratch = token();
    let broker = Broker::start(&scratch, &OPEN);
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(broker.socket()), 0o600);
    assert_eq!(mode(broker.socket().parent().unwrap()), 0o700);
    assert_eq!(mode(&scratch.path("broker.log")), 0o600);
    assert!(broker.ready["token"].as_str().unwrap().contains("factory"));
    assert_eq!(broker.ready["process"], broker.process());
}

#[test]
fn another_user_is_let_through_only_if_allowed() {
    let scratch = token();
    // This test's own user is the broker's; what can be shown without a second account is where the doors stand.
    let broker = Broker::start(&scratch, &[&OPEN[..], &["--allow-uid", "12345"]].concat());
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(broker.socket()), 0o666);
    assert_eq!(mode(broker.socket().parent().unwrap()), 0o711);
    is_alive(&broker);
}

#[test]
fn a_second_broker_is_refused_and_a_dead_ones_socket_is_replaced() {
    let scratch = token();
    let broker = Broker::start(&scratch, &OPEN);
    let second = Answer::of(&mut serve(&scratch, &OPEN));
    assert_eq!(second.code, 2, "{second:?}");
    assert!(
        second.last()["error"]
            .as_str()
            .unwrap()
            .contains("listens on")
    );
    is_alive(&broker);
    let inode = fs::symlink_metadata(broker.socket()).unwrap().ino();
    broker.kill();
    let left = fs::symlink_metadata(socket(&scratch)).unwrap();
    assert!(left.file_type().is_socket() && left.ino() == inode);
    let absent = Answer::of(
        command::keyferry()
            .args(["broker", "status", "--json", "--socket"])
            .arg(socket(&scratch)),
    );
    assert_eq!(absent.code, 3, "{absent:?}");
    assert!(
        absent.last()["error"]
            .as_str()
            .unwrap()
            .contains("no broker answers")
    );
    let broker = Broker::start(&scratch, &OPEN);
    is_alive(&broker);
}

#[test]
fn signals_end_it_and_the_socket_goes() {
    let scratch = token();
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let broker = Broker::start(&scratch, &OPEN);
        // A client that says nothing does not hold it up.
        let silent = connect(&broker);
        let begun = Instant::now();
        let last = broker.end(signal);
        assert!(begun.elapsed() < Duration::from_secs(4));
        assert_eq!(last["ok"], true);
        assert!(!socket(&scratch).exists());
        drop(silent);
    }
}

#[test]
fn what_is_no_socket_is_not_replaced() {
    let scratch = token();
    let socket = socket(&scratch);
    let folder = socket.parent().unwrap();
    fs::create_dir(folder).unwrap();
    set_mode(folder, 0o755);
    let refused = |words: &str| {
        let answer = Answer::of(&mut serve(&scratch, &OPEN));
        assert_eq!(answer.code, 2, "{answer:?}");
        let last = answer.last();
        assert!(last["error"].as_str().unwrap().contains(words), "{last}");
        assert!(last["hint"].is_string(), "{last}");
    };
    refused("others than its owner may use the folder");
    set_mode(folder, 0o700);
    fs::write(&socket, "precious").unwrap();
    refused("no socket");
    assert_eq!(fs::read(&socket).unwrap(), b"precious");
    fs::remove_file(&socket).unwrap();
    fs::write(scratch.path("broker.log"), "").unwrap();
    set_mode(&scratch.path("broker.log"), 0o644);
    refused("others than its owner may use the log");
}

#[test]
fn what_is_missing_on_the_command_line_is_said_before_the_login() {
    let scratch = token();
    let refused = |arguments: &[&str], words: &str| {
        let mut command = scratch.command();
        let answer = Answer::of(command.args(["broker", "--json"]).args(arguments));
        assert_eq!(answer.code, 2, "{answer:?}");
        let error = answer.last()["error"].as_str().unwrap().to_owned();
        assert!(error.contains(words), "{error}");
    };
    let socket = ["--socket", "run/s"];
    let policy = ["--visit-policy", "open"];
    refused(&[], "--socket");
    refused(&socket, "--allow-key");
    refused(
        &[&socket[..], &["--allow-all-keys"]].concat(),
        "--visit-policy",
    );
    refused(
        &[&socket[..], &policy, &["--allow-all-keys"]].concat(),
        "--authority",
    );
    refused(
        &[
            &socket[..],
            &policy,
            &["--allow-all-keys", "--serials", "x"],
        ]
        .concat(),
        "required arguments",
    );
    // A station says one or the other.
    let mut both = command::keyferry();
    both.args([
        "device", "prove", "--json", "--port", "x", "--policy", "open", "--key", "a",
    ])
    .args(["--broker", "x", "--authority", "y"]);
    assert_eq!(Answer::of(&mut both).code, 2);
}

#[test]
fn frames_that_make_no_sense_are_answered_and_change_nothing() {
    let scratch = token();
    let broker = Broker::start(&scratch, &OPEN);
    fails(send(&broker, &u32::MAX.to_le_bytes()), "at most 1048576");
    fails(
        send(&broker, &1_048_577_u32.to_le_bytes()),
        "at most 1048576",
    );
    fails(send(&broker, &framed(&[])), "no sense");
    fails(
        send(&broker, &framed(b"GET / HTTP/1.1\r\n\r\n")),
        "version 71",
    );
    fails(send(&broker, &framed(&[wire::VERSION, 99])), "no sense");
    fails(
        send(&broker, &framed(&[wire::VERSION + 1, 0])),
        "version 2 is spoken",
    );
    let described = wire::encode(&Request::Describe).unwrap();
    fails(
        send(&broker, &framed(&[&described[..], &[0]].concat())),
        "no sense",
    );
    // A connection that goes on after a frame that was taken in whole.
    let mut stream = connect(&broker);
    stream.write_all(&framed(&[wire::VERSION, 99])).unwrap();
    wire::read_frame(&mut stream).unwrap().unwrap();
    stream.write_all(&framed(&described)).unwrap();
    let reply = wire::read_frame(&mut stream).unwrap().unwrap();
    assert!(matches!(wire::decode(&reply), Ok(Reply::Described(_))));
    let counts = broker.counts();
    assert_eq!(
        (&counts["orders"], &counts["failed"]),
        (&0.into(), &8.into())
    );
}

/// A simple generator: the same bytes at every run.
struct Seeded(u64);

impl Seeded {
    fn next(&mut self) -> u64 {
        // Knuth's MMIX.
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next()).unwrap() % limit
    }
}

/// One request of each kind, with something in every field.
fn samples() -> Vec<Vec<u8>> {
    use keyferry_protocol::identity::{Digest, Signature};
    let card = || wire::Card {
        label: "sensor".into(),
        id: vec![1, 2],
        key_type: "aes-256".into(),
        attributes: keyferry_tests::software::aes_key(32, 1).attributes,
        proof: keyferry_protocol::proof::Proof::Cmac,
        kept: Some(wire::KeptKey {
            under: "keeper".into(),
            blob: vec![9; 40],
            public_key: Some(vec![0x30; 91]),
        }),
    };
    let claim = || wire::Claim {
        receipt: vec![7; 300],
        signature: Signature::from_bytes(&[3; 64]),
        certificate: Some(vec![0x30; 50]),
    };
    let suite = keyferry_protocol::suite::Suite::EcdhP256Null;
    [
        Request::Describe,
        Request::Status,
        Request::Key(wire::Wanted {
            label: Some("sensor".into()),
            id: Some(vec![1]),
            class: Some(wire::Class::Secret),
            device_use: Some("cmac".into()),
        }),
        Request::Fresh {
            label: "new".into(),
            key_type: "aes-128".into(),
            device_use: None,
            keep_under: "keeper".into(),
        },
        Request::Suites,
        Request::Enrolled(claim()),
        Request::Wrap {
            claim: claim(),
            suite,
            keys: vec![card(), card()],
        },
        Request::Certify {
            claim: claim(),
            serial: Some("A-1".into()),
        },
        Request::Ask(card()),
        Request::Verify {
            key: card(),
            question: vec![4; 65],
            answer: Some(Digest([1; 32])),
            input: vec![5; 82],
            value: vec![6; 16],
        },
        Request::SignOrder(vec![8; 400]),
        Request::SignCheckpoint {
            log: [1; 16],
            lines: 3,
            head: Digest([2; 32]),
            time: 1,
        },
        Request::SignBatch(vec![b'{'; 400]),
    ]
    .iter()
    .map(|request| wire::encode(request).unwrap())
    .collect()
}

#[test]
fn the_reader_of_frames_takes_anything() {
    let samples = samples();
    let mut seeded = Seeded(4711);
    let mut read = 0;
    for sample in &samples {
        assert!(wire::decode::<Request>(sample).is_ok());
        for length in 0..sample.len() {
            assert!(wire::decode::<Request>(&sample[..length]).is_err());
        }
        for _ in 0..20_000 {
            let mut bytes = sample.clone();
            for _ in 0..=seeded.below(4) {
                let at = seeded.below(bytes.len());
                bytes[at] = u8::try_from(seeded.below(256)).unwrap();
            }
            let cut = seeded.below(8) == 0;
            bytes.truncate(if cut {
                seeded.below(bytes.len())
            } else {
                bytes.len()
            });
            // What decodes says again what was read.
            if let Ok(request) = wire::decode::<Request>(&bytes) {
                read += 1;
                let again = wire::encode(&request).unwrap();
                assert_eq!(wire::decode::<Request>(&again).unwrap(), request);
            }
            let _ = wire::decode::<Reply>(&bytes);
        }
    }
    assert!(read > 1000, "{read}");
}

#[test]
fn mutated_requests_end_no_broker_and_sign_nothing() {
    let scratch = token();
    let broker = Broker::start(&scratch, &OPEN);
    let mut seeded = Seeded(42);
    for sample in samples() {
        for _ in 0..20 {
            let mut bytes = sample.clone();
            let at = seeded.below(bytes.len());
            bytes[at] ^= 1 << seeded.below(8);
            let reply = send(&broker, &framed(&bytes));
            let granted = matches!(
                reply,
                Some(Reply::Signature(_) | Reply::Wrapped { .. } | Reply::Verdict(true))
            );
            assert!(!granted, "{bytes:?}");
        }
    }
    is_alive(&broker);
    let counts = broker.counts();
    assert_eq!(
        (&counts["orders"], &counts["keys_wrapped"]),
        (&0.into(), &0.into())
    );
}

#[test]
fn clients_that_stall_hang_nobody() {
    let scratch = token();
    let broker = Broker::start(&scratch, &OPEN);
    let mut halves = Vec::new();
    for _ in 0..20 {
        let mut half = connect(&broker);
        half.write_all(&[200, 0, 0, 0, wire::VERSION]).unwrap();
        halves.push(half);
    }
    let begun = Instant::now();
    is_alive(&broker);
    assert!(begun.elapsed() < Duration::from_secs(4));
    // They are hung up on.
    for mut half in halves {
        let mut rest = Vec::new();
        half.read_to_end(&mut rest).unwrap();
        assert!(rest.is_empty());
    }
}

#[test]
fn a_hundred_connections_are_served_or_told_so() {
    let scratch = token();
    let broker = Broker::start(&scratch, &OPEN);
    let mut open: Vec<_> = (0..100).map(|_| connect(&broker)).collect();
    let described = framed(&wire::encode(&Request::Describe).unwrap());
    let (mut served, mut told) = (0, 0);
    for stream in &mut open {
        let _ = stream.write_all(&described);
        match wire::read_frame(stream) {
            Ok(Some(frame)) => match wire::decode(&frame).unwrap() {
                Reply::Described(_) => served += 1,
                Reply::Failed(failed) => {
                    assert!(failed.error.contains("64 connections"), "{failed:?}");
                    assert_eq!(failed.exit, 3);
                    told += 1;
                }
                other => panic!("{other:?}"),
            },
            // Turned away while it was writing.
            Ok(None) | Err(_) => told += 1,
        }
    }
    assert_eq!((served, told), (64, 36));
    drop(open);
    std::thread::sleep(Duration::from_millis(600));
    is_alive(&broker);
}

#[test]
fn something_else_on_the_socket_is_told_from_a_broker() {
    let scratch = Scratch::new("unused");
    let path = scratch.path("else.sock");
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = wire::read_frame(&mut stream);
            let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n");
        }
    });
    let answer = Answer::of(
        command::keyferry()
            .args(["broker", "status", "--json", "--socket"])
            .arg(&path),
    );
    assert_eq!(answer.code, 3, "{answer:?}");
    assert!(!answer.stdout.contains(PIN));
}
