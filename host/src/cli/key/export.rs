//! `keyferry key export`.

use std::path::PathBuf;

use clap::Args;
use keyferry_protocol::suite::Suite;

use super::arguments::{RecipientArgs, parse_suite};
use crate::cli::files::{check_new, write_new};
use crate::cli::token::KeyArgs;
use crate::cli::{Context, Outcome, TokenArgs, fields};
use crate::error::Failure;
use crate::hsm::{PublicKey, Token};

#[derive(Debug, Args)]
pub(in crate::cli) struct Export {
    #[command(flatten)]
    token: TokenArgs,
    #[command(flatten)]
    key: KeyArgs,
    #[command(flatten)]
    recipient: RecipientArgs,
    /// rsa-oaep-sha256, rsa-oaep-sha1 or ecdh-p256-null; without it, the strongest that fits.
    #[arg(long, value_name = "SUITE", value_parser = parse_suite)]
    suite: Option<Suite>,
    /// The file to write: the wrapped KEK, and behind it the wrapped key.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Replace an existing file.
    #[arg(long)]
    force: bool,
}

pub(super) fn export(context: &Context, arguments: &Export) -> Outcome {
    check_new(&arguments.out, arguments.force)?;
    let in_file = arguments.recipient.in_file()?;
    let (token, from_uri) = arguments.token.open(context)?;
    let key = token.key(&arguments.key.spec(from_uri)?)?;
    let recipient = arguments.recipient.checked(context, &token, in_file)?;
    let fingerprint = recipient.fingerprint();
    let suite = match arguments.suite {
        Some(suite) => suite,
        None => strongest_suite(&token, &recipient)?,
    };
    let wrapped = token.wrap_for(&recipient, suite, &[&key])?;
    let mut blob = wrapped.kek_blob;
    for key in &wrapped.blobs {
        blob.extend_from_slice(key);
    }
    write_new(&arguments.out, &blob, arguments.force)?;
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
    })
}

/// The strongest suite that the token does and the recipient's key allows.
fn strongest_suite(token: &Token, recipient: &PublicKey) -> Result<Suite, Failure> {
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
