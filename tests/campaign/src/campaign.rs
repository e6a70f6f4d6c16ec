//! Runs many sessions and streams, counts, and judges.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use keyferry_tests::line::{Counts, MILLISECOND, Nanos, SECOND};
use serde_json::{Value, json};

use crate::plan::{BIT_ERROR_RATES, Dice, HOPELESS_RATES, Plan};
use crate::session::{Bench, Clean, Ending, Outcome};
use crate::stream;

/// Least share of sessions that must end well, for each bit error rate.
const SHARES: [f64; 4] = [0.9999, 0.9999, 0.999, 0.8];

/// A session that takes longer than so many times the clean one is no success.
const PATIENCE: u64 = 10;

/// Whether the link of this build checks its frames.
pub const CHECKED: bool = !cfg!(feature = "unchecked");

/// How large a campaign is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Chooses among all campaigns.
    pub seed: u64,
    /// Sessions, spread over the bit error rates.
    pub sessions: u64,
    /// Long streams, spread likewise.
    pub streams: u64,
    /// Messages each way of a stream: [`stream::LONG`] or fewer.
    pub messages: u32,
    /// How many run at the same time. Makes no difference to what comes out.
    pub jobs: usize,
}

/// One line of the report. Those with a target are judged.
#[derive(Clone, Debug)]
pub struct Row(pub Value);

impl Row {
    fn new(case: String, metric: &str, value: Value) -> Self {
        Self(json!({ "case": case, "metric": metric, "value": value }))
    }

    fn with(mut self, name: &str, value: Value) -> Self {
        self.0[name] = value;
        self
    }

    fn judged(self, bound: &str, target: Value, ok: bool) -> Self {
        self.with("bound", json!(bound))
            .with("target", target)
            .with("ok", json!(ok))
    }

    /// Must be 0.
    fn none(case: &str, metric: &str, count: u64) -> Self {
        Self::new(case.to_owned(), metric, json!(count)).judged("exactly", json!(0), count == 0)
    }

    /// Must be reached.
    fn at_least(case: String, metric: &str, count: u64, least: u64) -> Self {
        Self::new(case, metric, json!(count)).judged("at least", json!(least), count >= least)
    }

    /// Whether its target is missed.
    #[must_use]
    pub fn is_missed(&self) -> bool {
        self.0["ok"] == json!(false)
    }
}

/// Sessions from this number on are on lines with [`HOPELESS_RATES`].
pub const HOPELESS: u64 = 1_000_000_000;

/// One session on a hopeless line for so many others.
const HOPELESS_SHARE: u64 = 50;

/// The bit error rate of the run with this number.
#[must_use]
pub fn bit_error_rate(number: u64) -> f64 {
    match number.checked_sub(HOPELESS) {
        None => BIT_ERROR_RATES[rate_index(number)],
        Some(number) => HOPELESS_RATES[(number % HOPELESS_RATES.len() as u64) as usize],
    }
}

const fn rate_index(number: u64) -> usize {
    (number % BIT_ERROR_RATES.len() as u64) as usize
}

/// What goes wrong in the session with this number.
#[must_use]
pub fn session_plan(seed: u64, number: u64, clean: &Clean) -> Plan {
    let mut dice = Dice::new(seed, number, 1);
    Plan::draw(&mut dice, bit_error_rate(number), clean.length)
}

/// Runs `run` for each number below `count`, `jobs` at a time.
fn each<T: Send>(count: u64, jobs: usize, run: impl Fn(u64) -> T + Sync) -> Vec<T> {
    let next = AtomicU64::new(0);
    let results = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    let result = run(number);
                    let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
                    results.insert(number, result);
                }
            });
        }
    });
    let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.into_values().collect()
}

/// Runs the campaign. Gives each row to `report` as soon as it is known; calls `tick` after each run.
pub fn run(size: &Size, mut report: impl FnMut(Row), tick: impl Fn() + Sync) {
    let bench = Bench::new();
    let clean = bench.clean(size.seed);
    report(clean_row(&clean));
    sessions(size, &bench, &clean, &mut report, &tick);
    streams(size, &mut report, &tick);
}

