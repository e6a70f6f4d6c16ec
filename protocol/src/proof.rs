//! Proofs: how a device shows that a slot holds the key that the HSM wrapped.

use serde::{Deserialize, Serialize};

use crate::attributes::{Attributes, KeyKind, algorithm, usage};
use crate::identity::{Challenge, Digest};
use crate::suite::UnknownName;

/// How a slot is to be proved. The order of the variants is their number on the wire; numbers are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Proof {
    /// Nothing is proved.
    None,
    /// AES-CMAC (NIST SP 800-38B) over the [`proof_input`], 16 bytes, verified by the HSM with its own copy.
    Cmac,
    /// HMAC-SHA-256 (RFC 2104) over the [`proof_input`], 32 bytes, verified by the HSM with its own copy.
    HmacSha256,
    /// ECDSA P-256 over SHA-256 of the [`proof_input`], `r ‖ s`, 64 bytes, verified with the public key.
    EcdsaP256Sha256,
    /// RSASSA-PKCS1-v1_5 with SHA-256 (RFC 8017 §8.2) over the [`proof_input`], as long as the modulus.
    RsaPkcs1Sha256,
    /// For keys that may only agree: AES-256-CMAC over the [`proof_input`], 16 bytes, under the x coordinate of the ECDH of the
    /// key with the question, an uncompressed P-256 point.
    Agreement,
    /// For keys that may only decrypt: HMAC-SHA-256 over the [`proof_input`], 32 bytes, under the 32 bytes that the question
    /// decrypts to, with the algorithm of the key's attributes.
    Decryption,
    /// For AES keys that permit nothing better: the first 5 bytes of the AES-CMAC over the [`proof_input`]. Never an ECB check
    /// value: that of a GCM key is its hash key.
    CheckValue,
}

/// What a proof is worth. The order of the variants is the order of their strength.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Level {
    /// Nothing.
    None,
    /// A check value of 40 bits.
    CheckValue,
    /// The key answered a challenge made for it.
    Challenge,
    /// The key made a MAC or a signature.
    Signature,
}

impl Level {
    /// All levels, weakest first.
    pub const ALL: [Self; 4] = [
        Self::None,
        Self::CheckValue,
        Self::Challenge,
        Self::Signature,
    ];

    /// The name used on command lines, in output and in plans.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::CheckValue => "check-value",
            Self::Challenge => "challenge",
            Self::Signature => "signature",
        }
    }
}

impl core::fmt::Display for Level {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

impl core::str::FromStr for Level {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        Self::ALL
            .into_iter()
            .find(|level| level.name() == name)
            .ok_or(UnknownName)
    }
}

/// Length in bytes of the secret that the question of a [`Proof::Decryption`] decrypts to.
pub const DECRYPTED: usize = 32;

impl Proof {
    /// All proofs, by their numbers.
    pub const ALL: [Self; 8] = [
        Self::None,
        Self::Cmac,
        Self::HmacSha256,
        Self::EcdsaP256Sha256,
        Self::RsaPkcs1Sha256,
        Self::Agreement,
        Self::Decryption,
        Self::CheckValue,
    ];

    /// The strongest proof that a key with these attributes permits.
    #[must_use]
    pub fn strongest(attributes: &Attributes) -> Self {
        let Ok(kind) = attributes.kind() else {
            return Self::None;
        };
        let mut strongest = Self::None;
        for proof in Self::ALL {
            if proof.level() > strongest.level() && proof.permitted(kind, attributes) {
                strongest = proof;
            }
        }
        strongest
    }

    /// What the proof is worth.
    #[must_use]
    pub const fn level(self) -> Level {
        match self {
            Self::None => Level::None,
            Self::CheckValue => Level::CheckValue,
            Self::Agreement | Self::Decryption => Level::Challenge,
            Self::Cmac | Self::HmacSha256 | Self::EcdsaP256Sha256 | Self::RsaPkcs1Sha256 => {
                Level::Signature
            }
        }
    }

