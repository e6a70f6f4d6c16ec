//! What a stored RSA key is used for, blinded and checked against faults.

use alloc::boxed::Box;

use ::rsa::hazmat::rsa_decrypt_and_check;
use ::rsa::traits::PublicKeyParts as _;
use crypto_bigint::{BoxedUint, CtLt as _, CtSelect as _};
use rand_core::CryptoRng;
use sha2::{Digest as _, Sha256};
use subtle::Choice;
use zeroize::Zeroize as _;

use super::{PrivateKey, oaep, private_key};
use crate::keys::UseFailed;
use crate::wipe::wipe;

/// What stands before a SHA-256 digest in the `DigestInfo` of a signature (RFC 8017 §9.2, note 1).
const SHA256_INFO: [u8; 19] = [
    0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05,
    0x00, 0x04, 0x20,
];

/// RSADP (RFC 8017 §5.1.2) on `input`, which is as long as the modulus: as many bytes, to be wiped, and whether the number in `input` was in
/// range. One that is not, which is no secret, is replaced by zero, so that there is one way through here.
///
/// Nothing for a wrong length, or if the check finds a fault in the calculation.
pub(crate) fn apply<R: CryptoRng + ?Sized>(
    key: &PrivateKey,
    input: &[u8],
    rng: &mut R,
) -> Option<(Box<[u8]>, Choice)> {
    if input.len() != key.size() {
        return None;
    }
    let bits = key.n_bits_precision();
    let number = BoxedUint::from_be_slice(input, bits).ok()?;
    let in_range = number.ct_lt(key.n().as_ref());
    let number = BoxedUint::zero_with_precision(bits).ct_select(&number, in_range);
    let mut result = rsa_decrypt_and_check(key, Some(rng), &number).ok()?;
    let bytes = result.to_be_bytes();
    result.zeroize();
    Some((bytes, in_range.into()))
}

/// RSASSA-PKCS1-v1_5 with SHA-256 (RFC 8017 §8.2): as many bytes as the modulus has, to the front of `out`.
pub(crate) fn sign_pkcs1_sha256<R: CryptoRng + ?Sized>(
    secret: &[u8],
    message: &[u8],
    rng: &mut R,
    out: &mut [u8],
) -> Result<usize, UseFailed> {
    let key = private_key(secret).map_err(|_| UseFailed::Failed)?;
    let length = key.size();
    let out = out.get_mut(..length).ok_or(UseFailed::Failed)?;
    let signature = encode_pkcs1(message, out)
        .and_then(|()| apply(&key, out, rng))
        .map(|(signature, _)| out.copy_from_slice(&signature));
    if signature.is_none() {
        wipe(out);
    }
    signature.map(|()| length).ok_or(UseFailed::Failed)
}

/// EMSA-PKCS1-v1_5 (RFC 8017 §9.2): 00 01 ‖ FF … FF ‖ 00 ‖ the `DigestInfo`.
fn encode_pkcs1(message: &[u8], out: &mut [u8]) -> Option<()> {
    let (rest, digest) = out.split_last_chunk_mut::<32>()?;
    let (rest, info) = rest.split_last_chunk_mut::<{ SHA256_INFO.len() }>()?;
    let (front, rest) = rest.split_first_chunk_mut::<2>()?;
    let (end, filler) = rest.split_last_mut()?;
    *front = [0, 1];
    filler.fill(0xff);
    *end = 0;
    *info = SHA256_INFO;
    *digest = Sha256::digest(message).into();
    Some(())
}

/// RSAES-OAEP (RFC 8017 §7.1) with SHA-256 and an empty label. That a message does not open is told: this is for keys of the application,
/// and of proofs that only the authority can ask. The device's own unwrap key has a way of its own, [`crate::unwrap`].
pub(crate) fn decrypt_oaep_sha256<R: CryptoRng + ?Sized>(
    secret: &[u8],
    sealed: &[u8],
    rng: &mut R,
    out: &mut [u8],
) -> Result<usize, UseFailed> {
    let key = private_key(secret).map_err(|_| UseFailed::Failed)?;
    let (mut encoded, in_range) = apply(&key, sealed, rng).ok_or(UseFailed::Failed)?;
    let opened = oaep::decode::<Sha256>(&mut encoded, in_range).and_then(|message| {
        out.get_mut(..message.len())?.copy_from_slice(message);
        Some(message.len())
    });
    wipe(&mut encoded);
    opened.ok_or(UseFailed::Failed)
}
