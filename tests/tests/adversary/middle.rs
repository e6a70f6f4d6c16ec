//! The man in the middle once more, before the real command: how it ends, and that it has wrapped nothing and believed nothing.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use keyferry::certificate::{
    CaCertificate, Identity, Issuer, Serial, Validity, parse_subject, self_signed,
};
use keyferry::device::flow::Authority as _;
use keyferry::device::port::Port;
use keyferry_protocol::identity::{DeviceId, Signature};
use keyferry_protocol::message::Reply;
use keyferry_protocol::order::Kind;
use keyferry_protocol::receipt::{self, Body, Refusal};
use keyferry_tests::board::{Image, Rig, open_again};
use keyferry_tests::desk::{Desk, OnDesk};
use keyferry_tests::mitm::{Mitm, replies, reply};
use keyferry_tests::relay::Relay;
use keyferry_tests::software::SoftAuthority;
use sha2::Digest as _;

use crate::cable::forged;
use crate::line::Line;

/// What becomes of a receipt; `None` lets it pass.
type Rewrite = fn(&receipt::Header, Signature, &[u8]) -> Option<Vec<u8>>;

fn rewriting(port: Box<dyn Port>, rewrite: Rewrite) -> Box<dyn Port> {
    let hands = replies(move |answer, message| {
        if let Reply::Receipt { signature, receipt } = answer {
            let (header, _) = receipt::decode(receipt).unwrap();
            if let Some(other) = rewrite(&header, signature, receipt) {
                *message = other;
            }
        }
    });
    Box::new(Mitm::new(port, hands))
}

fn attacker() -> SoftAuthority {
    SoftAuthority::new(66)
}

/// A statement with another unwrap key in it.
fn swapped(receipt: &[u8]) -> Vec<u8> {
    let attacker = attacker();
    let own = attacker.public_key().to_vec();
    let (header, body) = receipt::decode(receipt).unwrap();
    let Body::Statement(statement) = body else {
        panic!("no statement");
    };
    let mut out = [0; receipt::MAX_RECEIPT];
    let mut writer = receipt::Writer::new(&header, &mut out).unwrap();
    let statement = receipt::Statement {
        unwrap_key: &own,
        ..statement
    };
    writer.statement(&statement, &mut out).unwrap();
    out[..writer.length()].to_vec()
}

/// What he does, and how the command ends.
const ATTACKS: [(&str, Rewrite, i32, &str); 4] = [
    (
        "swaps the unwrap key",
        |header, signature, bytes| {
            (header.kind == Kind::Enroll).then(|| {
                let receipt = &swapped(bytes);
                reply(&Reply::Receipt { signature, receipt })
            })
        },
        4,
        "signature is not the device's",
    ),
    (
        "swaps the unwrap key and the identity key, and signs with his own",
        |header, _, bytes| {
            (header.kind == Kind::Enroll).then(|| {
                let attacker = attacker();
                let own: &'static [u8] = attacker.public_key().to_vec().leak();
                let receipt = forged(&swapped(bytes), |header, body| {
                    header.identity = keyferry::device::verify::fingerprint(own);
                    if let Body::Statement(statement) = body {
                        statement.identity_key = own;
                    }
                });
                let signature = Signature::from_bytes(&attacker.sign(&receipt).unwrap());
                reply(&Reply::Receipt {
                    signature,
                    receipt: &receipt,
                })
            })
        },
        5,
        "identity key",
    ),
    (
        "strips the suites",
        |header, signature, bytes| {
            (header.kind == Kind::Enroll).then(|| {
                let receipt = forged(bytes, |_, body| {
                    if let Body::Statement(statement) = body {
                        statement.suites.clear();
                    }
                });
                reply(&Reply::Receipt {
                    signature,
                    receipt: &receipt,
                })
            })
        },
        4,
        "signature is not the device's",
    ),
    (
        "says that it was not applied",
        |header, _, _| {
            (header.kind == Kind::Inject).then(|| reply(&Reply::Refused(Refusal::Unwrap)))
        },
        4,
        "did not unwrap",
    ),
];

/// SPEC: M-11, M-25, M-26
#[test]
fn the_command_believes_no_man_in_the_middle() {
    let line = Line::new("line");
    let board = Rig::start(Image::Default, 97);
    line.done(
        "enroll",
        board.port(),
        &["--policy", "open", "--unwrap", "p-256"],
    );
    for (what, rewrite, code, words) in ATTACKS {
        println!("{what}");
        let [before, ..] = line.tally();
        let cable = Relay::to(rewriting(open_again(board.port()), rewrite));
        let more = ["--policy", "registry", "--key", "mac@0"];
        line.refused("inject", cable.path(), &more, code, words);
        drop(cable);
        let [wrapped, proved, ..] = line.tally();
        assert_eq!(proved, 0, "{what}");
        // Only the last one let it come to wrapping: to the right key.
        assert_eq!(
            wrapped - before,
            u64::from(what.starts_with("says")),
            "{what}"
        );
    }
    // The last one hid what was done, and no more than that: a proof asked for without him settles it.
    // Until then nobody knows, and the log does not say that the key is not there.
    assert_eq!(line.tally(), [1, 0, 0, 1]);
    let more = ["--policy", "registry", "--key", "mac@0"];
    let cable = Relay::to(open_again(board.port()));
    line.done("prove", cable.path(), &more);
    assert_eq!(line.tally(), [1, 1, 0, 0]);
}

