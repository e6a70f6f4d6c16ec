//! A device whose work broke off is met again by the policy that can speak for it; and its certificate says what its label says.

use std::fs;
use std::path::PathBuf;

use keyferry_native::Device;
use keyferry_tests::openssl::openssl;
use rusqlite::Connection;

use crate::stops::{PLAN, start};
use crate::{Fleet, Plant, ended};

const REGISTRY: &str = "[visit]\npolicy = \"registry\"\n";
const OPEN: &str = "[enrolment]\npolicy = \"open\"\n";

/// The plan with another part in the place of one.
fn with(plan: &PathBuf, part: &str, other: &str) {
    let text = fs::read_to_string(plan).unwrap();
    let changed = text.replacen(part, other, 1);
    assert_ne!(text, changed, "{part}");
    fs::write(plan, changed).unwrap();
}

/// A plan whose devices get certificates.
fn certifying(plant: &Plant, more: &str) -> PathBuf {
    let ca = plant.scratch.path("ca.pem");
    let create = ["ca", "init", "--create", "--label", "ca", "--out"];
    plant.scratch.done(create.into_iter().chain(ca.to_str()));
    plant.plan(&format!(
        "{more}[certificates]\nkey = \"ca\"\nca = \"ca.pem\"\n"
    ))
}

/// The subject of the certificate that the registry has of a device.
fn certified(plant: &Plant, number: u16) -> String {
    let books = Connection::open(plant.scratch.path("plant.db")).unwrap();
    let sql = "SELECT certificate FROM devices WHERE device = ?1";
    let der: Vec<u8> = books
        .query_row(sql, [format!("{number:032x}")], |row| row.get(0))
        .unwrap();
    let words = [
        "x509", "-inform", "DER", "-noout", "-subject", "-nameopt", "RFC2253",
    ];
    let subject = String::from_utf8(openssl(&words, &der)).unwrap();
    subject.trim().to_owned()
}

/// Before its first keys a device has no certificate, and is on no list of devices that have some: the policy for new devices speaks for it
/// still, wherever its work broke off.
#[test]
fn a_device_that_no_visit_policy_can_know_yet_is_gone_on_with() {
    let plant = Plant::new();
    let plan = certifying(&plant, PLAN);
    let fleet = Fleet::new();
    let moments = start(&plant, &fleet.start(1), None);
    fs::write(
        plant.scratch.path("allowed.csv"),
        format!("{:032x},{}\n", 1, "0".repeat(64)),
    )
    .unwrap();
    let mut number = 1;
    for policy in [
        "policy = \"certificate\"\nca = [\"ca.pem\"]\n",
        "policy = \"allowlist\"\nallowlist = \"allowed.csv\"\n",
    ] {
        let whole = fs::read_to_string(&plan).unwrap();
        let mut devices: Vec<Device> = Vec::new();
        // Until its keys leave: the enrolment's order is the first one that is written down.
        let keys = moments
            .iter()
            .rposition(|it| it == "prepared true")
            .unwrap();
        for moment in 0..=keys {
            number += 1;
            let device = fleet.start(number);
            assert_eq!(start(&plant, &device, Some(moment)).len(), moment + 1);
            devices.push(device);
        }
        // And one that the registry has never seen.
        number += 1;
        let stranger = fleet.start(number);
        plant.scratch.done([
            "device",
            "enroll",
            "--port",
            stranger.port(),
            "--authority",
            "authority",
            "--policy",
            "open",
            "--unwrap",
            "p-256",
            "--allow-test-devices",
        ]);
        devices.push(stranger);
        with(&plan, REGISTRY, &format!("[visit]\n{policy}"));
        let ports: Vec<_> = devices.iter().map(Device::port).collect();
        let answer = plant.run(&plan, &ports, &[]);
        assert_eq!(answer.code, 0, "{policy}: {answer:?}");
        fs::write(&plan, whole).unwrap();
    }
    let audit = plant.audit();
    assert_eq!(audit["keys"]["open"], 0, "{audit}");
    // All but the first.
    assert_eq!(audit["certificates"], number - 1, "{audit}");
}

