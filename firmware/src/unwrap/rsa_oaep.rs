//! The KEK under RSAES-OAEP (RFC 8017 §7.1), with one hash for label and mask, and an empty label.
//!
//! The private-key operation is the `rsa` crate's, blinded and checked. Taking the padding off is done here, because the
//! crate's way returns early where the padding is wrong, and takes the message's length from a secret. Here both are
//! fixed: a KEK has 32 bytes, so every byte before it is known beforehand, and one comparison without branches tells
//! right from wrong. Nothing depends on where the padding is wrong, nor on whether it is.

use rand_core::CryptoRng;
use sha2::Digest;
use subtle::{Choice, ConstantTimeEq as _};

use crate::keys::rsa::{apply, oaep, private_key};
use crate::wipe::{Secret, wipe};

/// Decrypts `blob`, blinded by `rng` and checked against faults, into `kek`. Valid if the padding is right and exactly
/// 32 bytes are inside. Only a `blob` of a wrong length costs less, which anyone can see.
pub(super) fn open<D: Digest, R: CryptoRng + ?Sized>(
    secret: &[u8],
    blob: &[u8],
    rng: &mut R,
    kek: &mut Secret<32>,
) -> Choice {
    let Ok(key) = private_key(secret) else {
        return Choice::from(0);
    };
    let Some((mut encoded, in_range)) = apply(&key, blob, rng) else {
        return Choice::from(0);
    };
    let valid = decode::<D>(&mut encoded, kek).unwrap_or(Choice::from(0));
    wipe(&mut encoded);
    valid & in_range
}

/// EME-OAEP decoding of a message that must have 32 bytes.
fn decode<D: Digest>(encoded: &mut [u8], kek: &mut Secret<32>) -> Option<Choice> {
    let unmasked = oaep::unmask::<D>(encoded)?;
    let (padding, message) = unmasked.padded.split_last_chunk::<32>()?;
    let (separator, filler) = padding.split_last()?;
    let stray = filler.iter().fold(0, |all, byte| all | byte);
    kek.expose_mut().copy_from_slice(message);
    Some(unmasked.begins_right::<D>() & stray.ct_eq(&0) & separator.ct_eq(&1))
}
