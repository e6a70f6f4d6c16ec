//! The same through a broker: the station has no token and no PIN, and the broker signs no manifest of orders that are not its own.

use std::fs;

use keyferry_tests::broker::Broker;
use keyferry_tests::command::{Answer, done};

use crate::plant::{Plant, deliver};

#[test]
fn orders_are_prepared_and_receipts_brought_back_through_a_broker() {
    let plant = Plant::new();
    let device = plant.device(1);
    let registry = plant.path("registry.db");
    let broker = Broker::start(
        &plant.scratch,
        &[
            "--enroll-policy",
            "open",
            "--visit-policy",
            "registry",
            "--allow-test-devices",
            "--registry",
            registry.to_str().unwrap(),
            "--allow-key",
            "telemetry",
            "--allow-key",
            "config",
            "--keep-under",
            "keeper",
        ],
    );
    let station = |arguments: &[&str]| {
        let mut command = broker.station();
        command.current_dir(plant.path(".")).args(arguments);
        command
    };
    let books = ["--registry", "registry.db", "--audit", "audit.log"];
    let prepare = [
        "order",
        "prepare",
        "--policy",
        "registry",
        "--allow-test-devices",
        "--out",
        "batch",
        "--all",
        "--key",
        "telemetry@0",
        "--key",
        "config@1",
        "--fresh",
        "aes-256@2",
        "--keep-under",
        "keeper",
    ];
    let prepared = done(&mut station(&[&prepare[..], &books].concat()));
    assert_eq!(prepared["keys"], 3);
    let powered = device.power();
    let answer = deliver(&plant.path("."), "batch", &[powered.port()]);
    assert_eq!(answer.code, 0, "{answer:?}");
    powered.kill();
    let import = ["audit", "import", "batch"];
    let imported = done(&mut station(&[&import[..], &books].concat()));
    assert_eq!(imported["proofs_verified"], 3);
    assert_eq!(plant.verified()["keys"]["proved"], 3);

    // A manifest is signed for the broker's own orders only, and nothing else that begins like one.
    let manifest = fs::read(plant.path("batch/batch.json")).unwrap();
    let stranger = String::from_utf8(manifest).unwrap();
    let order = stranger
        .lines()
        .find(|line| line.contains("\"order\""))
        .unwrap();
    let other = format!("      \"order\": \"{}\",", "ab".repeat(32));
    let client = broker.client();
    for document in [
        stranger.replace(order, &other),
        "{\"format\": \"anything\"}".to_owned(),
    ] {
        let refused = keyferry::station::Hsm::authority(&client).sign(document.as_bytes());
        assert!(refused.is_err());
    }
    // A key that the broker does not give out goes into no order.
    let mut secret = prepare;
    secret[6] = "secret";
    secret[9] = "boot@5";
    let refused = Answer::of(&mut station(&[&secret[..], &books].concat()));
    assert_eq!(refused.code, 5, "{refused:?}");
    assert!(!plant.path("secret").exists());
}
