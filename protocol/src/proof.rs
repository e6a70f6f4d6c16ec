//! Proofs: how a device shows that a slot holds the key that the HSM wrapped.

use serde::{Deserialize, Serialize};

use crate::attributes::{Attributes, KeyKind, algorithm, usage};
use crate::identity::{Challenge, Digest};

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
}

impl Proof {
    /// The strongest proof that a key with these attributes permits.
    #[must_use]
    pub fn strongest(attributes: &Attributes) -> Self {
        let Ok(kind) = attributes.kind() else {
            return Self::None;
        };
        [
            Self::Cmac,
            Self::HmacSha256,
            Self::EcdsaP256Sha256,
            Self::RsaPkcs1Sha256,
        ]
        .into_iter()
        .find(|proof| proof.permitted(kind, attributes))
        .unwrap_or(Self::None)
    }

    /// Whether a key of this kind and with these attributes may be used for this proof.
    #[must_use]
    pub const fn permitted(self, kind: KeyKind, attributes: &Attributes) -> bool {
        let may_sign = attributes.usage & usage::SIGN_MESSAGE != 0;
        match (self, kind) {
            (Self::None, _) => true,
            (Self::Cmac, KeyKind::Aes(_)) => may_sign && attributes.algorithm == algorithm::CMAC,
            (Self::HmacSha256, KeyKind::Secret(_)) => {
                may_sign && attributes.algorithm == algorithm::HMAC_SHA256
            }
            (Self::EcdsaP256Sha256, KeyKind::P256) => {
                may_sign && attributes.algorithm == algorithm::ECDSA_SHA256
            }
            (Self::RsaPkcs1Sha256, KeyKind::Rsa(_)) => {
                may_sign && attributes.algorithm == algorithm::RSA_PKCS1V15_SHA256
            }
            (
                Self::Cmac | Self::HmacSha256 | Self::EcdsaP256Sha256 | Self::RsaPkcs1Sha256,
                KeyKind::Aes(_) | KeyKind::Secret(_) | KeyKind::P256 | KeyKind::Rsa(_),
            ) => false,
        }
    }

    /// Length of the proof in bytes for a key of this kind.
    #[must_use]
    pub const fn length(self, kind: KeyKind) -> usize {
        match self {
            Self::None => 0,
            Self::Cmac => 16,
            Self::HmacSha256 => 32,
            Self::EcdsaP256Sha256 => 64,
            Self::RsaPkcs1Sha256 => match kind {
                KeyKind::Rsa(bytes) => bytes,
                KeyKind::Aes(_) | KeyKind::Secret(_) | KeyKind::P256 => 0,
            },
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
