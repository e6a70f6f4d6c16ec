//! RSA keys: generation in small steps, the public key, and the way from secret bytes to a usable private key.
//!
//! Key generation takes seconds on a microcontroller and varies sixfold, so it is a state machine: the session calls
//! [`Generation::step`] between looks at the line, and each step tests at most one candidate for primality.

use ::rsa::RsaPrivateKey;
use ::rsa::hazmat::rsa_decrypt_and_check;
use ::rsa::traits::{PrivateKeyParts as _, PublicKeyParts as _};
use core::num::NonZeroU32;
use crypto_bigint::{BoxedUint, ConcatenatingMul as _, Limb, NonZero, Odd, Resize as _, U64};
use crypto_primes::hazmat::{SetBits, SmallFactorsSieve, random_odd_integer};
use crypto_primes::{Flavor, is_prime};
use rand_core::CryptoRng;
use zeroize::Zeroize as _;

use super::{InvalidKey, RSA_EXPONENT_LENGTH, rsa_secret_length};
use crate::wipe::wipe;

mod operations;
mod spki;

pub(crate) use operations::{decrypt_oaep_sha256, sign_pkcs1_sha256};
pub(crate) use spki::ALGORITHM;
pub use spki::{SPKI_LENGTH_MAX, public_spki};

/// The public exponent of every key generated here, F4. It is prime, which the test for gcd(p − 1, e) = 1 relies on.
const PUBLIC_EXPONENT: u32 = 65_537;

/// The smallest public exponent accepted in a key from elsewhere.
const PUBLIC_EXPONENT_MIN: u32 = 3;

/// Bits by which the primes must differ at the top (FIPS 186-5 A.1.3 step 5.4: |p − q| > 2^(nlen/2 − 100)).
const DISTANCE_BITS: u32 = 100;

/// Candidates tested until generation gives up, as a multiple of the expected number. A sound generator gets here once in
/// 10^12 keys; one that repeats itself would otherwise find the same prime for ever.
const PATIENCE: u16 = 16;

/// What one step of a generation came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Not there yet: step again.
    Searching,
    /// Both primes are found: call [`Generation::finish`].
    Found,
}

/// No key came of it: the random generator repeats itself, or the finished key failed its check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GenerationFailed;

impl core::fmt::Display for GenerationFailed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("RSA key generation failed")
    }
}

impl core::error::Error for GenerationFailed {}

/// An RSA key generation under way: probable primes p and q with their top two bits set, from an incremental search that
/// starts at a random odd number (FIPS 186-5 A.1.3; Baillie-PSW instead of many Miller-Rabin rounds).
pub struct Generation {
    prime_bits: u32,
    sieve: Option<SmallFactorsSieve<BoxedUint>>,
    p: Option<BoxedUint>,
    q: Option<BoxedUint>,
    tested: u16,
}

impl Generation {
    /// Begins a generation of a key with a modulus of `modulus` bytes: 256, 384 or 512.
    ///
    /// # Errors
    /// [`GenerationFailed`] for any other length.
    pub const fn new(modulus: usize) -> Result<Self, GenerationFailed> {
        let prime_bits = match modulus {
            256 => 1024,
            384 => 1536,
            512 => 2048,
            _ => return Err(GenerationFailed),
        };
        Ok(Self {
            prime_bits,
            sieve: None,
            p: None,
            q: None,
            tested: 0,
        })
    }

    /// Candidates tested so far.
    #[must_use]
    pub const fn tested(&self) -> u16 {
        self.tested
    }

    /// Candidates that will be tested on average. [`Self::tested`] may exceed it several times over.
    #[must_use]
    pub const fn expected(&self) -> u16 {
        // One number in ln(2^bits) is prime. The sieve takes out the multiples of all primes up to 17 863, and
        // leaves e^-γ / ln(17 863), one number in 17.4 (Mertens). So a candidate is prime with a probability of
        // 17.4 / (0.693 · bits), and two primes take 0.0796 · bits of them.
        (self.prime_bits * 80 / 1000) as u16
    }

    /// Tests at most one candidate.
    ///
    /// # Errors
    /// [`GenerationFailed`] after an impossible number of candidates: the random generator is broken.
    pub fn step<R: CryptoRng + ?Sized>(&mut self, rng: &mut R) -> Result<Step, GenerationFailed> {
        if self.q.is_some() {
            return Ok(Step::Found);
        }
        let Some(candidate) = self.candidate(rng)? else {
            return Ok(Step::Searching);
        };
        self.tested += 1;
        if self.tested > self.expected() * PATIENCE {
            return Err(GenerationFailed);
        }
        if is_unit_minus_one(&candidate) && is_prime(Flavor::Any, &candidate) {
            self.sieve = None;
            match &self.p {
                None => self.p = Some(candidate),
                Some(p) if far_apart(p, &candidate, self.prime_bits - DISTANCE_BITS) => {
                    self.q = Some(candidate);
                    return Ok(Step::Found);
                }
                // Too near to p: search for q from another start.
                Some(_) => {}
            }
        }
        Ok(Step::Searching)
    }

