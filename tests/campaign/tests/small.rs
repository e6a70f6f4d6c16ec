//! A small campaign, for every run of the tests: without optimisation a session takes half a second. The whole one is `cargo xtask
//! bench sessions`, which builds it in release mode.

use keyferry_campaign::campaign::{self, CHECKED, Row, Size};
use keyferry_campaign::session::{Bench, Ending};

fn rows(seed: u64, sessions: u64, jobs: usize) -> Vec<Row> {
    let size = Size {
        seed,
        sessions,
        streams: 4,
        messages: 2,
        jobs,
    };
    let mut rows = Vec::new();
    campaign::run(&size, |row| rows.push(row), || {});
    rows
}

/// SPEC: M-2, M-5
#[test]
fn every_target_is_held_in_a_small_campaign() {
    let rows = rows(1, 20, 2);
    let missed: Vec<_> = rows.iter().filter(|row| row.is_missed()).collect();
    assert!(missed.is_empty(), "{missed:#?}");
    // In the build without a check there are fewer.
    assert!(rows.iter().filter(|row| row.0["ok"] == true).count() >= if CHECKED { 17 } else { 10 });
}

/// Whatever else runs beside it, and on however many cores.
#[test]
fn a_campaign_is_the_same_from_the_same_seed() {
    let all = |rows: Vec<Row>| rows.into_iter().map(|Row(row)| row).collect::<Vec<_>>();
    let first = all(rows(7, 2, 2));
    assert_eq!(first, all(rows(7, 2, 1)));
    assert_ne!(first, all(rows(8, 2, 1)));
}

#[test]
fn one_session_is_found_again_by_its_number() {
    let bench = Bench::new();
    let clean = bench.clean(3);
    let plan = campaign::session_plan(3, 5, &clean);
    let [first, again] = [(); 2].map(|()| bench.run(&plan, 3, 5, true));
    assert_eq!(first.ending, Ending::Done);
    assert_eq!(first.trace, again.trace);
    assert!(first.trace.contains("OPEN #0 0..5"));
}
