//! The commands of `host/LINE.md`, run as they stand there.

use keyferry_tests::board::{Image, Rig};
use keyferry_tests::guide;
use keyferry_tests::tokens::{PIN, Scratch};

#[test]
fn the_guide_works_as_it_is_written() {
    let scratch = Scratch::new("line");
    let rig = Rig::start(Image::Default, 44);
    let variables = [("PORT", rig.port().to_owned()), ("TOKEN", scratch.uri())];
    guide::run("host/LINE.md", &scratch, &variables);
    // The station logged in to the token with it, while it recorded.
    for name in ["enroll.capture", "inject.capture"] {
        let recording = std::fs::read_to_string(scratch.path(name)).unwrap();
        assert!(recording.lines().count() > 5, "{recording}");
        assert!(!recording.contains(PIN));
        assert!(!recording.contains(&hex::encode(PIN)));
    }
}
