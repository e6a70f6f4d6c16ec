//! The CA's key, wherever it lives, in the shape that the encoder of certificates asks for.

use der::Encode;
use der::asn1::BitString;
use ecdsa::signature::{Keypair, Verifier};
use keyferry_protocol::identity::p256_spki;
use p256::ecdsa::{Signature, VerifyingKey};
use spki::{AlgorithmIdentifier, AssociatedAlgorithmIdentifier, SignatureAlgorithmIdentifier};
use x509_cert::builder::Builder;

use super::CertificateError;
use crate::device::flow::Authority;
use crate::hsm::{Flag, HsmError, KeyClass, KeyInfo, KeyType};

/// A key that signs certificates.
pub(super) struct Signer<'a> {
    authority: &'a dyn Authority,
    key: VerifyingKey,
}

impl<'a> Signer<'a> {
    /// Takes a P-256 key.
    pub(super) fn new(authority: &'a dyn Authority) -> Result<Self, CertificateError> {
        let other = || CertificateError::KeyType("another".to_owned());
        let point = p256_spki::to_point(authority.public_key()).ok_or_else(other)?;
        let key = VerifyingKey::from_sec1_bytes(point).map_err(|_| other())?;
        Ok(Self { authority, key })
    }

    /// Has the key sign what the builder has put together; gives the whole in DER. A signature that does not verify goes
    /// no further.
    pub(super) fn build<B>(&self, mut builder: B) -> Result<Vec<u8>, CertificateError>
    where
        B: Builder,
        B::Output: Encode,
    {
        let message = builder
            .finalize(self)
            .map_err(|_| CertificateError::Encoding)?;
        let signature = self
            .authority
            .sign(&message)
            .map_err(CertificateError::Signer)?;
        let signature =
            Signature::from_slice(&signature).map_err(|_| CertificateError::SignerWrong)?;
        self.key
            .verify(&message, &signature)
            .map_err(|_| CertificateError::SignerWrong)?;
        let encoding = |_| CertificateError::Encoding;
        // Ecdsa-Sig-Value (RFC 3279 §2.2.3).
        let signature = BitString::from_bytes(signature.to_der().as_bytes()).map_err(encoding)?;
        builder
            .assemble(signature, self)
            .map_err(|_| CertificateError::Encoding)?
            .to_der()
            .map_err(encoding)
    }
}

impl Keypair for Signer<'_> {
    type VerifyingKey = VerifyingKey;

    fn verifying_key(&self) -> VerifyingKey {
        self.key
    }
}

impl SignatureAlgorithmIdentifier for Signer<'_> {
    type Params = <Signature as AssociatedAlgorithmIdentifier>::Params;

    const SIGNATURE_ALGORITHM_IDENTIFIER: AlgorithmIdentifier<Self::Params> =
        Signature::ALGORITHM_IDENTIFIER;
}

/// Checks that a key of the token is what a CA's key has to be: P-256, in no way to be had in the clear, and able to sign and
/// to do nothing else.
///
/// # Errors
/// [`HsmError::WrongKeyType`] within [`CertificateError::Hsm`]; [`CertificateError::NotSignOnly`],
/// [`CertificateError::NotSensitive`].
pub fn check_ca_key(key: &KeyInfo) -> Result<(), CertificateError> {
    let label = key.name();
    if (key.key_type, key.class) != (KeyType::P256, KeyClass::Private) {
        let found = key.key_type;
        let wanted = "a p-256 private key";
        return Err(HsmError::WrongKeyType {
            label,
            found,
            wanted,
        }
        .into());
    }
    if let Some(flag) = key.beyond_signing() {
        return Err(CertificateError::NotSignOnly { label, flag });
    }
    if !key.flags.has(Flag::Sensitive) {
        return Err(CertificateError::NotSensitive { label });
    }
    Ok(())
}
