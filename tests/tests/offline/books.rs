//! What is written down of detached orders, and when: at preparation, and when receipts come back.

use std::fs;

use keyferry::device::flow;
use keyferry::device::verify::{Statement, stated};
use keyferry::export::Trust as Belief;
use keyferry::station::offline::BatchFolder;
use keyferry::station::policy::Trust;
use keyferry::station::registry::{Enrolled, OrderState, Registry, SlotState};
use keyferry_protocol::identity::{DeviceId, Digest, Fingerprint};
use keyferry_protocol::order::{Body, Enroll};
use keyferry_protocol::receipt::{Outcome, SlotReport};
use keyferry_protocol::suite::UnwrapAlgorithm;
use keyferry_tests::audited::{Invented, ONCE};
use keyferry_tests::software::SoftAuthority;

use crate::plant::{Plant, deliver};

const TWO_KEYS: [&str; 4] = ["--key", "telemetry@0", "--key", "config@1"];

/// Enrols a device that never was, whose answers are signed by a key of this process.
fn invent(plant: &Plant, number: u8) -> (Invented, Statement) {
    let pem = fs::read(plant.path("authority.pem")).unwrap();
    let authority = keyferry::hsm::PublicKey::from_file_content(&pem).unwrap();
    let device = Invented::new(number);
    let signer = SoftAuthority::new(0);
    let body = Body::Enroll(Enroll {
        authority: authority.spki_der(),
        nonce: ONCE,
        unwrap: UnwrapAlgorithm::P256,
    });
    let header = keyferry_protocol::order::Header::new(
        keyferry_protocol::order::Kind::Enroll,
        device.blank(),
        keyferry_protocol::order::Freshness::Challenge(ONCE),
        1,
    );
    let order = flow::SignedOrder::new(&signer, header, &body).unwrap();
    let receipt = device.stated(&order, authority.spki_der());
    let statement = stated(&receipt, device.blank().device).unwrap();
    let registry = Registry::open(&plant.path("registry.db")).unwrap();
    registry
        .enrolled(&Enrolled {
            statement: &statement,
            trust: &Trust {
                policy: "open",
                reason: "it was invented".into(),
            },
            serial: None,
        })
        .unwrap();
    assert_ne!(statement.authority, Fingerprint::ZERO);
    (device, statement)
}

#[test]
fn a_wrong_proof_fails_the_device_by_name() {
    let plant = Plant::new();
    let (device, statement) = invent(&plant, 77);
    let id = statement.device.to_string();
    let mut arguments = plant.prepare("batch", &["--device", &id]);
    arguments.extend(TWO_KEYS);
    plant.scratch.done(arguments);

    // The receipt is the device's, and answers the order; only the proofs are not those of the keys.
    let folder = BatchFolder::open(&plant.path("batch"), Belief::Unauthenticated).unwrap();
    let entry = &folder.batch().orders[0];
    let order = folder.order(entry).unwrap();
    let Body::Inject(inject) = order.body().unwrap() else {
        panic!("no keys");
    };
    let receipt = device.receipt(&order.order, Outcome::Applied, |writer, buffer| {
        writer.slot_count(inject.entries.len(), buffer).unwrap();
        for asked in &inject.entries {
            let length = asked.proof.length(asked.attributes.kind().unwrap());
            let report = SlotReport {
                slot: asked.slot,
                version: asked.version,
                attributes: asked.attributes,
                proof: asked.proof,
                value: &vec![0x5a; length],
            };
            writer.slot(&report, buffer).unwrap();
        }
    });
    folder.keep(entry, &receipt).unwrap();

    let answer = plant.import("batch");
    assert_eq!(answer.code, 1, "{answer:?}");
    let error = answer.last()["error"].as_str().unwrap().to_owned();
    assert!(
        error.contains(&id) && error.contains("slots 0, 1"),
        "{error}"
    );
    let slots = plant.registry().slots(statement.device).unwrap();
    assert!(slots.iter().all(|slot| slot.state == SlotState::Failed));
    let verified = plant.verified();
    assert_eq!(verified["keys"]["failed"], 2, "{verified}");
    assert_eq!(verified["keys"]["open"], 0, "{verified}");
    // It does not become right by being brought back again.
    let log = fs::read(plant.path("audit.log")).unwrap();
    let again = plant.import("batch");
    assert_eq!(again.code, 1, "{again:?}");
    assert_eq!(fs::read(plant.path("audit.log")).unwrap(), log);

    // Nor does the proof that was asked for alone.
    let attributes = inject.entries[0].attributes;
    let asks = ["--device", &id, "--kind", "prove", "--key", "telemetry@0"];
    plant.scratch.done(plant.prepare("asked", &asks));
    let folder = BatchFolder::open(&plant.path("asked"), Belief::Unauthenticated).unwrap();
    let entry = &folder.batch().orders[0];
    let order = folder.order(entry).unwrap();
    let Body::Prove(prove) = order.body().unwrap() else {
        panic!("no question");
    };
    let receipt = device.receipt(&order.order, Outcome::Applied, |writer, buffer| {
        writer.slot_count(prove.slots.len(), buffer).unwrap();
        for asked in &prove.slots {
            let length = asked.proof.length(attributes.kind().unwrap());
            let report = SlotReport {
                slot: asked.slot,
                version: 1,
                attributes,
                proof: asked.proof,
                value: &vec![0x5a; length],
            };
            writer.slot(&report, buffer).unwrap();
        }
    });
    folder.keep(entry, &receipt).unwrap();
    for _ in 0..2 {
        let answer = plant.import("asked");
        assert_eq!(answer.code, 1, "{answer:?}");
        let error = answer.last()["error"].as_str().unwrap().to_owned();
        assert!(error.contains(&id) && error.contains("slot"), "{error}");
    }
}

