//! A device whose work broke off is met again by the policy that can speak for it; and its certificate says what its label says.

use std::fs;
use std::path::PathBuf;

use keyferry_native::Device;
use keyferry_tests::openssl::openssl;

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

/// The subject of the certificate that the device has.
fn certified(plant: &Plant, device: &Device) -> String {
    let out = plant.scratch.path("device.pem").display().to_string();
    let _ = fs::remove_file(&out);
    let port = device.port();
    plant.scratch.done([
        "device",
        "certificate",
        "--port",
        port,
        "--ca",
        "ca.pem",
        "--out",
        &out,
    ]);
    let words = [
        "x509", "-in", &out, "-noout", "-subject", "-nameopt", "RFC2253",
    ];
    let subject = String::from_utf8(openssl(&words, &[])).unwrap();
    subject.trim().to_owned()
}

/// The moments of a station up to the last one of these words.
fn until<'m>(moments: &'m [String], what: &str) -> &'m [String] {
    let last = moments.iter().rposition(|it| it == what).unwrap();
    &moments[..=last]
}

/// Before its first keys a device has no certificate, and until it is done it is on no list of devices: the policy for new devices speaks for it
/// still, wherever its work broke off.
#[test]
fn a_device_that_no_visit_policy_can_know_yet_is_gone_on_with() {
    let by_certificate = "[visit]\npolicy = \"certificate\"\nca = [\"ca.pem\"]\n";
    let by_list = "[visit]\npolicy = \"allowlist\"\nallowlist = \"allowed.csv\"\n";
    for (visit, last) in [(by_certificate, "prepared true"), (by_list, "locking true")] {
        let plant = Plant::new();
        let plan = if visit == by_certificate {
            certifying(&plant, PLAN)
        } else {
            plant.plan(PLAN)
        };
        let list = plant.scratch.path("allowed.csv");
        fs::write(list, format!("{:032x},{}\n", 99, "0".repeat(64))).unwrap();
        let fleet = Fleet::new();
        let moments = start(&plant, &fleet.start(1), None);
        let mut devices: Vec<Device> = Vec::new();
        for moment in 0..until(&moments, last).len() {
            let device = fleet.start(u16::try_from(moment + 2).unwrap());
            assert_eq!(start(&plant, &device, Some(moment)).len(), moment + 1);
            devices.push(device);
        }
        // And one that the registry has never seen.
        let stranger = fleet.start(90);
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
        with(&plan, REGISTRY, visit);
        let ports: Vec<_> = devices.iter().map(Device::port).collect();
        let answer = plant.run(&plan, &ports, &[]);
        assert_eq!(answer.code, 0, "{visit}: {answer:?}");
        plant.assert_all_done(devices.len() + 1);
        if visit == by_certificate {
            // All but the first, which was done and locked without one.
            assert_eq!(plant.audit()["certificates"], devices.len());
        }
        // One that was done, and is on no list, is not let in as a new one.
        if visit == by_list {
            with(&plan, "[order]", "[order]\nversion = 2");
            with(&plan, "lock = true", "lock = false");
            let done = fleet.start(91);
            let unlocked = plant.run(&plan, &[done.port()], &[]);
            assert_eq!(unlocked.code, 0, "{unlocked:?}");
            with(&plan, "version = 2", "version = 3");
            let answer = plant.run(&plan, &[done.port()], &[]);
            assert_eq!(answer.code, 1, "{answer:?}");
            assert!(
                answer.stdout.contains("is not on the allowlist"),
                "{answer:?}"
            );
        }
    }
}

