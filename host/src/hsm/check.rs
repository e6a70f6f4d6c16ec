//! MACs and signatures that show that two copies of a key are the same key: one token makes it, another checks it.

use std::borrow::Cow;

use sha2::{Digest, Sha256, Sha384};

use super::error::HsmError;
use super::key::{Flag, KeyClass, KeyInfo, KeyType};
use super::pkcs11::SignMechanism;
use super::token::Token;

/// How a key shows that it is the key it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CheckAlgorithm {
    /// AES-CMAC (NIST SP 800-38B), 16 bytes.
    Cmac,
    /// HMAC with SHA-256 (RFC 2104), 32 bytes.
    HmacSha256,
    /// ECDSA on P-256 with SHA-256, `r ‖ s`, 64 bytes.
    EcdsaP256Sha256,
    /// ECDSA on P-384 with SHA-384, `r ‖ s`, 96 bytes.
    EcdsaP384Sha384,
    /// Ed25519 (RFC 8032), 64 bytes.
    Ed25519,
    /// RSASSA-PKCS1-v1_5 with SHA-256 (RFC 8017 §8.2), as long as the modulus.
    RsaPkcs1Sha256,
}

impl CheckAlgorithm {
    /// All algorithms.
    pub const ALL: [Self; 6] = [
        Self::Cmac,
        Self::HmacSha256,
        Self::EcdsaP256Sha256,
        Self::EcdsaP384Sha384,
        Self::Ed25519,
        Self::RsaPkcs1Sha256,
    ];

    /// The name used in documents and output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cmac => "aes-cmac",
            Self::HmacSha256 => "hmac-sha256",
            Self::EcdsaP256Sha256 => "ecdsa-p256-sha256",
            Self::EcdsaP384Sha384 => "ecdsa-p384-sha384",
            Self::Ed25519 => "ed25519",
            Self::RsaPkcs1Sha256 => "rsa-pkcs1-sha256",
        }
    }

    /// The algorithm for a key of this type, if there is one.
    #[must_use]
    pub const fn of(key_type: KeyType) -> Option<Self> {
        match key_type {
            KeyType::Aes { .. } => Some(Self::Cmac),
            KeyType::Secret { .. } => Some(Self::HmacSha256),
            KeyType::P256 => Some(Self::EcdsaP256Sha256),
            KeyType::P384 => Some(Self::EcdsaP384Sha384),
            KeyType::Ed25519 => Some(Self::Ed25519),
            KeyType::Rsa { .. } => Some(Self::RsaPkcs1Sha256),
            KeyType::Other => None,
        }
    }

    /// What the token is asked: its mechanism, and the input or its digest.
    pub(super) fn question(self, input: &[u8]) -> (SignMechanism, Cow<'_, [u8]>) {
        match self {
            Self::Cmac => (SignMechanism::Cmac, input.into()),
            Self::HmacSha256 => (SignMechanism::HmacSha256, input.into()),
            // Not every token makes the digest for ECDSA itself.
            Self::EcdsaP256Sha256 => (
                SignMechanism::Ecdsa,
                Sha256::digest(input).as_slice().to_vec().into(),
            ),
            Self::EcdsaP384Sha384 => (
                SignMechanism::Ecdsa,
                Sha384::digest(input).as_slice().to_vec().into(),
            ),
            Self::Ed25519 => (SignMechanism::Ed25519, input.into()),
            Self::RsaPkcs1Sha256 => (SignMechanism::RsaPkcs1Sha256, input.into()),
        }
    }

    /// The type of key that it needs, in words.
    const fn wanted(self) -> &'static str {
        match self {
            Self::Cmac => "an aes key",
            Self::HmacSha256 => "an hmac key",
            Self::EcdsaP256Sha256 => "a p-256 key",
            Self::EcdsaP384Sha384 => "a p-384 key",
            Self::Ed25519 => "an ed25519 key",
            Self::RsaPkcs1Sha256 => "an rsa key",
        }
    }

    fn check_key(self, key: &KeyInfo) -> Result<(), HsmError> {
        if Self::of(key.key_type) == Some(self) {
            return Ok(());
        }
        Err(HsmError::WrongKeyType {
            label: key.name(),
            found: key.key_type,
            wanted: self.wanted(),
        })
    }
}

impl std::fmt::Display for CheckAlgorithm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for CheckAlgorithm {
    type Err = keyferry_protocol::suite::UnknownName;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.name() == name)
            .ok_or(keyferry_protocol::suite::UnknownName)
    }
}

impl Token {
    /// Makes a MAC or signature over `input` with the key. The caller gives `input` a tag of its own, so that the value means
    /// nothing elsewhere.
    ///
    /// # Errors
    /// [`HsmError::WrongKeyType`], or [`HsmError::NotPermitted`] without `CKA_SIGN`, before the token is asked;
    /// [`HsmError::Token`].
    pub fn make_check(
        &self,
        key: &KeyInfo,
        algorithm: CheckAlgorithm,
        input: &[u8],
    ) -> Result<Vec<u8>, HsmError> {
        self.alive(|| {
            algorithm.check_key(key)?;
            key.check_flag(Flag::Sign)?;
            let (mechanism, input) = algorithm.question(input);
            self.sign_with(key, mechanism, &input)
        })
    }

    /// Whether the MAC or signature is the one that this key makes over `input`: MACs are checked with the key, signatures with
    /// the public key on the token.
    ///
    /// # Errors
    /// [`HsmError::WrongKeyType`] if the key cannot make such a value; [`HsmError::NotPermitted`] without `CKA_VERIFY`;
    /// [`HsmError::NoPublicKey`]; [`HsmError::Token`].
    pub fn verify_check(
        &self,
        key: &KeyInfo,
        algorithm: CheckAlgorithm,
        input: &[u8],
        value: &[u8],
    ) -> Result<bool, HsmError> {
        self.alive(|| {
            algorithm.check_key(key)?;
            let handle = if key.class == KeyClass::Private {
                self.verifying_half(key)?
            } else {
                key.check_flag(Flag::Verify)?;
                self.handle_of(key)?
            };
            let (mechanism, input) = algorithm.question(input);
            match self.connection.verify(mechanism, handle, &input, value) {
                // NSS 3.87 makes CMACs but verifies none, and says of a wrong HMAC that the device failed. What a key may make,
                // it can make again.
                Err(HsmError::Token { code, .. })
                    if key.class == KeyClass::Secret
                        && key.flags.has(Flag::Sign)
                        && matches!(
                            code.as_str(),
                            "CKR_MECHANISM_INVALID" | "CKR_DEVICE_ERROR"
                        ) =>
                {
                    Ok(self.connection.sign(mechanism, handle, &input)? == value)
                }
                result => result,
            }
        })
    }
}