/// A device that was let go of since keeps no other's receipt from coming back.
#[test]
fn a_device_that_was_released_holds_up_nobody() {
    let plant = Plant::new();
    let devices = [78, 79].map(|number| invent(&plant, number));
    let ids = devices.each_ref().map(|(_, it)| it.device.to_string());
    let asks = ["--device", &ids[0], "--device", &ids[1], "--kind", "lock"];
    plant.scratch.done(plant.prepare("batch", &asks));
    let folder = BatchFolder::open(&plant.path("batch"), Belief::Unauthenticated).unwrap();
    let mut orders = Vec::new();
    for (entry, (device, _)) in folder.batch().orders.iter().zip(&devices) {
        let order = folder.order(entry).unwrap();
        let receipt = device.receipt(&order.order, Outcome::Applied, |_, _| {});
        folder.keep(entry, &receipt).unwrap();
        orders.push(order.digest());
    }
    let release = ["registry", "release", "--registry", "registry.db", &ids[0]];
    plant
        .scratch
        .done(release.iter().chain(&["--reason", "for a test"]));
    let answer = plant.import("batch");
    assert_ne!(answer.code, 0, "{answer:?}");
    assert!(answer.stdout.contains(&ids[0]), "{answer:?}");
    let state = |order| plant.registry().order(order).unwrap().unwrap().state;
    assert_eq!(state(&orders[0]), OrderState::Failed);
    assert_eq!(state(&orders[1]), OrderState::Applied);
}

#[test]
fn receipts_come_back_one_by_one_and_in_any_order() {
    let plant = Plant::new();
    let devices = [plant.device(1), plant.device(2)];
    fs::write(
        plant.path("shift.csv"),
        format!(
            "device,note\n{},left\n# a comment\n{},right\n",
            devices[0].id, devices[1].id
        ),
    )
    .unwrap();
    let mut arguments = plant.prepare("keys", &["--devices", "shift.csv"]);
    arguments.extend(TWO_KEYS);
    plant.scratch.done(arguments);
    // Two further orders for the first device, before it has got the first.
    let first = devices[0].id.to_string();
    let prove = plant.prepare("prove", &["--device", &first, "--kind", "prove"]);
    plant.scratch.done([&prove[..], &TWO_KEYS].concat());
    let remove = ["--device", &first, "--kind", "remove", "--slot", "1"];
    plant.scratch.done(plant.prepare("remove", &remove));
    let counters: Vec<_> = plant
        .registry()
        .orders(devices[0].id)
        .unwrap()
        .iter()
        .filter(|order| order.detached)
        .map(|order| order.counter)
        .collect();
    assert!(
        counters.windows(2).all(|pair| pair[1] == pair[0] + 1),
        "{counters:?}"
    );
    assert_eq!(counters.len(), 3);

    let powered = devices[0].power();
    for batch in ["keys", "prove", "remove"] {
        let answer = deliver(&plant.path("."), batch, &[powered.port()]);
        assert_eq!(answer.code, 0, "{batch}: {answer:?}");
    }
    powered.kill();

    // The last first; one receipt is still missing.
    let last = plant.imported("remove");
    assert_eq!(last["imported"], 1);
    let some = plant.imported("keys");
    assert_eq!((&some["imported"], &some["open"]), (&1.into(), &1.into()));
    assert_eq!(some["proofs_verified"], 2);
    assert_eq!(plant.imported("prove")["proofs_verified"], 2);
    assert_eq!(plant.verified()["keys"]["open"], 2);

    let powered = devices[1].power();
    assert_eq!(deliver(&plant.path("."), "keys", &[powered.port()]).code, 0);
    powered.kill();
    let rest = plant.imported("keys");
    assert_eq!(
        (&rest["imported"], &rest["already_imported"]),
        (&1.into(), &1.into())
    );
    let verified = plant.verified();
    assert_eq!(verified["keys"]["wrapped"], 4, "{verified}");
    assert_eq!(verified["keys"]["proved"], 4, "{verified}");
    assert_eq!(verified["open_orders"], 0, "{verified}");
    for device in &devices {
        for order in plant.registry().orders(device.id).unwrap() {
            assert_eq!(order.state, OrderState::Applied);
        }
    }
    assert_eq!(plant.slots(&devices, SlotState::Pending), 0);
}

