//! `keyferry station`: a line of devices, worked on by a plan.

mod backend;
mod books;
mod check;
mod files;
mod fixture;
mod opened;
mod report;
mod run;
mod scanner;
mod screen;
mod serials;
mod watch;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Context, Outcome};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Say everything that is wrong in a plan, with lines and hints.
    Check(PlanArgs),
    /// Do what the plan says with every device that is plugged in, and end.
    Run(run::Run),
    /// Stay, and do what the plan says with every device that is plugged in, each by itself.
    Watch(watch::Watch),
    /// Write a page about a run or a shift: how many devices, how many good ones, where the time went, what went wrong.
    Report(report::Report),
    /// List the runs that the journal knows.
    Runs(report::Runs),
    /// Print the JSON schema of plans, for editors.
    Schema,
}

/// The plan.
#[derive(Debug, Args)]
pub(in crate::cli) struct PlanArgs {
    /// The plan, a TOML file. Files that it names are seen from its folder.
    #[arg(value_name = "PLAN")]
    plan: PathBuf,
}

pub(super) fn run(context: &Context, command: Command) -> Outcome {
    match command {
        Command::Check(arguments) => check::check(context, &arguments),
        Command::Run(arguments) => run::run(context, &arguments),
        Command::Watch(arguments) => watch::run(context, &arguments),
        Command::Report(arguments) => report::run(context, &arguments),
        Command::Runs(arguments) => report::runs(context, &arguments),
        Command::Schema => check::schema(context),
    }
}
