//! `keyferry key export`.

use std::path::{Path, PathBuf};

use clap::Args;
use keyferry_protocol::suite::Suite;

use super::arguments::{RecipientArgs, parse_suite};
use super::signing::{SignArgs, SigningKey};
use crate::cli::files::{check_new, write_new};
use crate::cli::token::KeyArgs;
use crate::cli::{Context, Outcome, TokenArgs, fields};
use crate::error::Failure;
use crate::export::{BlobInfo, CopyProof, Sidecar, Tail, sidecar_path, signature_path};
use crate::hsm::{KeyClass, PublicKey, Token};

#[derive(Debug, Args)]
pub(in crate::cli) struct Export {
    #[command(flatten)]
    token: TokenArgs,
    #[command(flatten)]
    key: KeyArgs,
    #[command(flatten)]
    recipient: RecipientArgs,
    /// rsa-oaep-sha256, rsa-oaep-sha1, ecdh-p256-x963-sha256 or ecdh-p256-null; without it, the strongest that fits.
    #[arg(long, value_name = "SUITE", value_parser = parse_suite)]
    suite: Option<Suite>,
    /// The file to write: the wrapped KEK, and behind it the wrapped key. FILE.json says what it is, FILE.json.sig is its signature.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    sign: SignArgs,
    /// Write a private key that the token puts zeros behind, which a strict importer refuses. Concerns recipients in a FILE; keyferry's own
    /// `key import` and devices cut the zeros off.
    #[arg(long)]
    allow_zero_tail: bool,
    /// Replace an existing file.
    #[arg(long)]
    force: bool,
}

pub(super) fn export(context: &Context, arguments: &Export) -> Outcome {
    let document = sidecar_path(&arguments.out);
    let signature = signature_path(&document);
    for path in [&arguments.out, &document, &signature] {
        check_new(path, arguments.force)?;
    }
    let in_file = arguments.recipient.in_file()?;
    let from_file = in_file.is_some();
    let (token, from_uri) = arguments.token.open(context)?;
    let key = token.with_pair(token.key(&arguments.key.spec(from_uri)?)?)?;
    let recipient = arguments.recipient.checked(context, &token, in_file)?;
    let signer = arguments.sign.open(context, &token, &arguments.token)?;
    let fingerprint = recipient.fingerprint();
    let suite = match arguments.suite {
        Some(suite) => suite,
        None => strongest_suite(&token, &recipient)?,
    };
    let tail = Tail::find_out(&token, key.key_type)?;
    // Nothing but its document says where a secret key ends, so no recipient is spared the question.
    let ends_openly = key.class == KeyClass::Secret;
    if (from_file || ends_openly) && !arguments.allow_zero_tail {
        tail.check(&key.name(), key.key_type)?;
    }
    let blob = token.wrap_for(&recipient, suite, &[&key])?.joined();
    let sidecar = Sidecar::new(
        &key,
        BlobInfo::of(&blob, suite, tail),
        &recipient,
        CopyProof::make(&token, &key)?,
        signer.as_ref().map(SigningKey::fingerprint),
    )?
    .to_json()?;
    // Signed before anything is written, and the signature is written last: what is not complete does not verify.
    let signed = match &signer {
        Some(signer) => Some(signer.sign(&sidecar)?),
        None => None,
    };
    if arguments.force {
        remove(&signature)?;
    }
    write_new(&arguments.out, &blob, arguments.force)?;
    write_new(&document, &sidecar, arguments.force)?;
    match &signed {
        Some(signed) => write_new(&signature, signed, arguments.force)?,
        None => {
            context.note("not signed: whoever imports it must take it on trust (see --sign-with)")
        }
    }
    context.note(&format!(
        "exported {} key '{}' under {suite}: {} bytes in {}",
        key.key_type,
        key.label,
        blob.len(),
        arguments.out.display()
    ));
    Ok(fields! {
        "label" => key.label,
        "type" => key.key_type.to_string(),
        "suite" => suite.name(),
        "recipient" => fingerprint.to_string(),
        "out" => arguments.out.display().to_string(),
        "bytes" => blob.len(),
        "document" => document.display().to_string(),
        "signer" => signer.map(|signer| signer.fingerprint().to_string()),
    })
}

/// Removes the signature of an export that is replaced: it is none of the new one's.
fn remove(path: &Path) -> Result<(), Failure> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(Failure::Write {
            path: path.into(),
            source,
        }),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The strongest suite that the token does and the recipient's key allows.
pub(super) fn strongest_suite(token: &Token, recipient: &PublicKey) -> Result<Suite, Failure> {
    for suite in Suite::ALL {
        if recipient.key_type().fits(suite) && token.supports(suite)? {
            return Ok(suite);
        }
    }
    Err(Failure::NoCommonSuite {
        token: token.label().into(),
        recipient: recipient.key_type().to_string(),
        supported: token.supported_suites()?,
    })
}
