//! Power cut by `SIGKILL` at recorded flash operations, on the real firmware in QEMU.
//!
//! For each kind of order that changes the device a run without a cut records every word programmed and every page erased. Then the
//! same run is made again from the same flash, stopped by the driver's fault hook at one of these operations, before it, in the
//! middle of it or after it, and killed there. The device that starts from what is left must hold the state before the order or the
//! state after it, as a model has them: slots, keys, counter, authority, receipt. And it must go on from there.
//!
//! Over most of an order's operations the old state holds, since the commit comes late. So some kills are aimed at the words that
//! decide, the tick that commits and the erasing of what is old, where torn operations take many forms.
//!
//! The ordinary list kills at a few operations of each order; with `KEYFERRY_LONG` set it is every one, or 300 spread evenly, and 60
//! that are aimed. The schedule is the same on every board.
#![cfg(unix)]

mod journal;
mod model;
mod scene;

use std::collections::{BTreeMap, BTreeSet};

use journal::{Cut, Kill, Operation};
use keyferry_tests::board::QemuBoard;
use scene::{ORDERS, Ordered, Scene};

keyferry_tests::on_every_qemu_board!(
    power_cut_at_any_flash_operation_leaves_the_old_or_the_new_state
);

/// Kills of each kind of order: spread over all its operations, and aimed at those that decide.
fn wanted() -> (usize, usize) {
    let spread = match std::env::var_os("KEYFERRY_KILLS") {
        Some(number) => number.to_string_lossy().parse().expect("a number"),
        None if std::env::var_os("KEYFERRY_LONG").is_some() => 300,
        None => 2,
    };
    (spread, (spread / 5).max(2))
}

/// The kinds of order: all, or the one that `KEYFERRY_KILLED` names.
fn chosen() -> Vec<(usize, Ordered)> {
    let all = ORDERS.into_iter().enumerate();
    let Ok(name) = std::env::var("KEYFERRY_KILLED") else {
        return all.collect();
    };
    let chosen: Vec<_> = all.filter(|(_, order)| order.name() == name).collect();
    assert!(!chosen.is_empty(), "no kind of order is called {name}");
    chosen
}

/// Fewest kills between the first and the last operation of a commit, where all are wanted.
const WITHIN_COMMITS: usize = 200;

/// What M-23, M-29 and M-30 ask for, on the real firmware.
fn power_cut_at_any_flash_operation_leaves_the_old_or_the_new_state(board: QemuBoard) {
    let (spread, aimed) = wanted();
    let mut histogram: BTreeMap<(&'static str, Cut), [usize; 2]> = BTreeMap::new();
    let (mut within, mut kills) = (0, 0);
    for (number, order) in chosen() {
        let (mut scene, recorded) = Scene::set(board, order).record();
        let schedule = recorded.schedule(number, spread, aimed);
        let mut ends = [0; 2];
        for Kill { at, cut, seed } in &schedule {
            let new;
            (scene, new) = scene.kill(&recorded, *at, *cut, *seed);
            ends[usize::from(new)] += 1;
            histogram.entry((recorded.role(*at), *cut)).or_default()[usize::from(new)] += 1;
            within += usize::from(recorded.is_within_commit(*at));
            kills += 1;
        }
        let places: BTreeSet<_> = schedule.iter().map(|kill| kill.at).collect();
        println!(
            "{}, {}: {} operations, {} at the start, {} kills at {}, old state {}, new state {}",
            board.name(),
            order.name(),
            recorded.operations.len(),
            recorded.start,
            schedule.len(),
            places.len(),
            ends[0],
            ends[1]
        );
        assert!(places.len() >= spread.min(recorded.operations.len()));
        assert!(
            ends.iter().all(|count| *count > 0),
            "{}: {ends:?}",
            order.name()
        );
    }
    println!("{}: {kills} kills, {within} within a commit", board.name());
    for ((role, cut), [old, new]) in &histogram {
        println!("{role:<24} {:<6} old {old:>5}  new {new:>5}", cut.word());
    }
    assert_eq!(histogram.values().flatten().sum::<usize>(), kills);
    if spread >= 100 {
        let fewest = WITHIN_COMMITS * chosen().len() / ORDERS.len();
        assert!(within >= fewest, "{within} kills within a commit");
        let roles = ["record", "commit block", "tick", "erase"];
        for role in roles {
            let all = Cut::ALL.map(|cut| {
                histogram
                    .get(&(role, cut))
                    .map_or(0, |ends| ends[0] + ends[1])
            });
            assert!(all.iter().all(|count| *count > 0), "{role}: {all:?}");
        }
    }
}

#[test]
fn what_an_operation_is_follows_from_the_journal() {
    let program = |address| Operation::Program { address };
    let erase = |address| Operation::Erase { address };
    let recorded = journal::Recorded {
        operations: vec![
            program(500),
            erase(4096),
            program(4096 + 64),
            program(4096),
            program(4096 + 4),
            program(4096 + 96),
            erase(0),
            erase(8192),
        ],
        start: 1,
        page: 4096,
    };
    let roles: Vec<_> = (0..8).map(|at| recorded.role(at)).collect();
    assert_eq!(
        roles,
        [
            "start",
            "prepare",
            "record",
            "commit block",
            "commit block",
            "tick",
            "erase",
            "erase"
        ]
    );
    let within: Vec<_> = (0..8).filter(|at| recorded.is_within_commit(*at)).collect();
    assert_eq!(within, [2, 3, 4, 5, 6]);

    // Two spread, then by turns: the erasing of what is old, and the tick from its last word.
    let schedule: Vec<_> = recorded
        .schedule(0, 2, 6)
        .iter()
        .map(|kill| (kill.at, kill.cut))
        .collect();
    assert_eq!(schedule[1].0, 7);
    assert_eq!(
        schedule[2..],
        [
            (6, Cut::Torn),
            (5, Cut::After),
            (7, Cut::Torn),
            (5, Cut::Before),
            (6, Cut::After),
            (5, Cut::Torn),
        ]
    );
    let all: Vec<_> = recorded.schedule(3, 300, 0);
    assert_eq!(
        all.iter().map(|kill| kill.at).collect::<Vec<_>>(),
        (0..8).collect::<Vec<_>>()
    );
}
