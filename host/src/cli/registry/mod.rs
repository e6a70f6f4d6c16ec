//! `keyferry registry`: what went where.

mod export;
mod list;
mod show;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use keyferry_protocol::identity::DeviceId;
use serde_json::{Map, Value, json};

use super::{Context, Outcome, RegistryArgs, fields};
use crate::audit::AuditLog;
use crate::error::Failure;
use crate::station::registry::{
    DeviceRecord, Filter, OrderRecord, PAGE, Registry, RegistryError, SlotRecord,
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the devices.
    List(list::List),
    /// Show one device, its keys by name, and its orders.
    Show(show::Show),
    /// Write the registry to a file: a table, objects, or an allowlist for another line.
    Export(export::Export),
    /// Let go of a device, for example one that was wiped: its old keys count no more, and it may be enrolled with new ones.
    Release(Release),
}

#[derive(Debug, Args)]
pub(super) struct Release {
    #[command(flatten)]
    registry: RegistryArgs,
    /// The device's id, 32 hexadecimal digits.
    #[arg(value_name = "ID", value_parser = parse_id)]
    device: DeviceId,
    /// Why, for whoever reads it later.
    #[arg(long, value_name = "TEXT", value_parser = parse_reason)]
    reason: String,
    /// The audit log of the station that let go of it: there the release is written down first.
    #[arg(long, value_name = "FILE", env = "KEYFERRY_AUDIT")]
    audit: Option<PathBuf>,
}

pub(super) fn run(context: &Context, command: Command) -> Outcome {
    match command {
        Command::List(arguments) => list::list(context, &arguments),
        Command::Show(arguments) => show::show(context, &arguments),
        Command::Export(arguments) => export::export(context, &arguments),
        Command::Release(arguments) => release(context, &arguments),
    }
}

fn release(context: &Context, arguments: &Release) -> Outcome {
    let registry = arguments.registry.open_named()?;
    let (device, reason) = (arguments.device, &arguments.reason);
    let log = arguments.audit.as_deref().map(AuditLog::open).transpose()?;
    // Nothing is written of a device that is not there, or was let go of before.
    let record = find(&registry, device)?;
    if let (Some(mut log), None) = (log, record.released) {
        log.released(device, reason)?;
    }
    registry.release(device, record.identity, reason)?;
    context.note(&format!(
        "device {device} is released: it may be enrolled with new keys",
    ));
    Ok(fields! { "device" => device.to_string(), "reason" => reason })
}

fn parse_id(text: &str) -> Result<DeviceId, String> {
    let mut id = DeviceId::ZERO;
    hex::decode_to_slice(text, &mut id.0)
        .map(|()| id)
        .map_err(|_| {
            format!(
                "a device id has {} hexadecimal digits",
                2 * DeviceId::LENGTH
            )
        })
}

/// Longest reason in bytes.
const MAXIMUM_REASON: usize = 200;

fn parse_reason(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() || text.len() > MAXIMUM_REASON || text.contains(char::is_control) {
        return Err(format!("a reason is a line of 1 to {MAXIMUM_REASON} bytes"));
    }
    Ok(text.to_owned())
}

/// Every device that the filter lets through, one page in memory at a time.
fn each(
    registry: &Registry,
    filter: &Filter,
    mut look: impl FnMut(&DeviceRecord) -> Result<(), Failure>,
) -> Result<usize, Failure> {
    let mut count = 0;
    let mut after = None;
    loop {
        let page = registry.devices(filter, after)?;
        for record in &page {
            look(record)?;
        }
        count += page.len();
        if page.len() < PAGE {
            return Ok(count);
        }
        after = page.last().map(|record| record.device);
    }
}

/// A device for a script.
fn device(record: &DeviceRecord) -> Map<String, Value> {
    let mut fields = fields! {
        "device" => record.device.to_string(),
        "serial" => record.serial,
        "state" => record.state.name(),
        "counter" => record.counter,
        "identity" => record.identity.to_string(),
        "unwrap" => record.unwrap.to_string(),
        "authority" => record.authority.to_string(),
        "epoch" => record.epoch,
        "suites" => record.suites.split(',').collect::<Vec<_>>(),
        "board" => record.board,
        "firmware" => record.firmware,
        "flavour" => record.flavour,
        "rng" => record.rng,
        "root_key" => record.root_key,
        "policy" => record.policy,
        "reason" => record.reason,
        "certified" => record.certificate.is_some(),
        "enrolled_at" => record.enrolled_at,
        "updated_at" => record.updated_at,
    };
    if let Some(release) = &record.released {
        fields.insert("released_at".into(), release.at.as_str().into());
        fields.insert("release_reason".into(), release.reason.as_str().into());
    }
    fields
}

/// A key of a slot for a script.
fn slot(record: &SlotRecord) -> Value {
    json!({
        "slot": record.slot,
        "version": record.version,
        "label": record.label,
        "type": record.key_type,
        "proof": record.proof.name(),
        "state": record.state.name(),
        "order": record.order.to_string(),
        "updated_at": record.updated_at,
    })
}

/// An order for a script.
fn order(record: &OrderRecord) -> Value {
    json!({
        "order": record.digest.to_string(),
        "kind": record.kind.name(),
        "counter": record.counter,
        "detached": record.detached,
        "state": record.state.name(),
        "made_at": record.made_at,
        "updated_at": record.updated_at,
    })
}

/// The device, which must be there.
fn find(registry: &Registry, device: DeviceId) -> Result<DeviceRecord, Failure> {
    let found = registry.find(device)?;
    Ok(found.ok_or(RegistryError::UnknownDevice { device })?)
}
