//! `cargo xtask test`: runs the list of steps, times each, stops at the first that fails unless told to go on, and ends in
//! a table that also names what did not run.

mod steps;
mod tally;

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::{Map, json};

use crate::Outcome;
use crate::process;
use crate::screen::{self, BAD, GOOD, NOTE, Screen};
use steps::{Action, CAMPAIGNS, Cargo, Environment, STEPS, Step};
use tally::Tally;

/// What became of a step.
struct Report {
    name: &'static str,
    by_hand: String,
    time: Duration,
    tally: Option<Tally>,
    verdict: Verdict,
}

/// How a step ended.
enum Verdict {
    Passed,
    /// Why.
    Failed(String),
    /// A step before it failed.
    NotRun,
}

/// Runs the steps; the door.
///
/// # Errors
/// If stdout cannot be written. That a step failed is in the outcome.
pub(crate) fn run(screen: &Screen, long: bool, keep_going: bool) -> anyhow::Result<Outcome> {
    let campaigns: &[Step] = if long { CAMPAIGNS } else { &[] };
    let mut environment = Environment::new();
    let mut reports: Vec<Report> = Vec::new();
    let mut failed = false;
    for step in STEPS.iter().chain(campaigns) {
        let report = if failed && !keep_going {
            Report::not_run(step)
        } else {
            attempt(step, screen, &mut environment)
        };
        failed |= matches!(report.verdict, Verdict::Failed(_));
        report.tell(screen)?;
        reports.push(report);
    }
    Ok(close(screen, &reports))
}

/// Runs one step.
fn attempt(step: &Step, screen: &Screen, environment: &mut Environment) -> Report {
    let mut report = Report::not_run(step);
    let start = Instant::now();
    let ended = match &step.action {
        // It speaks for itself while it runs.
        Action::Call { run, .. } => run(screen, environment),
        Action::Cargo(cargo) => succeed(step, command(cargo, environment), screen).map(drop),
        Action::Tests(cargo) => test(step, command(cargo, environment), screen, &mut report.tally),
        Action::Refusal(cargo, words) => refuse(step, command(cargo, environment), screen, words),
    };
    report.time = start.elapsed();
    report.by_hand = by_hand(&step.action, environment);
    report.verdict = match ended {
        Ok(()) => Verdict::Passed,
        Err(error) => Verdict::Failed(format!("{error:#}")),
    };
    report
}

/// Runs `command` with its output on the screen.
fn watched(
    step: &Step,
    mut command: Command,
    screen: &Screen,
) -> anyhow::Result<process::Finished> {
    let watch = screen.watch(step.name);
    process::run(&mut command, &watch)
}

/// Runs `command`, which must exit with 0, and gives back its output.
fn succeed(step: &Step, command: Command, screen: &Screen) -> anyhow::Result<String> {
    let finished = watched(step, command, screen)?;
    if !finished.status.success() {
        show(screen, &finished.output);
        anyhow::bail!("{}", finished.status);
    }
    Ok(finished.output)
}

/// Runs `command`, which must run tests and leave none out.
fn test(
    step: &Step,
    command: Command,
    screen: &Screen,
    counted: &mut Option<Tally>,
) -> anyhow::Result<()> {
    let finished = watched(step, command, screen)?;
    let tally = Tally::of(&finished.output);
    *counted = Some(tally);
    let complaint = tally.complaint();
    if complaint.is_some() || !finished.status.success() {
        show(screen, &finished.output);
        anyhow::bail!(
            "{}",
            complaint.unwrap_or_else(|| finished.status.to_string())
        );
    }
    Ok(())
}

/// Runs `command`, which must fail and say `words`.
fn refuse(step: &Step, command: Command, screen: &Screen, words: &str) -> anyhow::Result<()> {
    let finished = watched(step, command, screen)?;
    if finished.status.success() || !finished.output.contains(words) {
        show(screen, &finished.output);
        let what = if finished.status.success() {
            "it built"
        } else {
            "it failed without saying so"
        };
        anyhow::bail!("{what}; expected the error \"{words}\"");
    }
    Ok(())
}

/// Shows the output of a failed step in full, unless it has gone by line by line already.
fn show(screen: &Screen, output: &str) {
    if screen.is_live() {
        screen.say(output.trim_end());
    }
}

