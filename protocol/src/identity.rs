//! Names and public values: device ids, key fingerprints, digests, challenges, signatures, public keys.

use serde::{Deserialize, Serialize};
use serde_big_array::BigArray;

use crate::codec::byte_string;

byte_string! {
    /// A device's id: 16 bytes from its silicon, left-padded with zeros where the part's number is shorter.
    DeviceId, 16
}
byte_string! {
    /// SHA-256 of a public key's `SubjectPublicKeyInfo` in DER (RFC 5280 §4.1.2.7), 32 bytes.
    /// [`Fingerprint::ZERO`] stands for "there is no such key yet" on a blank device.
    Fingerprint, 32
}
byte_string! {
    /// The first 4 bytes of a [`Fingerprint`]: tells the few keys of one place apart, and proves nothing.
    Hint, 4
}
byte_string! {
    /// A SHA-256 digest, 32 bytes.
    Digest, 32
}
byte_string! {
    /// A one-time random value, 32 bytes.
    Challenge, 32
}

impl Fingerprint {
    /// Its first bytes; zero stays zero.
    #[must_use]
    pub const fn hint(&self) -> Hint {
        let [a, b, c, d, ..] = self.0;
        Hint([a, b, c, d])
    }
}

/// An ECDSA P-256 signature over SHA-256 (FIPS 186-5): r and s as 32 big-endian bytes each, the form PKCS#11
/// `CKM_ECDSA` gives (v3.1 §6.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// r, big-endian.
    #[serde(with = "BigArray")]
    pub r: [u8; 32],
    /// s, big-endian.
    #[serde(with = "BigArray")]
    pub s: [u8; 32],
}

impl Signature {
    /// Length of `r ‖ s` in bytes.
    pub const LENGTH: usize = 64;

    /// Takes `r ‖ s`.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 64]) -> Self {
        let mut signature = Self {
            r: [0; 32],
            s: [0; 32],
        };
        signature.r.copy_from_slice(&bytes[..32]);
        signature.s.copy_from_slice(&bytes[32..]);
        signature
    }

    /// Gives `r ‖ s`.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&self.r);
        bytes[32..].copy_from_slice(&self.s);
        bytes
    }
}

/// A P-256 public key's `SubjectPublicKeyInfo` in DER, 91 bytes: everything before the point is fixed (RFC 5480).
pub mod p256_spki {
    /// Length of the whole structure in bytes.
    pub const LENGTH: usize = 91;

    /// The bytes before the uncompressed point `04 ‖ x ‖ y` (SEC 1 §2.3.3).
    pub const PREFIX: [u8; 26] = [
        0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08,
        0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
    ];

    /// Wraps an uncompressed point (65 bytes, first byte 0x04) into the structure.
    #[must_use]
    pub fn from_point(point: &[u8; 65]) -> [u8; LENGTH] {
        let mut spki = [0; LENGTH];
        spki[..PREFIX.len()].copy_from_slice(&PREFIX);
        spki[PREFIX.len()..].copy_from_slice(point);
        spki
    }

    /// Gives the uncompressed point of a P-256 `SubjectPublicKeyInfo`, or nothing if it is anything else. Whether the
    /// point lies on the curve is not checked here.
    #[must_use]
    pub fn to_point(spki: &[u8]) -> Option<&[u8; 65]> {
        let point: &[u8; 65] = spki.strip_prefix(&PREFIX)?.try_into().ok()?;
        (point[0] == 0x04).then_some(point)
    }
}
