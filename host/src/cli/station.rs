//! The arguments that say which HSM a station works with, shared by all commands that wrap, order or check proofs.

use clap::Args;

use super::{Context, TokenArgs};
use crate::error::Failure;
use crate::hsm::KeySpec;
use crate::station::{Hsm, LocalHsm, TokenSigner};

/// The HSM, and the keys on it that sign.
#[derive(Debug, Args)]
pub(super) struct HsmArgs {
    #[command(flatten)]
    token: TokenArgs,
    /// Label of the authority key on the token, which signs the orders.
    #[arg(long, value_name = "LABEL")]
    authority: String,
    /// Label of the key on the token that signs checkpoints of the audit log.
    #[arg(long, value_name = "LABEL")]
    audit_key: Option<String>,
}

impl HsmArgs {
    /// Logs in, and finds the keys that sign.
    ///
    /// # Errors
    /// [`Failure`].
    pub(super) fn open(&self, context: &Context) -> Result<Box<dyn Hsm>, Failure> {
        let (token, _) = self.token.open(context)?;
        let signer = |label: &String| TokenSigner::named(&token, &KeySpec::label(label));
        let authority = signer(&self.authority)?;
        let auditor = self.audit_key.as_ref().map(signer).transpose()?;
        Ok(Box::new(LocalHsm::new(token, authority, auditor)))
    }
}
