//! What the firmware costs on the emulated Cortex-M4: instructions of each stretch of work in real orders, from the meter in the image;
//! flash and static RAM of the image as it would be shipped; peak heap and stack, from the image that measures.
//!
//! Images are `<build>-<profile>.elf`, and `<build>-<profile>-measure.elf` beside it. Builds: `full` (RSA with key generation, ECDH),
//! `rsa` (the same without generation, enrolled by a `full` one), `ecdh`. Profiles: `size`, `speed`.

mod device;
mod image;
mod peers;

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use keyferry::device::flow::Shipment;
use keyferry_protocol::attributes::{Attributes, algorithm, usage};
use keyferry_protocol::proof::Proof;
use keyferry_protocol::suite::UnwrapAlgorithm;
use keyferry_tests::software::{SoftKey, aes_key, hmac_key, p256_key, rsa_key, wrap};

use crate::rows::Row;
use device::{Device, Measured};

const BENCH: &str = "firmware";
const BUILDS: [&str; 3] = ["full", "rsa", "ecdh"];
const PROFILES: [&str; 2] = ["size", "speed"];
/// Seed of the devices that are given orders; with it a key is found early.
const SEED: u8 = 61;

/// Measures the images in `images` whose names contain `only`; each that can makes `seeds` keys.
///
/// # Errors
/// If a device does not do as it should. That a target is missed is in the rows.
pub(crate) fn run(images: &Path, only: &str, seeds: u8) -> Result<()> {
    let mut measured = 0;
    for profile in PROFILES {
        for build in BUILDS {
            let name = format!("{build}-{profile}");
            if name.contains(only) {
                Subject::new(images, build, profile).measure(seeds)?;
                measured += 1;
            }
        }
    }
    ensure!(measured > 0, "no image's name contains {only:?}");
    peers::print()
}

/// An image under measurement.
struct Subject<'a> {
    images: &'a Path,
    build: &'static str,
    profile: &'static str,
    name: String,
    /// The most bytes that any run used.
    stack: f64,
    heap: f64,
    /// The most bytes that a step left in the stack below what it scrubs.
    missed: f64,
    /// The most instructions between two feedings of the watchdog in any run.
    unfed: f64,
}

impl<'a> Subject<'a> {
    fn new(images: &'a Path, build: &'static str, profile: &'static str) -> Self {
        Self {
            images,
            build,
            profile,
            name: format!("{build}-{profile}"),
            stack: 0.0,
            heap: 0.0,
            missed: 0.0,
            unfed: 0.0,
        }
    }

    fn image(&self, build: &str, end: &str) -> std::path::PathBuf {
        self.images
            .join(format!("{build}-{}{end}.elf", self.profile))
    }

    fn row(&self, what: &str, metric: &'static str, value: f64) -> Row {
        Row::new(BENCH, format!("{}/{what}", self.name), metric, value)
    }

    fn instructions(&self, what: &str, value: f64) -> Result<()> {
        self.row(what, "instructions", value).print()
    }

    fn measure(mut self, seeds: u8) -> Result<()> {
        let with_rsa = self.build != "ecdh";
        self.orders(UnwrapAlgorithm::P256, "ecdh")?;
        if with_rsa {
            self.orders(UnwrapAlgorithm::Rsa2048, "rsa-2048")?;
            let device = self.device(UnwrapAlgorithm::Rsa3072)?;
            let one = self.order(&device, &[aes_key(32, 1)], None)?;
            self.instructions("rsa-3072-unwrap", one.sum("kek"))?;
        }
        if self.build == "full" && seeds > 0 {
            self.generation(seeds)?;
        }
        ensure!(self.unfed > 0.0, "the meter saw no feeding of the watchdog");
        self.row("watchdog/most-between-feeds", "instructions", self.unfed)
            .at_most(MOST_UNFED)
            .cause("one private-key operation, or one candidate in the making of a key, is one piece of work")
            .print()?;
        self.lengths()
    }

