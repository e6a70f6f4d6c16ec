//! What a stored RSA key is used for, blinded and checked against faults.

use ::rsa::{Oaep, Pkcs1v15Sign};
use rand_core::CryptoRng;
use sha2::{Digest as _, Sha256};

use super::private_key;
use crate::keys::UseFailed;
use crate::wipe::wipe;

/// RSASSA-PKCS1-v1_5 with SHA-256 (RFC 8017 §8.2): as many bytes as the modulus has, to the front of `out`.
pub(crate) fn sign_pkcs1_sha256<R: CryptoRng + ?Sized>(
    secret: &[u8],
    message: &[u8],
    rng: &mut R,
    out: &mut [u8],
) -> Result<usize, UseFailed> {
    let key = private_key(secret).map_err(|_| UseFailed::Failed)?;
    let signature = key
        .sign_with_rng(rng, Pkcs1v15Sign::new::<Sha256>(), &Sha256::digest(message))
        .map_err(|_| UseFailed::Failed)?;
    let out = out.get_mut(..signature.len()).ok_or(UseFailed::Failed)?;
    out.copy_from_slice(&signature);
    Ok(signature.len())
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
    let mut message = key
        .decrypt_blinded(rng, Oaep::<Sha256>::new(), sealed)
        .map_err(|_| UseFailed::Failed)?;
    let length = message.len();
    let fits = out
        .get_mut(..length)
        .map(|out| out.copy_from_slice(&message));
    wipe(&mut message);
    fits.map(|()| length).ok_or(UseFailed::Failed)
}
