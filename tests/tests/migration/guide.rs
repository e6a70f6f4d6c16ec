//! The commands of `host/HSM.md`, run as they stand there.

use keyferry_tests::guide;
use keyferry_tests::tokens::{Kind, Scratch};

#[test]
fn the_guide_works_as_it_stands() {
    let scratch = Scratch::with(&[(Kind::SoftHsm, "origin"), (Kind::Kryoptic, "target")]);
    let variables = [
        ("ORIGIN", scratch.uri_of("origin")),
        ("TARGET", scratch.uri_of("target")),
    ];
    guide::run("host/HSM.md", &scratch, &variables);
}
