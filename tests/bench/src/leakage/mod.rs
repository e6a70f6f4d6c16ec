//! Does the device tell what is wrong with a blob? Orders that fail, each for its own reason: their answers must be the same,
//! and so must the work from the start of the private-key operation to the verdict on the key.
//!
//! A round has one order of each class, in an order of their own, all given to the device in the same state. So
//! in a round everything is the same but the blobs: randomness and with it the blinding, heap, flash. The next round has
//! other blinding, other KEKs, other keys.
//!
//! What is compared are the distances to the mean of the round. Three tests, each with its threshold:
//!
//! - a permutation test within rounds, for any class that lies apart from the rest;
//! - Welch's t between groups of classes, with the threshold of test vector leakage assessment (ISO/IEC 17825);
//! - how far apart the classes of one round lie at most, against a tick of the board's timer.
//!
//! To show that they find something, the same goes on with an image that has a known defect: there, they must find it.

mod board;
mod statistics;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result, bail};
use chacha20::ChaCha20Rng;
use chacha20::rand_core::SeedableRng as _;
use keyferry_tests::spoiled::{Fault, Group};
use serde_json::json;

use crate::record;
use board::{Answer, Enrolled};
use statistics::{Summary, centred, column, permutation, shuffle, welch};

/// Orders at least.
const ORDERS: usize = 200;
/// Rounds on the image with the defect: enough to find it.
const CONTROL_ROUNDS: usize = 5;
/// The classes count as told apart below this probability.
const PROBABILITY: f64 = 0.01;
/// The groups count as told apart above this |t|.
const WELCH: f64 = 4.5;
/// Instructions in a tick of the board's timer: the classes of a round may lie apart by less.
const DIFFERENCE: f64 = 40.0;

/// Stands for an infinite figure in a row.
const INFINITE: f64 = 1e6;

/// One round: an answer of each class, in the order of [`Fault::ALL`].
type Round = Vec<Answer>;

/// Name of the cases.
const CASE: &str = "mps2-an386/rsa-2048";

/// Measures the image `measure.elf` in `images`, and beside it `measure-early-reject.elf`, the one with the defect.
///
/// # Errors
/// If a device does not do as it should. That a target is missed is in the rows.
pub(crate) fn run(images: &Path) -> Result<()> {
    let classes = Fault::ALL.len();
    let rounds = measure(&images.join("measure.elf"), ORDERS.div_ceil(classes))?;
    let orders = rounds.len() * classes;
    judge(
        "orders",
        "count",
        orders as f64,
        Bound::AtLeast(ORDERS as f64),
    )?;
    let odd = odd_answers(&rounds) as f64;
    judge("odd-answers", "count", odd, Bound::Below(1.0))?;
    let table = instructions(&rounds);
    distributions(&table)?;
    judge(
        "permutation",
        "ratio",
        permutation(&table),
        Bound::AtLeast(PROBABILITY),
    )?;
    for (at, one) in Group::ALL.into_iter().enumerate() {
        for other in &Group::ALL[at + 1..] {
            let what = format!("welch-t/{}/{}", one.name(), other.name());
            judge(
                &what,
                "ratio",
                between(&table, one, *other),
                Bound::Below(WELCH),
            )?;
        }
    }
    judge(
        "widest-round",
        "instructions",
        widest(&table),
        Bound::Below(DIFFERENCE),
    )?;

    let control = instructions(&measure(
        &images.join("measure-early-reject.elf"),
        CONTROL_ROUNDS,
    )?);
    let t = between(&control, Group::BadPadding, Group::BadWrapping);
    judge(
        "with-defect/permutation",
        "ratio",
        permutation(&control),
        Bound::Below(PROBABILITY),
    )?;
    judge(
        "with-defect/welch-t/bad-padding/bad-wrapping",
        "ratio",
        t,
        Bound::AtLeast(WELCH),
    )?;
    record(&json!({
        "bench": "leakage", "case": format!("{CASE}/with-defect/widest-round"),
        "metric": "instructions", "value": widest(&control),
    }))
}

