//! `keyferry audit create`.

use std::path::{Path, PathBuf};

use clap::Args;

use super::p256_file;
use crate::audit::{AuditError, AuditLog, LogId, Opened};
use crate::cli::{Context, Outcome, TokenArgs, fields};
use crate::device::verify::fingerprint;
use crate::error::Failure;
use crate::export::ExportError;
use crate::hsm::{KeySpec, Token};

#[derive(Debug, Args)]
pub(in crate::cli) struct Create {
    /// The new log.
    #[arg(value_name = "LOG")]
    log: PathBuf,
    /// The station's name, as it will stand in the log.
    #[arg(long, value_name = "NAME")]
    station: String,
    /// A key that signs orders: its public key file, or its label on the token. May be given several times.
    #[arg(long = "authority", value_name = "FILE|LABEL", required = true)]
    authorities: Vec<String>,
    /// The key that signs checkpoints: its public key file, or its label on the token.
    #[arg(long, value_name = "FILE|LABEL")]
    audit_key: String,
    #[command(flatten)]
    token: TokenArgs,
}

pub(super) fn create(context: &Context, arguments: &Create) -> Outcome {
    let mut keys = Keys {
        context,
        arguments: &arguments.token,
        token: None,
    };
    let opened = Opened {
        log: LogId::random().map_err(AuditError::Random)?,
        station: arguments.station.clone(),
        authorities: arguments
            .authorities
            .iter()
            .map(|name| keys.find(name))
            .collect::<Result<_, _>>()?,
        audit_key: keys.find(&arguments.audit_key)?,
    };
    let authorities: Vec<_> = opened
        .authorities
        .iter()
        .map(|key| fingerprint(key).to_string())
        .collect();
    let log = AuditLog::create(&arguments.log, opened)?;
    context.note(&format!(
        "log {} begins; keep the public audit key elsewhere, or nobody can tell later that the log was replaced",
        log.id()
    ));
    Ok(fields! {
        "log" => log.id().to_string(),
        "station" => log.station(),
        "authorities" => authorities,
        "audit_key" => fingerprint(log.audit_key()).to_string(),
        "lines" => log.head().lines,
        "head" => log.head().digest.to_string(),
    })
}

/// Public keys from files, and from a token that is opened when the first label is met. A key there must be able to sign and
/// nothing else.
struct Keys<'a> {
    context: &'a Context,
    arguments: &'a TokenArgs,
    token: Option<Token>,
}

impl Keys<'_> {
    fn find(&mut self, name: &str) -> Result<Vec<u8>, Failure> {
        if Path::new(name).is_file() {
            return p256_file(Path::new(name));
        }
        let token = match &mut self.token {
            Some(token) => token,
            none @ None => none.insert(self.arguments.open(self.context)?.0),
        };
        let key = token.with_pair(token.key(&KeySpec::label(name))?)?;
        if let Some(flag) = key.beyond_signing() {
            let label = key.name();
            return Err(ExportError::NotSignOnly { label, flag }.into());
        }
        Ok(key.public_key()?.spki_der().to_vec())
    }
}
