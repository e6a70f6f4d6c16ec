//! `keyferry order show`: public keys only, no token and no device.

use std::path::{Path, PathBuf};

use clap::Args;
use keyferry_protocol::attributes::{Attributes, KeyKind};
use keyferry_protocol::order::Body;
use serde_json::{Value, json};

use super::authority;
use crate::cli::files::read_short;
use crate::cli::{Context, Outcome, fields};
use crate::error::Failure;
use crate::export::{Signer, Trust};
use crate::station::offline::{
    BatchFolder, DetachedOrder, MAXIMUM_ORDER_FILE, OfflineError, check_answer,
};

/// What is said where nobody has said whose signature counts.
const UNCHECKED: &str =
    "the signature was not checked against a key that you gave; --authority FILE checks it";

#[derive(Debug, Args)]
pub(in crate::cli) struct Show {
    /// The folder that `order prepare` made, or one order of it.
    #[arg(value_name = "FILE|DIR")]
    order: PathBuf,
    /// Public key file of the authority that must have signed.
    #[arg(long, value_name = "FILE")]
    authority: Option<PathBuf>,
}

pub(in crate::cli) fn show(context: &Context, arguments: &Show) -> Outcome {
    let signer = arguments.authority.as_deref().map(authority).transpose()?;
    if arguments.order.is_dir() {
        folder(context, &arguments.order, signer.as_ref())
    } else {
        one(context, &arguments.order, arguments, signer.as_ref())
    }
}

fn folder(context: &Context, path: &Path, signer: Option<&Signer>) -> Outcome {
    let trust = signer.map_or(Trust::Unauthenticated, Trust::Signer);
    let folder = BatchFolder::open(path, trust).map_err(OfflineError::from)?;
    let batch = folder.batch();
    verdict(context, signer);
    context.note(&format!("batch {}, made {}", batch.name(), batch.made));
    let mut receipts = 0;
    let mut keys = 0;
    for entry in &batch.orders {
        let order = folder.order(entry)?;
        let answered = folder.receipt(entry, &order)?;
        let refused = folder.refusal(entry, &order)?.is_some();
        let pending = match &answered {
            Some(receipt) => check_answer(&order, receipt)?.pending(),
            None => 0,
        };
        let state = match (&answered, pending) {
            (Some(_), 0) => "delivered",
            (Some(_), _) => "delivered, proof pending",
            (None, _) if refused => "refused by the device",
            (None, _) => "prepared",
        };
        receipts += usize::from(answered.is_some());
        keys += entry.keys.len();
        let types: Vec<&str> = entry.keys.iter().map(|key| key.key_type.as_str()).collect();
        tell(context, &order, &types, Some(state))?;
    }
    Ok(fields! {
        "batch" => batch.name(),
        "made" => batch.made.to_string(),
        "authority" => batch.signer.to_string(),
        "verified" => signer.is_some(),
        "orders" => batch.orders.len(),
        "keys" => keys,
        "receipts" => receipts,
    })
}

fn one(context: &Context, path: &Path, arguments: &Show, signer: Option<&Signer>) -> Outcome {
    let order = DetachedOrder::read(&read_short(path, MAXIMUM_ORDER_FILE)?)?;
    if let (Some(signer), Some(file)) = (signer, &arguments.authority) {
        let key = super::public_key_file(file)?;
        if !order.is_signed_by(key.spki_der()) {
            return Err(OfflineError::NotSigned {
                device: order.statement.device,
                authority: signer.fingerprint(),
            }
            .into());
        }
    }
    verdict(context, signer);
    tell(context, &order, &[], None)?;
    Ok(fields! {
        "device" => order.statement.device.to_string(),
        "authority" => order.authority().to_string(),
        "verified" => signer.is_some(),
        "orders" => 1,
    })
}

fn verdict(context: &Context, signer: Option<&Signer>) {
    match signer {
        Some(signer) => context.note(&format!("genuine: signed by {}", signer.fingerprint())),
        None => context.warn(UNCHECKED),
    }
}

/// One key, or one question, of an order.
struct Line {
    slot: String,
    version: String,
    label: String,
    key_type: String,
    proof: &'static str,
    attributes: Option<Attributes>,
    digest: Option<String>,
}

/// The type of a key by its attributes.
fn type_name(attributes: &Attributes) -> String {
    match attributes.kind() {
        Ok(KeyKind::Aes(length)) => format!("aes-{}", length * 8),
        Ok(KeyKind::Secret(length)) => format!("secret-{}", length * 8),
        Ok(KeyKind::P256) => "p-256".to_owned(),
        Ok(KeyKind::Rsa(length)) => format!("rsa-{}", length * 8),
        Err(_) => "unknown".to_owned(),
    }
}

