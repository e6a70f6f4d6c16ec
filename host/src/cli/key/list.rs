//! `keyferry key list`.

use serde_json::{Map, Value};

use crate::cli::{Context, Outcome, TokenArgs, fields};
use crate::hsm::{Flag, KeyInfo};

pub(super) fn list(context: &Context, arguments: &TokenArgs) -> Outcome {
    let (token, _) = arguments.open(context)?;
    let keys = token.keys()?;
    for key in &keys {
        context.event(describe(key));
    }
    let rows: Vec<_> = keys.iter().map(row).collect();
    context.table(
        [
            "LABEL",
            "TYPE",
            "CLASS",
            "ID",
            "EXTRACTABLE",
            "USAGE",
            "CHECK VALUE OR FINGERPRINT",
        ],
        &rows,
    );
    Ok(fields! { "keys" => keys.len() })
}

/// One key as a row of the table.
fn row(key: &KeyInfo) -> [String; 7] {
    let extractable = match key.flags.get(Flag::Extractable) {
        Some(true) if key.flags.has(Flag::WrapWithTrusted) => "trusted only",
        Some(true) => "yes",
        Some(false) => "no",
        None => "-",
    };
    let usage: Vec<_> = key
        .flags
        .known()
        .filter(|(flag, value)| *value && flag.is_usage())
        .map(|(flag, _)| flag.name())
        .collect();
    [
        key.label.clone(),
        key.key_type.to_string(),
        key.class.name().into(),
        hex::encode(&key.id),
        extractable.into(),
        if usage.is_empty() {
            "-".into()
        } else {
            usage.join(",")
        },
        match (&key.public_key, &key.check_value) {
            (Some(public), _) => public.fingerprint().to_string(),
            (None, Some(value)) => hex::encode(value),
            (None, None) => "-".into(),
        },
    ]
}

/// One key for a script.
pub(super) fn describe(key: &KeyInfo) -> Map<String, Value> {
    let attributes: Map<_, _> = key
        .flags
        .known()
        .map(|(flag, value)| (flag.name().to_owned(), Value::Bool(value)))
        .collect();
    let mut fields = fields! {
        "label" => key.label,
        "type" => key.key_type.to_string(),
        "class" => key.class.name(),
        "id" => hex::encode(&key.id),
        "attributes" => attributes,
    };
    if let Some(value) = &key.check_value {
        fields.insert("check_value".into(), hex::encode(value).into());
    }
    if let Some(public) = &key.public_key {
        let fingerprint = public.fingerprint().to_string();
        fields.insert("fingerprint".into(), fingerprint.into());
    }
    fields
}
