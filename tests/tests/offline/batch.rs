//! A batch that is signed in software, for devices on the desk: fast, and every byte of it is at hand.

use std::path::{Path, PathBuf};

use keyferry::device::flow::{self, Authority, SignedOrder, Terms};
use keyferry::device::session::Session;
use keyferry::device::verify::{Statement, digest};
use keyferry::export::{ExportError, Signer, Trust};
use keyferry::hsm::PublicKey;
use keyferry::station::offline::{
    BatchFolder, BatchKey, BatchOrder, Delivered, DetachedOrder, OfflineError, Prepared, deliver,
    finish,
};
use keyferry_protocol::identity::{Challenge, Digest};
use keyferry_protocol::message::Progress;
use keyferry_protocol::order::{self, Body};
use keyferry_protocol::suite::UnwrapAlgorithm;
use keyferry_tests::desk::{Desk, OnDesk};
use keyferry_tests::software::{SoftAuthority, SoftKey, aes_key, hmac_key, wrap};
use tempfile::TempDir;

pub(crate) fn quiet(_: Progress) {}

/// What goes into the proofs.
pub(crate) const CHALLENGE: Challenge = Challenge([3; 32]);

/// The keys of each device.
pub(crate) fn keys() -> Vec<SoftKey> {
    vec![aes_key(16, 1), hmac_key(2)]
}

/// Devices on the desk, their statements, and the authority that they obey.
pub(crate) struct Room {
    pub(crate) authority: SoftAuthority,
    pub(crate) devices: Vec<OnDesk>,
    pub(crate) statements: Vec<Statement>,
    pub(crate) folder: TempDir,
}

impl Room {
    /// A room with so many enrolled devices.
    pub(crate) fn with(count: u8) -> Self {
        let authority = SoftAuthority::new(0);
        let devices: Vec<_> = (1..=count)
            .map(|number| OnDesk::start(Desk::new(number, 16)))
            .collect();
        let statements = devices
            .iter()
            .map(|device| {
                let mut session = Session::open(device.port()).unwrap();
                let kind = UnwrapAlgorithm::P256;
                flow::enroll(&mut session, &authority, kind, CHALLENGE, &mut quiet).unwrap()
            })
            .collect();
        Self {
            authority,
            devices,
            statements,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The order with two keys for a device, `step` orders ahead of it.
    pub(crate) fn order(&self, index: usize, step: u32, version: u32) -> DetachedOrder {
        let statement = &self.statements[index];
        let shipment = wrap(statement, &keys(), version);
        let terms = Terms::detached(
            flow::address(statement),
            &statement.standing,
            step,
            Digest::ZERO,
        )
        .unwrap();
        let order = flow::inject_order(&self.authority, terms, &shipment, CHALLENGE).unwrap();
        let blobs = shipment.blobs().cloned().collect();
        DetachedOrder::new(order, blobs, statement.clone()).unwrap()
    }

    /// Any order for a device.
    pub(crate) fn detached(&self, index: usize, order: SignedOrder) -> DetachedOrder {
        DetachedOrder::new(order, Vec::new(), self.statements[index].clone()).unwrap()
    }

    /// A batch with these orders.
    pub(crate) fn batch(&self, name: &str, orders: &[DetachedOrder]) -> PathBuf {
        let path = self.path(name);
        let prepared: Vec<_> = orders.iter().map(prepared).collect();
        finish(&self.authority, &path, &prepared).unwrap();
        path
    }

    /// A batch with an order for each device.
    pub(crate) fn batch_for_all(&self, name: &str) -> PathBuf {
        let orders: Vec<_> = (0..self.devices.len())
            .map(|index| self.order(index, 1, 1))
            .collect();
        self.batch(name, &orders)
    }

    /// Opens a batch, believing the authority.
    pub(crate) fn open(&self, path: &Path) -> Result<BatchFolder, ExportError> {
        let signer = signer(&self.authority);
        BatchFolder::open(path, Trust::Signer(&signer))
    }

    /// Delivers to a device, at a line that knows the authority.
    pub(crate) fn deliver(&self, path: &Path, index: usize) -> Result<Delivered, OfflineError> {
        let folder = self.open(path)?;
        deliver(&folder, self.devices[index].port(), &mut quiet)
    }

    /// The file of a device's order.
    pub(crate) fn order_file(&self, batch: &Path, index: usize) -> PathBuf {
        batch.join(format!("{}.order", self.statements[index].device))
    }

    /// The file of a device's receipt.
    pub(crate) fn receipt_file(&self, batch: &Path, index: usize) -> PathBuf {
        let name = format!("{}.receipt", self.statements[index].device);
        batch.join("receipts").join(name)
    }
}

pub(crate) fn signer(authority: &SoftAuthority) -> Signer {
    let key = PublicKey::from_spki_der(authority.public_key()).unwrap();
    Signer::new(&key).unwrap()
}

/// Describes an order as its manifest has to.
pub(crate) fn prepared(order: &DetachedOrder) -> Prepared {
    let file = order.to_json().unwrap();
    let (header, body) = order::decode(&order.order.bytes).unwrap();
    let keys = match body {
        Body::Inject(inject) => inject
            .entries
            .iter()
            .map(|entry| BatchKey {
                slot: entry.slot,
                version: Some(entry.version),
                label: entry.label.as_str().to_owned(),
                id: Vec::new(),
                key_type: "aes-128".into(),
                attributes: entry.attributes.into(),
                proof: entry.proof,
                answer: None,
                fresh: false,
            })
            .collect(),
        _ => Vec::new(),
    };
    Prepared {
        entry: BatchOrder {
            device: header.device,
            identity: header.identity,
            unwrap: header.unwrap,
            kind: header.kind,
            order: order.digest(),
            file: digest(&file),
            counter: header.counter,
            below: order.below,
            suite: header.suite,
            keys,
        },
        file,
        certified: false,
    }
}