fn lines(order: &DetachedOrder, types: &[&str]) -> Result<Vec<Line>, OfflineError> {
    let named = |index: usize| types.get(index).map(|name| (*name).to_owned());
    let plain = |text: &str| text.replace(char::is_control, "?");
    let lines = match order.body()? {
        Body::Inject(inject) => inject
            .entries
            .iter()
            .enumerate()
            .map(|(index, entry)| Line {
                slot: entry.slot.to_string(),
                version: entry.version.to_string(),
                label: plain(&entry.label),
                key_type: plain(&named(index).unwrap_or_else(|| type_name(&entry.attributes))),
                proof: entry.proof.name(),
                attributes: Some(entry.attributes),
                digest: Some(entry.blob.digest.to_string()),
            })
            .collect(),
        Body::Prove(prove) => prove
            .slots
            .iter()
            .enumerate()
            .map(|(index, asked)| Line {
                slot: asked.slot.to_string(),
                version: String::new(),
                label: String::new(),
                key_type: plain(&named(index).unwrap_or_default()),
                proof: asked.proof.name(),
                attributes: None,
                digest: None,
            })
            .collect(),
        Body::Remove(remove) => remove
            .slots
            .iter()
            .map(|slot| Line {
                slot: slot.to_string(),
                version: String::new(),
                label: String::new(),
                key_type: String::new(),
                proof: "none",
                attributes: None,
                digest: None,
            })
            .collect(),
        Body::Enroll(_) | Body::Rotate(_) | Body::Lock | Body::Wipe | Body::Recover(_) => {
            Vec::new()
        }
    };
    Ok(lines)
}

fn tell(
    context: &Context,
    order: &DetachedOrder,
    types: &[&str],
    state: Option<&str>,
) -> Result<(), Failure> {
    let header = &order.header;
    let statement = &order.statement;
    let lines = lines(order, types)?;
    let suite = header.suite.map_or("none", |suite| suite.name());
    let mut rows = vec![
        ("device", statement.device.to_string()),
        ("kind", header.kind.name().to_owned()),
        ("board", statement.board.clone()),
        ("identity key", header.identity.to_string()),
        ("unwrap key", header.unwrap.to_string()),
        ("authority", statement.authority.to_string()),
        ("counter", header.counter.to_string()),
        ("good below", order.below.to_string()),
        ("suite", suite.to_owned()),
        ("audit head", header.audit_head.to_string()),
        ("order", order.digest().to_string()),
        (
            "blobs",
            format!("{}, each as signed for", order.blobs.len()),
        ),
    ];
    if let Some(state) = state {
        rows.push(("state", state.to_owned()));
    }
    let rows: Vec<_> = rows
        .into_iter()
        .map(|(name, value)| [name.to_owned(), value])
        .collect();
    context.table(["what", "as the order says"], &rows);
    let psa = |line: &Line| {
        line.attributes.map_or_else(String::new, |attributes| {
            format!(
                "{:#06x} {} {:#010x} {:#010x}",
                attributes.key_type, attributes.bits, attributes.usage, attributes.algorithm
            )
        })
    };
    let keys: Vec<_> = lines
        .iter()
        .map(|line| {
            [
                line.slot.clone(),
                line.label.clone(),
                line.version.clone(),
                line.key_type.clone(),
                line.proof.to_owned(),
                psa(line),
            ]
        })
        .collect();
    if !keys.is_empty() {
        let heading = [
            "slot",
            "label",
            "version",
            "type",
            "proof",
            "PSA type, bits, usage, algorithm",
        ];
        context.table(heading, &keys);
    }
    context.print("");
    let keys: Vec<Value> = lines.iter().map(as_json).collect();
    context.event(fields! {
        "device" => statement.device.to_string(),
        "kind" => header.kind.name(),
        "board" => statement.board,
        "identity" => header.identity.to_string(),
        "unwrap" => header.unwrap.to_string(),
        "authority" => statement.authority.to_string(),
        "counter" => header.counter,
        "below" => order.below,
        "suite" => header.suite.map(|suite| suite.name()),
        "audit_head" => header.audit_head.to_string(),
        "order" => order.digest().to_string(),
        "state" => state,
        "keys" => keys,
    });
    Ok(())
}

fn as_json(line: &Line) -> Value {
    json!({
        "slot": line.slot.parse::<u16>().ok(),
        "version": line.version.parse::<u32>().ok(),
        "label": line.label,
        "type": line.key_type,
        "proof": line.proof,
        "usage": line.attributes.map(|attributes| attributes.usage),
        "algorithm": line.attributes.map(|attributes| attributes.algorithm),
        "blob": line.digest,
    })
}
