//! Opening what the HSM wrapped: first the key-encryption key (KEK) with the device's unwrap key, then each key with the
//! KEK.
//!
//! The caller has verified the order's signature and the blobs' digests; this module never decides who may send a key.
//!
//! **Implicit rejection.** A KEK blob that does not open must not be told apart from one that does, or the device would
//! answer questions about the unwrap key (Manger's and Bleichenbacher's attacks). So [`open_kek`] has no error: for a bad
//! blob it gives a KEK that is a keyed hash of the blob, [`open_key`] then fails on it like on any wrong KEK, and says
//! the one thing it can say. Both KEKs are always computed, and one is selected in constant time.
//!
//! **The same work.** From the private-key operation to the verdict on a key, no branch and no length depends on what was
//! inside: neither the padding of the KEK nor the check of the key stops at what is wrong. Lengths of blobs, and whether a
//! point lies on the curve, anyone can see; they may cost what they cost. After the verdict come the contents of private
//! keys, which only somebody reaches who knows the KEK. `cargo xtask bench leakage` counts instructions.

use keyferry_protocol::MAX_BLOB;
use keyferry_protocol::attributes::{KeyKind, MAX_SECRET};
use keyferry_protocol::identity::Fingerprint;
use keyferry_protocol::suite::{Suite, UnwrapAlgorithm};
use rand_core::CryptoRng;
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};

use crate::keys::{derive, secret_length, unwrap_key_kind};
use crate::wipe::{Secret, wipe};

mod der;
mod ecdh;
mod kwp;
mod pkcs8;
#[cfg(any(feature = "rsa-oaep-sha256", feature = "rsa-oaep-sha1"))]
#[cfg_attr(feature = "sabotage-early-reject", path = "rsa_oaep_early.rs")]
mod rsa_oaep;

pub(crate) use ecdh::agree;

/// Longest key in its wrapped form, before wrapping, in bytes: a PKCS#8 RSA-4096 key, or without RSA a generic secret
/// with SoftHSM's padding (the PKCS#8 form of a P-256 key is shorter: 138 to 152 bytes).
const PLAIN_MAX: usize = if cfg!(feature = "rsa-keys") {
    MAX_BLOB - 8
} else {
    MAX_SECRET.next_multiple_of(8)
};

/// Binds the implicit-rejection key to its use.
const REJECTION_TAG: &[u8] = b"keyferry implicit rejection 1";

/// An AES-256 key-encryption key, the right one or, after a blob that did not open, a pseudo-random one. Wiped on drop.
pub struct Kek(Secret<32>);

impl Kek {
    /// The place of a KEK before there is one.
    #[must_use]
    pub const fn none() -> Self {
        Self(Secret::zeroed())
    }
}

/// The key did not open. There is one such error, without a reason, on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnwrapFailed;

impl core::fmt::Display for UnwrapFailed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("unwrapping failed")
    }
}

impl core::error::Error for UnwrapFailed {}

/// Whether this build can open the KEK of this suite.
#[must_use]
pub const fn supported(suite: Suite) -> bool {
    match suite {
        Suite::RsaOaepSha256 => cfg!(feature = "rsa-oaep-sha256"),
        Suite::RsaOaepSha1 => cfg!(feature = "rsa-oaep-sha1"),
        Suite::EcdhP256X963Sha256 => cfg!(feature = "ecdh-p256-x963-sha256"),
        Suite::EcdhP256Null => cfg!(feature = "ecdh-p256-null"),
    }
}

/// The suites this build offers with an unwrap key of this kind, strongest first.
#[must_use]
pub fn suites(algorithm: UnwrapAlgorithm) -> heapless::Vec<Suite, { Suite::ALL.len() }> {
    Suite::ALL
        .into_iter()
        .filter(|suite| supported(*suite) && suite.fits(algorithm))
        .collect()
}

/// A device's unwrap key.
#[derive(Clone, Copy)]
pub struct UnwrapKey<'a> {
    /// Its kind.
    pub algorithm: UnwrapAlgorithm,
    /// Its secret bytes: see [`crate::keys`].
    pub secret: &'a [u8],
    /// The fingerprint of its public part, which [`Suite::EcdhP256X963Sha256`] mixes into the KEK.
    pub fingerprint: Fingerprint,
}

/// Opens the KEK of an order, which was wrapped toward `unwrap_key`; `rng` blinds the RSA operation.
///
/// It never fails in a visible way: whatever is wrong with `kek_blob` (length, range, padding, a point off the curve)
/// gives a KEK that nobody without the unwrap key can predict, always the same one for the same blob. The same happens
/// for a suite that is not in this build or does not fit the unwrap key; the caller refuses those before.
pub fn open_kek<R: CryptoRng + ?Sized>(
    suite: Suite,
    unwrap_key: UnwrapKey<'_>,
    kek_blob: &[u8],
    rng: &mut R,
) -> Kek {
    let UnwrapKey {
        algorithm, secret, ..
    } = unwrap_key;
    let mut kek = Kek(Secret::zeroed());
    reject(secret, kek_blob, &mut kek.0);

    let mut opened = Secret::zeroed();
    let usable = suite.fits(algorithm) && secret.len() == secret_length(unwrap_key_kind(algorithm));
    let valid = if usable {
        open_family(suite, unwrap_key, kek_blob, rng, &mut opened)
    } else {
        Choice::from(0)
    };
    for (byte, right) in kek.0.expose_mut().iter_mut().zip(opened.expose()) {
        byte.conditional_assign(right, valid);
    }
    kek
}