/// A plan that comes to ask for certificates, and to know devices by them, gets those that were done before by a rework.
#[test]
fn a_device_that_was_done_without_a_certificate_gets_one_by_a_rework() {
    let plant = Plant::new();
    let devices = "[devices]\nallow-test-devices = true\n";
    let plan = plant.plan(devices);
    let fleet = Fleet::new();
    let device = fleet.start(1);
    let run = |more: &[&str]| plant.run(&plan, &[device.port()], more);
    assert_eq!(run(&[]).code, 0);
    certifying(&plant, devices);
    let certificate = "[visit]\npolicy = \"certificate\"\nca = [\"ca.pem\"]\n";
    with(&plan, REGISTRY, certificate);
    let answer = run(&[]);
    assert_eq!(answer.code, 1, "{answer:?}");
    let unit = ended(&answer).remove(0);
    assert!(
        unit["hint"].as_str().unwrap().contains("--rework"),
        "{unit}"
    );
    let answer = run(&["--rework"]);
    assert_eq!(answer.code, 0, "{answer:?}");
    let subject = format!("subject=serialNumber={:032x},CN=native", 1);
    assert_eq!(certified(&plant, &device), subject);
    let answer = run(&[]);
    assert_eq!(ended(&answer)[0]["before"], true, "{answer:?}");
}

/// Without a policy for new devices, none is touched.
#[test]
fn a_plan_without_enrolment_leaves_blank_devices_alone() {
    let plant = Plant::new();
    let plan = plant.plan(PLAN);
    with(&plan, OPEN, "");
    with(&plan, "unwrap = \"p-256\"\n", "");
    let fleet = Fleet::new();
    let device = fleet.start(1);
    let answer = plant.run(&plan, &[device.port()], &[]);
    assert_eq!(answer.code, 1, "{answer:?}");
    let info = ["--json", "device", "info", "--port", device.port()];
    assert_eq!(
        plant.scratch.run(info).last()["state"],
        "blank",
        "{answer:?}"
    );
}

