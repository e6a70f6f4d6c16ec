//! The random number generator (nRF52840 product specification 1.8, 6.19), with its correction of bias on, under the health tests of
//! the firmware library. A byte takes about 120 µs, the test at start an eighth of a second.

use keyferry_firmware::health::HealthTests;
use keyferry_firmware::platform::SourceFailed;
use nrf52840_pac::RNG;

/// How often is asked for a byte: some 10 ms, far longer than any takes.
const PATIENCE: u32 = 100_000;

/// The source, and its tests if it has passed those at start.
pub(crate) struct Entropy {
    rng: RNG,
    tests: Result<HealthTests, SourceFailed>,
}

impl Entropy {
    /// Starts the source, and tests it.
    pub(crate) fn start(rng: RNG) -> Self {
        rng.config.write(|w| w.dercen().enabled());
        run(&rng, true);
        let tests = HealthTests::start(|| next(&rng));
        run(&rng, false);
        Self { rng, tests }
    }

    /// Fills `out`.
    ///
    /// # Errors
    /// [`SourceFailed`] if the source gives nothing, or has failed a health test now or before.
    pub(crate) fn fill(&mut self, out: &mut [u8]) -> Result<(), SourceFailed> {
        let tests = self.tests.as_mut().map_err(|failed| *failed)?;
        run(&self.rng, true);
        let result = tests.fill(out, || next(&self.rng));
        run(&self.rng, false);
        result
    }
}

/// Switches the source on or off.
fn run(rng: &RNG, on: bool) {
    // SAFETY: one to a task register starts the task; no memory is touched.
    unsafe {
        rng.events_valrdy.write(|w| w.bits(0));
        if on {
            rng.tasks_start.write(|w| w.bits(1));
        } else {
            rng.tasks_stop.write(|w| w.bits(1));
        }
    }
}

/// The next byte.
fn next(rng: &RNG) -> Result<u8, SourceFailed> {
    for _ in 0..PATIENCE {
        if rng.events_valrdy.read().bits() != 0 {
            // SAFETY: clears the event.
            unsafe { rng.events_valrdy.write(|w| w.bits(0)) };
            return Ok(rng.value.read().value().bits());
        }
    }
    Err(SourceFailed)
}
