//! Health tests of an entropy source that gives bytes: the repetition count test and the adaptive proportion test of NIST SP 800-90B
//! (§4.4.1 and §4.4.2), and the test at start (§4.3).
//!
//! They find a source that is stuck or has become grossly biased, not one that is merely worse than it should be. The bounds take
//! each byte to have at least four bits of entropy, half of what a sound source gives, and let a sound source of that kind fail once
//! in 2³⁰ bytes. A board with another kind of source brings its own tests.

use crate::platform::SourceFailed;

/// Bits of entropy that a byte is taken to have at least.
pub const ENTROPY_PER_BYTE: u32 = 4;

/// So many times the same byte in a row is a failure: 1 + ⌈30 / [`ENTROPY_PER_BYTE`]⌉ (§4.4.1, a false alarm of 2⁻³⁰).
pub const REPETITIONS: u32 = 9;

/// Bytes of a window of the adaptive proportion test (§4.4.2, for a source that is not binary).
pub const WINDOW: u32 = 512;

/// So many times a window's first byte in it is a failure: 1 + the smallest k with P(X ≤ k) ≥ 1 − 2⁻³⁰ for X ~ B([`WINDOW`], 2⁻⁴).
pub const PROPORTION: u32 = 71;

/// Bytes that a source must have given without failure before the first is used (§4.3, requirement 1: at least 1024).
pub const START_UP: usize = 1_024;

/// The tests, over all bytes that the source gives.
#[derive(Debug)]
pub struct HealthTests {
    last: Option<u8>,
    /// How often `last` came in a row.
    repeated: u32,
    /// The first byte of the window.
    first: u8,
    /// How often it came in the window.
    count: u32,
    /// Bytes of the window that have come.
    position: u32,
    /// Once failed, for ever.
    failed: bool,
}

impl HealthTests {
    /// Takes the bytes of the test at start from a source, and throws them away.
    ///
    /// # Errors
    /// [`SourceFailed`] if the source says so, or a test fails.
    pub fn start(
        mut source: impl FnMut() -> Result<u8, SourceFailed>,
    ) -> Result<Self, SourceFailed> {
        let mut tests = Self {
            last: None,
            repeated: 0,
            first: 0,
            count: 0,
            position: 0,
            failed: false,
        };
        for _ in 0..START_UP {
            tests.take(source()?)?;
        }
        Ok(tests)
    }

    /// Looks at the next byte of the source; a byte that fails must not be used.
    ///
    /// # Errors
    /// [`SourceFailed`] if a test fails, and from then on always.
    pub fn take(&mut self, byte: u8) -> Result<(), SourceFailed> {
        if self.last == Some(byte) {
            self.repeated = self.repeated.saturating_add(1);
        } else {
            self.last = Some(byte);
            self.repeated = 1;
        }
        if self.position == 0 {
            self.first = byte;
            self.count = 0;
        }
        self.count += u32::from(byte == self.first);
        self.position = (self.position + 1) % WINDOW;
        self.failed |= self.repeated >= REPETITIONS || self.count >= PROPORTION;
        if self.failed {
            Err(SourceFailed)
        } else {
            Ok(())
        }
    }

    /// Fills `out` from a source. After a failure nothing in `out` may be used.
    ///
    /// # Errors
    /// As [`Self::take`], or [`SourceFailed`] if the source says so.
    pub fn fill(
        &mut self,
        out: &mut [u8],
        mut source: impl FnMut() -> Result<u8, SourceFailed>,
    ) -> Result<(), SourceFailed> {
        for place in out {
            let byte = source()?;
            self.take(byte)?;
            *place = byte;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use chacha20::ChaCha20Rng;
    use rand_core::{Rng as _, SeedableRng as _};

    use super::*;

    fn sound() -> impl FnMut() -> Result<u8, SourceFailed> {
        let mut generator = ChaCha20Rng::from_seed([5; 32]);
        move || Ok(generator.next_u32() as u8)
    }

    #[test]
    fn a_sound_source_passes_a_million_bytes() {
        let mut source = sound();
        let mut tests = HealthTests::start(&mut source).unwrap();
        let mut out = std::vec![0; 1_000_000];
        tests.fill(&mut out, source).unwrap();
    }

    #[test]
    fn a_stuck_source_does_not_start_and_one_that_gets_stuck_fails_for_ever() {
        assert!(HealthTests::start(|| Ok(0)).is_err());
        let mut source = sound();
        let mut tests = HealthTests::start(&mut source).unwrap();
        for _ in 0..REPETITIONS - 1 {
            tests.take(7).unwrap();
        }
        assert_eq!(tests.take(7), Err(SourceFailed));
        assert_eq!(tests.fill(&mut [0; 4], source), Err(SourceFailed));
    }

    #[test]
    fn a_biased_source_fails_though_it_never_repeats() {
        // Each window begins with the byte that comes too often: every fourth time, and never twice in a row.
        let mut at = 0_u32;
        let tests = HealthTests::start(move || {
            at += 1;
            Ok(if at % 4 == 1 { 0 } else { at as u8 | 1 })
        });
        assert_eq!(tests.err(), Some(SourceFailed));
    }

    #[test]
    fn a_source_that_fails_is_a_failure() {
        assert!(HealthTests::start(|| Err(SourceFailed)).is_err());
        let mut tests = HealthTests::start(sound()).unwrap();
        let mut out = [9; 4];
        assert!(tests.fill(&mut out, || Err(SourceFailed)).is_err());
        assert_eq!(out, [9; 4]);
    }

    #[test]
    fn the_bounds_follow_from_the_standard() {
        assert_eq!(REPETITIONS, 1 + 30_u32.div_ceil(ENTROPY_PER_BYTE));
        // P(X ≥ PROPORTION) for a binomial X must be at most 2⁻³⁰, and that of one less must not: summed up from the top.
        let probability = 0.5_f64.powi(ENTROPY_PER_BYTE as i32);
        let mut term = (1.0 - probability).powi(WINDOW as i32);
        let mut below = [0.0; WINDOW as usize + 1];
        for (k, place) in below.iter_mut().enumerate() {
            *place = term;
            term *=
                (WINDOW as usize - k) as f64 / (k + 1) as f64 * probability / (1.0 - probability);
        }
        let tail = |from: u32| below[from as usize..].iter().rev().sum::<f64>();
        assert!(tail(PROPORTION) <= 2_f64.powi(-30));
        assert!(tail(PROPORTION - 1) > 2_f64.powi(-30));
    }
}
