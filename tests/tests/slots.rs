//! What the command says of slots that a device does not let it have.

use keyferry_tests::board::{Board, Image, Rig};
use keyferry_tests::tokens::Scratch;

keyferry_tests::on_every_board!(a_slot_that_is_taken_is_named_with_its_device);

fn a_slot_that_is_taken_is_named_with_its_device(board: Board) {
    let rig = Rig::start_on(board, Image::Default, 78);
    let scratch = Scratch::new("slots");
    for (label, key_type) in [
        ("authority", "p-256"),
        ("one", "aes-128"),
        ("two", "aes-256"),
    ] {
        let mut create = vec!["key", "create", "--label", label, "--type", key_type];
        if label == "authority" {
            create.extend(["--usage", "sign"]);
        } else {
            create.push("--extractable");
        }
        scratch.done(create);
    }
    let desk = [
        "--port",
        rig.port(),
        "--authority",
        "authority",
        "--policy",
        "open",
        "--allow-test-devices",
    ];
    let enrolled = scratch.done([&["device", "enroll", "--unwrap", "p-256"], &desk[..]].concat());
    let device = enrolled["device"].as_str().unwrap();
    let inject = |more: &[&'static str]| [&["device", "inject"], &desk[..], more].concat();
    scratch.done(inject(&["--key", "one@1", "--version", "2"]));

    let refused = |more: &[&'static str], error: &str, hint: &str| {
        let error = format!("device {device} refused {error}");
        scratch.refused(&inject(more), 4, &error, hint);
    };
    // The one of the two that is taken.
    refused(
        &["--key", "two@0", "--key", "one@1", "--version", "2"],
        "version 2 of the keys for slot 1: the slot is taken",
        "choose a free slot, or give a higher --version",
    );
    refused(
        &["--key", "two@0", "--key", "one@1"],
        "version 1 of the keys for slot 1: ",
        "give a higher --version",
    );
    // A removed key is in no list: then all that were asked for are named.
    scratch.done([&["device", "remove"], &desk[..], &["--slot", "1"]].concat());
    refused(
        &["--key", "two@0", "--key", "one@1"],
        "version 1 of the keys for slots 0, 1: ",
        "give a higher --version",
    );
}
