//! Signatures of documents: made in the HSM, verified with a public key and nothing else.

use keyferry_protocol::identity::Fingerprint;
use p256::ecdsa::signature::Verifier;
use p256::ecdsa::{DerSignature, Signature, VerifyingKey};

use super::error::ExportError;
use crate::hsm::{HsmError, KeyInfo, PublicKey, PublicNumbers, Token};

/// Longest signature in DER, in bytes: two integers of 33 bytes with two bytes before each, and two bytes before both.
pub const MAXIMUM_SIGNATURE: usize = 72;

/// Signs the exact bytes of a document. Gives the signature in DER.
///
/// # Errors
/// [`ExportError::NotSignOnly`] if the key may do anything else or leave the token; [`ExportError::Hsm`] as
/// [`Token::sign_p256`].
pub fn sign(token: &Token, key: &KeyInfo, document: &[u8]) -> Result<Vec<u8>, ExportError> {
    if let Some(flag) = key.beyond_signing() {
        return Err(ExportError::NotSignOnly {
            label: key.name(),
            flag,
        });
    }
    let signature = token.sign_p256(key, document)?;
    let signature = Signature::from_slice(&signature).map_err(|_| HsmError::UnexpectedLength {
        what: "a P-256 signature".into(),
        expected: "two numbers below the order".into(),
        actual: signature.len(),
    })?;
    Ok(signature.to_der().as_bytes().to_vec())
}

/// The key that documents are verified with.
#[derive(Clone, Debug)]
pub struct Signer {
    key: VerifyingKey,
    fingerprint: Fingerprint,
}

impl Signer {
    /// Takes a P-256 public key.
    ///
    /// # Errors
    /// [`ExportError::SignerType`] if it is of another type.
    pub fn new(key: &PublicKey) -> Result<Self, ExportError> {
        let other = || ExportError::SignerType(key.key_type());
        match key.numbers() {
            PublicNumbers::P256(point) => Ok(Self {
                key: VerifyingKey::from_sec1_bytes(point).map_err(|_| other())?,
                fingerprint: key.fingerprint(),
            }),
            PublicNumbers::Rsa { .. } | PublicNumbers::P384(_) | PublicNumbers::Ed25519(_) => {
                Err(other())
            }
        }
    }

    /// The fingerprint of the key.
    #[must_use]
    pub const fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Whether the signature is this key's over these bytes.
    ///
    /// # Errors
    /// [`ExportError::SignatureMalformed`] if it is no signature in DER.
    pub(super) fn confirms(&self, document: &[u8], signature: &[u8]) -> Result<bool, ExportError> {
        let signature =
            DerSignature::from_bytes(signature).map_err(|_| ExportError::SignatureMalformed)?;
        Ok(self.key.verify(document, &signature).is_ok())
    }
}

/// Why a document is believed.
#[derive(Clone, Copy, Debug)]
pub enum Trust<'a> {
    /// Because this key has signed it.
    Signer(&'a Signer),
    /// Because a person said so: the signature is not looked at.
    Unauthenticated,
}

impl Trust<'_> {
    /// Checks the signature of a document, before anything of it is believed. `named` finds the signer that the document
    /// names; it is asked only to tell two mistakes apart.
    ///
    /// # Errors
    /// [`ExportError::Unsigned`], [`ExportError::SignatureMalformed`], [`ExportError::OtherSigner`], [`ExportError::Altered`].
    pub(super) fn check(
        self,
        document: &[u8],
        signature: Option<&[u8]>,
        named: impl FnOnce() -> Option<Fingerprint>,
    ) -> Result<(), ExportError> {
        let Self::Signer(signer) = self else {
            return Ok(());
        };
        let signature = signature.ok_or(ExportError::Unsigned)?;
        if signer.confirms(document, signature)? {
            return Ok(());
        }
        Err(match named() {
            Some(found) if found != signer.fingerprint => ExportError::OtherSigner {
                expected: signer.fingerprint,
                found,
            },
            Some(_) | None => ExportError::Altered,
        })
    }
}
