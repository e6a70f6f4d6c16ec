//! P-256 keys: generation, public key, ECDSA with SHA-256 (FIPS 186-5).
//!
//! Signatures are hedged: the nonce comes from RFC 6979 with 32 random bytes mixed in, so that neither a bad generator
//! nor a fault repeated on the same message gives the key away.

use ::p256::ecdsa::VerifyingKey;
use ::p256::ecdsa::signature::Verifier as _;
use ::p256::elliptic_curve::point::AffineCoordinates as _;
use ::p256::elliptic_curve::sec1::ToSec1Point as _;
use ::p256::{AffinePoint, FieldBytes, NistP256, PublicKey, SecretKey};
use keyferry_protocol::identity::{Signature, p256_spki};
use keyferry_protocol::suite::UnwrapAlgorithm;
use rand_core::CryptoRng;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroize as _;

use super::InvalidKey;
use crate::wipe::{Secret, wipe};

/// Length in bytes of a scalar.
pub const SECRET_LENGTH: usize = 32;

/// Length of an uncompressed point, and the first byte of one (SEC 1 §2.3.3).
const POINT_LENGTH: usize = UnwrapAlgorithm::P256.kek_blob_length();
const UNCOMPRESSED: u8 = 0x04;

const _: () = assert!(p256_spki::PREFIX.len() + POINT_LENGTH == p256_spki::LENGTH);

/// Fills `secret` with a random scalar in the range 1 to n − 1, by trial (FIPS 186-5 A.2.2).
pub fn generate<R: CryptoRng + ?Sized>(rng: &mut R, secret: &mut Secret<SECRET_LENGTH>) {
    loop {
        rng.fill_bytes(secret.expose_mut());
        // The odds of another round are below 2^-32.
        if is_valid(secret.expose()) {
            return;
        }
    }
}

/// Whether `secret` is a scalar in the range 1 to n − 1.
#[must_use]
pub fn is_valid(secret: &[u8; SECRET_LENGTH]) -> bool {
    secret_key(secret).is_ok()
}

/// The public key as `SubjectPublicKeyInfo` in DER (RFC 5480), 91 bytes.
///
/// # Errors
/// [`InvalidKey`] if `secret` is zero or not below the group's order.
pub fn public_spki(secret: &[u8; SECRET_LENGTH]) -> Result<[u8; p256_spki::LENGTH], InvalidKey> {
    let point = secret_key(secret)?.public_key().to_sec1_point(false);
    let point = point.as_bytes().try_into().map_err(|_| InvalidKey)?;
    Ok(p256_spki::from_point(point))
}

/// Signs `message` with ECDSA over its SHA-256 digest.
///
/// # Errors
/// [`InvalidKey`] if `secret` is zero or not below the group's order.
pub fn sign<R: CryptoRng + ?Sized>(
    secret: &[u8; SECRET_LENGTH],
    message: &[u8],
    rng: &mut R,
) -> Result<Signature, InvalidKey> {
    let key = secret_key(secret)?;
    let mut fresh = [0; 32];
    rng.fill_bytes(&mut fresh);
    // Not through `SigningKey`: that computes the public key each time, which doubles the cost.
    let mut scalar = key.to_nonzero_scalar();
    let (signature, _) = ecdsa::hazmat::sign_prehashed_rfc6979::<NistP256, Sha256>(
        &scalar,
        &Sha256::digest(message),
        &fresh,
    );
    scalar.zeroize();
    wipe(&mut fresh);
    Ok(Signature::from_bytes(&signature.to_bytes().into()))
}

/// Whether `signature` is a signature over `message` by the key with this `SubjectPublicKeyInfo`. Anything that is not a
/// P-256 key on the curve, or not a signature in range, is a no.
#[must_use]
pub fn verify(spki: &[u8], message: &[u8], signature: &Signature) -> bool {
    let key = p256_spki::to_point(spki)
        .and_then(public_key)
        .and_then(|key| VerifyingKey::from_affine(*key.as_affine()).ok());
    let (Some(key), Ok(signature)) = (
        key,
        ::p256::ecdsa::Signature::from_slice(&signature.to_bytes()),
    ) else {
        return false;
    };
    key.verify(message, &signature).is_ok()
}

/// The public key with this uncompressed point (SEC 1 §2.3.4), if it is one. Not through the crate's general decoder, which brings along
/// what decompressing takes.
pub(crate) fn public_key(point: &[u8; POINT_LENGTH]) -> Option<PublicKey> {
    let (&[UNCOMPRESSED], coordinates) = point.split_first_chunk()? else {
        return None;
    };
    let (x, rest) = coordinates.split_first_chunk::<32>()?;
    let y = rest.first_chunk::<32>()?;
    let point = AffinePoint::from_coordinates(&(*x).into(), &(*y).into());
    PublicKey::from_affine(point.into_option()?).ok()
}

/// The scalar as the type that computes with it; wiped on drop.
pub(crate) fn secret_key(secret: &[u8; SECRET_LENGTH]) -> Result<SecretKey, InvalidKey> {
    let bytes: &FieldBytes = secret.into();
    SecretKey::from_bytes(bytes).map_err(|_| InvalidKey)
}

#[cfg(test)]
mod tests;
