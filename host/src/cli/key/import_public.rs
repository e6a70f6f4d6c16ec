//! `keyferry key import-public`: a recipient's public key onto the origin.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::arguments::public_key_file;
use crate::cli::{Context, Outcome, TokenArgs, fields};
use crate::error::Failure;
use crate::hsm::{Flag, Flags, HsmError, KeyClass, KeySpec};

#[derive(Debug, Args)]
pub(in crate::cli) struct ImportPublic {
    #[command(flatten)]
    token: TokenArgs,
    /// Its label on the token.
    #[arg(long, value_name = "LABEL")]
    label: String,
    /// Public key file.
    #[arg(long = "in", value_name = "FILE")]
    file: PathBuf,
    /// What it may be used for.
    #[arg(long, value_enum, default_value = "wrap")]
    usage: Usage,
}

/// What an imported public key may do.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Usage {
    /// Keys are wrapped for it.
    Wrap,
    /// Signatures are verified with it.
    Verify,
    /// Data is encrypted for it.
    Encrypt,
}

pub(super) fn import_public(context: &Context, arguments: &ImportPublic) -> Outcome {
    let public = public_key_file(&arguments.file)?;
    if matches!(arguments.usage, Usage::Wrap) {
        public.check_recipient().map_err(HsmError::from)?;
    }
    let (token, _) = arguments.token.open(context)?;
    let fingerprint = public.fingerprint();
    let same_label = KeySpec {
        class: Some(KeyClass::Public),
        ..KeySpec::label(&arguments.label)
    };
    let already = match token.key(&same_label) {
        Ok(found) if found.public_key.as_ref() == Some(&public) => true,
        Ok(_) | Err(HsmError::SeveralKeys { .. }) => {
            return Err(Failure::Hsm(HsmError::LabelTaken {
                token: token.label().into(),
                label: arguments.label.clone(),
            }));
        }
        Err(HsmError::NoSuchKey { .. }) => false,
        Err(error) => return Err(error.into()),
    };
    if !already {
        let usage = match arguments.usage {
            Usage::Wrap => Flag::Wrap,
            Usage::Verify => Flag::Verify,
            Usage::Encrypt => Flag::Encrypt,
        };
        let flags = Flags::of(KeyClass::Public, &[Flag::Token, Flag::Destroyable, usage]);
        token.import_public(&public, &arguments.label, &[], &flags)?;
    }
    context.note(&format!(
        "{} {} public key '{}', fingerprint {fingerprint}",
        if already {
            "already there:"
        } else {
            "imported"
        },
        public.key_type(),
        arguments.label
    ));
    Ok(fields! {
        "label" => arguments.label,
        "type" => public.key_type().to_string(),
        "fingerprint" => fingerprint.to_string(),
        "already_there" => already,
    })
}
