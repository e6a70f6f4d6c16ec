//! Making an RSA key, in small steps.
//!
//! Key generation takes seconds on a microcontroller and varies sixfold, so it is a state machine: the session calls
//! [`Generation::step`] between looks at the line, and each step tests at most one candidate for primality.

use ::rsa::hazmat::rsa_decrypt_and_check;
use ::rsa::traits::PublicKeyParts as _;
use core::num::NonZeroU32;
use crypto_bigint::{BoxedUint, Limb, NonZero, Resize as _};
use crypto_primes::hazmat::{SetBits, SmallFactorsSieve, random_odd_integer};
use crypto_primes::{Flavor, is_prime};
use rand_core::CryptoRng;
use zeroize::Zeroize as _;

use super::{InvalidKey, RSA_EXPONENT_LENGTH, private_key};
use crate::wipe::wipe;

/// The public exponent of every key generated here, F4. It is prime, which the test for gcd(p − 1, e) = 1 relies on.
pub(super) const PUBLIC_EXPONENT: u32 = 65_537;

/// Bits by which the primes must differ at the top (FIPS 186-5 A.1.3 step 5.4: |p − q| > 2^(nlen/2 − 100)).
const DISTANCE_BITS: u32 = 100;

/// Candidates tested until generation gives up, as a multiple of the expected number. A sound generator gets here once in
/// 10^12 keys; one that repeats itself would otherwise find the same prime for ever.
pub(super) const PATIENCE: u16 = 16;

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
pub(super) fn try_out<R: CryptoRng + ?Sized>(secret: &[u8], rng: &mut R) -> Result<(), InvalidKey> {
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
