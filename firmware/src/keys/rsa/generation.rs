//! Making an RSA key, in small steps.
//!
//! Key generation takes seconds on a microcontroller and varies sixfold, so it is a state machine: the session calls
//! [`Generation::step`] between looks at the line, and each step sieves, or does one round of Miller-Rabin.

use ::rsa::hazmat::rsa_decrypt_and_check;
use ::rsa::traits::PublicKeyParts as _;
use core::num::NonZeroU32;
use crypto_bigint::{BoxedUint, Limb, NonZero, Odd, Resize as _};
use crypto_primes::hazmat::{MillerRabin, SetBits, random_odd_integer};
use rand_core::CryptoRng;
use zeroize::Zeroize as _;

use super::sieve::Sieve;
use super::{InvalidKey, RSA_EXPONENT_LENGTH, private_key};
use crate::wipe::wipe;

/// The public exponent of every key generated here, F4. It is prime, which the test for gcd(p − 1, e) = 1 relies on.
pub(super) const PUBLIC_EXPONENT: u32 = 65_537;

/// Bits by which the primes must differ at the top (FIPS 186-5 A.1.3 step 5.4: |p − q| > 2^(nlen/2 − 100)).
const DISTANCE_BITS: u32 = 100;

/// Candidates tested until generation gives up, as a multiple of the expected number. A sound generator gets here once in
/// 10^12 keys; one that repeats itself would otherwise find the same prime for ever.
pub(super) const PATIENCE: u16 = 16;

/// Rounds of Miller-Rabin that a prime passes: after so many, one of 1024 bits is composite with a probability below 2^-128, and a
/// longer one with a lower (FIPS 186-5 C.1).
pub(super) const ROUNDS: usize = 6;

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
/// starts at a random odd number (FIPS 186-5 A.1.3).
pub struct Generation {
    prime_bits: u32,
    sieve: Option<Sieve>,
    candidate: Option<Candidate>,
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
            candidate: None,
            p: None,
            q: None,
            tested: 0,
        })
    }

    /// Whether both primes are there.
    #[must_use]
    pub const fn is_found(&self) -> bool {
        self.q.is_some()
    }

    /// Candidates tested so far.
    #[must_use]
    pub const fn tested(&self) -> u16 {
        self.tested
    }

    /// Candidates that will be tested on average. [`Self::tested`] may exceed it several times over.
    #[must_use]
    pub const fn expected(&self) -> u16 {
        // One number in ln(2^bits) is prime. The sieve takes out the multiples of all primes below 2^16, and leaves
        // e^-γ / ln(2^16), one number in 19.75 (Mertens). So a candidate is prime with a probability of
        // 19.75 / (0.693 · bits), and two primes take 0.0702 · bits of them.
        (self.prime_bits * 70 / 1000) as u16
    }

    /// Sieves, or does one round of Miller-Rabin.
    ///
    /// # Errors
    /// [`GenerationFailed`] after an impossible number of candidates: the random generator is broken.
    pub fn step<R: CryptoRng + ?Sized>(&mut self, rng: &mut R) -> Result<Step, GenerationFailed> {
        if self.is_found() {
            return Ok(Step::Found);
        }
        let Some(candidate) = &mut self.candidate else {
            self.candidate = self.next_candidate(rng)?;
            return Ok(Step::Searching);
        };
        if candidate.test.test_random_base(rng).is_composite() {
            self.candidate = None;
            return Ok(Step::Searching);
        }
        candidate.passed += 1;
        if candidate.passed < ROUNDS {
            return Ok(Step::Searching);
        }
        let prime = self
            .candidate
            .take()
            .map(|mut candidate| core::mem::take(&mut candidate.number));
        self.sieve = None;
        match (&self.p, prime) {
            (None, prime) => self.p = prime,
            (Some(p), Some(prime)) if far_apart(p, &prime, self.prime_bits - DISTANCE_BITS) => {
                self.q = Some(prime);
                return Ok(Step::Found);
            }
            // Too near to p: search for q from another start.
            (Some(_), _) => {}
        }
        Ok(Step::Searching)
    }

    /// The next number without small factors. `None` where there was none to take one from yet, or is none any more.
    fn next_candidate<R: CryptoRng + ?Sized>(
        &mut self,
        rng: &mut R,
    ) -> Result<Option<Candidate>, GenerationFailed> {
        let Some(sieve) = &mut self.sieve else {
            let bits = NonZeroU32::new(self.prime_bits).ok_or(GenerationFailed)?;
            let start = random_odd_integer::<BoxedUint, R>(rng, bits, SetBits::TwoMsb)
                .map_err(|_| GenerationFailed)?;
            self.sieve = Some(Sieve::new(start.get()));
            return Ok(None);
        };
        let Some(number) = sieve.next() else {
            self.sieve = None;
            return Ok(None);
        };
        self.tested += 1;
        if self.tested > self.expected() * PATIENCE {
            return Err(GenerationFailed);
        }
        if !is_unit_minus_one(&number) {
            return Ok(None);
        }
        let odd = Odd::new(number.clone()).into_option();
        Ok(odd.map(|odd| Candidate {
            number,
            test: MillerRabin::new(odd),
            passed: 0,
        }))
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

/// A number that may be prime. What the test keeps of it is in the heap, which clears what it takes back.
struct Candidate {
    number: BoxedUint,
    test: MillerRabin<BoxedUint>,
    /// Rounds passed.
    passed: usize,
}

impl Drop for Candidate {
    fn drop(&mut self) {
        self.number.zeroize();
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
