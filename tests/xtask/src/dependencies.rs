//! What the packages we build on bring along: their licences, where they come from, what is known against them. cargo-deny judges by
//! `deny.toml`.

use std::process::Command;

use anyhow::ensure;

use crate::firmware::cargo;
use crate::process::{self, Finished};
use crate::screen::{NOTE, Screen};

/// What cargo-deny says where it cannot have the database of advisories.
const NO_DATABASE: &str = "failed to fetch advisory database";

/// Checks licences, bans and sources, and then for known faults.
///
/// # Errors
/// If something is against the rules, or a check cannot run. A database of advisories that cannot be had is said, and is no error: nothing
/// is known then against what was good yesterday.
pub(crate) fn check(screen: &Screen) -> anyhow::Result<()> {
    let rules = deny(screen, &["check", "licenses", "bans", "sources"])?;
    ensure!(rules.status.success(), "a dependency is against deny.toml");
    let advisories = deny(screen, &["check", "advisories"])?;
    if !advisories.status.success() && advisories.output.contains(NO_DATABASE) {
        screen.mark(
            NOTE,
            "not done",
            "advisories: the database cannot be fetched from here; elsewhere: cargo deny check advisories",
        );
        return Ok(());
    }
    ensure!(
        advisories.status.success(),
        "something is known against a dependency"
    );
    Ok(())
}

fn deny(screen: &Screen, arguments: &[&str]) -> anyhow::Result<Finished> {
    let mut command: Command = process::command(cargo(), ["deny", "--color", "never"]);
    command.args(arguments);
    let finished = process::run(&mut command, &screen.watch("cargo deny"))?;
    if !finished.status.success() {
        screen.say(&finished.output);
    }
    Ok(finished)
}
