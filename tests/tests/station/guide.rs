//! The commands of `host/STATION.md`, run as they stand there.

use keyferry_native::LineKind;
use keyferry_tests::guide;
use keyferry_tests::tokens::Scratch;

use crate::Fleet;

#[test]
fn the_guide_works_as_it_stands() {
    let scratch = Scratch::new("line");
    let fleet = Fleet::new();
    let devices = [1, 2, 3].map(|number| fleet.start_on(number, LineKind::PseudoTerminal));
    let [a1, a2, b1] = devices.each_ref().map(|device| device.port().to_owned());
    let variables = [("TOKEN", scratch.uri()), ("A1", a1), ("A2", a2), ("B1", b1)];
    guide::run("host/STATION.md", &scratch, &variables);
}