    fn device(&self, algorithm: UnwrapAlgorithm) -> Result<Device> {
        let rsa = algorithm != UnwrapAlgorithm::P256;
        let maker = if rsa { "full" } else { self.build };
        Device::enrolled(&self.image(maker, "-measure"), algorithm, SEED)
            .with_context(|| format!("{}: {algorithm}", self.name))
    }

    fn order(
        &mut self,
        device: &Device,
        keys: &[SoftKey],
        proof: Option<Proof>,
    ) -> Result<Measured> {
        let mut shipment = wrap(&device.statement, keys, 1);
        if let Some(proof) = proof {
            ask(&mut shipment, proof);
        }
        let measured = device
            .inject(&self.image(self.build, "-measure"), &shipment)
            .with_context(|| self.name.clone())?;
        self.watch(&device.enrolment);
        self.watch(&measured);
        Ok(measured)
    }

    /// Notes the memory that was in use, and the longest time that the watchdog was not fed: at the start, and in each piece of work.
    fn watch(&mut self, measured: &Measured) {
        self.stack = self.stack.max(measured.most("stack"));
        self.heap = self.heap.max(measured.most("heap"));
        self.missed = self.missed.max(measured.most("missed"));
        let longest = measured.most("fed").max(measured.most("boot"));
        self.unfed = self.unfed.max(longest);
    }

    /// Orders toward an unwrap key of this kind.
    fn orders(&mut self, unwrap: UnwrapAlgorithm, kind: &str) -> Result<()> {
        let device = self.device(unwrap)?;
        let one = self.order(&device, &[aes_key(32, 1)], None)?;
        let five: Vec<_> = (1..=5).map(|number| aes_key(32, number)).collect();
        let five = self.order(&device, &five, None)?;
        self.instructions(&format!("{kind}-unwrap"), one.sum("kek"))?;

        // All that the device does from the KEK's last byte on; with an order this short, the keys have come by then.
        let all = |measured: &Measured| measured.sum("step");
        let target = match unwrap {
            UnwrapAlgorithm::P256 => 20e6,
            UnwrapAlgorithm::Rsa2048 | UnwrapAlgorithm::Rsa3072 | UnwrapAlgorithm::Rsa4096 => 80e6,
        };
        let row = self.row(
            &format!("last-byte-to-receipt/{kind}"),
            "instructions",
            all(&one),
        );
        let ratio = all(&five) / all(&one);
        let more = |stretch| five.sum(stretch) - one.sum(stretch);
        let ratio = self.row(&format!("five-keys-to-one/{kind}"), "ratio", ratio);
        if self.profile == "speed" {
            row.at_most(target)
                .cause("the private-key operation and the receipt's signature are portable Rust, without assembly")
                .print()?;
            ratio
                .at_most(1.1)
                .cause(format!(
                    "AES key wrap, done three times for each key (its blob, its seal in flash, read back for its proof), is {:.0} % of what four \
                     more keys cost",
                    100.0 * 3.0 * more("key") / more("step")
                ))
                .print()?;
        } else {
            row.print()?;
            ratio.print()?;
        }
        if unwrap != UnwrapAlgorithm::P256 {
            let rsa = self.order(&device, &[rsa_key(1)], None)?;
            self.instructions("kwp-and-parse-1216", rsa.sum("key"))?;
            self.instructions("proof/rsa-2048-pkcs1-sha256", rsa.sum("proof"))?;
            return Ok(());
        }

        self.instructions("order-verify", one.first("verify")?)?;
        self.instructions("receipt-sign", one.sum("sign"))?;
        self.instructions("kwp-32", one.sum("key"))?;
        self.instructions("store-commit", one.sum("store"))?;
        self.instructions("boot", one.first("boot")?)?;
        self.instructions("proof/aes-256-cmac", one.sum("proof"))?;
        let check = self.order(&device, &[aes_key(32, 1)], Some(Proof::CheckValue))?;
        self.instructions("proof/aes-256-check-value", check.sum("proof"))?;
        let hmac = self.order(&device, &[hmac_key(1)], None)?;
        self.instructions("proof/hmac-sha256", hmac.sum("proof"))?;
        let curve = self.order(&device, &[p256_key(1)], None)?;
        self.instructions("kwp-and-parse-138", curve.sum("key"))?;
        self.instructions("proof/ecdsa-p256-sha256", curve.sum("proof"))?;
        let mut agree = p256_key(1);
        agree.attributes = Attributes {
            usage: usage::DERIVE,
            algorithm: algorithm::ECDH,
            ..agree.attributes
        };
        let agreed = self.order(&device, &[agree], Some(Proof::Agreement))?;
        self.instructions("proof/agreement-p256", agreed.sum("proof"))
    }