/// The list of a shift is for the devices that are enrolled in it. Those of the shift before, which the registry knows, are finished all the same.
#[test]
fn a_device_of_the_shift_before_is_gone_on_with() {
    let plant = Plant::new();
    let plan = plant.plan(PLAN);
    let fleet = Fleet::new();
    let moments = start(&plant, &fleet.start(1), None);
    let mut devices = Vec::new();
    for (number, what) in (2..).zip(["prepared true", "proved false", "locking false"]) {
        let device = fleet.start(number);
        let moment = moments.iter().rposition(|it| it == what);
        start(&plant, &device, moment);
        devices.push(device);
    }
    let list = plant.scratch.path("shift.txt");
    fs::write(list, format!("{:032x}\n", 9)).unwrap();
    let listed = "[enrolment]\npolicy = \"serial-list\"\nserials = \"shift.txt\"\n";
    with(&plan, OPEN, listed);
    let ports: Vec<_> = devices.iter().map(Device::port).collect();
    let answer = plant.run(&plan, &ports, &[]);
    assert_eq!(answer.code, 0, "{answer:?}");
    // A new one has to be on it.
    let new = fleet.start(5);
    let answer = plant.run(&plan, &[new.port()], &[]);
    assert_eq!(answer.code, 1, "{answer:?}");
    assert!(answer.stdout.contains("is not expected"), "{answer:?}");
    plant.assert_all_done(4);
}

/// A label that comes later, or another one, is not passed over in silence: the certificate says what cloud and people read.
#[test]
fn a_certificate_says_what_the_label_says() {
    let plant = Plant::new();
    let unlabelled = "[devices]\nallow-test-devices = true\n";
    let plan = certifying(&plant, unlabelled);
    let fleet = Fleet::new();
    let device = fleet.start(1);
    let run = |label: Option<&str>| {
        let more = match label {
            Some(label) => {
                fs::write(plant.scratch.path("scanned.txt"), format!("1 {label}\n")).unwrap();
                &["--serials", "scanned.txt"][..]
            }
            None => &[],
        };
        plant.run(&plan, &[device.port()], more)
    };
    assert_eq!(run(None).code, 0);
    let id = format!("{:032x}", 1);
    let subject = |serial: &str| format!("subject=serialNumber={serial},CN=native");
    assert_eq!(certified(&plant, 1), subject(&id));
    with(&plan, unlabelled, &format!("{unlabelled}serials = true\n"));
    for _ in 0..2 {
        let answer = run(Some("SN-5"));
        assert_eq!(answer.code, 1, "{answer:?}");
        let ended = ended(&answer).remove(0);
        let said = ended["error"].as_str().unwrap();
        let words = format!("its certificate says '{id}', which is not its label");
        assert!(said.contains(&words), "{ended}");
        assert!(
            ended["hint"]
                .as_str()
                .unwrap()
                .contains("raise the version")
        );
    }
    // It comes with the next keys.
    with(&plan, "[order]", "[order]\nversion = 2");
    for before in [false, true] {
        let answer = run(Some("SN-5"));
        assert_eq!(answer.code, 0, "{answer:?}");
        assert_eq!(ended(&answer)[0]["before"] == true, before, "{answer:?}");
        assert_eq!(certified(&plant, 1), subject("SN-5"));
    }
    let audit = plant.audit();
    assert_eq!(audit["certificates"], 2, "{audit}");

    // By hand, too: a device keeps its label until it is released, and gets its certificate by that.
    let inject = |more: &[&str]| {
        let words = [
            "--json",
            "device",
            "inject",
            "--port",
            device.port(),
            "--authority",
            "authority",
            "--policy",
            "registry",
            "--registry",
            "plant.db",
            "--audit",
            "line.audit",
            "--allow-test-devices",
            "--key",
            "fleet@9",
            "--ca-key",
            "ca",
            "--ca-certificate",
            "ca.pem",
        ];
        plant.scratch.run([&words[..], more].concat())
    };
    let answer = inject(&["--serial", "SN-6"]);
    assert_eq!(answer.code, 2, "{answer:?}");
    let words = format!("device {id} has the serial number 'SN-5', and 'SN-6' was given");
    assert!(answer.stdout.contains(&words), "{answer:?}");
    let answer = inject(&["--recertify"]);
    assert_eq!(answer.code, 0, "{answer:?}");
    assert_eq!(certified(&plant, 1), subject("SN-5"));
}
