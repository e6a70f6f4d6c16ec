//! The arguments that say which HSM a station works with, shared by all commands that wrap, order or check proofs.

use std::path::{Path, PathBuf};

use clap::Args;

use super::files::read_short;
use super::{Context, TokenArgs};
#[cfg(unix)]
use crate::broker::BrokerClient;
#[cfg(not(unix))]
use crate::broker::BrokerError;
use crate::certificate::{CaCertificate, MAXIMUM_FILE};
use crate::error::Failure;
use crate::hsm::{KeySpec, Token};
use crate::station::{Ca, Hsm, JobError, LocalHsm, Signers, TokenSigner};

/// The HSM: a token that this process logs in to, or a broker that has.
#[derive(Debug, Args)]
pub(super) struct HsmArgs {
    /// Socket of a broker that holds the token's login, instead of a token, its PIN and the names of its keys.
    #[arg(
        long,
        value_name = "SOCKET",
        env = "KEYFERRY_BROKER",
        conflicts_with_all = ["authority", "audit_key", "ca_key", "ca_certificate", "organization", "pin_file", "pin_env"]
    )]
    broker: Option<PathBuf>,
    #[command(flatten)]
    local: LocalArgs,
}

/// A token, and the keys on it that sign.
#[derive(Debug, Args)]
pub(super) struct LocalArgs {
    #[command(flatten)]
    token: TokenArgs,
    /// Label of the authority key on the token, which signs the orders.
    #[arg(long, value_name = "LABEL")]
    authority: Option<String>,
    /// Label of the key on the token that signs checkpoints of the audit log.
    #[arg(long, value_name = "LABEL")]
    audit_key: Option<String>,
    /// Label of the CA's key on the token: devices get a certificate with their first keys.
    #[arg(long, value_name = "LABEL", requires = "ca_certificate")]
    ca_key: Option<String>,
    /// The CA's certificate, PEM or DER.
    #[arg(long, value_name = "FILE", requires = "ca_key")]
    ca_certificate: Option<PathBuf>,
    /// Who makes the devices (O in the subject of their certificates).
    #[arg(long, value_name = "NAME", requires = "ca_key")]
    organization: Option<String>,
}

impl HsmArgs {
    /// Logs in, and finds the keys that sign; or asks the broker who it is.
    ///
    /// # Errors
    /// [`Failure`].
    pub(super) fn open(&self, context: &Context) -> Result<Box<dyn Hsm>, Failure> {
        match &self.broker {
            None => Ok(Box::new(self.local.open(context)?)),
            Some(socket) => {
                let hsm = connect(socket)?;
                context.note(&hsm.name());
                Ok(hsm)
            }
        }
    }

    /// A further key that signs, on this token or another.
    ///
    /// # Errors
    /// [`Failure`].
    pub(super) fn other_signer(
        &self,
        context: &Context,
        token: Option<&str>,
        label: &str,
    ) -> Result<TokenSigner, Failure> {
        self.local.other_signer(context, token, label)
    }
}

/// The broker on this socket.
///
/// # Errors
/// [`Failure`].
#[cfg(unix)]
pub(super) fn connect(socket: &Path) -> Result<Box<dyn Hsm>, Failure> {
    let client = BrokerClient::connect(socket).map_err(JobError::from)?;
    Ok(Box::new(client))
}

/// There is none on this system.
///
/// # Errors
/// [`Failure`].
#[cfg(not(unix))]
pub(super) fn connect(_socket: &Path) -> Result<Box<dyn Hsm>, Failure> {
    Err(JobError::from(BrokerError::Elsewhere).into())
}

impl LocalArgs {
    /// Logs in, and finds the keys that sign.
    ///
    /// # Errors
    /// [`Failure`].
    pub(super) fn open(&self, context: &Context) -> Result<LocalHsm, Failure> {
        let authority = self.authority.as_ref().ok_or(Failure::Missing {
            name: "--authority",
            because: "it names the key that signs orders",
        })?;
        let (token, _) = self.token.open(context)?;
        let authority = named(&token, authority)?;
        let auditor = self.audit_key.as_ref();
        let auditor = auditor.map(|label| named(&token, label)).transpose()?;
        let ca = match (&self.ca_key, &self.ca_certificate) {
            (Some(label), Some(path)) => {
                let certificate = read_short(path, MAXIMUM_FILE)?;
                let certificate = CaCertificate::read(&certificate).map_err(|reason| {
                    Failure::CertificateFile {
                        path: path.clone(),
                        reason,
                    }
                })?;
                let signer = named(&token, label)?;
                Some(Ca::new(signer, certificate, self.organization.clone())?)
            }
            (Some(_) | None, Some(_) | None) => None,
        };
        let signers = Signers {
            authority,
            auditor,
            ca,
        };
        Ok(LocalHsm::new(token, signers))
    }

    /// A further key that signs, on this token or another.
    ///
    /// # Errors
    /// [`Failure`].
    fn other_signer(
        &self,
        context: &Context,
        token: Option<&str>,
        label: &str,
    ) -> Result<TokenSigner, Failure> {
        let token = match token {
            Some(uri) => self.token.named(uri.to_owned()),
            None => self.token.clone(),
        };
        let (token, _) = token.open(context)?;
        named(&token, label)
    }
}

/// The key of this name that signs.
///
/// # Errors
/// [`Failure`].
pub(super) fn named(token: &Token, label: &str) -> Result<TokenSigner, Failure> {
    Ok(TokenSigner::named(token, &KeySpec::label(label)).map_err(JobError::from)?)
}
