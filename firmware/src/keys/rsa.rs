//! RSA keys: the public key, and the way from secret bytes to a usable private key; `generation` makes keys.

use ::rsa::traits::PublicKeyParts as _;
use crypto_bigint::BoxedUint;

use super::{InvalidKey, RSA_EXPONENT_LENGTH, rsa_secret_length};

#[cfg(feature = "rsa-generation")]
mod generation;
mod key;
pub(crate) mod oaep;
mod operations;
#[cfg(feature = "rsa-generation")]
mod sieve;
mod spki;

#[cfg(feature = "rsa-generation")]
pub use generation::{Generation, GenerationFailed, Step};
pub use key::{PrivateKey, private_key};
#[cfg(any(feature = "rsa-oaep-sha256", feature = "rsa-oaep-sha1"))]
pub(crate) use operations::apply;
pub(crate) use operations::{decrypt_oaep_sha256, sign_pkcs1_sha256};
pub(crate) use spki::ALGORITHM;
pub use spki::{SPKI_LENGTH_MAX, public_spki};

/// The smallest public exponent accepted in a key from elsewhere.
const PUBLIC_EXPONENT_MIN: u32 = 3;

/// Secret bytes, taken apart and checked in shape: two different odd primes with their top bit set, half the modulus
/// each, and an odd exponent from 3 up.
struct Parts<'a> {
    e: u32,
    p: &'a [u8],
    q: &'a [u8],
}

impl<'a> Parts<'a> {
    fn read(secret: &'a [u8]) -> Result<Self, InvalidKey> {
        let (e, primes) = secret
            .split_first_chunk::<RSA_EXPONENT_LENGTH>()
            .ok_or(InvalidKey)?;
        let e = u32::from_le_bytes(*e);
        if ![256, 384, 512].contains(&primes.len()) || e < PUBLIC_EXPONENT_MIN || e % 2 == 0 {
            return Err(InvalidKey);
        }
        let (p, q) = primes.split_at(primes.len() / 2);
        // Beyond these checks the bignum crates panic on what they take for granted (an odd modulus, p − 1 ≠ 0).
        for prime in [p, q] {
            if prime[0] & 0x80 == 0 || prime[prime.len() - 1] & 1 == 0 {
                return Err(InvalidKey);
            }
        }
        if p == q {
            return Err(InvalidKey);
        }
        Ok(Self { e, p, q })
    }

    /// The primes as numbers; zeroize them after use.
    fn primes(&self) -> Result<[BoxedUint; 2], InvalidKey> {
        let number = |prime: &[u8]| {
            BoxedUint::from_be_slice(prime, prime.len() as u32 * 8).map_err(|_| InvalidKey)
        };
        Ok([number(self.p)?, number(self.q)?])
    }
}

/// Writes the secret bytes of a key from elsewhere into `secret`, after checking that they make a usable key whose
/// modulus is `n`. All numbers are big-endian without leading zeros.
///
/// # Errors
/// [`InvalidKey`] if they do not, or if `secret` has not the length that belongs to a modulus as long as `n`.
pub(crate) fn import(
    n: &[u8],
    e: &[u8],
    p: &[u8],
    q: &[u8],
    secret: &mut [u8],
) -> Result<(), InvalidKey> {
    if secret.len() != rsa_secret_length(n.len()) || e.len() > RSA_EXPONENT_LENGTH {
        return Err(InvalidKey);
    }
    let (exponent, primes) = secret.split_at_mut(RSA_EXPONENT_LENGTH);
    exponent.fill(0);
    for (out, byte) in exponent.iter_mut().zip(e.iter().rev()) {
        *out = *byte;
    }
    let (first, second) = primes.split_at_mut(n.len() / 2);
    if first.len() != p.len() || second.len() != q.len() {
        return Err(InvalidKey);
    }
    first.copy_from_slice(p);
    second.copy_from_slice(q);
    let key = private_key(secret)?;
    if *key.n_bytes() == *n {
        Ok(())
    } else {
        Err(InvalidKey)
    }
}

#[cfg(all(test, feature = "rsa-generation"))]
mod tests;
