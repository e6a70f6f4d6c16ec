//! RSA keys: the public key, and the way from secret bytes to a usable private key; `generation` makes keys.

use ::rsa::RsaPrivateKey;
use ::rsa::traits::{PrivateKeyParts as _, PublicKeyParts as _};
use crypto_bigint::{BoxedUint, ConcatenatingMul as _, Limb, NonZero, Odd, U64};
use zeroize::Zeroize as _;

use super::{InvalidKey, RSA_EXPONENT_LENGTH, rsa_secret_length};

#[cfg(feature = "rsa-generation")]
mod generation;
mod operations;
#[cfg(feature = "rsa-generation")]
mod sieve;
mod spki;

#[cfg(feature = "rsa-generation")]
pub use generation::{Generation, GenerationFailed, Step};
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

/// The product of two primes of the same size, where it is twice as long in bits.
fn modulus(primes: &[BoxedUint; 2]) -> Result<BoxedUint, InvalidKey> {
    let n = primes[0].concatenating_mul(&primes[1]);
    // Two numbers with their top bit set can still give a product one bit short.
    if n.bits_vartime() == n.bits_precision() {
        Ok(n)
    } else {
        Err(InvalidKey)
    }
}

/// d = e^-1 mod φ(n), where φ(n) = (p − 1)(q − 1).
///
/// e is short, so the inverse is sought the other way around: with k = −φ^-1 mod e, which fits a machine word,
/// d = (1 + k·φ) / e. That spares an inversion modulo a number as long as n, a tenth of a decryption. All steps take the
/// same time for the same e and length. FIPS 186-5 asks for the inverse modulo lcm(p − 1, q − 1) instead, but d serves
/// here only to compute d mod (p − 1) and d mod (q − 1), and those are the same.
fn private_exponent(primes: &[BoxedUint; 2], e: u32) -> Result<BoxedUint, InvalidKey> {
    let one = BoxedUint::one();
    let mut below = primes.each_ref().map(|prime| prime.wrapping_sub(&one));
    let mut phi = below[0].concatenating_mul(&below[1]);
    below.zeroize();

    let limb = NonZero::new(Limb::from(e))
        .into_option()
        .ok_or(InvalidKey)?;
    let odd = Odd::new(U64::from(e)).into_option().ok_or(InvalidKey)?;
    let inverse = U64::from(phi.rem_limb(limb)).invert_odd_mod(&odd);
    let Some(inverse) = inverse.into_option() else {
        phi.zeroize();
        return Err(InvalidKey);
    };
    let mut k = BoxedUint::from(odd.get().wrapping_sub(&inverse));
    let mut multiple = phi.concatenating_mul(&k).wrapping_add(&one);
    let (d, _) = multiple.div_rem_limb(limb);
    for secret in [&mut phi, &mut k, &mut multiple] {
        secret.zeroize();
    }
    Ok(d)
}

/// The private key, with the values for CRT computed. Whether p and q are prime is not tested.
///
/// # Errors
/// [`InvalidKey`] if the bytes are no key: wrong length, primes of the wrong size or equal, or an exponent that has no
/// inverse.
pub fn private_key(secret: &[u8]) -> Result<RsaPrivateKey, InvalidKey> {
    let parts = Parts::read(secret)?;
    let primes = parts.primes()?;
    let n = modulus(&primes)?;
    let d = private_exponent(&primes, parts.e)?;
    // Checks n = p·q and e·d = 1 modulo p − 1 and q − 1.
    let key = RsaPrivateKey::from_components(n, BoxedUint::from(parts.e), d, primes.into())
        .map_err(|_| InvalidKey)?;
    // Without the values for CRT (p and q not coprime) it would quietly take the slow way.
    if key.qinv().is_some() {
        Ok(key)
    } else {
        Err(InvalidKey)
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
