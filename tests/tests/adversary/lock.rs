//! What a locked device still says, and to whom: with the real command, two tokens in SoftHSM, and the firmware in QEMU.

use keyferry_tests::board::{Image, Rig};
use keyferry_tests::openssl::openssl;

use crate::line::Line;

/// Enrolled, certified, injected, locked. OpenSSL accepts its certificate. A second station that knows only the CA accepts the device
/// as the one it says, and is refused as the wrong authority. The right authority is refused by the lock.
///
/// SPEC: M-12, M-28, M-31
#[test]
fn a_locked_device_is_known_by_its_certificate_and_obeys_nobody() {
    let mut board = Rig::start(Image::Default, 0x96);
    let line = Line::new("line");
    let port = board.port().to_owned();
    let registry = ["--policy", "registry"];
    line.done("enroll", &port, &["--policy", "open", "--unwrap", "p-256"]);
    let ca = line.file("ca.pem");
    let issue = ["--ca-key", "ca", "--ca-certificate", &ca];
    let keys = ["--key", "mac@0", "--key", "other@1"];
    let injected = line.done("inject", &port, &[&registry[..], &issue, &keys].concat());
    assert_eq!(injected["certified"], true);
    assert_eq!(injected["keys_proved"], 2);
    line.done("lock", &port, &registry);

    let certificate = line.file("device.pem");
    let read = ["device", "certificate", "--port", &port, "--out"];
    let shown = line
        .scratch
        .done(read.into_iter().chain([certificate.as_str()]));
    let verified = openssl(
        &["verify", "-x509_strict", "-CAfile", &ca, &certificate],
        b"",
    );
    assert!(String::from_utf8(verified).unwrap().ends_with(": OK\n"));

    let before = (board.flash(), board.operations());
    // It has the CA's certificate and no registry of the first; its authority is its own.
    let second = Line::new("second");
    let policy = ["--policy", "certificate", "--ca", &ca];
    let more = [&["--key", "mac@0"][..], &policy].concat();
    for order in ["inject", "prove"] {
        let mut arguments = vec!["device", order, "--port", &port, "--authority", "authority"];
        arguments.push("--allow-test-devices");
        arguments.extend(&more);
        let answer = second.scratch.run(arguments);
        assert_eq!(answer.code, 4, "{answer:?}");
        let id = shown["device"].as_str().unwrap();
        let accepted = format!("device {id} is the one it says");
        assert!(answer.stderr.contains(&accepted), "{answer:?}");
        assert!(answer.stderr.contains("not its authority's"), "{answer:?}");
        assert!(
            answer
                .stderr
                .contains("hint: the device obeys another authority"),
            "{answer:?}"
        );
    }
    // All that it cost the device is the status that it signed to show that it holds the certified key.
    let after = board.operations();
    assert_eq!(board.flash(), before.0);
    assert_eq!(after.for_orders(), before.1.for_orders());
    assert_eq!(after.status, before.1.status + 2);

    let more = [&registry[..], &["--key", "mac@5"]].concat();
    line.refused(
        "inject",
        &port,
        &more,
        4,
        "not allowed in the device's state",
    );
    line.refused(
        "remove",
        &port,
        &[&registry[..], &["--slot", "0"]].concat(),
        4,
        "not allowed in the device's state",
    );
    let listed = line.scratch.done(["device", "list", "--port", &port]);
    assert_eq!(listed["slots"].as_array().map(Vec::len), Some(2));
    line.done("prove", &port, &[&registry[..], &keys].concat());
    let [wrapped, proved, ..] = line.tally();
    assert_eq!((wrapped, proved), (3, 2));
}