fn millis(time: Nanos) -> Value {
    json!((time as f64 / MILLISECOND as f64 * 1000.0).round() / 1000.0)
}

fn clean_row(clean: &Clean) -> Row {
    let baud = 115_200;
    let bare = clean.bare * 10 * SECOND / baud;
    Row::new(
        "session/clean".to_owned(),
        "milliseconds",
        millis(clean.time),
    )
    .with("characters_down", json!(clean.length.down))
    .with("characters_up", json!(clean.length.up))
    .with("bare_bytes", json!(clean.bare))
    .with("bare_milliseconds", millis(bare))
    .with("to_bare", json!(clean.time as f64 / bare as f64))
}

/// Sums over the sessions of one bit error rate.
#[derive(Default)]
struct Group {
    sessions: u64,
    done: u64,
    late: Vec<u64>,
    failed: Vec<u64>,
    errors: BTreeMap<String, u64>,
    device: BTreeMap<String, u64>,
    reset: u64,
    /// With a reset, and done all the same, in time or not.
    reset_survived: u64,
    times: Vec<Nanos>,
}

fn sessions(
    size: &Size,
    bench: &Bench,
    clean: &Clean,
    report: &mut impl FnMut(Row),
    tick: &(impl Fn() + Sync),
) {
    let run = |number| {
        let plan = session_plan(size.seed, number, clean);
        let outcome = bench.run(&plan, size.seed, number, false);
        tick();
        outcome
    };
    let outcomes = each(size.sessions, size.jobs, run);
    let hopeless = each(size.sessions / HOPELESS_SHARE, size.jobs, |number| {
        run(HOPELESS + number)
    });
    let mut groups: [Group; 4] = Default::default();
    let mut bad = Group::default();
    let mut counts = Counts::default();
    let mut sums = Sums::default();
    for (number, outcome) in (0..).zip(&outcomes) {
        counts += outcome.counts;
        groups[rate_index(number)].take(number, outcome, clean, &mut sums);
    }
    for (number, outcome) in (HOPELESS..).zip(&hopeless) {
        bad.take(number, outcome, clean, &mut sums);
    }
    for ((group, share), rate) in groups.into_iter().zip(SHARES).zip(BIT_ERROR_RATES) {
        if group.sessions > 0 {
            report(group.row(format!("sessions/{rate:e}"), Some(share)));
        }
    }
    if bad.sessions > 0 {
        report(bad.row("sessions/hopeless".to_owned(), None));
    }
    let Sums {
        hung,
        broken,
        passed,
        wrong,
    } = sums;
    report(Row::none("sessions/hung", "sessions", hung.len() as u64).with("which", json!(hung)));
    if CHECKED {
        let count = broken.len() as u64;
        report(Row::none("sessions/disagree", "sessions", count).with("which", json!(broken)));
        report(Row::none("sessions/wrong bytes", "bytes", wrong).with("passed", json!(passed)));
    } else {
        let row = Row::at_least("sessions/wrong bytes".to_owned(), "bytes", wrong, 1);
        report(
            row.with("passed", json!(passed))
                .with("disagree", json!(broken.len())),
        );
    }
    injected(&counts, size.sessions, "sessions", report);
}

/// What must not be, over all sessions.
#[derive(Default)]
struct Sums {
    hung: Vec<u64>,
    broken: Vec<Value>,
    /// Bytes that passed the check, and those of them that were not sent so.
    passed: u64,
    wrong: u64,
}

impl Group {
    fn take(&mut self, number: u64, outcome: &Outcome, clean: &Clean, sums: &mut Sums) {
        let reset = u64::from(outcome.counts.resets > 0);
        self.sessions += 1;
        self.reset += reset;
        sums.passed += outcome.tally.passed;
        sums.wrong += outcome.tally.wrong;
        match &outcome.ending {
            Ending::Done => {
                self.reset_survived += reset;
                if outcome.time <= PATIENCE * clean.time {
                    self.done += 1;
                    self.times.push(outcome.time);
                } else {
                    self.late.push(number);
                }
            }
            Ending::Error(name) => {
                self.failed.push(number);
                *self.errors.entry(name.clone()).or_default() += 1;
                *self.device.entry(outcome.device.clone()).or_default() += 1;
            }
            Ending::Hung => sums.hung.push(number),
            Ending::Broken(what) => {
                sums.broken.push(json!({ "session": number, "what": what }));
            }
        }
    }

