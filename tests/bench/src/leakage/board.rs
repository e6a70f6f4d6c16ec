//! A board that meets each order in exactly the same state: same flash, same fuses, same seed, fresh heap, and virtual time
//! that follows from the instructions.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use keyferry::device::flow::{self, SignedOrder, Terms};
use keyferry::device::port;
use keyferry::device::session::Session;
use keyferry::device::verify::{Statement, signature_is_valid};
use keyferry::emulate::{Board, Config, Emulator, Entropy};
use keyferry_protocol::identity::{Challenge, DeviceId, Digest};
use keyferry_protocol::message::Reply;
use keyferry_protocol::receipt::{self, Body, Header};
use keyferry_protocol::suite::UnwrapAlgorithm;
use keyferry_tests::software::SoftAuthority;
use keyferry_tests::spoiled::Fault;

/// What the device is made of; anything will do, as long as it stays the same.
const NUMBER: u8 = 61;
/// What the board's meter writes, see `meter.rs` there.
pub(crate) const MEASURED: &str = "measured.txt";
/// Length of the key store in the flash file, in bytes. What lies beyond is never written.
const STORE: usize = 128 * 1024;
/// Length of the flash file in bytes.
pub(crate) const FLASH: u64 = 16 * 1024 * 1024;

/// An enrolled device at rest.
pub(crate) struct Enrolled {
    image: PathBuf,
    authority: SoftAuthority,
    statement: Statement,
    store: Vec<u8>,
}

/// What came of one order.
pub(crate) struct Answer {
    /// Instructions from the start of the private-key operation to the verdict on the key, without what lies between them:
    /// waiting for the key's blob.
    pub(crate) instructions: f64,
    /// The receipt, but for digest and signature, which have been verified.
    pub(crate) receipt: Header,
    /// Its length in bytes.
    pub(crate) length: usize,
    /// The key store afterwards.
    store: Vec<u8>,
}

impl Enrolled {
    /// Enrols a new device that runs `image`.
    ///
    /// # Errors
    /// If it does not do as it should.
    pub(crate) fn new(image: &Path, algorithm: UnwrapAlgorithm) -> Result<Self> {
        let authority = SoftAuthority::new(0);
        let folder = tempfile::tempdir()?;
        // Nothing is measured here, and making an RSA key takes long enough.
        let emulator = Emulator::start(&config(image, folder.path(), None)?)?;
        let mut session = Session::open(port::open(emulator.port())?)?;
        let nonce = Challenge([9; 32]);
        let statement = flow::enroll(&mut session, &authority, algorithm, nonce, &mut |_| {})?;
        drop(session);
        let flash = emulator.flash_path();
        emulator.kill();
        Ok(Self {
            image: image.to_owned(),
            authority,
            statement,
            store: read_store(&flash)?,
        })
    }

    /// Gives the device an order that must fail, from the state it is in. Its own state does not change.
    ///
    /// # Errors
    /// If it does not fail, or the meter's file does not say what it should.
    pub(crate) fn order(&self, fault: Fault, number: u64) -> Result<Answer> {
        let folder = tempfile::tempdir()?;
        let config = config(&self.image, folder.path(), Some(0))?;
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
        let shipment = fault.shipment(&device, number);
        let terms = Terms::now(flow::address(&device), &device.standing, Digest::ZERO).unwrap();
        let proof = Challenge([3; 32]);
        let order = flow::inject_order(&self.authority, terms, &shipment, proof)?;
        let blobs = std::iter::once(&shipment.kek).chain(shipment.parcels.iter().map(|p| &p.blob));
        let message = flow::deliver(&mut session, &order, blobs, &mut |_| {})?;
        let (receipt, length) = self.read(&order, &message)?;
        drop(session);
        emulator.kill();
        Ok(Answer {
            instructions: measured(folder.path())?,
            receipt,
            length,
            store: read_store(&path)?,
        })
    }

    /// Verifies a receipt.
    fn read(&self, order: &SignedOrder, message: &[u8]) -> Result<(Header, usize)> {
        let Ok(Reply::Receipt { signature, receipt }) = Reply::decode(message) else {
            bail!("the answer is no receipt");
        };
        let key = &self.statement.identity_key;
        ensure!(
            signature_is_valid(key, receipt, &signature),
            "the receipt's signature is not the device's"
        );
        let (header, body) = receipt::decode(receipt).ok().context("no receipt")?;
        ensure!(body == Body::Empty, "a refusal has no body");
        ensure!(header.order == order.digest(), "another order's receipt");
        let order = Digest::ZERO;
        Ok((Header { order, ..header }, receipt.len()))
    }

    /// The state in which `answer` left the device: with another boot counter, and so with other blinding.
    pub(crate) fn follow(&mut self, answer: &Answer) {
        self.store.clone_from(&answer.store);
    }
}

pub(crate) fn config(image: &Path, folder: &Path, shift: Option<u8>) -> Result<Config> {
    fs::write(folder.join("fuse.bin"), [NUMBER; 32])?;
    Ok(Config {
        entropy: Entropy::Seed([NUMBER; 32]),
        instruction_shift: shift,
        ..Config::new(
            Board::Mps2An386,
            image.into(),
            folder.into(),
            DeviceId([NUMBER; 16]),
        )
    })
}

pub(crate) fn read_store(path: &Path) -> Result<Vec<u8>> {
    let mut flash = fs::read(path)?;
    flash.truncate(STORE);
    Ok(flash)
}

/// What the meter wrote: one stretch for the KEK and one for the key. Exact, like every sum of whole numbers of this size.
fn measured(folder: &Path) -> Result<f64> {
    let text = fs::read_to_string(folder.join(MEASURED)).context("the meter wrote nothing")?;
    let lines: Vec<_> = text
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter(|(what, _)| ["kek", "key"].contains(what))
        .collect();
    match lines[..] {
        [("kek", kek), ("key", key)] => Ok(f64::from(kek.parse::<u32>()? + key.parse::<u32>()?)),
        _ => bail!("the meter wrote {text:?}"),
    }
}
