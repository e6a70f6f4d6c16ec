//! The commands of `host/BROKER.md`, run as they stand there.

use keyferry_tests::board::{Image, Rig};
use keyferry_tests::guide;
use keyferry_tests::tokens::Scratch;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Ends the broker of a guide that did not come to its end.
struct Ended<'a>(&'a Scratch);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        let process = std::fs::read_to_string(self.0.path("broker.pid")).ok();
        if let Some(process) = process.and_then(|text| text.trim().parse().ok()) {
            let _ = kill(Pid::from_raw(process), Signal::SIGKILL);
        }
    }
}

#[test]
fn the_guide_works_as_it_stands() {
    let scratch = Scratch::new("factory");
    let _ended = Ended(&scratch);
    let rig = Rig::start(Image::Default, 64);
    let variables = [("TOKEN", scratch.uri()), ("PORT", rig.port().to_owned())];
    guide::run("host/BROKER.md", &scratch, &variables);
}
