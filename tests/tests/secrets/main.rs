//! No clear key outside: the real firmware on the emulated board, and a search for keys everywhere they must not be.
//!
//! Every eight bytes in a row of every secret are searched, as they are, reversed, and with the bytes of each word and
//! the words of the whole turned around: the forms that big integers, hardware and cipher code give a key.

mod life;

use keyferry::device::DeviceError;
use keyferry::device::flow::{self, Demand, Shipment};
use keyferry::device::session::Session;
use keyferry::device::verify::Statement;
use keyferry_protocol::identity::{Challenge, Digest};
use keyferry_protocol::message::{Progress, Request};
use keyferry_protocol::receipt::Refusal;
use keyferry_protocol::suite::UnwrapAlgorithm;
use keyferry_tests::board::{Image, QemuBoard, Rig};
use keyferry_tests::search::{Finding, Search, secrets_of};
use keyferry_tests::software::{
    SoftAuthority, SoftKey, aes_key, hmac_key, p256_key, rsa_key, wrap_and_tell,
};

keyferry_tests::on_every_qemu_board!(
    no_key_is_left_by_a_device_with_an_rsa_unwrap_key,
    no_key_is_left_by_a_device_with_a_p256_unwrap_key,
    keys_stored_in_the_clear_are_found_in_flash,
    keys_that_are_not_wiped_are_found_in_ram,
);

/// What is found in everything that a device shows or leaves at this moment.
fn look_everywhere(search: &mut Search, rig: &mut Rig, when: &str) -> Vec<Finding> {
    let ram = rig.ram();
    let mut found = search.look(&format!("{when}: RAM"), &ram);
    let wire = rig.wire();
    assert!(!wire.down.is_empty() && !wire.up.is_empty());
    found.extend(search.look(&format!("{when}: line down"), &wire.down));
    found.extend(search.look(&format!("{when}: line up"), &wire.up));
    let files = rig.files();
    for wanted in ["flash.bin", "defmt.bin", "emulator.log", "uart.bin"] {
        assert!(files.iter().any(|(name, _)| name == wanted), "{wanted}");
    }
    for (name, bytes) in files {
        found.extend(search.look(&format!("{when}: {name}"), &bytes));
    }
    found
}

/// One key of each kind.
fn keys() -> Vec<SoftKey> {
    vec![
        aes_key(16, 1),
        aes_key(32, 2),
        hmac_key(3),
        p256_key(4),
        rsa_key(5),
    ]
}

/// Adds the secrets inside each of [`keys`].
fn add_keys(search: &mut Search, keys: &[SoftKey]) {
    for (name, secret) in secrets_of(keys) {
        search.add(&name, &secret);
    }
}

fn quiet(_: Progress) {}

/// A device with its authority.
struct Visit {
    rig: Rig,
    authority: SoftAuthority,
    unwrap: UnwrapAlgorithm,
}

impl Visit {
    fn new(board: QemuBoard, image: Image, unwrap: UnwrapAlgorithm, seed: u8) -> Self {
        Self {
            rig: Rig::start_on(board, image, seed),
            authority: SoftAuthority::new(0),
            unwrap,
        }
    }

    /// A session and a statement with the next challenge.
    fn enroll(&self) -> (Session, Statement) {
        let mut session = self.rig.session();
        let nonce = Challenge([9; 32]);
        let statement = flow::enroll(
            &mut session,
            &self.authority,
            self.unwrap,
            nonce,
            &mut quiet,
        )
        .unwrap();
        (session, statement)
    }

    fn inject(&self, change: impl FnOnce(&mut Shipment)) -> Result<(), DeviceError> {
        let (mut session, statement) = self.enroll();
        let mut shipment = wrap_and_tell(&statement, &keys(), 1).0;
        change(&mut shipment);
        let challenge = Challenge([3; 32]);
        flow::inject(
            &mut session,
            &self.authority,
            &statement,
            &shipment,
            challenge,
            &mut quiet,
        )
        .map(|_| ())
    }

    /// Sends the KEK, all keys but the last, and half of that: then the device has a KEK, and keys in its store.
    fn begin_transfer(&self) -> Session {
        let (mut session, statement) = self.enroll();
        let mut shipment = wrap_and_tell(&statement, &keys(), 1).0;
        let challenge = Challenge([3; 32]);
        let order = flow::inject_order(
            &self.authority,
            flow::terms(&statement, Digest::ZERO).unwrap(),
            &shipment,
            challenge,
        )
        .unwrap();
        let early = session.send(&order.request(), &mut quiet).unwrap();
        assert!(early.is_none());
        let last = &mut shipment.parcels.last_mut().unwrap().blob;
        last.truncate(last.len() / 2);
        let blobs = shipment.parcels.iter().map(|parcel| &parcel.blob);
        for blob in std::iter::once(&shipment.kek).chain(blobs) {
            for bytes in blob.chunks(512) {
                let early = session.send(&Request::Blob { bytes }, &mut quiet).unwrap();
                assert!(early.is_none());
            }
        }
        // Its answer shows that all before it has arrived.
        let echo = Request::Echo { bytes: b"there?" };
        session.exchange(&echo, &mut quiet).unwrap();
        session
    }