    fn row(mut self, case: String, target: Option<f64>) -> Row {
        let share = self.done as f64 / self.sessions as f64;
        self.times.sort_unstable();
        let at = |part: f64| {
            let place = (self.times.len().saturating_sub(1)) as f64 * part;
            self.times.get(place as usize).copied().map(millis)
        };
        let row = Row::new(case, "share", json!(share));
        let row = match target {
            Some(target) if CHECKED => row.judged("at least", json!(target), share >= target),
            Some(_) | None => row,
        };
        row.with("sessions", json!(self.sessions))
            .with("done", json!(self.done))
            .with("late", json!(self.late))
            .with("failed", json!(self.failed))
            .with("errors", json!(self.errors))
            .with("device_said_last", json!(self.device))
            .with("with_reset", json!(self.reset))
            .with("with_reset_survived", json!(self.reset_survived))
            .with("median_ms", json!(at(0.5)))
            .with("p99_ms", json!(at(0.99)))
            .with("longest_ms", json!(at(1.0)))
    }
}

/// That enough went wrong: a fault is counted where it hits a byte.
fn injected(counts: &Counts, runs: u64, what: &str, report: &mut impl FnMut(Row)) {
    let sum = counts.sum();
    let least = (runs / 10).min(1_000);
    for (name, count) in [
        ("drops", sum.drops),
        ("duplicates", sum.duplicates),
        ("stalls", sum.stalls),
        ("resets", counts.resets),
    ] {
        let case = format!("{what}/injected/{name}");
        report(Row::at_least(case, name, count, least));
    }
    let case = format!("{what}/injected/bit errors");
    let row = Row::new(case, "bits", json!(sum.bit_errors));
    report(row.with("counts", counts.to_json()));
}

fn streams(size: &Size, report: &mut impl FnMut(Row), tick: &(impl Fn() + Sync)) {
    let outcomes = each(size.streams, size.jobs, |number| {
        let ber = bit_error_rate(number);
        let plan = stream::plan(size.seed, number, size.messages, ber);
        let outcome = stream::run(&plan, size.seed, number, size.messages);
        tick();
        outcome
    });
    let mut counts = Counts::default();
    let (mut messages, mut bytes, mut wrong) = (0, 0, 0);
    let mut hung = Vec::new();
    for (rate, ber) in BIT_ERROR_RATES.into_iter().enumerate() {
        let (mut runs, mut sessions, mut time, mut sum) = (0_u64, 0, 0, 0);
        for (number, outcome) in (0..).zip(&outcomes) {
            if rate_index(number) != rate {
                continue;
            }
            runs += 1;
            sessions += outcome.sessions;
            time += outcome.time;
            sum += outcome.bytes;
            counts += outcome.counts;
            messages += outcome.messages;
            wrong += outcome.wrong;
            if outcome.hung {
                hung.push(number);
            }
        }
        bytes += sum;
        if runs > 0 {
            let speed = sum as f64 * SECOND as f64 / time as f64;
            let case = format!("streams/{ber:e}");
            let row = Row::new(case, "bytes per second, both ways", json!(speed.round()));
            report(
                row.with("streams", json!(runs))
                    .with("sessions", json!(sessions))
                    .with("bytes", json!(sum)),
            );
        }
    }
    if CHECKED {
        let row = Row::none("streams/wrong messages", "messages", wrong);
        report(
            row.with("messages", json!(messages))
                .with("bytes", json!(bytes)),
        );
        let count = hung.len() as u64;
        report(Row::none("streams/hung", "streams", count).with("which", json!(hung)));
    } else {
        // A stream that was led astray by a wrong byte need not end.
        let row = Row::at_least("streams/wrong messages".to_owned(), "messages", wrong, 1);
        report(row.with("hung", json!(hung)));
    }
    injected(&counts, size.streams, "streams", report);
}