#[test]
fn what_is_not_the_devices_answer_is_not_brought_back() {
    let plant = Plant::new();
    let devices = [plant.device(1), plant.device(2)];
    let mut arguments = plant.prepare("batch", &["--all"]);
    arguments.extend(TWO_KEYS);
    plant.scratch.done(arguments);
    for device in &devices {
        let powered = device.power();
        assert_eq!(
            deliver(&plant.path("."), "batch", &[powered.port()]).code,
            0
        );
        powered.kill();
    }
    let mut log = None;
    let file = |index: usize| plant.path(&format!("batch/receipts/{}.receipt", devices[index].id));
    let whole = fs::read(file(0)).unwrap();
    let other = fs::read(file(1)).unwrap();
    let flipped = String::from_utf8(whole.clone()).unwrap().replacen(
        "\"signature\": \"",
        "\"signature\": \"0",
        1,
    );
    for bad in [other, flipped.into_bytes(), b"{}".to_vec()] {
        fs::write(file(0), bad).unwrap();
        let answer = plant.import("batch");
        assert_eq!(answer.code, 5, "{answer:?}");
        let error = answer.last()["error"].as_str().unwrap().to_owned();
        assert!(error.contains(&devices[0].id.to_string()), "{error}");
        // The other device's receipt has come back with the first try, and nothing else has.
        let now = fs::read(plant.path("audit.log")).unwrap();
        assert_eq!(log.get_or_insert_with(|| now.clone()), &now);
        assert_eq!(plant.slots(&devices, SlotState::Proved), 2);
    }
    let log = log.unwrap();
    fs::write(file(0), whole).unwrap();

    // The books must be those that the orders are in.
    let books = |audit: &[&str], registry: &str| {
        let mut arguments = vec![
            "audit",
            "import",
            "batch",
            "--authority",
            "authority",
            "--registry",
            registry,
        ];
        arguments.extend(audit);
        plant.scratch.run(arguments)
    };
    let without = books(&[], "registry.db");
    assert_eq!(without.code, 2, "{without:?}");
    assert!(without.stderr.contains("--audit"), "{without:?}");
    plant.scratch.done([
        "audit",
        "create",
        "other.log",
        "--station",
        "other",
        "--authority",
        "authority",
        "--audit-key",
        "auditor",
    ]);
    let elsewhere = books(&["--audit", "other.log"], "registry.db");
    assert_eq!(elsewhere.code, 2, "{elsewhere:?}");
    let unknown = books(&["--audit", "audit.log"], "new.db");
    assert_ne!(unknown.code, 0, "{unknown:?}");
    assert_eq!(fs::read(plant.path("audit.log")).unwrap(), log);
    assert_eq!(plant.imported("batch")["imported"], 1);
}

/// A certificate is made with an order, and an order may never leave: the next one brings one as well, until the device has keys.
#[test]
fn the_first_order_that_is_delivered_brings_a_certificate() {
    let plant = Plant::new();
    let device = plant.device(1);
    let id = device.id.to_string();
    let stranger = DeviceId([0xee; 16]).to_string();
    let ca = plant.path("ca.pem");
    let create = ["ca", "init", "--create", "--label", "ca", "--out"];
    plant.scratch.done(create.into_iter().chain(ca.to_str()));
    let certified = ["--ca-key", "ca", "--ca-certificate", "ca.pem"];
    let keys = [&["--device", &id, "--key", "telemetry@0"], &certified[..]].concat();
    let both = [&keys[..], &["--device", &stranger]].concat();
    let refused = plant.scratch.run(plant.prepare("batch", &both));
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(!plant.path("batch").exists());
    let was_made = |plant: &Plant| {
        let record = plant.registry().find(device.id).unwrap().unwrap();
        record.certificate.is_some()
    };
    assert!(was_made(&plant), "the first order had one");

    plant.scratch.done(plant.prepare("batch", &keys));
    let powered = device.power();
    let answer = deliver(&plant.path(""), "batch", &[powered.port()]);
    assert_eq!(answer.code, 0, "{answer:?}");
    plant.imported("batch");
    let port = powered.port();
    plant
        .scratch
        .done(["device", "certificate", "--port", port, "--ca", "ca.pem"]);
    // It has one: no other is made with keys that come later.
    let later = [&["--device", &id, "--key", "config@1"], &certified[..]].concat();
    let prepared = plant.scratch.done(plant.prepare("later", &later));
    assert_eq!(prepared["ok"], true);
    assert_eq!(plant.verified()["certificates"], 2);
}

