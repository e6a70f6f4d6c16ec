//! `keyferry key verify-export`: public keys only, no token.

use std::path::{Path, PathBuf};

use clap::Args;
use keyferry_protocol::identity::Fingerprint;

use super::arguments::{parse_fingerprint, public_key_file};
use super::for_devices;
use crate::cli::files::read_short;
use crate::cli::{Context, Outcome, fields};
use crate::error::Failure;
use crate::export::{
    MAXIMUM_DOCUMENT, MAXIMUM_SIGNATURE, Sidecar, Signer, Trust, read_folder, sidecar_path,
    signature_path,
};
use crate::hsm::{Flag, MAXIMUM_BLOB};

#[derive(Debug, Args)]
pub(in crate::cli) struct VerifyExport {
    /// The blob of an export, its document and signature beside it; or the folder of `key for-devices`.
    #[arg(value_name = "FILE|DIR")]
    export: PathBuf,
    /// Public key file of the signer.
    #[arg(long, value_name = "FILE")]
    signer: PathBuf,
    /// The recipient must have this fingerprint.
    #[arg(long, value_name = "HEX", value_parser = parse_fingerprint)]
    recipient: Option<Fingerprint>,
}

pub(super) fn verify_export(context: &Context, arguments: &VerifyExport) -> Outcome {
    let signer = Signer::new(&public_key_file(&arguments.signer)?)?;
    if arguments.export.is_dir() {
        folder(context, arguments, &signer)
    } else {
        one(context, arguments, &signer)
    }
}

fn folder(context: &Context, arguments: &VerifyExport, signer: &Signer) -> Outcome {
    let manifest = read_folder(&arguments.export, Trust::Signer(signer))?;
    if let Some(expected) = arguments.recipient {
        manifest.recipient.check(expected)?;
    }
    for key in &manifest.keys {
        context.event(for_devices::describe(key));
    }
    let recipient = manifest.recipient.fingerprint;
    context.note(&format!(
        "genuine: {} keys of devices, wrapped for {recipient}",
        manifest.keys.len()
    ));
    Ok(fields! {
        "keys" => manifest.keys.len(),
        "recipient" => recipient.to_string(),
        "signer" => signer.fingerprint().to_string(),
    })
}

fn one(context: &Context, arguments: &VerifyExport, signer: &Signer) -> Outcome {
    let document = sidecar_path(&arguments.export);
    let (json, signature) = read_signed(&document, MAXIMUM_DOCUMENT)?;
    let sidecar = Sidecar::read(&json, signature.as_deref(), Trust::Signer(signer))?;
    let blob = read_short(&arguments.export, MAXIMUM_BLOB)?;
    sidecar.blob.check(&sidecar.key.label, &blob)?;
    if let Some(expected) = arguments.recipient {
        sidecar.recipient.check(expected)?;
    }
    let key = &sidecar.key;
    context.note(&format!(
        "genuine: {} key '{}', {}extractable at its origin, wrapped under {} for {}",
        key.key_type,
        key.label,
        if sidecar.attributes.has(Flag::Extractable) {
            ""
        } else {
            "not "
        },
        sidecar.blob.suite,
        sidecar.recipient.fingerprint
    ));
    Ok(fields! {
        "label" => key.label,
        "id" => hex::encode(&key.id),
        "type" => key.key_type.to_string(),
        "suite" => sidecar.blob.suite.name(),
        "recipient" => sidecar.recipient.fingerprint.to_string(),
        "signer" => signer.fingerprint().to_string(),
        "bytes" => blob.len(),
    })
}

/// Reads a document and the signature beside it, if there is one.
pub(super) fn read_signed(
    document: &Path,
    limit: usize,
) -> Result<(Vec<u8>, Option<Vec<u8>>), Failure> {
    let json = read_short(document, limit)?;
    // One byte more, so that one that is too long is seen as malformed.
    let signature = match read_short(&signature_path(document), MAXIMUM_SIGNATURE + 1) {
        Ok(signature) => Some(signature),
        Err(Failure::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    Ok((json, signature))
}
