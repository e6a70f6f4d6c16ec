//! `keyferry audit checkpoint`.

use std::path::PathBuf;

use clap::Args;

use crate::audit::{AuditError, AuditLog, Seen};
use crate::broker::GuardError;
use crate::cli::files::{check_new, write_new};
use crate::cli::hsm_args::connect;
use crate::cli::{Context, Outcome, TokenArgs, fields};
use crate::error::Failure;
use crate::export::ExportError;
use crate::hsm::KeySpec;
use crate::station::TokenSigner;

#[derive(Debug, Args)]
pub(in crate::cli) struct Checkpoint {
    /// The log.
    #[arg(value_name = "LOG")]
    log: PathBuf,
    #[command(flatten)]
    token: TokenArgs,
    /// Label of the audit key on the token. It must be able to sign and nothing else.
    #[arg(long, value_name = "LABEL", required_unless_present = "broker")]
    audit_key: Option<String>,
    /// Socket of a broker that holds the token's login and has the audit key, instead of a token.
    #[arg(
        long,
        value_name = "SOCKET",
        env = "KEYFERRY_BROKER",
        conflicts_with = "audit_key"
    )]
    broker: Option<PathBuf>,
    /// Write the checkpoint to this file as well, to be kept elsewhere.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Replace an existing file.
    #[arg(long)]
    force: bool,
}

/// The audit key on a token.
fn on_token(context: &Context, token: &TokenArgs, label: &str) -> Result<TokenSigner, Failure> {
    let (token, _) = token.open(context)?;
    let key = token.with_pair(token.key(&KeySpec::label(label))?)?;
    if let Some(flag) = key.beyond_signing() {
        let label = key.name();
        return Err(ExportError::NotSignOnly { label, flag }.into());
    }
    Ok(TokenSigner::new(token, key)?)
}

pub(super) fn checkpoint(context: &Context, arguments: &Checkpoint) -> Outcome {
    if let Some(out) = &arguments.out {
        check_new(out, arguments.force)?;
    }
    // First, so that nobody is asked for a PIN for a log that cannot be written.
    let mut log = AuditLog::open(&arguments.log)?;
    let checkpoint = match (&arguments.audit_key, &arguments.broker) {
        (Some(label), _) => log.checkpoint(&on_token(context, &arguments.token, label)?)?,
        (None, Some(socket)) => {
            let hsm = connect(socket)?;
            log.checkpoint(hsm.auditor().ok_or(GuardError::NoAuditor)?)?
        }
        (None, None) => {
            return Err(Failure::Missing {
                name: "--audit-key",
                because: "it names the key that signs",
            });
        }
    };
    let (lines, head) = (checkpoint.lines, checkpoint.head);
    let outcome = fields! {
        "log" => checkpoint.log.to_string(),
        "lines" => lines,
        "head" => head.to_string(),
        "time" => checkpoint.time.to_string(),
    };
    match &arguments.out {
        Some(out) => {
            let json = Seen::Checkpoint(checkpoint).to_json().map_err(|reason| {
                AuditError::NotAnAnchor {
                    path: out.clone(),
                    reason,
                }
            })?;
            write_new(out, json.as_bytes(), arguments.force)?;
            context.note(&format!(
                "{lines} lines, head {head}; keep {} where whoever can write the log cannot",
                out.display()
            ));
        }
        None => context.note(&format!("{lines} lines, head {head}")),
    }
    Ok(outcome)
}
