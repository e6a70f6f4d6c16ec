//! Making the unwrap key, whatever its kind, in bounded steps.

use keyferry_protocol::attributes::KeyKind;
use keyferry_protocol::suite::UnwrapAlgorithm;
use rand_core::CryptoRng;

use super::{InvalidKey, p256, secret_length, unwrap_key_kind};
use crate::wipe::Secret;

/// An unwrap key in the making.
pub struct Generation {
    algorithm: UnwrapAlgorithm,
    #[cfg(feature = "rsa-generation")]
    rsa: Option<super::rsa::Generation>,
}

impl Generation {
    /// Begins; nothing if this build makes no such keys.
    #[must_use]
    pub fn new(algorithm: UnwrapAlgorithm) -> Option<Self> {
        let kind = unwrap_key_kind(algorithm);
        match kind {
            KeyKind::P256 => {}
            KeyKind::Rsa(_) if cfg!(feature = "rsa-generation") => {}
            KeyKind::Rsa(_) | KeyKind::Aes(_) | KeyKind::Secret(_) => return None,
        }
        Some(Self {
            algorithm,
            #[cfg(feature = "rsa-generation")]
            rsa: match kind {
                KeyKind::Rsa(modulus) => Some(super::rsa::Generation::new(modulus).ok()?),
                KeyKind::P256 | KeyKind::Aes(_) | KeyKind::Secret(_) => None,
            },
        })
    }

    /// What kind of key it becomes.
    #[must_use]
    pub const fn algorithm(&self) -> UnwrapAlgorithm {
        self.algorithm
    }

    /// Whether the search is over.
    #[must_use]
    pub const fn is_found(&self) -> bool {
        #[cfg(feature = "rsa-generation")]
        if let Some(rsa) = &self.rsa {
            return rsa.is_found();
        }
        true
    }

    /// One bounded step: at most one prime candidate. Says whether the search is over.
    ///
    /// # Errors
    /// [`InvalidKey`] if the search cannot go on.
    pub fn step<R: CryptoRng + ?Sized>(&mut self, rng: &mut R) -> Result<bool, InvalidKey> {
        #[cfg(feature = "rsa-generation")]
        if let Some(rsa) = &mut self.rsa {
            return match rsa.step(rng) {
                Ok(super::rsa::Step::Searching) => Ok(false),
                Ok(super::rsa::Step::Found) => Ok(true),
                Err(_) => Err(InvalidKey),
            };
        }
        let _ = rng;
        Ok(true)
    }

    /// Candidates tried, and how many it takes on average.
    #[must_use]
    pub fn progress(&self) -> (u16, u16) {
        #[cfg(feature = "rsa-generation")]
        if let Some(rsa) = &self.rsa {
            return (rsa.tested(), rsa.expected());
        }
        (0, 1)
    }

    /// Writes the key's secret bytes and its `SubjectPublicKeyInfo`, and gives the length of each.
    ///
    /// # Errors
    /// [`InvalidKey`] if the search is not over, the key fails its own trial, or a buffer is too short.
    pub fn finish<R: CryptoRng + ?Sized>(
        self,
        rng: &mut R,
        secret: &mut [u8],
        spki: &mut [u8],
    ) -> Result<(usize, usize), InvalidKey> {
        let length = secret_length(unwrap_key_kind(self.algorithm));
        let secret = secret.get_mut(..length).ok_or(InvalidKey)?;
        #[cfg(feature = "rsa-generation")]
        if let Some(rsa) = self.rsa {
            rsa.finish(rng, secret).map_err(|_| InvalidKey)?;
            return Ok((length, super::rsa::public_spki(secret, spki)?));
        }
        let mut scalar = Secret::zeroed();
        p256::generate(rng, &mut scalar);
        secret.copy_from_slice(scalar.expose());
        let public = p256::public_spki(scalar.expose())?;
        spki.get_mut(..public.len())
            .ok_or(InvalidKey)?
            .copy_from_slice(&public);
        Ok((length, public.len()))
    }
}