/// Runs rounds on a new device.
fn measure(image: &Path, rounds: usize) -> Result<Vec<Round>> {
    let mut device = Enrolled::new(image)?;
    let mut random = ChaCha20Rng::from_seed([0x1e; 32]);
    let mut all = Vec::new();
    for number in 0..rounds {
        let mut order: Vec<usize> = (0..Fault::ALL.len()).collect();
        shuffle(&mut order, &mut random);
        let round = round(&device, number as u64, &order)?;
        device.follow(&round[0]);
        all.push(round);
    }
    Ok(all)
}

/// Gives one order of each class, some at a time: each has a QEMU of its own, whose time does not pass by the clock.
fn round(device: &Enrolled, number: u64, order: &[usize]) -> Result<Round> {
    let next = AtomicUsize::new(0);
    let answers: Mutex<Vec<Option<Answer>>> = Mutex::new(order.iter().map(|_| None).collect());
    let work = || -> Result<()> {
        while let Some(class) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
            let fault = Fault::ALL[*class];
            let answer = device.order(fault, number);
            let answer = answer.with_context(|| format!("round {number}, {}", fault.name()))?;
            answers.lock().unwrap_or_else(PoisonError::into_inner)[*class] = Some(answer);
        }
        Ok(())
    };
    let workers = std::thread::available_parallelism().map_or(1, |count| count.get());
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|_| bail!("a worker panicked")))
    })?;
    let answers = answers.into_inner().unwrap_or_else(PoisonError::into_inner);
    answers
        .into_iter()
        .collect::<Option<_>>()
        .context("an order was left out")
}

/// How many answers differ from the first of their round in anything but the order's digest and the signature. Device and
/// order are in the same state in a round, so that challenge and counter must be equal, too.
fn odd_answers(rounds: &[Round]) -> usize {
    let odd = |round: &Round| {
        let first = &round[0];
        let same =
            |answer: &&Answer| answer.receipt == first.receipt && answer.length == first.length;
        round.len() - round.iter().filter(same).count()
    };
    rounds.iter().map(odd).sum()
}

/// The instructions of each round's classes.
fn instructions(rounds: &[Round]) -> Vec<Vec<f64>> {
    let of_round = |round: &Round| round.iter().map(|answer| answer.instructions).collect();
    rounds.iter().map(of_round).collect()
}

/// Welch's |t| between two groups' distances to the means of their rounds.
fn between(table: &[Vec<f64>], one: Group, other: Group) -> f64 {
    let distances = centred(table);
    let of = |group: Group| -> Vec<f64> {
        (0..Fault::ALL.len())
            .filter(|class| Fault::ALL[*class].group() == group)
            .flat_map(|class| column(&distances, class))
            .collect()
    };
    welch(&of(one), &of(other)).abs()
}

/// How far apart the classes of one round lie at most.
fn widest(table: &[Vec<f64>]) -> f64 {
    let range = |round: &Vec<f64>| {
        let summary = Summary::of(round);
        summary.max - summary.min
    };
    table.iter().map(range).fold(0.0, f64::max)
}

/// One row a class: its instructions, and its distances to the mean of its round.
fn distributions(table: &[Vec<f64>]) -> Result<()> {
    let distances = centred(table);
    for (class, fault) in Fault::ALL.into_iter().enumerate() {
        let all = Summary::of(&column(table, class));
        let within = Summary::of(&column(&distances, class));
        record(&json!({
            "bench": "leakage",
            "case": format!("{CASE}/{}", fault.name()),
            "group": fault.group().name(),
            "metric": "instructions",
            "value": all.median,
            "count": all.count, "min": all.min, "max": all.max,
            "mean": all.mean, "deviation": all.deviation,
            "within_round": {
                "median": within.median, "min": within.min, "max": within.max,
                "mean": within.mean, "deviation": within.deviation,
            },
        }))?;
    }
    Ok(())
}

/// What a figure must be.
#[derive(Clone, Copy)]
enum Bound {
    Below(f64),
    AtLeast(f64),
}

/// A row with a target.
fn judge(what: &str, metric: &str, value: f64, bound: Bound) -> Result<()> {
    let (words, target, ok) = match bound {
        Bound::Below(target) => ("below", target, value < target),
        Bound::AtLeast(target) => ("at least", target, value >= target),
    };
    // Numbers without end have no place in JSON.
    let value = value.min(INFINITE);
    record(&json!({
        "bench": "leakage", "case": format!("{CASE}/{what}"), "metric": metric,
        "value": value, "target": target, "bound": words, "ok": ok,
    }))
}