    /// Whether a key of this kind and with these attributes may be used for this proof.
    #[must_use]
    pub const fn permitted(self, kind: KeyKind, attributes: &Attributes) -> bool {
        let used_for = attributes.algorithm;
        let may_sign = attributes.usage & usage::SIGN_MESSAGE != 0;
        let may_decrypt = attributes.usage & usage::DECRYPT != 0;
        match (self, kind) {
            (Self::None, _) | (Self::CheckValue, KeyKind::Aes(_)) => true,
            (Self::Cmac, KeyKind::Aes(_)) => may_sign && used_for == algorithm::CMAC,
            (Self::HmacSha256, KeyKind::Secret(_)) => {
                may_sign && used_for == algorithm::HMAC_SHA256
            }
            (Self::EcdsaP256Sha256, KeyKind::P256) => {
                may_sign && used_for == algorithm::ECDSA_SHA256
            }
            (Self::RsaPkcs1Sha256, KeyKind::Rsa(_)) => {
                may_sign && used_for == algorithm::RSA_PKCS1V15_SHA256
            }
            (Self::Agreement, KeyKind::P256) => {
                attributes.usage & usage::DERIVE != 0 && used_for == algorithm::ECDH
            }
            (Self::Decryption, KeyKind::Aes(_) | KeyKind::Rsa(_)) => {
                may_decrypt && self.question_length(kind, attributes) != 0
            }
            (
                Self::Cmac
                | Self::HmacSha256
                | Self::EcdsaP256Sha256
                | Self::RsaPkcs1Sha256
                | Self::Agreement
                | Self::Decryption
                | Self::CheckValue,
                KeyKind::Aes(_) | KeyKind::Secret(_) | KeyKind::P256 | KeyKind::Rsa(_),
            ) => false,
        }
    }

    /// Length in bytes of the question that the order asks such a key with; 0 where the [`proof_input`] alone is the question,
    /// or where the key's algorithm has no such proof.
    ///
    /// A question of an AES key is 16 bytes of initial counter or initialisation vector and 32 of ciphertext, or for GCM a
    /// nonce of 12 bytes, 32 of ciphertext and a tag of 16.
    #[must_use]
    pub const fn question_length(self, kind: KeyKind, attributes: &Attributes) -> usize {
        match (self, kind) {
            (Self::Agreement, KeyKind::P256) => 65,
            (Self::Decryption, KeyKind::Aes(_)) => match attributes.algorithm {
                algorithm::CTR | algorithm::CBC_NO_PADDING => 16 + DECRYPTED,
                algorithm::GCM => 12 + DECRYPTED + 16,
                _ => 0,
            },
            (Self::Decryption, KeyKind::Rsa(modulus)) => match attributes.algorithm {
                algorithm::RSA_OAEP_SHA256 => modulus,
                _ => 0,
            },
            (
                Self::None
                | Self::Cmac
                | Self::HmacSha256
                | Self::EcdsaP256Sha256
                | Self::RsaPkcs1Sha256
                | Self::Agreement
                | Self::Decryption
                | Self::CheckValue,
                KeyKind::Aes(_) | KeyKind::Secret(_) | KeyKind::P256 | KeyKind::Rsa(_),
            ) => 0,
        }
    }

    /// Length of the proof in bytes for a key of this kind.
    #[must_use]
    pub const fn length(self, kind: KeyKind) -> usize {
        match self {
            Self::None => 0,
            Self::Cmac | Self::Agreement => 16,
            Self::HmacSha256 | Self::Decryption => 32,
            Self::EcdsaP256Sha256 => 64,
            Self::RsaPkcs1Sha256 => match kind {
                KeyKind::Rsa(bytes) => bytes,
                KeyKind::Aes(_) | KeyKind::Secret(_) | KeyKind::P256 => 0,
            },
            Self::CheckValue => 5,
        }
    }

    /// The name used in output and in plans.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Cmac => "cmac",
            Self::HmacSha256 => "hmac-sha256",
            Self::EcdsaP256Sha256 => "ecdsa-p256-sha256",
            Self::RsaPkcs1Sha256 => "rsa-pkcs1-sha256",
            Self::Agreement => "agreement",
            Self::Decryption => "decryption",
            Self::CheckValue => "check-value",
        }
    }
}

/// First 16 bytes of every proof input, so that a proof can never be taken for anything else a key signs.
pub const TAG: [u8; 16] = *b"keyferry proof 1";

/// Length of a proof input in bytes.
pub const INPUT_LENGTH: usize = 16 + 32 + 2 + 32;

/// The bytes a proof is made over: tag ‖ digest of the order that asks ‖ slot (2 bytes, little-endian) ‖ challenge.
/// The challenge stands in the signed order, so nobody but the authority can ask.
#[must_use]
pub fn proof_input(order: &Digest, slot: u16, challenge: &Challenge) -> [u8; INPUT_LENGTH] {
    let mut input = [0; INPUT_LENGTH];
    input[..16].copy_from_slice(&TAG);
    input[16..48].copy_from_slice(&order.0);
    input[48..50].copy_from_slice(&slot.to_le_bytes());
    input[50..].copy_from_slice(&challenge.0);
    input
}
