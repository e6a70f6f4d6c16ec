//! A whole session of the shipped station with the shipped device: greeting, one order with the demo's five keys, receipt.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, ensure};
use keyferry::device::session::Session;
use keyferry::device::verify::{SignedReceipt, Statement};
use keyferry::device::{DeviceError, MakeOrder, Witness, flow};
use keyferry_firmware::device::Device;
use keyferry_protocol::identity::{Challenge, Digest, Signature};
use keyferry_protocol::suite::UnwrapAlgorithm;
use keyferry_tests::desk::{Desk, Flash, OnDesk};
use keyferry_tests::line::{MILLISECOND, Nanos, Priced, World};
use keyferry_tests::software::{
    SoftAuthority, SoftKey, aes_key, hmac_key, p256_key, rsa_key, wrap,
};

use super::{Latency, Wire};
use crate::rows::Row;

/// What a private-key operation takes of a device that is quick: a Cortex-M4 at 64 MHz needs some 170 ms for one on P-256, and seconds
/// with RSA-2048. What else a device computes costs nothing here.
const OPERATION: Nanos = 100 * MILLISECOND;

/// The keys of the demo, of the same kinds.
fn keys() -> [SoftKey; 5] {
    [
        aes_key(16, 1),
        aes_key(32, 2),
        hmac_key(3),
        p256_key(4),
        rsa_key(5),
    ]
}

/// Counts the signed bytes that pass.
#[derive(Clone, Default)]
struct Count(Arc<Mutex<usize>>);

impl Count {
    fn add(&self, bytes: usize) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) += bytes + Signature::LENGTH;
    }
}

impl Witness for Count {
    fn order(&mut self, make: &mut MakeOrder<'_>) -> Result<flow::SignedOrder, DeviceError> {
        let order = make(Digest::ZERO)?;
        self.add(order.bytes.len());
        Ok(order)
    }

    fn receipt(&mut self, _: &Digest, receipt: &SignedReceipt) -> Result<(), DeviceError> {
        self.add(receipt.bytes.len());
        Ok(())
    }
}

/// An enrolled device's flash, and its statement.
fn enrolled(
    authority: &SoftAuthority,
    unwrap: UnwrapAlgorithm,
) -> anyhow::Result<(Flash, Statement)> {
    let device = OnDesk::start(Desk::new(1, 32));
    let mut session = Session::open(device.port())?;
    let nonce = Challenge([9; 32]);
    let statement = flow::enroll(&mut session, authority, unwrap, nonce, &mut |_| {})?;
    drop(session);
    Ok((device.stop(), statement))
}

/// What a session took.
struct Cost {
    time: Nanos,
    computed: Nanos,
    signed_and_blobs: usize,
}

fn session(
    wire: Wire,
    authority: &SoftAuthority,
    flash: &Flash,
    statement: &Statement,
    operation: Nanos,
) -> anyhow::Result<Cost> {
    let flash = flash.clone();
    // The default ring: nothing is lost while the device computes.
    let world = World::new(&wire.settings(4_096), move |_| {
        Priced::new(Device::new(Desk::with_flash(1, flash.clone())), operation)
    });
    // What it computes at start is before the session.
    world.pass(10 * MILLISECOND);
    let shipment = wrap(statement, &keys(), 1);
    let blobs: usize = shipment.blobs().map(Vec::len).sum();
    let count = Count::default();
    let begin = world.now();
    let mut session = Session::open(world.port())?;
    session.set_witness(Box::new(count.clone()));
    let mut device = statement.clone();
    device.standing.challenge = session.greeting().challenge;
    let challenge = Challenge([3; 32]);
    let proofs = flow::inject(
        &mut session,
        authority,
        &device,
        &shipment,
        challenge,
        &mut |_| {},
    )?;
    let end = world.now();
    ensure!(proofs.reports.len() == keys().len(), "keys are missing");
    let computed = world
        .machine(|priced| priced.computed)
        .context("no device")?;
    let signed = *count.0.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(Cost {
        time: end - begin,
        computed,
        signed_and_blobs: signed + blobs,
    })
}

/// What finding a device costs that a session has left at a faster rate, and what a change of rate costs and saves.
fn rates(
    wire: Wire,
    authority: &SoftAuthority,
    flash: &Flash,
    statement: &Statement,
) -> anyhow::Result<()> {
    let flash = flash.clone();
    let shipment = wrap(statement, &keys(), 1);
    let world = World::new(&wire.settings(4_096), move |_| {
        let mut desk = Desk::with_flash(1, flash.clone());
        desk.rates = &[921_600];
        Device::<Desk>::new(desk)
    });
    world.pass(10 * MILLISECOND);
    let mut session = Session::open(world.port())?;
    let begin = world.now();
    session.hasten(u64::MAX / 1_000_000_000)?;
    ensure!(session.rate() == Some(921_600), "no change of rate");
    let changed = (world.now() - begin) as f64 / 1e9;
    let case = "rate/115200-to-921600";
    Row::new("link", format!("{case}/change"), "seconds", changed).print()?;
    let mut device = statement.clone();
    device.standing.challenge = session.greeting().challenge;
    let challenge = Challenge([3; 32]);
    let begin = world.now();
    flow::inject(
        &mut session,
        authority,
        &device,
        &shipment,
        challenge,
        &mut |_| {},
    )?;
    let order = (world.now() - begin) as f64 / 1e9;
    Row::new(
        "link",
        format!("{case}/order-of-5-keys-then"),
        "seconds",
        order,
    )
    .print()?;
    // The station vanishes without a word; the next one comes at once.
    std::mem::forget(session);
    let begin = world.now();
    let session = Session::open(world.port())?;
    ensure!(session.rate() == Some(921_600), "found elsewhere");
    let found = (world.now() - begin) as f64 / 1e9;
    Row::new(
        "link",
        "rate/device-left-at-921600/search",
        "seconds",
        found,
    )
    .print()
}

pub(super) fn run() -> anyhow::Result<()> {
    let authority = SoftAuthority::new(0);
    let wire = Wire {
        baud: 115_200,
        latency: Latency::Turnaround,
    };
    for (name, unwrap) in [
        ("rsa-2048", UnwrapAlgorithm::Rsa2048),
        ("p-256", UnwrapAlgorithm::P256),
    ] {
        let (flash, statement) = enrolled(&authority, unwrap)?;
        if unwrap == UnwrapAlgorithm::P256 {
            rates(wire, &authority, &flash, &statement)?;
        }
        for (compute, operation) in [("no-compute", 0), ("100-ms-operations", OPERATION)] {
            let cost = session(wire, &authority, &flash, &statement, operation)?;
            let case = format!("session-5-keys/115200/1-ms-turnaround/{name}/{compute}");
            let bytes = cost.signed_and_blobs;
            let signed = "signed-bytes-and-blobs";
            Row::new("link", format!("{case}/{signed}"), "bytes", bytes as f64).print()?;
            let computed = cost.computed as f64 / 1e9;
            Row::new("link", format!("{case}/compute"), "seconds", computed).print()?;
            Row::new(
                "link",
                format!("{case}/all"),
                "seconds",
                cost.time as f64 / 1e9,
            )
            .print()?;
            let line = (cost.time - cost.computed) as f64 / wire.time_of(bytes) as f64;
            // A device that needs no time at all is the hard case: with one that works, blobs cross the line meanwhile.
            let row = Row::new("link", format!("{case}/line"), "ratio", line);
            row.at_most(1.10).print()?;
        }
    }
    Ok(())
}
