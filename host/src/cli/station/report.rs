//! `station report`: a page about a run.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::cli::files::{check_new, write_new};
use crate::cli::{Context, Outcome, fields};
use crate::error::Failure;
use crate::station::journal::{Journal, JournalError};
use crate::station::report::{Counts, page};

#[derive(Debug, Args)]
pub(in crate::cli) struct Report {
    /// The run, by the first digits of its name; without it, the last one.
    #[arg(value_name = "RUN")]
    run: Option<String>,
    /// The station's journal. No station may be at work with it.
    #[arg(long, value_name = "FILE")]
    journal: PathBuf,
    /// The page to write, HTML.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Replace an existing file.
    #[arg(long)]
    force: bool,
}

/// Whether two names are of one file, if both are there.
fn same_file(one: &Path, other: &Path) -> bool {
    match (one.canonicalize(), other.canonicalize()) {
        (Ok(one), Ok(other)) => one == other,
        (Ok(_) | Err(_), Ok(_) | Err(_)) => false,
    }
}

pub(super) fn run(context: &Context, arguments: &Report) -> Outcome {
    check_new(&arguments.out, arguments.force)?;
    // Opening it would begin one.
    if std::fs::metadata(&arguments.journal).map_or(0, |file| file.len()) == 0 {
        let path = arguments.journal.clone();
        return Err(Failure::Journal(JournalError::NotThere { path }));
    }
    if same_file(&arguments.journal, &arguments.out) {
        let path = arguments.journal.clone();
        return Err(Failure::Journal(JournalError::NotForOutput { path }));
    }
    let journal = Journal::open(&arguments.journal)?;
    let history = journal.history(arguments.run.as_deref())?;
    write_new(&arguments.out, page(&history).as_bytes(), arguments.force)?;
    let counts = Counts::of(&history);
    context.note(&format!("{} is written", arguments.out.display()));
    Ok(fields! {
        "run" => history.run,
        "done" => counts.done,
        "before" => counts.before,
        "failed" => counts.failed,
        "not_begun" => counts.not_begun,
        "yield" => counts.passed(),
        "out" => arguments.out.display().to_string(),
    })
}
