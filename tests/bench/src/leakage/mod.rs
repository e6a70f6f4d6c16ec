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

pub(crate) mod board;
mod statistics;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result, bail};
use chacha20::ChaCha20Rng;
use chacha20::rand_core::SeedableRng as _;
use keyferry_protocol::suite::UnwrapAlgorithm;
use keyferry_tests::spoiled::{Fault, Group};
use serde_json::json;

use crate::record;
use board::{Answer, Enrolled};
use statistics::{Summary, centred, column, permutation, shuffle, welch};

/// Rounds with each kind of unwrap key: 210 orders with RSA, 105 with P-256. The image with the defect gets as many: what finds it
/// there would find its like in the other.
const ROUNDS: usize = 15;
/// The classes count as told apart below this probability.
const PROBABILITY: f64 = 0.01;
/// The groups count as told apart above this |t|.
const WELCH: f64 = 4.5;
/// Instructions in a tick of the board's timer: the classes of a round may lie apart by less.
const DIFFERENCE: f64 = 40.0;

/// Stands for an infinite figure in a row.
const INFINITE: f64 = 1e6;

/// The answers of a device.
struct Measured {
    /// Name of the case.
    case: &'static str,
    /// The classes, in the order of each round's answers.
    classes: Vec<Fault>,
    rounds: Vec<Vec<Answer>>,
}

/// Measures the image `measure.elf` in `images`, and beside it `measure-early-reject.elf`, the one with the defect.
///
/// # Errors
/// If a device does not do as it should. That a target is missed is in the rows.
pub(crate) fn run(images: &Path) -> Result<()> {
    let image = images.join("measure.elf");
    for (case, algorithm, orders) in [
        ("mps2-an386/rsa-2048", UnwrapAlgorithm::Rsa2048, 200),
        ("mps2-an386/p-256", UnwrapAlgorithm::P256, 100),
    ] {
        let mut classes = Fault::toward(algorithm);
        classes.retain(|fault| !fault.shows());
        let measured = Measured::new(case, algorithm, classes, &image, ROUNDS)?;
        measured.judge(
            "orders",
            "count",
            measured.orders() as f64,
            Bound::AtLeast(orders.into()),
        )?;
        measured.judge(
            "odd-answers",
            "count",
            measured.odd() as f64,
            Bound::Below(1.0),
        )?;
        measured.distributions()?;
        measured.judge(
            "permutation",
            "ratio",
            permutation(&measured.table()),
            Bound::AtLeast(PROBABILITY),
        )?;
        for (at, one) in Group::ALL.into_iter().enumerate() {
            for other in &Group::ALL[at + 1..] {
                let what = format!("welch-t/{}/{}", one.name(), other.name());
                measured.judge(
                    &what,
                    "ratio",
                    measured.between(one, *other),
                    Bound::Below(WELCH),
                )?;
            }
        }
        measured.judge(
            "widest-round",
            "instructions",
            measured.widest(),
            Bound::Below(DIFFERENCE),
        )?;
    }

    let (case, rsa) = ("mps2-an386/rsa-2048/with-defect", UnwrapAlgorithm::Rsa2048);
    let mut classes = Fault::toward(rsa);
    // With the defect it spares the whole private-key operation, which anyone could foretell; beside that the difference
    // that must be found would be nothing.
    classes.retain(|fault| *fault != Fault::AboveModulus);
    let image = images.join("measure-early-reject.elf");
    let control = Measured::new(case, rsa, classes, &image, ROUNDS)?;
    control.judge(
        "permutation",
        "ratio",
        permutation(&control.table()),
        Bound::Below(PROBABILITY),
    )?;
    let t = control.between(Group::BadKek, Group::BadWrapping);
    control.judge(
        "welch-t/bad-kek/bad-wrapping",
        "ratio",
        t,
        Bound::AtLeast(WELCH),
    )?;
    record(&json!({
        "bench": "leakage", "case": format!("{case}/widest-round"),
        "metric": "instructions", "value": control.widest(),
    }))
}

