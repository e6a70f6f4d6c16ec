//! The commands of `host/STATION.md`, run as they stand there.

use keyferry_tests::guide;
use keyferry_tests::tokens::Scratch;

use crate::Fleet;

#[test]
fn the_guide_works_as_it_stands() {
    let scratch = Scratch::new("line");
    let fleet = Fleet::new();
    let devices = fleet.start_all(2);
    let [a1, a2] = [0, 1].map(|index| devices[index].port().to_owned());
    let variables = [("TOKEN", scratch.uri()), ("A1", a1), ("A2", a2)];
    guide::run("host/STATION.md", &scratch, &variables);
}
