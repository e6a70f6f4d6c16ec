//! The device's random generator: ChaCha20 over a seed made of the root key, the entropy source and the boot counter.
//!
//! A stuck entropy source must not repeat a challenge or a signature's nonce. The seed therefore also takes in the root
//! key, which no other device has, and the boot counter, which the store has made durable *before* the generator is
//! made. Whether the source reported a failure is not decided here: the caller refuses before it comes to this.

use chacha20::ChaCha20Rng;
use rand_core::{Infallible, Rng as _, SeedableRng, TryCryptoRng, TryRng};

use crate::keys::derive;
use crate::platform::RootKey;
use crate::wipe::Secret;

/// Binds the first seed to this use of the root key.
const SEED_TAG: &[u8] = b"keyferry rng seed 1";

/// Binds a later seed to its use.
const RESEED_TAG: &[u8] = b"keyferry rng reseed 1";

/// A deterministic random bit generator. The same root key, boot counter and entropy give the same output. Its state and
/// its buffer are wiped on drop. It never fails, and cannot be copied.
pub struct Drbg {
    generator: ChaCha20Rng,
}

impl Drbg {
    /// Seeds a generator with HKDF-SHA-256 (RFC 5869): salt = `entropy`, input = `root`, info = tag ‖ `boot`
    /// (little-endian).
    ///
    /// `boot` is the durable boot counter. It must have been advanced in flash before this call, or two starts with a
    /// stuck source give the same output.
    #[must_use]
    pub fn new(root: &RootKey, boot: u32, entropy: &[u8; 32]) -> Self {
        Self {
            generator: seeded(entropy, root, &[SEED_TAG, &boot.to_le_bytes()]),
        }
    }

    /// Mixes fresh entropy in: the new seed comes from 32 bytes of the generator's own output, with `entropy` as salt, so
    /// that no entropy, however bad, makes the state more predictable than it was.
    pub fn reseed(&mut self, entropy: &[u8; 32]) {
        let mut own = Secret::zeroed();
        self.generator.fill_bytes(own.expose_mut());
        self.generator = seeded(entropy, &own, &[RESEED_TAG]);
    }
}

/// Makes a generator from a derived seed.
fn seeded(salt: &[u8; 32], input: &Secret<32>, info: &[&[u8]]) -> ChaCha20Rng {
    let mut seed = Secret::zeroed();
    derive(salt, input.expose(), info, &mut seed);
    ChaCha20Rng::from_seed(*seed.expose())
}

impl TryRng for Drbg {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.generator.try_next_u32()
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.generator.try_next_u64()
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        self.generator.try_fill_bytes(out)
    }
}

impl TryCryptoRng for Drbg {}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(byte: u8) -> RootKey {
        let mut root = Secret::zeroed();
        root.expose_mut().fill(byte);
        root
    }

    fn output(mut drbg: Drbg) -> [u8; 48] {
        let mut out = [0; 48];
        drbg.fill_bytes(&mut out);
        out
    }

    #[test]
    fn same_inputs_give_same_output() {
        assert_eq!(
            output(Drbg::new(&root(1), 7, &[2; 32])),
            output(Drbg::new(&root(1), 7, &[2; 32]))
        );
    }

    #[test]
    fn a_stuck_source_repeats_nothing_over_boots_or_devices() {
        let stuck = [0; 32];
        let mut seen = std::collections::BTreeSet::new();
        for device in 0..8 {
            for boot in 0..64 {
                assert!(seen.insert(output(Drbg::new(&root(device), boot, &stuck))));
            }
        }
    }

    #[test]
    fn entropy_and_reseeding_change_the_output() {
        let mut reseeded = Drbg::new(&root(1), 7, &[2; 32]);
        reseeded.reseed(&[2; 32]);
        let mut reseeded_otherwise = Drbg::new(&root(1), 7, &[2; 32]);
        reseeded_otherwise.reseed(&[3; 32]);
        let all = [
            output(Drbg::new(&root(1), 7, &[2; 32])),
            output(Drbg::new(&root(1), 7, &[3; 32])),
            output(reseeded),
            output(reseeded_otherwise),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(!all[..at].contains(one));
        }
    }
}