    fn prove(&self) {
        let (mut session, statement) = self.enroll();
        let wanted: Vec<_> = flow::list(&mut session)
            .unwrap()
            .iter()
            .map(|slot| {
                let proof = keyferry_protocol::proof::Proof::strongest(&slot.attributes);
                Demand::from((slot.slot, proof))
            })
            .collect();
        assert_eq!(wanted.len(), keys().len());
        let challenge = Challenge([4; 32]);
        flow::prove(
            &mut session,
            &self.authority,
            &statement,
            &wanted,
            challenge,
            &mut quiet,
        )
        .unwrap();
    }
}

fn refused(result: Result<(), DeviceError>, expected: Refusal) {
    match result {
        Err(DeviceError::Refused { refusal, signed }) => {
            assert_eq!((refusal, signed), (expected, true))
        }
        other => panic!("not a signed refusal: {other:?}"),
    }
}

/// The keys and the KEK that go to this device.
fn searches(visit: &Visit) -> (Search, Search) {
    let (_, statement) = visit.enroll();
    let keys = keys();
    let mut only_keys = Search::default();
    add_keys(&mut only_keys, &keys);
    let mut all = Search::default();
    add_keys(&mut all, &keys);
    all.add("KEK", &wrap_and_tell(&statement, &keys, 1).1);
    (only_keys, all)
}

/// Takes a device through success and every failure, and searches after each.
fn nothing_is_found(board: QemuBoard, unwrap: UnwrapAlgorithm, seed: u8) {
    let mut visit = Visit::new(board, Image::Default, unwrap, seed);
    let (mut only_keys, mut all) = searches(&visit);
    let mut found = look_everywhere(&mut all, &mut visit.rig, "enrolled");

    // Altered before signing, so that the digests fit and the unwrapping itself must see it.
    for altered in 0..keys().len() {
        let result = visit.inject(|shipment| shipment.parcels[altered].blob[9] ^= 1);
        refused(result, Refusal::Unwrap);
        let when = format!("blob {altered} altered");
        found.extend(look_everywhere(&mut all, &mut visit.rig, &when));
    }
    let result = visit.inject(|shipment| shipment.kek[9] ^= 1);
    refused(result, Refusal::Unwrap);
    found.extend(look_everywhere(&mut all, &mut visit.rig, "KEK altered"));

    let mut session = visit.begin_transfer();
    // A device in mid-transfer must have the KEK; keys it has not.
    found.extend(look_everywhere(
        &mut only_keys,
        &mut visit.rig,
        "in mid-transfer",
    ));
    session.greet_again().unwrap();
    drop(session);
    found.extend(look_everywhere(&mut all, &mut visit.rig, "cancelled"));

    drop(visit.begin_transfer());
    drop(visit.rig.session());
    found.extend(look_everywhere(
        &mut all,
        &mut visit.rig,
        "left, and greeted again",
    ));

    visit.inject(|_| {}).unwrap();
    found.extend(look_everywhere(&mut all, &mut visit.rig, "injected"));
    refused(visit.inject(|_| {}), Refusal::SlotTaken);
    found.extend(look_everywhere(&mut all, &mut visit.rig, "slot taken"));
    visit.prove();
    found.extend(look_everywhere(&mut all, &mut visit.rig, "proved"));

    visit.rig = visit.rig.restart();
    visit.prove();
    found.extend(look_everywhere(
        &mut all,
        &mut visit.rig,
        "proved after a restart",
    ));

    println!(
        "{}, {unwrap:?}: {} windows in {} bytes",
        board.name(),
        all.windows(),
        all.searched() + only_keys.searched()
    );
    assert!(
        found.is_empty(),
        "{} found, among them:\n{}",
        found.len(),
        found[..found.len().min(40)].join("\n")
    );
}

fn no_key_is_left_by_a_device_with_an_rsa_unwrap_key(board: QemuBoard) {
    nothing_is_found(board, UnwrapAlgorithm::Rsa2048, 1);
}

fn no_key_is_left_by_a_device_with_a_p256_unwrap_key(board: QemuBoard) {
    nothing_is_found(board, UnwrapAlgorithm::P256, 2);
}

/// What the same search finds after an injection into a device with a defect.
fn found_with(board: QemuBoard, image: Image) -> Vec<Finding> {
    let mut visit = Visit::new(board, image, UnwrapAlgorithm::P256, 3);
    let (_, mut all) = searches(&visit);
    visit.inject(|_| {}).unwrap();
    look_everywhere(&mut all, &mut visit.rig, "injected")
}

fn keys_stored_in_the_clear_are_found_in_flash(board: QemuBoard) {
    let found = found_with(board, Image::PlainStorage);
    for name in [
        "AES-128",
        "AES-256",
        "HMAC",
        "P-256 scalar",
        "RSA p",
        "RSA q",
    ] {
        let hit = |found: &Finding| found.contains("flash.bin") && found.contains(name);
        assert!(found.iter().any(hit), "{name}: {found:#?}");
    }
}

fn keys_that_are_not_wiped_are_found_in_ram(board: QemuBoard) {
    let found = found_with(board, Image::NoWipe);
    println!("{} found, at first {:?}", found.len(), found.first());
    assert!(found.iter().any(|found| found.contains("RAM")));
}
