//! The example application: the firmware's own machine code in QEMU uses the key that the line has injected, and the HSM that the key came
//! from verifies what it sends.

use std::thread;
use std::time::{Duration, Instant};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;
use keyferry_tests::board::{Board, Image, Rig};
use keyferry_tests::tokens::{Kind, PIN, Scratch, in_own_process};

/// Bytes before the MAC: the device's id, the number of its start, a reading.
const BODY: usize = 16 + 4 + 2;

/// What the application says at its start, line by line of all it has said; the last of `count` lines.
fn said(rig: &Rig<Board>, count: usize) -> String {
    let started = Instant::now();
    loop {
        let sent = rig.sent();
        let text = String::from_utf8_lossy(&sent);
        let lines: Vec<&str> = text
            .split_inclusive('\n')
            .filter(|line| line.contains("telemetry") && line.ends_with('\n'))
            .collect();
        if let Some(line) = lines.get(count - 1) {
            let begin = line.rfind("no telemetry").or(line.rfind("telemetry"));
            return line[begin.unwrap()..].trim_end().to_owned();
        }
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "nothing is said: {text}"
        );
        thread::sleep(Duration::from_millis(20));
    }
}

fn frame(line: &str) -> Vec<u8> {
    let digits = line.strip_prefix("telemetry ").expect(line);
    hex::decode(digits).unwrap()
}

/// The token itself, and the key of this label.
fn token(scratch: &Scratch, label: &str) -> (Pkcs11, Session, ObjectHandle) {
    let _ = scratch;
    let module = Pkcs11::new(Kind::SoftHsm.module()).unwrap();
    let arguments = CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK);
    module.initialize(arguments).unwrap();
    let slot = module.get_slots_with_initialized_token().unwrap()[0];
    let session = module.open_ro_session(slot).unwrap();
    let pin = AuthPin::new(PIN.into());
    session.login(UserType::User, Some(&pin)).unwrap();
    let found = session
        .find_objects(&[Attribute::Label(label.into())])
        .unwrap();
    assert_eq!(found.len(), 1);
    (module, session, found[0])
}

#[test]
fn the_hsm_verifies_what_a_provisioned_device_sends_after_each_power_cycle() {
    let name = "the_hsm_verifies_what_a_provisioned_device_sends_after_each_power_cycle";
    in_own_process(name, "line", |scratch| {
        let authority = ["key", "create", "--label", "authority", "--type", "p-256"];
        scratch.done(authority.iter().chain(&["--usage", "sign"]));
        let key = ["key", "create", "--label", "telemetry", "--type", "aes-128"];
        scratch.done(key.iter().chain(&["--extractable"]));

        let at_the_desk = |rig: &Rig<Board>, what: &[&str]| {
            let port = ["--port", rig.port(), "--policy", "open"];
            let authority = ["--authority", "authority", "--allow-test-devices"];
            scratch.done([&["device"], what, &port, &authority].concat());
        };
        for board in Board::ALL {
            let rig = Rig::start_on(board, Image::Default, 79);
            at_the_desk(&rig, &["enroll", "--unwrap", "p-256"]);
            // Before there is a key.
            let rig = rig.restart_as(Image::Telemetry);
            assert_eq!(said(&rig, 1), "no telemetry: no such key");
            let rig = rig.restart_as(Image::Default);
            at_the_desk(&rig, &["inject", "--key", "telemetry@5"]);

            let (_module, session, key) = token(scratch, "telemetry");
            let mut rig = rig.restart_as(Image::Telemetry);
            let mut starts = Vec::new();
            for line in 2..5 {
                let frame = frame(&said(&rig, line));
                let (body, tag) = frame.split_at(BODY);
                assert_eq!(body[..16], [79; 16]);
                session.verify(&Mechanism::AesCMac, key, body, tag).unwrap();
                // The token does verify.
                let mut other = body.to_vec();
                other[20] ^= 1;
                let forged = session.verify(&Mechanism::AesCMac, key, &other, tag);
                assert!(forged.is_err());
                starts.push(u32::from_le_bytes(*body[16..].first_chunk().unwrap()));
                rig = rig.restart();
            }
            assert!(starts.is_sorted_by(|one, next| one < next), "{starts:?}");
            // It is still a device for the line.
            let rig = rig.restart_as(Image::Default);
            at_the_desk(&rig, &["prove", "--key", "telemetry@5"]);
        }
    });
}