/// Opens `kek_blob` into `kek` and says whether it was a valid one.
fn open_family<R: CryptoRng + ?Sized>(
    suite: Suite,
    unwrap_key: UnwrapKey<'_>,
    kek_blob: &[u8],
    rng: &mut R,
    kek: &mut Secret<32>,
) -> Choice {
    let _ = (unwrap_key, kek_blob, &rng, &kek);
    match suite {
        #[cfg(feature = "rsa-oaep-sha256")]
        Suite::RsaOaepSha256 => {
            rsa_oaep::open::<sha2::Sha256, R>(unwrap_key.secret, kek_blob, rng, kek)
        }
        #[cfg(not(feature = "rsa-oaep-sha256"))]
        Suite::RsaOaepSha256 => Choice::from(0),
        #[cfg(feature = "rsa-oaep-sha1")]
        Suite::RsaOaepSha1 => {
            rsa_oaep::open::<sha1::Sha1, R>(unwrap_key.secret, kek_blob, rng, kek)
        }
        #[cfg(not(feature = "rsa-oaep-sha1"))]
        Suite::RsaOaepSha1 => Choice::from(0),
        #[cfg(feature = "ecdh-p256-x963-sha256")]
        Suite::EcdhP256X963Sha256 => ecdh::open_x963(unwrap_key, kek_blob, kek),
        #[cfg(not(feature = "ecdh-p256-x963-sha256"))]
        Suite::EcdhP256X963Sha256 => Choice::from(0),
        #[cfg(feature = "ecdh-p256-null")]
        Suite::EcdhP256Null => ecdh::open_null(unwrap_key.secret, kek_blob, kek),
        #[cfg(not(feature = "ecdh-p256-null"))]
        Suite::EcdhP256Null => Choice::from(0),
    }
}

/// The KEK that stands in for a blob that does not open: HKDF-SHA-256 (RFC 5869) of the unwrap key, with the blob as info.
/// That is HMAC-SHA-256 of the blob under a key which is made from the unwrap key and serves nothing else.
fn reject(unwrap_secret: &[u8], kek_blob: &[u8], kek: &mut Secret<32>) {
    derive(REJECTION_TAG, unwrap_secret, &[kek_blob], kek);
}

/// Opens one key in place: `blob` holds its AES-256-KWP wrapping (RFC 5649); afterwards `blob[..n]` holds its secret
/// bytes (see [`crate::keys`]), where n is the length given back, and the rest is zeros.
///
/// `kind` comes from the signed attributes. An AES key or generic secret must have the length they state; a private key
/// is PKCS#8 DER of that kind. Zero bytes that fill the key up to a multiple of eight are cut off: SoftHSM before 2.7 adds
/// them. The caller has checked [`crate::keys::supported`].
///
/// # Errors
/// [`UnwrapFailed`] for whatever reason; `blob` is then all zeros.
pub fn open_key(kek: &Kek, kind: KeyKind, blob: &mut [u8]) -> Result<usize, UnwrapFailed> {
    let opened = open_front(kek, kind, blob);
    wipe(&mut blob[opened.unwrap_or(0)..]);
    opened.ok_or(UnwrapFailed)
}

/// Puts the secret bytes at the front of `blob`.
fn open_front(kek: &Kek, kind: KeyKind, blob: &mut [u8]) -> Option<usize> {
    let mut buffer = Secret::<PLAIN_MAX>::zeroed();
    let opened = kwp::open(&kek.0, blob, buffer.expose_mut())?;
    let length = secret_length(kind);
    let out = blob.get_mut(..length)?;
    match kind {
        KeyKind::Aes(_) | KeyKind::Secret(_) => copy(&opened, out)?,
        KeyKind::P256 => pkcs8::p256(opened.key()?, out)?,
        #[cfg(feature = "rsa-keys")]
        KeyKind::Rsa(_) => pkcs8::rsa(opened.key()?, out)?,
        #[cfg(not(feature = "rsa-keys"))]
        KeyKind::Rsa(_) => return None,
    }
    Some(length)
}

/// Copies a key that must be as long as `out`, or filled up with zeros to the next multiple of eight. The verdict comes at
/// the end, on all of it at once.
fn copy(opened: &kwp::Opened<'_>, out: &mut [u8]) -> Option<()> {
    let (key, tail) = opened.plain.split_at_checked(out.len())?;
    out.copy_from_slice(key);
    let (exact, filled) = (out.len(), out.len().next_multiple_of(8));
    let stray = tail.iter().fold(0, |all, byte| all | byte);
    let length = opened.length;
    let fits = length.ct_eq(&(exact as u32)) | length.ct_eq(&(filled as u32));
    bool::from(opened.valid & fits & stray.ct_eq(&0)).then_some(())
}

/// The first `length` bytes of an unwrapped key, which must be all of it, or all but the zeros up to a multiple of eight.
fn cut(plain: &[u8], length: usize) -> Option<&[u8]> {
    let (key, tail) = plain.split_at_checked(length)?;
    let exact = tail.is_empty() || plain.len() == length.next_multiple_of(8);
    (exact && tail.iter().all(|byte| *byte == 0)).then_some(key)
}

#[cfg(test)]
mod tests;
