//! Keys in the form the device keeps them, and the device's own keys: identity (P-256) and unwrap (P-256 or RSA).
//!
//! Every key has one canonical form, the *secret bytes*: what unwrapping gives, what the store encrypts, and what a
//! proof starts from.
//!
//! | kind | secret bytes |
//! | --- | --- |
//! | AES, generic secret | the key itself |
//! | P-256 | the scalar, 32 bytes, big-endian, left-padded |
//! | RSA | e (4 bytes, little-endian) ‖ p ‖ q (big-endian, each half as long as the modulus) |

use hkdf::Hkdf;
use keyferry_protocol::attributes::{KeyKind, MAX_SECRET as MAX_GENERIC_SECRET, algorithm};
use keyferry_protocol::identity::Fingerprint;
use keyferry_protocol::suite::UnwrapAlgorithm;
use sha2::{Digest as _, Sha256};

use crate::wipe::Secret;

mod generation;
pub mod p256;
#[cfg(feature = "rsa-keys")]
pub mod rsa;

/// Bytes before p in the secret bytes of an RSA key: the public exponent.
const RSA_EXPONENT_LENGTH: usize = 4;

/// Longest secret bytes of any key this build can hold.
pub const MAX_SECRET_BYTES: usize = if cfg!(feature = "rsa-keys") {
    rsa_secret_length(512)
} else {
    MAX_GENERIC_SECRET
};

/// Length of the secret bytes of an RSA key with a modulus of `modulus` bytes.
const fn rsa_secret_length(modulus: usize) -> usize {
    RSA_EXPONENT_LENGTH + modulus
}

/// The bytes are not a key of the kind they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidKey;

impl core::fmt::Display for InvalidKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("not a valid key")
    }
}

impl core::error::Error for InvalidKey {}

/// Why a key was not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UseFailed {
    /// This build cannot do this, or not with this kind of key.
    Unsupported,
    /// The secret is not a key of this kind, what it was to be used on does not fit or is not authentic, or `out` is too short.
    Failed,
}

impl core::fmt::Display for UseFailed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Unsupported => "this use of this key is not supported",
            Self::Failed => "the key could not be used on this",
        })
    }
}

impl core::error::Error for UseFailed {}

/// A key as its slot has it.
#[derive(Clone, Copy)]
pub struct Key<'a> {
    /// What it is.
    pub kind: KeyKind,
    /// `psa_algorithm_t`: the one algorithm that its attributes permit.
    pub algorithm: u32,
    /// Its secret bytes.
    pub secret: &'a [u8],
}

/// Length in bytes of the secret bytes of a key of this kind.
#[must_use]
pub const fn secret_length(kind: KeyKind) -> usize {
    match kind {
        KeyKind::Aes(bytes) | KeyKind::Secret(bytes) => bytes,
        KeyKind::P256 => p256::SECRET_LENGTH,
        KeyKind::Rsa(modulus) => rsa_secret_length(modulus),
    }
}

/// The kind of key an unwrap key of this algorithm is.
#[must_use]
pub const fn unwrap_key_kind(algorithm: UnwrapAlgorithm) -> KeyKind {
    match algorithm {
        UnwrapAlgorithm::Rsa2048 => KeyKind::Rsa(256),
        UnwrapAlgorithm::Rsa3072 => KeyKind::Rsa(384),
        UnwrapAlgorithm::Rsa4096 => KeyKind::Rsa(512),
        UnwrapAlgorithm::P256 => KeyKind::P256,
    }
}

/// Whether this build can hold and use keys of this kind by this `psa_algorithm_t`. A caller refuses others before it opens a blob.
#[must_use]
pub const fn supported(kind: KeyKind, by: u32) -> bool {
    match kind {
        KeyKind::Aes(24) if !cfg!(feature = "aes-192") => false,
        KeyKind::Aes(_) => {
            cfg!(feature = "aes-modes")
                || !matches!(
                    by,
                    algorithm::CTR | algorithm::CBC_NO_PADDING | algorithm::GCM
                )
        }
        KeyKind::Secret(_) | KeyKind::P256 => true,
        KeyKind::Rsa(_) => cfg!(feature = "rsa-keys"),
    }
}

/// The fingerprint of a public key: SHA-256 of its `SubjectPublicKeyInfo` in DER.
#[must_use]
pub fn fingerprint(spki: &[u8]) -> Fingerprint {
    Fingerprint(Sha256::digest(spki).into())
}

/// HKDF-SHA-256 (RFC 5869) with 32 bytes of output; the parts of `info` are joined.
pub(crate) fn derive(salt: &[u8], input: &[u8], info: &[&[u8]], out: &mut Secret<32>) {
    let derived = Hkdf::<Sha256>::new(Some(salt), input)
        .expand_multi_info(info, out.expose_mut().as_mut_slice());
    // RFC 5869 §2.3: only an output beyond 255 digests is refused.
    assert!(derived.is_ok(), "32 bytes are one digest");
}

/// The kind of the unwrap key with this `SubjectPublicKeyInfo`, which this device wrote itself: each kind has its length.
#[must_use]
pub const fn unwrap_algorithm(spki: &[u8]) -> Option<UnwrapAlgorithm> {
    match spki.len() {
        91 => Some(UnwrapAlgorithm::P256),
        294 => Some(UnwrapAlgorithm::Rsa2048),
        422 => Some(UnwrapAlgorithm::Rsa3072),
        550 => Some(UnwrapAlgorithm::Rsa4096),
        _ => None,
    }
}

pub use generation::Generation;