    /// The next number without small factors. `None` at the end of the range, where the search starts anew.
    fn candidate<R: CryptoRng + ?Sized>(
        &mut self,
        rng: &mut R,
    ) -> Result<Option<BoxedUint>, GenerationFailed> {
        let bits = NonZeroU32::new(self.prime_bits).ok_or(GenerationFailed)?;
        let sieve = match &mut self.sieve {
            Some(sieve) => sieve,
            None => {
                let start = random_odd_integer::<BoxedUint, R>(rng, bits, SetBits::TwoMsb)
                    .map_err(|_| GenerationFailed)?;
                let sieve = SmallFactorsSieve::new(start.get(), bits, false)
                    .map_err(|_| GenerationFailed)?;
                self.sieve.insert(sieve)
            }
        };
        let candidate = sieve.next();
        if candidate.is_none() {
            self.sieve = None;
        }
        Ok(candidate)
    }

    /// Writes the secret bytes into `secret`, which must have exactly their length, and tries the key out with one blinded
    /// private-key operation and its inverse: a composite p or q, or a fault on the way, would show (FIPS 140-3's
    /// pairwise consistency test).
    ///
    /// # Errors
    /// [`GenerationFailed`] if the search is not over, `secret` has the wrong length, or the key does not work; `secret`
    /// is then all zeros.
    pub fn finish<R: CryptoRng + ?Sized>(
        self,
        rng: &mut R,
        secret: &mut [u8],
    ) -> Result<(), GenerationFailed> {
        self.write(secret)
            .and_then(|()| try_out(secret, rng))
            .map_err(|InvalidKey| {
                wipe(secret);
                GenerationFailed
            })
    }

    fn write(&self, secret: &mut [u8]) -> Result<(), InvalidKey> {
        match (&self.p, &self.q) {
            (Some(p), Some(q)) => join(PUBLIC_EXPONENT, p, q, secret),
            (Some(_) | None, _) => Err(InvalidKey),
        }
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        self.p.zeroize();
        self.q.zeroize();
    }
}

/// Whether gcd(candidate − 1, e) = 1, where e is prime.
fn is_unit_minus_one(candidate: &BoxedUint) -> bool {
    let exponent = NonZero::new(Limb::from(PUBLIC_EXPONENT)).into_option();
    exponent.is_some_and(|exponent| candidate.rem_limb(exponent) != Limb::ONE)
}

/// Whether |p − q| ≥ 2^bits.
fn far_apart(p: &BoxedUint, q: &BoxedUint, bits: u32) -> bool {
    let mut distance = if p > q {
        p.wrapping_sub(q)
    } else {
        q.wrapping_sub(p)
    };
    let apart = distance.bits() > bits;
    distance.zeroize();
    apart
}

/// Takes a root of 2 with the private key and checks it with the public key.
fn try_out<R: CryptoRng + ?Sized>(secret: &[u8], rng: &mut R) -> Result<(), InvalidKey> {
    let key = private_key(secret)?;
    let two = BoxedUint::from(2u32).resize_unchecked(key.n_bits_precision());
    rsa_decrypt_and_check(&key, Some(rng), &two)
        .map(drop)
        .map_err(|_| InvalidKey)
}

/// Writes e ‖ p ‖ q.
fn join(e: u32, p: &BoxedUint, q: &BoxedUint, secret: &mut [u8]) -> Result<(), InvalidKey> {
    let (exponent, primes) = secret
        .split_first_chunk_mut::<RSA_EXPONENT_LENGTH>()
        .ok_or(InvalidKey)?;
    let (first, second) = primes.split_at_mut(primes.len() / 2);
    *exponent = e.to_le_bytes();
    for (prime, out) in [(p, first), (q, second)] {
        let mut bytes = prime.to_be_bytes();
        let fits = bytes.len() == out.len();
        if fits {
            out.copy_from_slice(&bytes);
        }
        wipe(&mut bytes);
        if !fits {
            return Err(InvalidKey);
        }
    }
    Ok(())
}

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

#[cfg(test)]
mod tests;