    /// Makes keys, each from another seed.
    fn generation(&mut self, seeds: u8) -> Result<()> {
        let image = self.image(self.build, "-measure");
        let mut costs = Vec::new();
        for seed in 1..=seeds {
            let device = Device::enrolled(&image, UnwrapAlgorithm::Rsa2048, seed)?;
            self.watch(&device.enrolment);
            costs.push(device.enrolment.sum("generate"));
        }
        costs.sort_by(f64::total_cmp);
        let (min, max) = (costs[0], costs[costs.len() - 1]);
        let median = f64::midpoint(costs[(costs.len() - 1) / 2], costs[costs.len() / 2]);
        self.row("rsa-2048-generate", "instructions", median)
            .with("seeds", seeds)
            .with("min", min)
            .with("max", max)
            .print()
    }

    /// Flash and RAM.
    fn lengths(&self) -> Result<()> {
        let shipped = image::lengths(&self.image(self.build, ""))?;
        let flash = self.row("flash", "bytes", shipped.flash as f64);
        let heap_room = if self.build == "ecdh" { 0.0 } else { HEAP };
        let statics = shipped.ram as f64 - heap_room;
        let ram = self
            .row("ram", "bytes", statics + self.heap + self.stack)
            .with(
                "what",
                "static, without the heap's room; peak heap; peak stack",
            );
        if self.profile == "size" {
            let (most, memory) = match self.build {
                "full" => (192.0, 48.0),
                "rsa" => (144.0, 48.0),
                _ => (64.0, 16.0),
            };
            flash
                .at_most(most * 1024.0)
                .cause("the device's own state machine, its decoders and the key store take more than half of the ECDH image; the rest is portable big-integer code, AES and SHA-256")
                .print()?;
            ram.at_most(memory * 1024.0)
                .cause("buffers for the longest order, answer and receipt, which stand in the device on the stack, and as much stack again that is cleared after each step with a key")
                .print()?;
        } else {
            flash.print()?;
            ram.print()?;
        }
        self.row("ram/static", "bytes", statics).print()?;
        self.row("ram/heap-peak", "bytes", self.heap).print()?;
        self.row("ram/stack-peak", "bytes", self.stack).print()?;
        self.row("ram/stack-in-use-and-not-scrubbed", "bytes", self.missed)
            .at_most(0.0)
            .print()
    }
}

/// The heap's room in the boards' images, see `firmware/boards/common/src/heap.rs`.
const HEAP: f64 = 48.0 * 1024.0;

/// What may pass between two feedings of a watchdog, in instructions: a quarter of the 60 seconds that the nRF52840 DK's waits, at 64 MHz and
/// 1.9 cycles an instruction.
const MOST_UNFED: f64 = 15.0 * 64e6 / 1.9;

/// Asks for another proof.
fn ask(shipment: &mut Shipment, proof: Proof) {
    for parcel in &mut shipment.parcels {
        parcel.proof = proof;
        if proof == Proof::Agreement {
            // Any point will do: the KEK's own blob is one.
            parcel.question.clone_from(&shipment.kek);
        }
    }
}
