//! `keyferry audit verify`.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::KeyFiles;
use crate::audit::{self, Anchor, AuditError, MAXIMUM_NOTICES, Notice, Report, printable};
use crate::cli::{Context, Outcome, fields};

#[derive(Debug, Args)]
pub(in crate::cli) struct Verify {
    /// The log.
    #[arg(value_name = "LOG")]
    log: PathBuf,
    #[command(flatten)]
    keys: KeyFiles,
    /// What was kept elsewhere: a checkpoint, or an order with its receipt. May be given several times.
    #[arg(long = "anchor", value_name = "FILE")]
    anchors: Vec<PathBuf>,
}

pub(super) fn verify(context: &Context, arguments: &Verify) -> Outcome {
    let keys = arguments.keys.read()?;
    let anchors: Vec<_> = arguments
        .anchors
        .iter()
        .map(|path| Anchor::read(path))
        .collect::<Result<_, _>>()?;
    let report = audit::verify::<AuditError>(&arguments.log, keys, &anchors, |_, _| Ok(()))
        .inspect_err(|error| tell_break(context, error))?;
    tell_keys(context, &report);
    tell_notices(context, &report);
    tell_open(context, &report);
    let tally = &report.tally;
    let mut sum = vec![
        ("keys wrapped", tally.wrapped),
        ("= proved", tally.proved),
        ("+ failed", tally.failed),
        ("+ open", report.open.len() as u64),
    ];
    if tally.unproved > 0 {
        sum.push(("+ no proof demanded", tally.unproved));
    }
    sum.extend([
        ("orders", tally.orders),
        ("receipts, applied", tally.applied),
        ("receipts, refused", tally.refused),
        ("certificates", tally.certified),
        ("checkpoints", tally.checkpoints),
        ("devices", report.devices as u64),
        ("lines", report.lines),
        ("lines anchored", report.anchored_lines),
    ]);
    let rows: Vec<_> = sum
        .into_iter()
        .map(|(name, count)| [name.to_owned(), count.to_string()])
        .collect();
    let heading = format!("log {}", report.log);
    context.table([&heading, "count"], &rows);
    context.note("each line follows from the one before");
    if report.is_anchored() {
        context.note("the end is anchored");
    } else {
        let from = report.anchored_lines + 1;
        context.warn(&format!(
            "end not anchored: nothing shows whether lines from {from} on were altered at the end, or more were cut off"
        ));
    }
    if !report.reconciles() {
        context.warn("the keys do not add up: this is a mistake of this program");
    }
    Ok(as_json(&report))
}

/// For scripts: which line.
fn tell_break(context: &Context, error: &AuditError) {
    if let AuditError::Broken { line, fault, .. } = error {
        context.event(fields! { "broken_line" => line, "reason" => fault.to_string() });
    }
}

fn tell_keys(context: &Context, report: &Report) {
    let taken = match (report.authorities_given, report.audit_key_given) {
        (true, true) => return,
        (true, false) => "the audit key was",
        (false, true) => "the authorities were",
        (false, false) => "authorities and audit key were",
    };
    context.warn(&format!(
        "{taken} taken from the log itself: whoever can replace the log can replace them; give --authority and --audit-key"
    ));
}

fn tell_notices(context: &Context, report: &Report) {
    for (line, notice) in &report.notices {
        let text = match notice {
            Notice::IdentityChanged(device) => {
                format!(
                    "device {device} states another identity key, and no wipe in this log that it has signed explains it"
                )
            }
            Notice::Disbelieved => {
                "an answer came that was not to be believed; somebody may be on the line".to_owned()
            }
            Notice::ClockWentBack => "the station's clock went back".to_owned(),
            Notice::Torn(bytes) => {
                format!("a write was interrupted; {bytes} bytes of the line were cut off")
            }
        };
        context.warn(&format!("line {line}: {text}"));
    }
    if report.noticed > MAXIMUM_NOTICES as u64 {
        let more = report.noticed - MAXIMUM_NOTICES as u64;
        context.warn(&format!("{more} more of these"));
    }
}

fn tell_open(context: &Context, report: &Report) {
    for key in &report.open {
        context.event(fields! {
            "open" => "key",
            "device" => key.device.to_string(),
            "slot" => key.slot,
            "version" => key.version,
            "label" => key.label,
            "stage" => key.stage.name(),
            "order" => key.order.map(|order| order.to_string()),
        });
    }
    for order in &report.open_orders {
        context.event(fields! {
            "open" => "order",
            "device" => order.device.to_string(),
            "kind" => order.kind.name(),
            "order" => order.digest.to_string(),
        });
    }
    let mut rows: Vec<_> = report
        .open
        .iter()
        .map(|key| {
            [
                key.device.to_string(),
                key.slot.to_string(),
                printable(&key.label),
                key.stage.name().to_owned(),
            ]
        })
        .collect();
    rows.extend(report.open_orders.iter().map(|order| {
        let kind = order.kind.name();
        [
            order.device.to_string(),
            String::new(),
            String::new(),
            format!("{kind} without an answer"),
        ]
    }));
    if !rows.is_empty() {
        context.table(["OPEN, DEVICE", "SLOT", "LABEL", "STAGE"], &rows);
    }
}

fn as_json(report: &Report) -> serde_json::Map<String, Value> {
    let tally = &report.tally;
    fields! {
        "log" => report.log.to_string(),
        "station" => report.station,
        "lines" => report.lines,
        "head" => report.head.to_string(),
        "anchored" => report.is_anchored(),
        "anchored_until" => report.anchored_lines,
        "keys" => json!({
            "wrapped": tally.wrapped,
            "proved": tally.proved,
            "failed": tally.failed,
            "open": report.open.len(),
            "unproved": tally.unproved,
        }),
        "open_orders" => report.open_orders.len(),
        "orders" => tally.orders,
        "receipts_applied" => tally.applied,
        "receipts_refused" => tally.refused,
        "proofs_again" => tally.proofs_again,
        "certificates" => tally.certified,
        "checkpoints" => tally.checkpoints,
        "devices" => report.devices,
        "notices" => report.noticed,
        "authorities_given" => report.authorities_given,
        "audit_key_given" => report.audit_key_given,
    }
}
