//! `keyferry registry show`.

use clap::Args;
use keyferry_protocol::identity::DeviceId;

use super::{device, find, order, parse_id, slot};
use crate::cli::{Context, Outcome, RegistryArgs};
use crate::error::Failure;
use crate::station::registry::{DeviceRecord, SlotRecord, SlotState};
use crate::station::slots_in_words;

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
    let next = next_move(&record, &slots);
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

    context.print("");
    context.print(&format!("next: {next}"));

    let mut fields = device(&record);
    fields.insert("next".into(), next.into());
    fields.insert("slots".into(), slots.iter().map(slot).collect());
    fields.insert("orders".into(), orders.iter().map(order).collect());
    Ok(fields)
}

/// What whoever has the device in hand does with it, by the newest key of each slot.
fn next_move(record: &DeviceRecord, slots: &[SlotRecord]) -> String {
    if record.released.is_some() {
        return "enrol it again to use it: it was released".to_owned();
    }
    let is_newest = |slot: &&SlotRecord| {
        let of_slot = slots.iter().filter(|other| other.slot == slot.slot);
        of_slot.map(|other| other.version).max() == Some(slot.version)
    };
    let newest: Vec<_> = slots.iter().filter(is_newest).collect();
    let numbers = |fits: &dyn Fn(&SlotRecord) -> bool| {
        let those = newest.iter().filter(|slot| fits(slot));
        those.map(|slot| slot.slot).collect::<Vec<_>>()
    };
    let failed = numbers(&|slot| slot.state == SlotState::Failed);
    if !failed.is_empty() {
        let was_proved =
            |slot: &SlotRecord| slot.state == SlotState::Proved && failed.contains(&slot.slot);
        let earlier = if slots.iter().any(was_proved) {
            "; an earlier version was proved: the plan of that version passes it if it still holds that"
        } else {
            ""
        };
        return format!(
            "do not ship it: keys are not as they should be ({}); `keyferry station run PLAN --rework` gives it its keys anew, and so \
             does `keyferry device inject` with a higher --version{earlier}",
            slots_in_words(&failed)
        );
    }
    let pending = numbers(&|slot| slot.state == SlotState::Pending);
    if !pending.is_empty() {
        return format!(
            "do not ship it: the answer to an order is missing ({}); run the plan again at the station that began it, or let \
             `keyferry device prove` look; if that station is gone: `keyferry station run PLAN --rework`",
            slots_in_words(&pending)
        );
    }
    let doubted = numbers(&|slot| slot.doubted);
    if !doubted.is_empty() {
        return format!(
            "have it say again what it holds ({}): it has done orders that the registry does not know, or was released; run the plan again, or let \
             `keyferry device prove` look",
            slots_in_words(&doubted)
        );
    }
    if numbers(&|slot| slot.state == SlotState::Proved).is_empty() {
        return "give it its keys: it was enrolled, and holds none".to_owned();
    }
    "none: all keys that were ordered for it are proved".to_owned()
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