/// A vendor's CA, and the certificate of its key number 40 for this device.
fn vendor(line: &Line, id: DeviceId) -> ([u8; 32], Vec<u8>) {
    let a_day_ago = SystemTime::now() - Duration::from_secs(24 * 60 * 60);
    let key = SoftAuthority::new(30);
    let subject = parse_subject("CN=Vendor").unwrap();
    let own = self_signed(&key, &subject, Validity::Unlimited, a_day_ago).unwrap();
    std::fs::write(line.file("vendor.der"), &own).unwrap();
    let issuer = Issuer::new(&key, CaCertificate::read(&own).unwrap()).unwrap();
    let scalar: [u8; 32] = sha2::Sha256::digest([b'a', 40]).into();
    let vendor_key = SoftAuthority::with_scalar(scalar);
    let identity = Identity {
        serial: Serial::from(id),
        organization: None,
        common_name: None,
        key: vendor_key.public_key(),
    };
    (scalar, issuer.issue(&identity, a_day_ago).unwrap())
}

/// A fake that has no vendor key shows the voucher of the real device's enrolment; and a device shows the vendor key of another.
#[test]
fn a_voucher_of_another_device_or_of_before_enrols_no_fake() {
    let mut line = Line::new("line");
    line.registry = false;
    let id = DeviceId([98; 16]);
    let vendor = vendor(&line, id);
    let ca = line.file("vendor.der");
    let policy = ["--policy", "vendor-certificate", "--vendor-ca", &ca];
    let enroll = [&policy[..], &["--unwrap", "p-256"]].concat();

    // The real one, listened to.
    let mut board = Desk::new(98, 32);
    board.vendor = Some(vendor.clone());
    let real = OnDesk::start(board);
    let tape = Arc::new(Mutex::new(None));
    let kept = tape.clone();
    let listening = replies(move |answer, _| {
        if let Reply::Receipt { receipt, .. } = answer
            && let Ok((_, Body::Statement(statement))) = receipt::decode(receipt)
        {
            let voucher = statement.voucher.unwrap();
            *kept.lock().unwrap() = Some((voucher.certificate.to_vec(), voucher.signature));
        }
    });
    let cable = Relay::to(Box::new(Mitm::new(real.port(), listening)));
    line.done("enroll", cable.path(), &enroll);
    drop(cable);
    let (certificate, old) = tape.lock().unwrap().take().unwrap();

    // The fake: no voucher, then the recorded one in a statement that its own identity key signs.
    let fake = OnDesk::start(Desk::new(98, 32));
    let fake = OnDesk::start(Desk::with_flash(98, fake.stop()));
    let cable = Relay::to(fake.port());
    line.refused("enroll", cable.path(), &enroll, 5, "brings no voucher");
    drop(cable);
    let own = fake.stolen_identity(98).unwrap();
    let lying = replies(move |answer, message| {
        let Reply::Receipt { receipt, .. } = answer else {
            return;
        };
        let Ok((header, Body::Statement(statement))) = receipt::decode(receipt) else {
            return;
        };
        let statement = receipt::Statement {
            voucher: Some(receipt::Voucher {
                certificate: &certificate,
                signature: old,
            }),
            ..statement
        };
        let mut out = [0; receipt::MAX_RECEIPT];
        let mut writer = receipt::Writer::new(&header, &mut out).unwrap();
        writer.statement(&statement, &mut out).unwrap();
        let receipt = &out[..writer.length()];
        let signature = Signature::from_bytes(&own.sign(receipt).unwrap());
        *message = reply(&Reply::Receipt { signature, receipt });
    });
    let cable = Relay::to(Box::new(Mitm::new(fake.port(), lying)));
    line.refused(
        "enroll",
        cable.path(),
        &enroll,
        5,
        "not signed by its vendor key",
    );
    drop(cable);

    // Another device with the vendor key of the real one.
    let mut board = Desk::new(99, 32);
    board.vendor = Some(vendor);
    let cable = Relay::to(OnDesk::start(board).port());
    line.refused("enroll", cable.path(), &enroll, 5, "vendor certificate");
    drop(cable);
    assert_eq!(line.tally(), [0; 4]);
}
