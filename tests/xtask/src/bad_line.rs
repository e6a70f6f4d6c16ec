//! The demo's bad cable: bit errors, a stall, and a device that is reset while it has an order.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use keyferry::emulate::Emulator;

use keyferry_tests::line::{Fault, Faults, MILLISECOND, Planned, Proxy, Settings, Trigger, Ways};
use serde_json::{Value, json};

/// Chance of each bit to arrive inverted.
const BIT_ERRORS: f64 = 1e-5;

/// Paced like a real line.
const BAUD: u32 = 115_200;

/// Where in the step that injects, in bytes both ways, the device is reset: its greeting and its statement are through by then, and
/// the receipt does not begin before the last.
const RESET_BETWEEN: std::ops::Range<u64> = 1_500..3_300;

/// In one direction or the other, noise changes a character among the first so many: the demo carries a few thousand each way, so that
/// a line of a rate of 1e-5 would be clean for every third seed, and show nothing.
const UNHARMED: u64 = 2_500;

/// A bad cable.
pub(crate) struct BadLine {
    proxy: Proxy,
    seed: u64,
}

/// A number below `end` that the seed chooses.
fn chosen(seed: u64, salt: u64, end: u64) -> u64 {
    // One step of SplitMix64 (Steele, Lea, Flood 2014).
    let mut mixed = seed.wrapping_add(salt.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ mixed >> 31) % end
}

/// The settings with the first seed from theirs on that brings noise soon enough.
fn noisy(settings: &Settings) -> Option<Settings> {
    (0..1_000)
        .map(|step: u64| Settings {
            // The seeds of other runs are near by.
            seed: settings.seed.wrapping_add(step << 32),
            ..settings.clone()
        })
        .find(|settings| settings.unharmed() < UNHARMED)
}

impl BadLine {
    /// Lays it to a device's port.
    pub(crate) fn lay(device: &Emulator, seed: u64) -> anyhow::Result<Self> {
        let stall = Planned {
            fault: Fault::Stall(300 * MILLISECOND),
            ways: Ways::Both,
            when: Trigger::Byte(chosen(seed, 1, 4_000)),
        };
        let faults = Faults {
            ber: BIT_ERRORS,
            planned: vec![stall],
            ..Faults::default()
        };
        let settings = Settings::real_time(BAUD, faults, seed);
        let settings = noisy(&settings).context("no seed brings noise")?;
        let proxy = Proxy::start(device.port(), &settings).context("no bad cable")?;
        Ok(Self { proxy, seed })
    }

    /// The station's end.
    pub(crate) fn path(&self) -> &str {
        self.proxy.path()
    }

    /// Does something with the device, and resets the device meanwhile.
    pub(crate) fn with_a_reset(
        &self,
        device: &mut Emulator,
        work: impl FnOnce() -> anyhow::Result<Value>,
    ) -> anyhow::Result<Value> {
        let carried = || self.proxy.counts().sum().characters;
        let length = RESET_BETWEEN.end - RESET_BETWEEN.start;
        let at = carried() + RESET_BETWEEN.start + chosen(self.seed, 2, length);
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let resetter = scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    if carried() >= at {
                        return device.reset().map(|()| true);
                    }
                    thread::sleep(Duration::from_millis(1));
                }
                Ok(false)
            });
            let result = work();
            over.store(true, Ordering::Relaxed);
            let was_reset = resetter
                .join()
                .ok()
                .context("the thread that resets the device has ended")??;
            let value = result?;
            ensure!(was_reset, "the work was over before the reset");
            Ok(value)
        })
    }

    /// What went wrong on it.
    pub(crate) fn faults(&self) -> anyhow::Result<Value> {
        let counts = self.proxy.counts();
        let sum = counts.sum();
        ensure!(sum.stalls > 0, "the line did not stall");
        ensure!(sum.bit_errors > 0, "the line inverted no bit");
        Ok(json!({
            "seed": self.seed,
            "bytes": sum.characters,
            "bit_errors": sum.bit_errors,
            "stalls": sum.stalls,
            "resets": 1,
        }))
    }
}
