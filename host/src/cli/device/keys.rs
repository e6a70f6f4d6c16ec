//! Keys as a command line names them, and what became of them.

use serde_json::{Value, json};

use crate::cli::Context;
use crate::error::Failure;
use crate::hsm::{DeviceUse, KeySpec};
use crate::station::{Hsm, Proved, Target};

/// The keys that `LABEL[@SLOT][=USE]` names.
pub(in crate::cli) fn targets(hsm: &dyn Hsm, keys: &[String]) -> Result<Vec<Target>, Failure> {
    let mut targets = Vec::new();
    for (index, text) in keys.iter().enumerate() {
        let bad = || Failure::BadSlot(text.clone());
        // A label may hold a sign of its own: what follows the last one is a use only if it is one.
        let (rest, device_use) = match text.rsplit_once('=') {
            Some((rest, name)) => match name.parse::<DeviceUse>() {
                Ok(device_use) => (rest, Some(device_use)),
                Err(_) => (text.as_str(), None),
            },
            None => (text.as_str(), None),
        };
        let (label, slot) = match rest.rsplit_once('@') {
            Some((label, slot)) => (label, slot.parse().ok()),
            None => (rest, u16::try_from(index).ok()),
        };
        let slot = slot
            .filter(|slot| usize::from(*slot) < keyferry_protocol::MAX_SLOTS)
            .ok_or_else(bad)?;
        if targets.iter().any(|target: &Target| target.slot == slot) {
            return Err(bad());
        }
        let key = hsm.key(&KeySpec::label(label), device_use)?;
        targets.push(Target { key, slot });
    }
    Ok(targets)
}

/// Says how each key will be proved, before anything is wrapped.
pub(in crate::cli) fn announce(context: &Context, targets: &[Target]) {
    for target in targets {
        let proof = target.key.proof;
        context.note(&format!(
            "slot {}: key '{}' will be proved by {} (level {})",
            target.slot,
            target.key.name(),
            proof.name(),
            proof.level()
        ));
    }
}

pub(super) fn show(context: &Context, proved: &[Proved]) {
    let rows: Vec<_> = proved
        .iter()
        .map(|slot| {
            [
                slot.slot.to_string(),
                slot.label.clone(),
                slot.key_type.clone(),
                slot.proof.name().to_owned(),
            ]
        })
        .collect();
    context.table(["slot", "key", "type", "proved by"], &rows);
}

pub(super) fn as_json(proved: &[Proved]) -> Vec<Value> {
    proved
        .iter()
        .map(|slot| {
            json!({
                "slot": slot.slot,
                "label": slot.label,
                "type": slot.key_type,
                "proof": slot.proof.name(),
            })
        })
        .collect()
}
