//! The KEK under RSAES-OAEP (RFC 8017 §7.1), with one hash for label and mask, and an empty label.
//!
//! The private-key operation is the `rsa` crate's, blinded and checked. Taking the padding off is done here, because the
//! crate's way returns early where the padding is wrong, and takes the message's length from a secret. Here both are
//! fixed: a KEK has 32 bytes, so every byte before it is known beforehand, and one comparison without branches tells
//! right from wrong. Nothing depends on where the padding is wrong, nor on whether it is.

use alloc::boxed::Box;

use crypto_bigint::{BoxedUint, CtLt as _, CtSelect as _};
use rand_core::CryptoRng;
use rsa::RsaPrivateKey;
use rsa::hazmat::rsa_decrypt_and_check;
use rsa::traits::PublicKeyParts as _;
use sha2::Digest;
use subtle::{Choice, ConstantTimeEq as _};
use zeroize::Zeroize as _;

use crate::keys::rsa::private_key;
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
    let Some((mut encoded, in_range)) = decrypt(&key, blob, rng) else {
        return Choice::from(0);
    };
    let valid = decode::<D>(&mut encoded, kek).unwrap_or(Choice::from(0));
    wipe(&mut encoded);
    valid & in_range
}

/// RSADP (RFC 8017 §5.1.2) on `blob`: the encoded message, as long as the modulus, and whether the number in `blob` was in
/// range. One that is not, which is no secret, is replaced by zero, so that there is one way through here.
///
/// Nothing for a wrong length, or if the check finds a fault in the calculation.
fn decrypt<R: CryptoRng + ?Sized>(
    key: &RsaPrivateKey,
    blob: &[u8],
    rng: &mut R,
) -> Option<(Box<[u8]>, Choice)> {
    if blob.len() != key.size() {
        return None;
    }
    let bits = key.n_bits_precision();
    let number = BoxedUint::from_be_slice(blob, bits).ok()?;
    let in_range = number.ct_lt(key.n().as_ref());
    let number = BoxedUint::zero_with_precision(bits).ct_select(&number, in_range);
    let mut message = rsa_decrypt_and_check(key, Some(rng), &number).ok()?;
    let encoded = message.to_be_bytes();
    message.zeroize();
    Some((encoded, in_range.into()))
}

/// EME-OAEP decoding (RFC 8017 §7.1.2 step 3) of a message that must have 32 bytes: EM = 00 ‖ maskedSeed ‖ maskedDB, where
/// DB = lHash ‖ 00 … 00 ‖ 01 ‖ M.
///
/// Nothing if `encoded` is too short for that, which no modulus allowed here is.
fn decode<D: Digest>(encoded: &mut [u8], kek: &mut Secret<32>) -> Option<Choice> {
    let (first, masked) = encoded.split_first_mut()?;
    let (seed, data) = masked.split_at_mut_checked(<D as Digest>::output_size())?;
    mask::<D>(data, seed);
    mask::<D>(seed, data);

    let (padding, message) = data.split_last_chunk::<32>()?;
    let (separator, padding) = padding.split_last()?;
    let (label_hash, filler) = padding.split_at_checked(<D as Digest>::output_size())?;
    let stray = filler.iter().fold(0, |all, byte| all | byte);
    kek.expose_mut().copy_from_slice(message);
    Some(
        first.ct_eq(&0)
            & label_hash.ct_eq(D::digest([]).as_slice())
            & stray.ct_eq(&0)
            & separator.ct_eq(&1),
    )
}

/// Removes the mask MGF1 (RFC 8017 B.2.1) of `data` from `seed`, or of `seed` from `data`.
fn mask<D: Digest>(seed: &[u8], data: &mut [u8]) {
    for (counter, chunk) in (0_u32..).zip(data.chunks_mut(<D as Digest>::output_size())) {
        let mask = D::new()
            .chain_update(seed)
            .chain_update(counter.to_be_bytes())
            .finalize();
        for (byte, mask) in chunk.iter_mut().zip(mask) {
            *byte ^= mask;
        }
    }
}
