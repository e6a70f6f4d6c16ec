//! `keyferry ca show`.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};
use x509_cert::ext::pkix::KeyUsage;

use super::{in_file, read};
use crate::certificate::{Document, Item, printable, read_items};
use crate::cli::{Context, Outcome, fields};

#[derive(Debug, Args)]
pub(in crate::cli) struct Show {
    /// A file with certificates or a certification request, in PEM or DER.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Fields in the order in which people read them.
type Described = Vec<(&'static str, Value)>;

pub(super) fn show(context: &Context, arguments: &Show) -> Outcome {
    let path = &arguments.file;
    let items = read_items(&read(path)?).map_err(in_file(path))?;
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            context.print("");
        }
        let described = match item {
            Item::Certificate(document) => certificate(document),
            Item::Request(request) => vec![
                ("kind", json!("request")),
                ("subject", json!(printable(request.subject()))),
                ("key_type", json!(request.key().key_type().to_string())),
                ("key", json!(request.key().fingerprint().to_string())),
                ("signature", json!("by the key in it")),
            ],
        };
        for (name, value) in &described {
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Null => "none".to_owned(),
                other => other.to_string(),
            };
            context.print(&format!("{:<14}  {text}", name.replace('_', " ")));
        }
        context.event(
            described
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
        );
    }
    Ok(fields! { "shown" => items.len() })
}

fn certificate(document: &Document) -> Described {
    let kind = match (document.is_ca(), document.is_self_issued()) {
        (true, true) => "certificate of a CA, self-signed",
        (true, false) => "certificate of a CA",
        (false, _) => "certificate",
    };
    let signature = if document.is_self_signed() {
        "by the key in it"
    } else {
        "not checked here, see `keyferry ca verify`"
    };
    let (key_type, key) = match document.key() {
        Ok(key) => (
            key.key_type().to_string(),
            json!(key.fingerprint().to_string()),
        ),
        Err(error) => (error.to_string(), Value::Null),
    };
    let constraints = document.basic_constraints();
    vec![
        ("kind", json!(kind)),
        ("subject", json!(printable(document.subject()))),
        ("issuer", json!(printable(document.issuer()))),
        ("number", json!(hex::encode(document.number()))),
        ("not_before", json!(document.not_before().to_string())),
        ("not_after", json!(document.not_after().to_string())),
        ("key_type", json!(key_type)),
        ("key", key),
        ("ca", json!(document.is_ca())),
        (
            "path_length",
            json!(constraints.and_then(|it| it.path_len_constraint)),
        ),
        ("usage", json!(document.key_usage().map(usages))),
        (
            "key_id",
            json!(document.subject_key_identifier().map(hex::encode)),
        ),
        (
            "issuer_key_id",
            json!(document.authority_key_identifier().map(hex::encode)),
        ),
        ("algorithm", json!(document.algorithm())),
        ("signature", json!(signature)),
        ("bytes", json!(document.der().len())),
        ("sha256", json!(document.fingerprint().to_string())),
    ]
}

/// What a key may do, in the words of RFC 5280 §4.2.1.3.
fn usages(usage: &KeyUsage) -> String {
    let all = [
        ("digitalSignature", usage.digital_signature()),
        ("nonRepudiation", usage.non_repudiation()),
        ("keyEncipherment", usage.key_encipherment()),
        ("dataEncipherment", usage.data_encipherment()),
        ("keyAgreement", usage.key_agreement()),
        ("keyCertSign", usage.key_cert_sign()),
        ("cRLSign", usage.crl_sign()),
        ("encipherOnly", usage.encipher_only()),
        ("decipherOnly", usage.decipher_only()),
    ];
    let names: Vec<_> = all
        .into_iter()
        .filter_map(|(name, has)| has.then_some(name))
        .collect();
    names.join(", ")
}
