//! `keyferry audit show`.

use std::path::PathBuf;

use clap::Args;

use super::KeyFiles;
use super::export::as_json;
use crate::audit::{describe, rows, verify};
use crate::cli::{Context, Outcome, fields};
use crate::error::Failure;

#[derive(Debug, Args)]
pub(in crate::cli) struct Show {
    /// The log.
    #[arg(value_name = "LOG")]
    log: PathBuf,
    #[command(flatten)]
    keys: KeyFiles,
}

/// Shows every line up to the first that is not to be believed.
pub(super) fn show(context: &Context, arguments: &Show) -> Outcome {
    let keys = arguments.keys.read()?;
    let report = verify::<Failure>(&arguments.log, keys, &[], |_, record| {
        context.print(&describe(record));
        if context.is_json() {
            for row in rows(record) {
                context.event(as_json(&row));
            }
        }
        Ok(())
    })?;
    Ok(fields! { "log" => report.log.to_string(), "lines" => report.lines })
}
