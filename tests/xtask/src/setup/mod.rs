//! `cargo xtask setup`: says what the machine lacks and installs it. Where everything is there, it changes nothing.

mod install;
mod prerequisites;
mod probe;

use serde_json::{Map, json};

use crate::Outcome;
use crate::screen::{self, BAD, GOOD, NOTE, Screen};
use install::Access;
pub(crate) use prerequisites::{Need, softhsm_module};
use prerequisites::{PREREQUISITES, Prerequisite};

/// What a prerequisite's line says.
#[derive(Clone, Copy)]
enum State {
    Present,
    Installed,
    Missing,
}

/// Installs what is missing of what is needed; the door.
///
/// # Errors
/// If stdout cannot be written. What stays missing is in the outcome.
pub(crate) fn run(screen: &Screen, need: Need) -> anyhow::Result<Outcome> {
    let wanted = || PREREQUISITES.iter().filter(|one| one.need <= need);
    let missing = survey(screen, wanted(), State::Present)?;
    let present = wanted().count() - missing.len();
    let installers = if missing.is_empty() {
        Vec::new()
    } else {
        install::installers(&missing, Access::find())
    };
    if installers.is_empty() {
        return finish(screen, present, 0, &missing);
    }
    for installer in installers {
        installer.run(screen);
    }
    let still_missing = survey(screen, missing.iter().copied(), State::Installed)?;
    finish(
        screen,
        present,
        missing.len() - still_missing.len(),
        &still_missing,
    )
}

/// Only reports.
///
/// # Errors
/// If stdout cannot be written. What is missing is in the outcome.
pub(crate) fn check(screen: &Screen) -> anyhow::Result<Outcome> {
    let missing = survey(screen, PREREQUISITES.iter(), State::Present)?;
    finish(screen, PREREQUISITES.len() - missing.len(), 0, &missing)
}

/// For the other doors: installs what is missing and fails if something stays so.
///
/// # Errors
/// If a prerequisite is missing and could not be installed; the screen has then said which and what to do.
pub(crate) fn ensure(screen: &Screen, need: Need) -> anyhow::Result<()> {
    let outcome = run(screen, need)?;
    anyhow::ensure!(outcome.ok, "this machine lacks what is listed above");
    Ok(())
}

/// Probes each of `prerequisites`, reports one line each, and gives back those that are missing.
fn survey<'a>(
    screen: &Screen,
    prerequisites: impl Iterator<Item = &'a Prerequisite>,
    there: State,
) -> anyhow::Result<Vec<&'a Prerequisite>> {
    let mut missing = Vec::new();
    for prerequisite in prerequisites {
        let found = prerequisite.find();
        let state = if found.is_some() {
            there
        } else {
            State::Missing
        };
        let (style, word, name) = match state {
            State::Present => (GOOD, "ok", "present"),
            State::Installed => (NOTE, "installed", "installed"),
            State::Missing => (BAD, "missing", "missing"),
        };
        let detail = found
            .clone()
            .unwrap_or_else(|| format!("it {}", prerequisite.why));
        screen.mark(style, word, format!("{:<29} {detail}", prerequisite.name));
        screen.record(&json!({"item": prerequisite.name, "state": name, "found": found, "why": prerequisite.why}))?;
        if found.is_none() {
            missing.push(prerequisite);
        }
    }
    Ok(missing)
}

/// Says the last words, and what to do about what is still missing.
fn finish(
    screen: &Screen,
    present: usize,
    installed: usize,
    missing: &[&Prerequisite],
) -> anyhow::Result<Outcome> {
    let names: Vec<&str> = missing
        .iter()
        .map(|prerequisite| prerequisite.name)
        .collect();
    if missing.is_empty() && installed == 0 {
        screen.mark(GOOD, "ok", "nothing to do");
    } else if missing.is_empty() {
        screen.mark(
            GOOD,
            "ok",
            format!("{} installed", screen::count(installed, "item")),
        );
    } else {
        screen.mark(BAD, "missing", names.join(", "));
        screen.say(
            "hint: install with the lines that fit this machine, then run the same command again:",
        );
        for line in install::advice(missing) {
            screen.say(format!("  {line}"));
        }
    }
    let summary = Map::from_iter([
        ("present".to_owned(), json!(present)),
        ("installed".to_owned(), json!(installed)),
        ("missing".to_owned(), json!(names)),
    ]);
    Ok(Outcome {
        ok: missing.is_empty(),
        summary,
    })
}
