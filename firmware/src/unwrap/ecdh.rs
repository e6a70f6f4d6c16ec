//! The KEK by ECDH on P-256 (NIST SP 800-56A §5.7.1.2) from an ephemeral key in the HSM.

use p256::elliptic_curve::ecdh::diffie_hellman;
#[cfg(any(feature = "ecdh-p256-null", feature = "ecdh-p256-x963-sha256"))]
use subtle::Choice;
use zeroize::Zeroize as _;

use crate::keys::p256::{public_key, secret_key};
use crate::wipe::Secret;

/// `blob` is the ephemeral key's uncompressed point; the KEK is the shared x coordinate as it is (PKCS#11 `CKD_NULL`).
/// Valid if the point lies on the curve. That is no secret: anyone can tell from `blob` alone.
#[cfg(feature = "ecdh-p256-null")]
pub(super) fn open_null(secret: &[u8], blob: &[u8], kek: &mut Secret<32>) -> Choice {
    agree(secret, blob, kek).map_or(Choice::from(0), |()| Choice::from(1))
}

/// As [`open_null`]'s blob; the KEK is derived from the shared x coordinate with SHA-256 as in ANSI X9.63 (SEC 1 version 2.0 §3.6.1;
/// PKCS#11 `CKD_SHA256_KDF`), suite and unwrap key mixed in. Valid if the point lies on the curve, which is no secret.
#[cfg(feature = "ecdh-p256-x963-sha256")]
pub(super) fn open_x963(key: super::UnwrapKey<'_>, blob: &[u8], kek: &mut Secret<32>) -> Choice {
    let mut shared = Secret::zeroed();
    if agree(key.secret, blob, &mut shared).is_none() {
        return Choice::from(0);
    }
    let info = keyferry_protocol::suite::x963_shared_info(&key.fingerprint);
    // It fails for an empty secret, an empty output, or gigabytes of either.
    let derived =
        ansi_x963_kdf::derive_key_into::<sha2::Sha256>(shared.expose(), &info, kek.expose_mut());
    Choice::from(u8::from(derived.is_ok()))
}

/// Writes the shared x coordinate. The group has a cofactor of one: a point on the curve that is not the one at infinity
/// (which has no uncompressed form) is in the group.
pub(crate) fn agree(secret: &[u8], blob: &[u8], shared: &mut Secret<32>) -> Option<()> {
    let secret = secret_key(secret.try_into().ok()?).ok()?;
    let public = public_key(blob.try_into().ok()?)?;
    let mut scalar = secret.to_nonzero_scalar();
    let agreed = diffie_hellman(scalar, public.as_affine());
    scalar.zeroize();
    shared
        .expose_mut()
        .copy_from_slice(agreed.raw_secret_bytes());
    Some(())
}
