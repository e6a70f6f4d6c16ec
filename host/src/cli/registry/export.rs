//! `keyferry registry export`.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::{device, each, slot};
use crate::audit::safe_cell;
use crate::cli::files::{Filling, check_new, write_new_with};
use crate::cli::{Context, Outcome, RegistryArgs, fields};
use crate::error::Failure;
use crate::station::registry::{DeviceRecord, Filter, Registry, SlotRecord};

#[derive(Debug, Args)]
pub(in crate::cli) struct Export {
    #[command(flatten)]
    registry: RegistryArgs,
    /// What to write.
    #[arg(long, value_name = "FORMAT")]
    format: Format,
    /// The file to write.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Replace an existing file.
    #[arg(long)]
    force: bool,
    /// Released devices as well.
    #[arg(long)]
    released: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Comma-separated values (RFC 4180), a device a row. A cell that a spreadsheet would compute begins with an apostrophe.
    Csv,
    /// One array of objects, a device each, with its slots.
    Json,
    /// The list that `--allowlist` reads: id and identity key. Released devices are not on it.
    Allowlist,
}

/// The heading of the table.
const COLUMNS: [&str; 18] = [
    "device",
    "identity",
    "serial",
    "state",
    "counter",
    "unwrap",
    "authority",
    "epoch",
    "suites",
    "board",
    "firmware",
    "flavour",
    "policy",
    "reason",
    "enrolled_at",
    "updated_at",
    "released_at",
    "keys",
];

pub(super) fn export(context: &Context, arguments: &Export) -> Outcome {
    check_new(&arguments.out, arguments.force)?;
    let registry = arguments.registry.open_named()?;
    let format = arguments.format;
    let filter = Filter {
        released: arguments.released && format != Format::Allowlist,
        ..Filter::default()
    };
    let count = write_new_with(&arguments.out, arguments.force, |file| {
        let mut table = Table::begin(format, std::io::BufWriter::new(file))?;
        let count = each(&registry, &filter, |record| {
            table
                .row(&registry, record)
                .map_err(|filling| match filling {
                    Filling::Content(failure) => failure,
                    Filling::Write(source) => Failure::Write {
                        path: arguments.out.clone(),
                        source,
                    },
                })
        })
        .map_err(Filling::Content)?;
        table.end()?;
        Ok(count)
    })?;
    context.note(&format!("{count} devices in {}", arguments.out.display()));
    Ok(fields! { "devices" => count, "out" => arguments.out.display().to_string() })
}

/// A file that is being written.
enum Table<W: Write> {
    Csv(Box<csv::Writer<W>>),
    Json { file: W, first: bool },
    Allowlist(W),
}

impl<W: Write> Table<W> {
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
            Format::Allowlist => {
                writeln!(file, "device,identity")?;
                Self::Allowlist(file)
            }
        })
    }

    fn row(&mut self, registry: &Registry, record: &DeviceRecord) -> Result<(), Filling> {
        let slots = || {
            registry
                .slots(record.device)
                .map_err(|error| Filling::Content(error.into()))
        };
        match self {
            Self::Csv(writer) => {
                let cells = cells(record, &slots()?);
                writer
                    .write_record(cells.iter().map(|cell| safe_cell(cell)))
                    .map_err(std::io::Error::from)?;
            }
            Self::Json { file, first } => {
                let mut fields = device(record);
                fields.insert("slots".into(), slots()?.iter().map(slot).collect());
                file.write_all(if *first { b"\n" } else { b",\n" })?;
                *first = false;
                serde_json::to_writer(file, &Value::Object(fields))
                    .map_err(std::io::Error::from)?;
            }
            Self::Allowlist(file) => writeln!(file, "{},{}", record.device, record.identity)?,
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
            Self::Allowlist(mut file) => file.flush(),
        }
    }
}

fn cells(record: &DeviceRecord, slots: &[SlotRecord]) -> [String; COLUMNS.len()] {
    let keys: Vec<_> = slots
        .iter()
        .map(|slot| {
            format!(
                "{}: {} version {} {}",
                slot.slot,
                slot.label,
                slot.version,
                slot.state.name()
            )
        })
        .collect();
    let released = record.released.as_ref();
    [
        record.device.to_string(),
        record.identity.to_string(),
        record.serial.clone().unwrap_or_default(),
        record.state.name().to_owned(),
        record.counter.to_string(),
        record.unwrap.to_string(),
        record.authority.to_string(),
        record.epoch.to_string(),
        record.suites.replace(',', " "),
        record.board.clone(),
        record.firmware.clone(),
        record.flavour.clone(),
        record.policy.clone(),
        record.reason.clone(),
        record.enrolled_at.clone(),
        record.updated_at.clone(),
        released.map_or_else(String::new, |release| release.at.clone()),
        keys.join("; "),
    ]
}