#[test]
fn a_batch_is_made_whole_or_not_at_all() {
    let plant = Plant::new();
    let device = plant.device(1);
    let id = device.id.to_string();
    let stranger = DeviceId([0xee; 16]).to_string();
    let refused = |more: &[&str], code: i32, error: &str, hint: &str| {
        plant
            .scratch
            .refused(&plant.prepare("batch", more), code, error, hint);
        assert!(!plant.path("batch").exists(), "{more:?}");
    };
    let keys = ["--key", "telemetry@0"];
    // The first order was made when the second fails: it is given up.
    let both = [
        "--device",
        &id,
        "--device",
        &stranger,
        "--key",
        "telemetry@0",
    ];
    refused(&both, 2, &stranger, "registry list");
    let verified = plant.verified();
    assert_eq!(verified["keys"]["open"], 0, "{verified}");
    assert!(
        verified["keys"]["failed"].as_u64().unwrap() > 0,
        "{verified}"
    );
    let orders = plant.registry().orders(device.id).unwrap();
    let detached: Vec<_> = orders.iter().filter(|order| order.detached).collect();
    assert!(!detached.is_empty());
    assert!(
        detached
            .iter()
            .all(|order| order.state == OrderState::Failed)
    );

    refused(&["--device", &id], 2, "--key", "--key");
    refused(
        &["--device", &id, "--device", &id, "--key", "telemetry"],
        2,
        &id,
        "once",
    );
    refused(
        &["--device", &id, "--kind", "lock", "--key", "telemetry"],
        2,
        "--key is not for this kind",
        "--kind",
    );
    refused(&["--device", &id, "--kind", "wipe"], 2, "--yes", "--yes");
    let fresh = [
        "--device",
        &id,
        "--fresh",
        "aes-128@1",
        "--keep-under",
        "telemetry",
    ];
    refused(
        &fresh,
        3,
        "no keys can be kept under key 'telemetry'",
        "keep",
    );
    let taken = [
        "--device",
        &id,
        "--key",
        "telemetry@1",
        "--fresh",
        "aes-128@1",
        "--keep-under",
        "keeper",
    ];
    refused(&taken, 2, "names no free slot", "each slot once");
    fs::write(plant.path("bad.csv"), "device\nnot-an-id\n").unwrap();
    refused(
        &["--devices", "bad.csv", "--key", "telemetry"],
        2,
        "bad.csv, line 2",
        "nothing was made",
    );
    fs::write(plant.path("bad.csv"), "serial\nunknown\n").unwrap();
    refused(
        &["--devices", "bad.csv", "--key", "telemetry"],
        2,
        "line 2",
        "nothing was made",
    );

    // Another authority's key signs nothing for this device.
    plant.scratch.done([
        "key", "create", "--label", "other", "--type", "p-256", "--usage", "sign",
    ]);
    let other = [
        "order",
        "prepare",
        "--policy",
        "registry",
        "--allow-test-devices",
        "--out",
        "batch",
        "--authority",
        "other",
        "--registry",
        "registry.db",
        "--device",
        &id,
        "--key",
        "telemetry",
    ];
    plant
        .scratch
        .refused(&other, 5, "obeys the authority", "authority");

    // And after all that, one that is right.
    let mut arguments = plant.prepare("batch", &["--device", &id]);
    arguments.extend(keys);
    plant.scratch.done(arguments.clone());
    plant
        .scratch
        .refused(&arguments, 2, "exists already", "new folder");
    let order = &plant.registry().orders(device.id).unwrap();
    assert!(
        order
            .iter()
            .any(|order| order.state == OrderState::Prepared)
    );
    assert_ne!(
        plant.registry().orders(device.id).unwrap()[0].digest,
        Digest::ZERO
    );
}
