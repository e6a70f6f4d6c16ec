//! Which devices orders are prepared for: by id, from a CSV file, or all that the registry knows.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use clap::Args;
use csv::{ReaderBuilder, StringRecord, Trim};
use keyferry_protocol::identity::DeviceId;

use crate::cli::files::read_short;
use crate::error::Failure;
use crate::station::JobError;
use crate::station::offline::{MAXIMUM_ORDERS, OfflineError};
use crate::station::registry::{Filter, Registry};

/// Longest list of devices, in bytes.
const MAXIMUM_LIST: usize = 4 * 1024 * 1024;

/// The devices.
#[derive(Debug, Args)]
#[group(id = "which-devices", required = true, multiple = true)]
pub(super) struct DeviceArgs {
    /// A device's id, 32 hexadecimal digits; may be given several times.
    #[arg(long = "device", value_name = "ID", group = "which-devices", value_parser = parse_device)]
    devices: Vec<DeviceId>,
    /// CSV file with a heading and a column `device`, or `serial`, or both: then the registry must know them as one device's.
    /// Other columns are not looked at.
    #[arg(
        long = "devices",
        value_name = "CSV",
        group = "which-devices",
        conflicts_with = "all"
    )]
    list: Option<PathBuf>,
    /// Every device of the registry that was not released.
    #[arg(long, group = "which-devices", conflicts_with = "devices")]
    all: bool,
}

impl DeviceArgs {
    /// The ids, in the order in which they were named, none twice.
    ///
    /// # Errors
    /// [`Failure::BadDevice`], [`Failure::Read`], [`Failure::TooLong`], [`Failure::Registry`], [`OfflineError::TooMany`].
    pub(super) fn find(&self, registry: &Registry) -> Result<Vec<DeviceId>, Failure> {
        let mut found = self.devices.clone();
        if self.all || self.list.is_some() {
            let known = all(registry)?;
            match &self.list {
                Some(path) => found.extend(listed(path, &known)?),
                None => found.extend(known.into_iter().map(|known| known.device)),
            }
        }
        let mut seen = HashSet::new();
        if let Some(twice) = found.iter().find(|device| !seen.insert(**device)) {
            return Err(Failure::BadDevice(twice.to_string()));
        }
        match found.len() {
            0 => Err(OfflineError::NoDevices.into()),
            count if count > MAXIMUM_ORDERS => Err(OfflineError::TooMany(count).into()),
            _ => Ok(found),
        }
    }
}

struct KnownDevice {
    device: DeviceId,
    serial: Option<String>,
}

fn all(registry: &Registry) -> Result<Vec<KnownDevice>, Failure> {
    let mut known: Vec<KnownDevice> = Vec::new();
    loop {
        let after = known.last().map(|last| last.device);
        let page = registry
            .devices(&Filter::default(), after)
            .map_err(JobError::from)?;
        if page.is_empty() {
            return Ok(known);
        }
        known.extend(page.into_iter().map(|record| KnownDevice {
            device: record.device,
            serial: record.serial,
        }));
    }
}

/// A device's id, as a person writes it.
pub(in crate::cli) fn parse_device(text: &str) -> Result<DeviceId, String> {
    let mut id = DeviceId::ZERO;
    hex::decode_to_slice(text, &mut id.0)
        .map_err(|_| "a device id has 32 hexadecimal digits".to_owned())?;
    Ok(id)
}

fn listed(path: &Path, known: &[KnownDevice]) -> Result<Vec<DeviceId>, Failure> {
    let bytes = read_short(path, MAXIMUM_LIST)?;
    let bad = |line: u64, reason: String| Failure::DeviceList {
        path: path.into(),
        line,
        reason,
    };
    let mut reader = ReaderBuilder::new()
        .trim(Trim::All)
        .comment(Some(b'#'))
        .from_reader(bytes.as_slice());
    let heading = reader
        .headers()
        .map_err(|error| bad(1, error.to_string()))?
        .clone();
    let column = |name: &str| heading.iter().position(|heading| heading == name);
    let (of_id, of_serial) = (column("device"), column("serial"));
    if of_id.is_none() && of_serial.is_none() {
        return Err(bad(
            1,
            "its heading names neither 'device' nor 'serial'".to_owned(),
        ));
    }
    let mut found = Vec::new();
    for record in reader.records() {
        let line_of = |record: &StringRecord| record.position().map_or(0, csv::Position::line);
        let record = record.map_err(|error| {
            let line = error.position().map_or(0, csv::Position::line);
            bad(line, error.to_string())
        })?;
        let line = line_of(&record);
        let field = |column: Option<usize>| {
            let field = column.and_then(|column| record.get(column));
            field.filter(|field| !field.is_empty())
        };
        let id = field(of_id)
            .map(parse_device)
            .transpose()
            .map_err(|reason| bad(line, reason))?;
        let serial = field(of_serial);
        let matching = known.iter().find(|known| {
            id.is_none_or(|id| known.device == id)
                && serial.is_none_or(|serial| known.serial.as_deref() == Some(serial))
        });
        match matching {
            Some(known) if id.is_some() || serial.is_some() => found.push(known.device),
            Some(_) => return Err(bad(line, "it names no device".to_owned())),
            None => {
                return Err(bad(
                    line,
                    "the registry has no such device, or it was released".to_owned(),
                ));
            }
        }
    }
    Ok(found)
}
