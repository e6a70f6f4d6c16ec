//! The broker: the station's whole work through it, and what it refuses to a station that wants more.

#![cfg(unix)]

mod guide;
mod job;
mod orders;
mod recipients;
mod sockets;

use keyferry_tests::tokens::{Kind, Scratch};

/// Allows test devices whoever they are, and two keys.
const OPEN: [&str; 9] = [
    "--enroll-policy",
    "open",
    "--visit-policy",
    "open",
    "--allow-test-devices",
    "--allow-key",
    "sensor",
    "--allow-key",
    "telemetry",
];

/// A token with an authority, two keys that may go to devices, and one that may not.
fn token_of(kind: Kind) -> Scratch {
    let scratch = Scratch::of(kind, "factory");
    let create = ["key", "create", "--label"];
    for (label, rest) in [
        ("authority", &["--type", "p-256", "--usage", "sign"][..]),
        ("sensor", &["--type", "aes-256", "--extractable"]),
        ("telemetry", &["--type", "hmac-256", "--extractable"]),
        ("secret", &["--type", "aes-128", "--extractable"]),
    ] {
        scratch.done(create.iter().chain(&[label]).chain(rest));
    }
    scratch
}

fn token() -> Scratch {
    token_of(Kind::SoftHsm)
}