/// A CA whose devices the plan would not know again certifies none.
#[test]
fn a_plan_whose_devices_would_be_unknown_to_it_is_a_mistake() {
    let plant = Plant::new();
    let plan = certifying(&plant, PLAN);
    let other = plant.scratch.path("other.pem");
    let create = ["ca", "init", "--create", "--label", "other", "--out"];
    plant.scratch.done(create.into_iter().chain(other.to_str()));
    let check = || {
        let words = ["--json", "station", "check"];
        plant.scratch.run(words.into_iter().chain(plan.to_str()))
    };
    let certificate = |ca: &str| format!("[visit]\npolicy = \"certificate\"\nca = [\"{ca}\"]\n");
    with(&plan, REGISTRY, &certificate("other.pem"));
    let answer = check();
    assert_eq!(answer.code, 2, "{answer:?}");
    let words = "ca.pem is not among the CAs under [visit]";
    assert!(answer.stdout.contains(words), "{answer:?}");
    with(&plan, &certificate("other.pem"), &certificate("ca.pem"));
    assert_eq!(check().code, 0);
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
        let moment = moments.iter().rposition(|it| it == what).unwrap();
        start(&plant, &device, Some(moment));
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

/// Nobody comes in as a new device whose id is on the list of those that are visited, and whose key is another one; and one that was released comes in as
/// a new one, whatever it has.
#[test]
fn a_policy_for_new_devices_lets_nobody_in_that_a_list_knows() {
    let plant = Plant::new();
    let plan = certifying(&plant, PLAN);
    let whole = fs::read_to_string(&plan).unwrap();
    let fleet = Fleet::new();
    let device = fleet.start(1);
    fs::write(
        plant.scratch.path("allowed.csv"),
        format!("{:032x},{}\n", 1, "a".repeat(64)),
    )
    .unwrap();
    let listed = "[visit]\npolicy = \"allowlist\"\nallowlist = \"allowed.csv\"\n";
    with(&plan, REGISTRY, listed);
    let answer = plant.run(&plan, &[device.port()], &[]);
    assert_eq!(answer.code, 1, "{answer:?}");
    assert!(answer.stdout.contains(", not aaaa"), "{answer:?}");
    let info = ["--json", "device", "info", "--port", device.port()];
    assert_eq!(plant.scratch.run(info).last()["state"], "blank");

    fs::write(&plan, whole).unwrap();
    let certificate = "[visit]\npolicy = \"certificate\"\nca = [\"ca.pem\"]\n";
    with(&plan, REGISTRY, certificate);
    with(&plan, "lock = true", "lock = false");
    assert_eq!(plant.run(&plan, &[device.port()], &[]).code, 0);
    let id = format!("{:032x}", 1);
    let release = ["registry", "release", "--registry", "plant.db", &id];
    plant
        .scratch
        .done(release.iter().chain(&["--reason", "for a test"]));
    let answer = plant.run(&plan, &[device.port()], &[]);
    assert_eq!(answer.code, 0, "{answer:?}");
    assert_eq!(ended(&answer)[0]["before"], true, "{answer:?}");
}

/// The label is in the certificate that the device has, or comes into it with its next keys; it is never another device's, nor one that the device had.
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
    let does = |label: &str, before: bool, subject: &str| {
        let answer = run(Some(label));
        assert_eq!(answer.code, 0, "{answer:?}");
        assert_eq!(ended(&answer)[0]["before"] == true, before, "{answer:?}");
        let subject = format!("subject=serialNumber={subject},CN=native");
        assert_eq!(certified(&plant, &device), subject);
    };
    assert_eq!(run(None).code, 0);
    let id = format!("{:032x}", 1);
    with(&plan, unlabelled, &format!("{unlabelled}serials = true\n"));
    // It was certified before it had a label, by its id, which is nobody else's.
    does("SN-5", true, &id);
    let by_hand = |command: &str, more: &[&str]| {
        let words = [
            "--json",
            "device",
            command,
            "--port",
            device.port(),
            "--authority",
            "authority",
            "--registry",
            "plant.db",
            "--audit",
            "line.audit",
            "--allow-test-devices",
        ];
        plant.scratch.run([&words[..], more].concat())
    };
    let inject = |more: &[&str]| {
        let words = [
            "--policy",
            "registry",
            "--key",
            "fleet@0",
            "--ca-key",
            "ca",
            "--ca-certificate",
            "ca.pem",
        ];
        by_hand("inject", &[&words[..], more].concat())
    };
    // A certificate that was made for an order which never left is none that the device has.
    let answer = inject(&["--recertify"]);
    assert_ne!(answer.code, 0, "{answer:?}");
    assert_eq!(plant.audit()["certificates"], 2);
    does("SN-5", true, &id);
    with(&plan, "[order]", "[order]\nversion = 2");
    does("SN-5", false, "SN-5");
    does("SN-5", true, "SN-5");

    // Another label is refused before the device is asked for anything.
    let counter = || {
        let info = ["--json", "device", "info", "--port", device.port()];
        plant.scratch.run(info).last()["counter"].clone()
    };
    let before = counter();
    let answer = inject(&["--serial", "SN-6"]);
    assert_eq!(answer.code, 2, "{answer:?}");
    let words = format!("device {id} has the serial number 'SN-5', and 'SN-6' was given");
    assert!(answer.stdout.contains(&words), "{answer:?}");
    assert_eq!(counter(), before);
    let answer = inject(&["--serial", "SN_5"]);
    assert_eq!(answer.code, 2, "{answer:?}");
    let words = "is no product serial number";
    assert!(format!("{answer:?}").contains(words), "{answer:?}");
    does("SN-5", true, "SN-5");
    let release = ["registry", "release", "--registry", "plant.db", &id];
    plant
        .scratch
        .done(release.iter().chain(&["--reason", "a new label"]));
    let again = by_hand("enroll", &["--policy", "open", "--serial", "SN-6"]);
    assert_eq!(again.code, 0, "{again:?}");
    let answer = run(Some("SN-6"));
    assert_eq!(answer.code, 1, "{answer:?}");
    let ended = ended(&answer).remove(0);
    let words = "its certificate says 'SN-5', which is neither its label nor its id";
    assert!(ended["error"].as_str().unwrap().contains(words), "{ended}");
    let hint = ended["hint"].as_str().unwrap();
    assert!(hint.contains("--rework"), "{ended}");
    fs::write(plant.scratch.path("scanned.txt"), "1 SN-6\n").unwrap();
    let rework = ["--serials", "scanned.txt", "--rework"];
    let answer = plant.run(&plan, &[device.port()], &rework);
    assert_eq!(answer.code, 0, "{answer:?}");
    does("SN-6", true, "SN-6");
}
