use super::generation::{PATIENCE, PUBLIC_EXPONENT, ROUNDS, try_out};
use super::*;
use crate::rng::Drbg;
use crate::wipe::Secret;
use crypto_bigint::{Limb, NonZero};
use std::vec;
use std::vec::Vec;

/// Seeds with which a generation ends early.
const LUCKY: [(usize, u32); 3] = [(256, 8), (384, 2), (512, 18)];

fn drbg(boot: u32) -> Drbg {
    Drbg::new(&Secret::zeroed(), boot, &[0; 32])
}

fn generated(modulus: usize, seed: u32) -> Vec<u8> {
    let mut rng = drbg(seed);
    let mut generation = Generation::new(modulus).unwrap();
    while generation.step(&mut rng).unwrap() == Step::Searching {}
    let mut secret = vec![0; rsa_secret_length(modulus)];
    generation.finish(&mut rng, &mut secret).unwrap();
    secret
}

#[test]
fn generated_keys_have_the_promised_form() {
    for (modulus, seed) in LUCKY {
        let secret = generated(modulus, seed);
        assert_eq!(secret[..4], PUBLIC_EXPONENT.to_le_bytes());
        let (p, q) = secret[4..].split_at(modulus / 2);
        assert!(p[0] >= 0xc0 && q[0] >= 0xc0);
        assert_ne!(p[..12], q[..12], "|p - q| is too small");

        let mut spki = [0; SPKI_LENGTH_MAX];
        let length = public_spki(&secret, &mut spki).unwrap();
        assert_eq!(length, modulus + 38);
        assert_eq!(
            public_spki(&secret, &mut spki[..length - 1]),
            Err(InvalidKey)
        );
    }
}

#[test]
fn primes_pass_as_many_rounds_as_they_must() {
    use crypto_primes::hazmat::minimum_mr_iterations;
    for bits in [1024, 1536, 2048] {
        let needed = minimum_mr_iterations(bits, 128).unwrap();
        assert!(needed <= ROUNDS, "{bits} bits: {needed}");
    }
    assert_eq!(minimum_mr_iterations(1024, 128), Some(ROUNDS));
}

#[test]
fn generation_is_deterministic_and_seeds_differ() {
    assert!(generated(256, 8) == generated(256, 8));
    assert!(generated(256, 8) != generated(256, 37));
}

#[test]
fn a_step_tests_one_candidate_at_most_and_finishing_early_fails() {
    let mut rng = drbg(8);
    let mut generation = Generation::new(256).unwrap();
    let mut steps = 0;
    while generation.step(&mut rng).unwrap() == Step::Searching {
        steps += 1;
        assert!(generation.tested() <= steps);
    }
    assert_eq!(generation.step(&mut rng), Ok(Step::Found));

    let mut secret = [0xee; 260];
    let early = Generation::new(256).unwrap();
    assert_eq!(early.finish(&mut rng, &mut secret), Err(GenerationFailed));
    assert!(secret == [0; 260]);
    assert!(Generation::new(128).is_err());

    let mut short = [0xee; 256];
    assert_eq!(
        generation.finish(&mut rng, &mut short),
        Err(GenerationFailed)
    );
    assert!(short == [0; 256]);
}

/// A generator that is stuck: it starts anew from the same seed each time it is asked.
struct Stuck;

impl rand_core::TryRng for Stuck {
    type Error = core::convert::Infallible;
    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        drbg(37).try_next_u32()
    }
    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        drbg(37).try_next_u64()
    }
    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Self::Error> {
        drbg(37).try_fill_bytes(out)
    }
}

impl rand_core::TryCryptoRng for Stuck {}

#[test]
fn a_generator_that_repeats_itself_ends_in_an_error() {
    let mut generation = Generation::new(256).unwrap();
    let failed = loop {
        match generation.step(&mut Stuck) {
            Ok(Step::Searching) => {}
            Ok(Step::Found) => panic!("p = q"),
            Err(failed) => break failed,
        }
    };
    assert_eq!(failed, GenerationFailed);
    assert_eq!(generation.tested(), generation.expected() * PATIENCE + 1);
}

#[test]
fn bytes_that_are_no_key_are_refused_without_a_panic() {
    let good = generated(256, 8);
    assert!(private_key(&good).is_ok());
    let (p, q) = good[4..].split_at(128);

    let exponent = |e: u32| [&e.to_le_bytes()[..], p, q].concat();
    for e in [0, 1, 2, 4, 65_536] {
        assert_eq!(private_key(&exponent(e)).err(), Some(InvalidKey), "{e}");
    }
    let edited = |at: usize, byte: u8| {
        let mut secret = good.clone();
        secret[at] = byte;
        secret
    };
    for (at, byte) in [(4, 0x7f), (131, 0), (132, 0x7f), (259, 2)] {
        assert_eq!(
            private_key(&edited(at, byte)).err(),
            Some(InvalidKey),
            "{at}"
        );
    }
    assert!(private_key(&[&good[..4], p, p].concat()).is_err());
    // Both top bits set, and yet the product is a bit short.
    let mut small = vec![0; 256];
    small[0] = 0x80;
    small[127] = 1;
    small[128] = 0x80;
    small[255] = 3;
    let small = [&good[..4], &small].concat();
    assert!(private_key(&small).is_err());
    assert!(public_spki(&small, &mut [0; SPKI_LENGTH_MAX]).is_err());
    for length in 0..good.len() {
        assert!(private_key(&good[..length]).is_err());
        assert!(public_spki(&good[..length], &mut [0; SPKI_LENGTH_MAX]).is_err());
    }
    // p and q may be anything odd: that must not panic either.
    for at in (4..good.len()).step_by(7) {
        for byte in [0xc1, 0xff] {
            let _ = private_key(&edited(at, byte));
        }
    }
}

#[test]
fn exponents_without_inverse_are_refused_and_others_work() {
    let good = generated(256, 8);
    let primes = Parts::read(&good).unwrap().primes().unwrap();
    let with_exponent = |e: u32| {
        let mut secret = good.clone();
        secret[..4].copy_from_slice(&e.to_le_bytes());
        secret
    };
    let divides_below = |d: u32, prime: &BoxedUint| {
        prime.rem_limb(NonZero::new(Limb::from(d)).unwrap()) == Limb::ONE
    };
    let mut refused = 0;
    for e in (3..200_u32).step_by(2) {
        let has_inverse = (2..=e)
            .filter(|divisor| e.is_multiple_of(*divisor))
            .all(|divisor| !primes.iter().any(|prime| divides_below(divisor, prime)));
        let works = try_out(&with_exponent(e), &mut drbg(1)).is_ok();
        assert_eq!(works, has_inverse, "{e}");
        refused += usize::from(!works);
    }
    assert!(
        (1..99).contains(&refused),
        "both cases must occur: {refused}"
    );
    // The largest prime below 2^32.
    assert_eq!(try_out(&with_exponent(4_294_967_291), &mut drbg(1)), Ok(()));
}
