//! `keyferry audit export`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::{Map, Value};

use super::KeyFiles;
use crate::audit::{COLUMNS, Row, rows, safe_cell, verify};
use crate::cli::files::{Filling, write_new_with};
use crate::cli::{Context, Outcome, fields};

#[derive(Debug, Args)]
pub(in crate::cli) struct Export {
    /// The log.
    #[arg(value_name = "LOG")]
    log: PathBuf,
    /// What to write.
    #[arg(long, value_name = "FORMAT")]
    format: Format,
    /// The file to write.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Replace an existing file.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    keys: KeyFiles,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Comma-separated values (RFC 4180), with a heading. A cell that a spreadsheet would compute begins with an apostrophe.
    Csv,
    /// One array of objects.
    Json,
}

/// Verifies the log on the way; of one that is broken nothing is written.
pub(super) fn export(context: &Context, arguments: &Export) -> Outcome {
    let keys = arguments.keys.read()?;
    let mut count = 0_u64;
    let report = write_new_with(&arguments.out, arguments.force, |file| {
        let mut table = Table::begin(arguments.format, std::io::BufWriter::new(file))?;
        let report = verify::<Filling>(&arguments.log, keys, &[], |_, record| {
            for row in rows(record) {
                table.row(&row)?;
                count += 1;
            }
            Ok(())
        })?;
        table.end()?;
        Ok(report)
    })?;
    context.note(&format!(
        "{count} rows of {} lines in {}",
        report.lines,
        arguments.out.display()
    ));
    Ok(fields! {
        "log" => report.log.to_string(),
        "lines" => report.lines,
        "rows" => count,
    })
}

/// A table that is being written.
enum Table<W: std::io::Write> {
    Csv(Box<csv::Writer<W>>),
    Json { file: W, first: bool },
}

impl<W: std::io::Write> Table<W> {
    fn begin(format: Format, mut file: W) -> std::io::Result<Self> {
        Ok(match format {
            Format::Csv => {
                let mut writer = csv::WriterBuilder::new()
                    .terminator(csv::Terminator::CRLF)
                    .from_writer(file);
                writer.write_record(COLUMNS)?;
                Self::Csv(Box::new(writer))
            }
            Format::Json => {
                file.write_all(b"[")?;
                Self::Json { file, first: true }
            }
        })
    }

    fn row(&mut self, row: &Row) -> std::io::Result<()> {
        match self {
            Self::Csv(writer) => {
                let cells = row.cells().into_iter().map(safe_cell);
                writer.write_record(cells)?;
            }
            Self::Json { file, first } => {
                file.write_all(if *first { b"\n" } else { b",\n" })?;
                *first = false;
                serde_json::to_writer(file, row)?;
            }
        }
        Ok(())
    }

    fn end(self) -> std::io::Result<()> {
        match self {
            Self::Csv(mut writer) => writer.flush(),
            Self::Json { mut file, .. } => {
                file.write_all(b"\n]\n")?;
                file.flush()
            }
        }
    }
}

/// A row as a JSON object.
pub(super) fn as_json(row: &Row) -> Map<String, Value> {
    COLUMNS
        .iter()
        .zip(row.cells())
        .filter(|(_, cell)| !cell.is_empty())
        .map(|(name, cell)| ((*name).to_owned(), cell.into()))
        .collect()
}