impl Measured {
    /// Enrols a new device and runs the rounds.
    fn new(
        case: &'static str,
        algorithm: UnwrapAlgorithm,
        classes: Vec<Fault>,
        image: &Path,
        rounds: usize,
    ) -> Result<Self> {
        let mut device = Enrolled::new(image, algorithm)?;
        let mut random = ChaCha20Rng::from_seed([0x1e; 32]);
        let mut all = Vec::new();
        for number in 0..rounds {
            let mut order: Vec<usize> = (0..classes.len()).collect();
            shuffle(&mut order, &mut random);
            let round = round(&device, number as u64, &classes, &order)?;
            device.follow(&round[0]);
            all.push(round);
        }
        Ok(Self {
            case,
            classes,
            rounds: all,
        })
    }

    fn orders(&self) -> usize {
        self.rounds.iter().map(Vec::len).sum()
    }

    /// How many answers differ from the first of their round in anything but the order's digest and the signature. Device
    /// and order are in the same state in a round, so that challenge and counter must be equal, too.
    fn odd(&self) -> usize {
        let odd = |round: &Vec<Answer>| {
            let first = &round[0];
            let same =
                |answer: &&Answer| answer.receipt == first.receipt && answer.length == first.length;
            round.len() - round.iter().filter(same).count()
        };
        self.rounds.iter().map(odd).sum()
    }

    /// The instructions of each round's classes.
    fn table(&self) -> Vec<Vec<f64>> {
        let of_round =
            |round: &Vec<Answer>| round.iter().map(|answer| answer.instructions).collect();
        self.rounds.iter().map(of_round).collect()
    }

    /// Welch's |t| between two groups' distances to the means of their rounds.
    fn between(&self, one: Group, other: Group) -> f64 {
        let distances = centred(&self.table());
        let of = |group: Group| -> Vec<f64> {
            (0..self.classes.len())
                .filter(|class| self.classes[*class].group() == group)
                .flat_map(|class| column(&distances, class))
                .collect()
        };
        welch(&of(one), &of(other)).abs()
    }

    /// How far apart the classes of one round lie at most.
    fn widest(&self) -> f64 {
        let range = |round: &Vec<f64>| {
            let summary = Summary::of(round);
            summary.max - summary.min
        };
        self.table().iter().map(range).fold(0.0, f64::max)
    }

    /// One row a class: its instructions, and its distances to the mean of its round.
    fn distributions(&self) -> Result<()> {
        let table = self.table();
        let distances = centred(&table);
        for (class, fault) in self.classes.iter().enumerate() {
            let all = Summary::of(&column(&table, class));
            let within = Summary::of(&column(&distances, class));
            record(&json!({
                "bench": "leakage",
                "case": format!("{}/{}", self.case, fault.name()),
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

    /// A row with a target.
    fn judge(&self, what: &str, metric: &str, value: f64, bound: Bound) -> Result<()> {
        let (words, target, ok) = match bound {
            Bound::Below(target) => ("below", target, value < target),
            Bound::AtLeast(target) => ("at least", target, value >= target),
        };
        // Numbers without end have no place in JSON.
        let value = value.min(INFINITE);
        record(&json!({
            "bench": "leakage", "case": format!("{}/{what}", self.case), "metric": metric,
            "value": value, "target": target, "bound": words, "ok": ok,
        }))
    }
}

/// What a figure must be.
#[derive(Clone, Copy)]
enum Bound {
    Below(f64),
    AtLeast(f64),
}

/// Gives one order of each class, some at a time: each has a QEMU of its own, whose time does not pass by the clock.
fn round(
    device: &Enrolled,
    number: u64,
    classes: &[Fault],
    order: &[usize],
) -> Result<Vec<Answer>> {
    let next = AtomicUsize::new(0);
    let answers: Mutex<Vec<Option<Answer>>> = Mutex::new(order.iter().map(|_| None).collect());
    let work = || -> Result<()> {
        while let Some(class) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
            let fault = classes[*class];
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
