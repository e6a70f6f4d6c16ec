//! The commands of `host/POLICIES.md`, run as they stand there.

use keyferry_tests::board::{Image, Rig};
use keyferry_tests::guide;
use keyferry_tests::tokens::{Kind, Scratch};

#[test]
fn the_guide_works_as_it_stands() {
    let scratch = Scratch::with(&[(Kind::SoftHsm, "line")]);
    let rigs = [1, 2].map(|seed| Rig::start(Image::Default, seed));
    let [port, other] = rigs.each_ref().map(|rig| rig.port().to_owned());
    let variables = [("TOKEN", scratch.uri()), ("PORT", port), ("OTHER", other)];
    guide::run("host/POLICIES.md", &scratch, &variables);
}
