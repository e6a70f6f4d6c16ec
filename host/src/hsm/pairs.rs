//! Which public key belongs to a private key: not the one that happens to have the same label, but the one that verifies a trial
//! signature.

use super::error::HsmError;
use super::evidence::{Comparison, Held, is_pair};
use super::key::{KeyClass, KeyInfo};
use super::public_key::PublicKey;
use super::token::Token;
use super::uri::KeySpec;

impl Token {
    /// The key with the public half that is really its own, as far as that can be tried: the private key signs, the token verifies.
    /// If no public key of the same id is there, or that one is another's, the token's other public keys of this type are tried. A
    /// key that may not sign keeps the public half that its id names.
    ///
    /// # Errors
    /// [`HsmError::PairMismatch`] if the public key beside it is another's and its own is not on the token;
    /// [`HsmError::NoPublicKey`] if none is found; [`HsmError::Token`].
    pub fn with_pair(&self, key: KeyInfo) -> Result<KeyInfo, HsmError> {
        if key.class != KeyClass::Private {
            return Ok(key);
        }
        self.alive(|| self.paired(key.clone()))
    }

    fn paired(&self, mut key: KeyInfo) -> Result<KeyInfo, HsmError> {
        let own = key.public_key.take();
        let is_own = |public: &PublicKey| {
            let held = Held {
                token: self,
                key: &key,
            };
            is_pair(held, public)
        };
        if let Some(public) = &own
            && is_own(public)? != Comparison::Different
        {
            key.public_key = own;
            return Ok(key);
        }
        let spec = KeySpec {
            class: Some(KeyClass::Public),
            ..KeySpec::default()
        };
        for candidate in self.objects(KeyClass::Public, &spec)? {
            let Some(public) = candidate.public_key else {
                continue;
            };
            if candidate.key_type == key.key_type && matches!(is_own(&public)?, Comparison::Same(_))
            {
                key.public_key = Some(public);
                key.public_flags = Some(candidate.flags);
                return Ok(key);
            }
        }
        Err(match own {
            Some(_) => HsmError::PairMismatch { label: key.name() },
            None => HsmError::NoPublicKey { label: key.name() },
        })
    }
}
