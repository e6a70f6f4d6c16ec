//! `keyferry registry show`.

use clap::Args;
use keyferry_protocol::identity::DeviceId;

use super::{device, find, order, parse_id, slot};
use crate::cli::{Context, Outcome, RegistryArgs};
use crate::error::Failure;
use crate::station::registry::DeviceRecord;

#[derive(Debug, Args)]
pub(in crate::cli) struct Show {
    #[command(flatten)]
    registry: RegistryArgs,
    /// The device's id, 32 hexadecimal digits.
    #[arg(value_name = "ID", value_parser = parse_id)]
    device: DeviceId,
}

pub(super) fn show(context: &Context, arguments: &Show) -> Outcome {
    let registry = arguments.registry.open_named()?;
    let record = find(&registry, arguments.device)?;
    if record.released.is_none() {
        // What a person is shown as this device's is what the device has signed.
        record.statement().map_err(Failure::from)?;
    }
    let slots = registry.slots(arguments.device)?;
    let orders = registry.orders(arguments.device)?;

    context.table(
        ["what", "by its signed statement and receipts"],
        &rows(&record),
    );
    let table: Vec<_> = slots
        .iter()
        .map(|slot| {
            [
                slot.slot.to_string(),
                slot.version.to_string(),
                slot.label.replace(char::is_control, "?"),
                slot.key_type.clone(),
                slot.proof.name().to_owned(),
                slot.state.name().to_owned(),
                slot.updated_at.clone(),
            ]
        })
        .collect();
    if !table.is_empty() {
        context.print("");
        context.table(
            ["slot", "version", "key", "type", "proof", "state", "since"],
            &table,
        );
    }
    let table: Vec<_> = orders
        .iter()
        .map(|order| {
            [
                order.digest.to_string(),
                order.kind.name().to_owned(),
                order.counter.to_string(),
                order.state.name().to_owned(),
                order.made_at.clone(),
            ]
        })
        .collect();
    if !table.is_empty() {
        context.print("");
        context.table(["order", "kind", "counter", "state", "made"], &table);
    }

    let mut fields = device(&record);
    fields.insert("slots".into(), slots.iter().map(slot).collect());
    fields.insert("orders".into(), orders.iter().map(order).collect());
    Ok(fields)
}

fn rows(record: &DeviceRecord) -> Vec<[String; 2]> {
    let mut rows = vec![
        ("device", record.device.to_string()),
        ("state", record.state.name().to_owned()),
        ("counter", record.counter.to_string()),
        ("identity key", record.identity.to_string()),
        ("unwrap key", record.unwrap.to_string()),
        ("authority", record.authority.to_string()),
        ("epoch", record.epoch.to_string()),
        ("suites", record.suites.replace(',', ", ")),
        ("board", record.board.clone()),
        (
            "firmware",
            format!("{} ({})", record.firmware, record.flavour),
        ),
        ("rng", record.rng.clone()),
        ("root key", record.root_key.clone()),
        ("policy", record.policy.clone()),
        ("trusted because", record.reason.clone()),
        ("enrolled", record.enrolled_at.clone()),
        ("changed", record.updated_at.clone()),
    ];
    if let Some(serial) = &record.serial {
        rows.insert(1, ("serial number", serial.clone()));
    }
    let certified = if record.certificate.is_some() {
        "yes"
    } else {
        "no"
    };
    rows.push(("certified", certified.to_owned()));
    if let Some(release) = &record.released {
        rows.push(("released", format!("{}: {}", release.at, release.reason)));
    }
    rows.into_iter()
        .map(|(name, value)| [name.to_owned(), value.replace(char::is_control, "?")])
        .collect()
}
