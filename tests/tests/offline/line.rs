//! The whole way on real boards and a real token.

use std::fs;

use keyferry::station::registry::{OrderState, SlotState};
use keyferry_tests::command;

use crate::plant::{Device, Plant, at_the_line, deliver};

const DEVICES: u8 = 20;
const KEYS: usize = 5;

/// Five keys for each device, one of them its own.
const FIVE_KEYS: [&str; 12] = [
    "--key",
    "telemetry@0",
    "--key",
    "config@1",
    "--key",
    "boot@2",
    "--key",
    "update@3",
    "--fresh",
    "aes-256@4",
    "--keep-under",
    "keeper",
];

fn copy(from: &std::path::Path, to: &std::path::Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

#[test]
fn twenty_devices_get_their_keys_without_the_token() {
    let plant = Plant::new();
    let devices: Vec<Device> = (1..=DEVICES).map(|number| plant.device(number)).collect();
    let expected = devices.len() * KEYS;

    let mut arguments = plant.prepare("batch", &["--all"]);
    arguments.extend(FIVE_KEYS);
    let prepared = plant.scratch.done(arguments);
    assert_eq!(prepared["orders"], devices.len());
    assert_eq!(prepared["keys"], expected);
    assert_eq!(plant.slots(&devices, SlotState::Pending), expected);
    assert_eq!(plant.registry().kept_keys().unwrap(), u64::from(DEVICES));
    let shown = command::done(&mut at_the_line(
        &["order", "show", "batch", "--authority", "authority.pem"],
        &plant.path("."),
    ));
    assert_eq!(shown["verified"], true);
    assert_eq!(
        (&shown["keys"], &shown["receipts"]),
        (&expected.into(), &0.into())
    );

    // The token is taken away, and what the line has is a copy of the folder.
    let line = tempfile::tempdir().unwrap();
    copy(&plant.path("batch"), &line.path().join("batch"));
    fs::copy(
        plant.path("authority.pem"),
        line.path().join("authority.pem"),
    )
    .unwrap();
    let away = plant.path("softhsm-away");
    fs::rename(plant.path("softhsm"), &away).unwrap();
    assert_ne!(plant.scratch.run(["key", "list"]).code, 0);

    // A second copy that knows nothing of any receipt.
    let other = tempfile::tempdir().unwrap();
    copy(&plant.path("batch"), &other.path().join("batch"));
    fs::copy(
        plant.path("authority.pem"),
        other.path().join("authority.pem"),
    )
    .unwrap();

    let mut delivered = 0;
    for four in devices.chunks(4) {
        let powered: Vec<_> = four.iter().map(Device::power).collect();
        let ports: Vec<_> = powered.iter().map(|device| device.port()).collect();
        let answer = deliver(line.path(), "batch", &ports);
        assert_eq!(answer.code, 0, "{answer:?}");
        let last = answer.last();
        delivered += last["delivered"].as_u64().unwrap();
        assert_eq!(last["proofs_pending"], four.len() * KEYS);
        let states = answer.json();
        let pending = states
            .iter()
            .filter(|event| event["state"] == "delivered, proof pending");
        assert_eq!(pending.count(), four.len(), "{answer:?}");

        // Delivering any order again is refused: here the folder knows, and there the device.
        for (device, port) in four.iter().zip(&ports) {
            let again = deliver(line.path(), "batch", &[port]);
            assert_eq!(again.code, 5, "{again:?}");
            let error = again.last()["error"].as_str().unwrap().to_owned();
            assert!(error.contains("was delivered"), "{error}");
            assert!(error.contains(&device.id.to_string()), "{error}");
        }
        let again = deliver(other.path(), "batch", &ports);
        let last = again.last();
        assert_eq!(again.code, 0, "{again:?}");
        assert_eq!(
            (&last["delivered"], &last["collected"]),
            (&0.into(), &four.len().into())
        );
    }
    assert_eq!(delivered, u64::from(DEVICES));
    // The receipts that a device gives again are those it gave.
    for device in &devices {
        let name = format!("batch/receipts/{}.receipt", device.id);
        assert_eq!(
            fs::read(line.path().join(&name)).unwrap(),
            fs::read(other.path().join(&name)).unwrap()
        );
    }

    // The token is back, and the receipts come back.
    fs::rename(&away, plant.path("softhsm")).unwrap();
    copy(
        &line.path().join("batch/receipts"),
        &plant.path("batch/receipts"),
    );
    let before = plant.verified();
    assert_eq!(before["keys"]["open"], expected, "{before}");
    let imported = plant.imported("batch");
    assert_eq!(imported["imported"], devices.len());
    assert_eq!(imported["proofs_verified"], expected);
    assert_eq!(plant.slots(&devices, SlotState::Proved), expected);
    assert_eq!(plant.registry().kept_keys().unwrap(), 0);
    for device in &devices {
        let orders = plant.registry().orders(device.id).unwrap();
        assert!(
            orders
                .iter()
                .all(|order| order.state == OrderState::Applied)
        );
    }

    let verified = plant.verified();
    assert_eq!(verified["keys"]["wrapped"], expected, "{verified}");
    assert_eq!(verified["keys"]["proved"], expected, "{verified}");
    assert_eq!(verified["keys"]["failed"], 0, "{verified}");
    assert_eq!(verified["keys"]["open"], 0, "{verified}");

    // A second import adds nothing.
    let log = fs::read(plant.path("audit.log")).unwrap();
    let again = plant.imported("batch");
    assert_eq!(again["already_imported"], devices.len());
    assert_eq!(
        (&again["imported"], &again["proofs_verified"]),
        (&0.into(), &0.into())
    );
    assert_eq!(fs::read(plant.path("audit.log")).unwrap(), log);
}
