//! A device whose image measures: enrolled once, then given each order in the same state.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use keyferry::device::flow::{self, Shipment};
use keyferry::device::port;
use keyferry::device::session::Session;
use keyferry::device::verify::Statement;
use keyferry::emulate::{Emulator, Entropy};
use keyferry_protocol::identity::Challenge;
use keyferry_protocol::suite::UnwrapAlgorithm;
use keyferry_tests::software::SoftAuthority;

use crate::leakage::board::{FLASH, MEASURED, config, read_store};

/// What the meter wrote: instructions by stretch, in order; for `stack` and `heap` bytes.
pub(super) struct Measured(BTreeMap<String, Vec<u64>>);

impl Measured {
    fn read(folder: &Path) -> Result<Self> {
        let text = fs::read_to_string(folder.join(MEASURED)).context("the meter wrote nothing")?;
        let mut all: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        // The last line may be cut off: the power was.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        for line in whole.lines() {
            let (what, count) = line.split_once(' ').context("not a line of the meter's")?;
            all.entry(what.to_owned()).or_default().push(count.parse()?);
        }
        Ok(Self(all))
    }

    pub(super) fn all(&self, what: &str) -> &[u64] {
        self.0.get(what).map_or(&[], Vec::as_slice)
    }

    pub(super) fn sum(&self, what: &str) -> f64 {
        self.all(what).iter().sum::<u64>() as f64
    }

    pub(super) fn first(&self, what: &str) -> Result<f64> {
        let first = self.all(what).first();
        Ok(*first.with_context(|| format!("the meter wrote no {what}"))? as f64)
    }

    pub(super) fn most(&self, what: &str) -> f64 {
        self.all(what).iter().max().map_or(0.0, |most| *most as f64)
    }
}

/// An enrolled device at rest.
pub(super) struct Device {
    authority: SoftAuthority,
    pub(super) statement: Statement,
    store: Vec<u8>,
    /// What the enrolment cost.
    pub(super) enrolment: Measured,
}

impl Device {
    /// Enrols a new device that runs `image`, from this seed.
    ///
    /// # Errors
    /// If it does not do as it should.
    pub(super) fn enrolled(image: &Path, algorithm: UnwrapAlgorithm, seed: u8) -> Result<Self> {
        let authority = SoftAuthority::new(0);
        let folder = tempfile::tempdir()?;
        let mut config = config(image, folder.path(), Some(0))?;
        config.entropy = Entropy::Seed([seed; 32]);
        let emulator = Emulator::start(&config)?;
        let mut session = Session::open(port::open(emulator.port())?)?;
        let nonce = Challenge([9; 32]);
        let statement = flow::enroll(&mut session, &authority, algorithm, nonce, &mut |_| {})?;
        drop(session);
        let flash = emulator.flash_path();
        emulator.kill();
        Ok(Self {
            authority,
            statement,
            store: read_store(&flash)?,
            enrolment: Measured::read(folder.path())?,
        })
    }

    /// Gives the device, now running `image`, an order; its own state does not change.
    ///
    /// # Errors
    /// If the order is not applied.
    pub(super) fn inject(&self, image: &Path, shipment: &Shipment) -> Result<Measured> {
        let folder = tempfile::tempdir()?;
        let config = config(image, folder.path(), Some(0))?;
        let path = folder.path().join("flash.bin");
        fs::write(&path, &self.store)?;
        fs::OpenOptions::new()
            .write(true)
            .open(&path)?
            .set_len(FLASH)?;
        let emulator = Emulator::start(&config)?;
        let mut session = Session::open(port::open(emulator.port())?)?;
        let mut device = self.statement.clone();
        device.standing.challenge = session.greeting().challenge;
        let challenge = Challenge([3; 32]);
        flow::inject(
            &mut session,
            &self.authority,
            &device,
            shipment,
            challenge,
            &mut |_| {},
        )?;
        drop(session);
        emulator.kill();
        Measured::read(folder.path())
    }
}