fn command(cargo: &Cargo, environment: &Environment) -> Command {
    let mut command = process::command("cargo", cargo.arguments);
    command.envs(cargo.environment.iter().copied());
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    command
}

fn by_hand(action: &Action, environment: &Environment) -> String {
    match action {
        Action::Call { by_hand, .. } => (*by_hand).to_owned(),
        Action::Cargo(cargo) | Action::Tests(cargo) | Action::Refusal(cargo, _) => {
            process::line(&command(cargo, environment))
        }
    }
}

impl Report {
    fn not_run(step: &Step) -> Self {
        Self {
            name: step.name,
            by_hand: by_hand(&step.action, &Environment::new()),
            time: Duration::ZERO,
            tally: None,
            verdict: Verdict::NotRun,
        }
    }

    /// Says how the step ended, and on failure what to type.
    fn tell(&self, screen: &Screen) -> anyhow::Result<()> {
        let seconds = self.time.as_secs_f64();
        match &self.verdict {
            Verdict::Passed => screen.mark(GOOD, "ok", format!("{} ({seconds:.1} s)", self.name)),
            Verdict::Failed(why) => {
                screen.mark(BAD, "failed", format!("step `{}`: {why}", self.name));
                screen.say(format!("hint: by hand: {}", self.by_hand));
            }
            // The closing table names it.
            Verdict::NotRun => {}
        }
        let mut record = Map::from_iter([
            ("step".to_owned(), json!(self.name)),
            (
                "ok".to_owned(),
                json!(matches!(self.verdict, Verdict::Passed)),
            ),
            (
                "ran".to_owned(),
                json!(!matches!(self.verdict, Verdict::NotRun)),
            ),
            ("seconds".to_owned(), json!(seconds)),
            ("command".to_owned(), json!(self.by_hand)),
        ]);
        if let Some(tally) = self.tally {
            record.insert("passed".to_owned(), json!(tally.passed));
            record.insert("failed".to_owned(), json!(tally.failed));
            record.insert("ignored".to_owned(), json!(tally.ignored));
        }
        if let Verdict::Failed(why) = &self.verdict {
            record.insert("error".to_owned(), json!(why));
        }
        screen
            .record(&record.into())
            .context("while reporting a step")
    }
}

/// Prints the closing table and sums up.
fn close(screen: &Screen, reports: &[Report]) -> Outcome {
    let (mut tests, mut time, mut failed) = (Tally::default(), Duration::ZERO, Vec::new());
    screen.say("");
    for report in reports {
        let (style, word) = match &report.verdict {
            Verdict::Passed => (GOOD, "ok"),
            Verdict::Failed(_) => (BAD, "failed"),
            Verdict::NotRun => (NOTE, "not run"),
        };
        let counted = report.tally.map_or_else(String::new, |tally| {
            screen::count(tally.passed, "test") + " passed"
        });
        let seconds = report.time.as_secs_f64();
        screen.mark(
            style,
            word,
            format!("{:<32} {seconds:>7.1} s  {counted}", report.name).trim_end(),
        );
        time += report.time;
        tests += report.tally.unwrap_or_default();
        if matches!(report.verdict, Verdict::Failed(_)) {
            failed.push(report.name);
        }
    }
    let run = reports
        .iter()
        .filter(|report| !matches!(report.verdict, Verdict::NotRun));
    let run = run.count();
    let (style, word) = if failed.is_empty() {
        (GOOD, "ok")
    } else {
        (BAD, "failed")
    };
    screen.say("");
    screen.mark(
        style,
        word,
        format!(
            "{run} of {} run, {} passed, {:.0} s",
            screen::count(reports.len(), "step"),
            screen::count(tests.passed, "test"),
            time.as_secs_f64()
        ),
    );
    let summary = Map::from_iter([
        ("steps".to_owned(), json!(reports.len())),
        ("steps_run".to_owned(), json!(run)),
        ("failed_steps".to_owned(), json!(failed)),
        ("tests_passed".to_owned(), json!(tests.passed)),
        ("seconds".to_owned(), json!(time.as_secs_f64())),
    ]);
    Outcome {
        ok: failed.is_empty(),
        summary,
    }
}
