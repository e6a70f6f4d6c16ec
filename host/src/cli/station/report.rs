//! `station report`: a page about a run or a shift. `station runs`: which runs there are.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::Args;

use crate::cli::files::{check_new, write_new};
use crate::cli::{Context, Outcome, fields};
use crate::error::Failure;
use crate::station::journal::{Journal, JournalError, Wanted};
use crate::station::report::{Counts, page};

#[derive(Debug, Args)]
pub(in crate::cli) struct Report {
    /// The run, by the first digits of its name (`station runs` shows them); without it, the last one.
    #[arg(value_name = "RUN")]
    run: Option<String>,
    /// All that ended in the last so many hours, at most a year, in whatever run: a shift.
    #[arg(long, value_name = "NUMBER", conflicts_with = "run", value_parser = clap::value_parser!(u32).range(1..=8_760))]
    hours: Option<u32>,
    #[command(flatten)]
    journal: JournalArgs,
    /// The page to write, HTML.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Replace an existing file.
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Runs {
    /// How many, the last ones.
    #[arg(long, value_name = "NUMBER", default_value_t = 20)]
    last: u32,
    #[command(flatten)]
    journal: JournalArgs,
}

/// The journal that is read.
#[derive(Debug, Args)]
struct JournalArgs {
    /// The station's journal. No station may be at work with it.
    #[arg(long, value_name = "FILE")]
    journal: PathBuf,
}

impl JournalArgs {
    fn open(&self) -> Result<Journal, JournalError> {
        // Opening it would begin one.
        if std::fs::metadata(&self.journal).map_or(0, |file| file.len()) == 0 {
            let path = self.journal.clone();
            return Err(JournalError::NotThere { path });
        }
        Journal::open(&self.journal)
    }
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
    let path = &arguments.journal.journal;
    if same_file(path, &arguments.out) {
        let path = path.clone();
        return Err(Failure::Journal(JournalError::NotForOutput { path }));
    }
    let journal = arguments.journal.open()?;
    let wanted = match arguments.hours {
        Some(hours) => {
            let before = Duration::from_secs(u64::from(hours) * 3_600);
            let now = SystemTime::now();
            Wanted::Since(now.checked_sub(before).unwrap_or(SystemTime::UNIX_EPOCH))
        }
        None => Wanted::Run(arguments.run.as_deref().unwrap_or_default()),
    };
    let history = journal.history(wanted)?;
    write_new(&arguments.out, page(&history).as_bytes(), arguments.force)?;
    let counts = Counts::of(&history);
    context.note(&format!("{} is written", arguments.out.display()));
    let runs: Vec<_> = history.runs.into_iter().map(|run| run.name).collect();
    Ok(fields! {
        "runs" => runs,
        "done" => counts.done,
        "before" => counts.before,
        "failed" => counts.failed,
        "not_begun" => counts.not_begun,
        "yield" => counts.passed(),
        "out" => arguments.out.display().to_string(),
    })
}

pub(super) fn runs(context: &Context, arguments: &Runs) -> Outcome {
    let journal = arguments.journal.open()?;
    let runs = journal.runs(arguments.last)?;
    let mut lines = Vec::new();
    for run in &runs {
        let counts = Counts::of(&journal.history(Wanted::Run(&run.name))?);
        context.event(fields! {
            "run" => run.name,
            "plan" => run.plan,
            "begun" => run.begun,
            "ended" => run.ended,
            "done" => counts.done,
            "before" => counts.before,
            "failed" => counts.failed,
            "not_begun" => counts.not_begun,
        });
        lines.push([
            run.name.clone(),
            run.begun.clone(),
            run.ended.clone().unwrap_or_else(|| "-".to_owned()),
            (counts.done + counts.before).to_string(),
            counts.failed.to_string(),
            run.plan.clone(),
        ]);
    }
    context.table(["RUN", "BEGUN", "ENDED", "GOOD", "FAILED", "PLAN"], &lines);
    Ok(fields! { "runs" => runs.len() })
}
