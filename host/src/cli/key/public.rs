//! `keyferry key public`.

use std::path::PathBuf;

use clap::Args;

use crate::cli::files::{check_new, write_new};
use crate::cli::token::KeyArgs;
use crate::cli::{Context, Outcome, TokenArgs, fields};

#[derive(Debug, Args)]
pub(in crate::cli) struct Public {
    #[command(flatten)]
    token: TokenArgs,
    #[command(flatten)]
    key: KeyArgs,
    /// The file to write; without it, PEM goes to stdout.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Write DER instead of PEM.
    #[arg(long, requires = "out")]
    der: bool,
    /// Replace an existing file.
    #[arg(long)]
    force: bool,
}

pub(super) fn public(context: &Context, arguments: &Public) -> Outcome {
    if let Some(path) = &arguments.out {
        check_new(path, arguments.force)?;
    }
    let (token, from_uri) = arguments.token.open(context)?;
    let spec = arguments.key.spec(from_uri)?;
    let key = token.public_key(&spec)?;
    let fingerprint = key.fingerprint().to_string();
    context.note(&format!(
        "{} public key, fingerprint {fingerprint}",
        key.key_type()
    ));
    let mut last = fields! { "type" => key.key_type().to_string(), "fingerprint" => fingerprint };
    match &arguments.out {
        Some(path) => {
            let pem = key.to_pem();
            let bytes = if arguments.der {
                key.spki_der()
            } else {
                pem.as_bytes()
            };
            write_new(path, bytes, arguments.force)?;
            last.insert("out".into(), path.display().to_string().into());
        }
        None => {
            context.print(key.to_pem().trim_end());
            last.insert("pem".into(), key.to_pem().into());
        }
    }
    Ok(last)
}
