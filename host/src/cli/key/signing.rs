//! The key that signs documents, on the token at hand or on another.

use clap::Args;
use keyferry_protocol::identity::Fingerprint;

use crate::cli::{Context, TokenArgs};
use crate::error::Failure;
use crate::export::sign;
use crate::hsm::{KeyInfo, KeySpec, Token, is_uri};

/// Which key signs what is written.
#[derive(Debug, Args)]
pub(super) struct SignArgs {
    /// Sign with this P-256 key, which may do nothing else: its label on the token, or a PKCS#11 URI if it is on another token.
    #[arg(long, value_name = "LABEL|URI")]
    sign_with: Option<String>,
}

impl SignArgs {
    /// Finds the key, if one is named.
    pub(super) fn open<'t>(
        &self,
        context: &Context,
        token: &'t Token,
        usual: &TokenArgs,
    ) -> Result<Option<SigningKey<'t>>, Failure> {
        let Some(name) = &self.sign_with else {
            return Ok(None);
        };
        let (home, key) = if is_uri(name) {
            let (other, key) = usual.named(name.clone()).open(context)?;
            if key.is_empty() {
                return Err(crate::hsm::SpecError::NoKey.into());
            }
            let key = other.with_pair(other.key(&key)?)?;
            (Home::Other(Box::new(other)), key)
        } else {
            let key = token.with_pair(token.key(&KeySpec::label(name))?)?;
            (Home::Same(token), key)
        };
        let fingerprint = key.public_key()?.fingerprint();
        context.note(&format!(
            "signing with key '{}', fingerprint {fingerprint}",
            key.name()
        ));
        Ok(Some(SigningKey {
            home,
            key,
            fingerprint,
        }))
    }
}

/// Where a signing key is.
enum Home<'t> {
    Same(&'t Token),
    Other(Box<Token>),
}

/// A key that signs documents.
pub(super) struct SigningKey<'t> {
    home: Home<'t>,
    key: KeyInfo,
    fingerprint: Fingerprint,
}

impl SigningKey<'_> {
    /// The fingerprint of its public key.
    pub(super) const fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Signs a document.
    pub(super) fn sign(&self, document: &[u8]) -> Result<Vec<u8>, Failure> {
        let token: &Token = match &self.home {
            Home::Same(token) => token,
            Home::Other(token) => token,
        };
        Ok(sign(token, &self.key, document)?)
    }
}
