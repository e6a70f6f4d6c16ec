//! Suites: how the key-encryption key travels to the device. All suites wrap keys with AES-256-KWP (RFC 5649).

use serde::{Deserialize, Serialize};

use crate::identity::Fingerprint;

/// What [`x963_shared_info`] begins with: its tag, and the number of [`Suite::EcdhP256X963Sha256`].
const X963_TAG: &[u8; 17] = b"keyferry ecdhkek\x02";

/// How the AES-256 key-encryption key (KEK) of an order reaches the device. Numbers are appended, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Suite {
    /// RSAES-OAEP with SHA-256, MGF1 with SHA-256, empty label (RFC 8017 §7.1).
    RsaOaepSha256,
    /// RSAES-OAEP with SHA-1, MGF1 with SHA-1, empty label.
    RsaOaepSha1,
    /// ECDH on P-256 from an ephemeral key, ANSI X9.63 KDF with SHA-256.
    EcdhP256X963Sha256,
    /// ECDH on P-256 from an ephemeral key; the KEK is the shared x coordinate (PKCS#11 `CKD_NULL`).
    EcdhP256Null,
}

impl Suite {
    /// All suites, strongest first within each kind of unwrap key.
    pub const ALL: [Self; 4] = [
        Self::RsaOaepSha256,
        Self::RsaOaepSha1,
        Self::EcdhP256X963Sha256,
        Self::EcdhP256Null,
    ];

    /// The name used on command lines and in plans.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RsaOaepSha256 => "rsa-oaep-sha256",
            Self::RsaOaepSha1 => "rsa-oaep-sha1",
            Self::EcdhP256X963Sha256 => "ecdh-p256-x963-sha256",
            Self::EcdhP256Null => "ecdh-p256-null",
        }
    }

    /// Whether the suite works with an unwrap key of this kind.
    #[must_use]
    pub const fn fits(self, unwrap_key: UnwrapAlgorithm) -> bool {
        match self {
            Self::RsaOaepSha256 | Self::RsaOaepSha1 => match unwrap_key {
                UnwrapAlgorithm::Rsa2048 | UnwrapAlgorithm::Rsa3072 | UnwrapAlgorithm::Rsa4096 => {
                    true
                }
                UnwrapAlgorithm::P256 => false,
            },
            Self::EcdhP256X963Sha256 | Self::EcdhP256Null => match unwrap_key {
                UnwrapAlgorithm::Rsa2048 | UnwrapAlgorithm::Rsa3072 | UnwrapAlgorithm::Rsa4096 => {
                    false
                }
                UnwrapAlgorithm::P256 => true,
            },
        }
    }
}

impl core::fmt::Display for Suite {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

impl core::str::FromStr for Suite {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        Self::ALL
            .into_iter()
            .find(|suite| suite.name() == name)
            .ok_or(UnknownName)
    }
}

/// The shared information of [`Suite::EcdhP256X963Sha256`] (SEC 1 version 2.0 §3.6.1): a tag, the suite's number, and the fingerprint of the
/// recipient's key. It ties the KEK to suite and recipient.
#[must_use]
pub fn x963_shared_info(recipient: &Fingerprint) -> [u8; 49] {
    let mut info = [0; 49];
    let (tag, key) = info.split_at_mut(X963_TAG.len());
    tag.copy_from_slice(X963_TAG);
    key.copy_from_slice(&recipient.0);
    info
}

/// The kind of a device's unwrap key. Numbers are appended, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum UnwrapAlgorithm {
    /// RSA, 2048-bit modulus, public exponent 65537.
    Rsa2048,
    /// RSA, 3072-bit modulus, public exponent 65537.
    Rsa3072,
    /// RSA, 4096-bit modulus, public exponent 65537.
    Rsa4096,
    /// An ECDH key on P-256.
    P256,
}

impl UnwrapAlgorithm {
    /// All kinds of unwrap key.
    pub const ALL: [Self; 4] = [Self::Rsa2048, Self::Rsa3072, Self::Rsa4096, Self::P256];

    /// The name used on command lines and in plans.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rsa2048 => "rsa-2048",
            Self::Rsa3072 => "rsa-3072",
            Self::Rsa4096 => "rsa-4096",
            Self::P256 => "p-256",
        }
    }

    /// Length in bytes of the blob that carries the KEK: an OAEP ciphertext, or an uncompressed point.
    #[must_use]
    pub const fn kek_blob_length(self) -> usize {
        match self {
            Self::Rsa2048 => 256,
            Self::Rsa3072 => 384,
            Self::Rsa4096 => 512,
            Self::P256 => 65,
        }
    }
}

impl core::fmt::Display for UnwrapAlgorithm {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

impl core::str::FromStr for UnwrapAlgorithm {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.name() == name)
            .ok_or(UnknownName)
    }
}

/// A name that is none of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownName;

impl core::fmt::Display for UnknownName {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("unknown name")
    }
}

impl core::error::Error for UnknownName {}

/// Length in bytes of the AES-KWP wrapping of `key_length` bytes: one semiblock more than the padded key (RFC 5649 §4.1).
#[must_use]
pub const fn kwp_length(key_length: usize) -> usize {
    key_length.next_multiple_of(8) + 8
}
