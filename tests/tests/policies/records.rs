//! The registry believes what was signed, keeps what must be unique unique, and can say later what a device is.

use keyferry::device::flow::Authority as _;
use keyferry::device::verify::{SignedReceipt, Statement, fingerprint};
use keyferry::station::policy::{History, Known, Pin, Trust};
use keyferry::station::registry::{
    Enrolled, Filter, OrderState, PAGE, Recorded, Registry, RegistryError, SlotState,
};
use keyferry_protocol::attributes::Attributes;
use keyferry_protocol::identity::{Challenge, DeviceId, Digest, Fingerprint, Signature};
use keyferry_protocol::order::{
    self, Address, BlobRef, Body, Entry, Freshness, Header, Inject, Kind, Remove,
};
use keyferry_protocol::proof::Proof;
use keyferry_protocol::receipt::{
    FORMAT, Outcome, Refusal, STATUS_TAG, State, Status as SignedStatus, Writer,
};
use keyferry_protocol::suite::{Suite, UnwrapAlgorithm};
use keyferry_tests::software::{SoftAuthority, aes_key, hmac_key};

use crate::{Book, Device};

fn address(device: &Device) -> Address {
    Address {
        device: device.id,
        identity: device.fingerprint(),
        unwrap: device.unwrap_fingerprint(),
    }
}

fn encoded(header: Header, body: &Body<'_>) -> Vec<u8> {
    let mut buffer = [0; 2048];
    order::encode(header, body, &mut buffer).unwrap().to_vec()
}

fn entry(slot: u16, version: u32, attributes: Attributes, proof: Proof) -> Entry {
    Entry {
        slot,
        version,
        attributes,
        label: format!("key {slot}").as_str().try_into().unwrap(),
        proof,
        kek: 0,
        blob: BlobRef {
            length: 40,
            digest: Digest([5; 32]),
        },
    }
}

/// An `Inject` prepared without the device: an AES and an HMAC key, of this version.
pub(crate) fn inject(device: &Device, counter: u32, version: u32) -> Vec<u8> {
    let freshness = Freshness::Detached { below: counter };
    inject_when(device, freshness, counter, version)
}

fn inject_when(device: &Device, freshness: Freshness, counter: u32, version: u32) -> Vec<u8> {
    let header = Header {
        suite: Some(Suite::EcdhP256X963Sha256),
        ..Header::new(Kind::Inject, address(device), freshness, counter)
    };
    let entries = [
        entry(0, version, aes_key(16, 1).attributes, Proof::Cmac),
        entry(3, version, hmac_key(2).attributes, Proof::HmacSha256),
    ];
    let kek = BlobRef {
        length: 65,
        digest: Digest([6; 32]),
    };
    let body = Body::Inject(Inject {
        challenge: Challenge([1; 32]),
        certificate: None,
        keks: [kek].into_iter().collect(),
        entries: entries.into_iter().collect(),
        questions: heapless::Vec::new(),
    });
    encoded(header, &body)
}

fn states(registry: &Registry, device: &Device) -> Vec<(u16, u32, SlotState)> {
    let slots = registry.slots(device.id).unwrap();
    let states = slots.iter().map(|it| (it.slot, it.version, it.state));
    states.collect()
}

/// A statement must be equal in all that keys are wrapped by.
fn assert_same(found: &Statement, expected: &Statement) {
    assert_eq!(found.device, expected.device);
    assert_eq!(found.identity_key, expected.identity_key);
    assert_eq!(found.unwrap_key, expected.unwrap_key);
    assert_eq!(found.suites, expected.suites);
    assert_eq!(found.authority, expected.authority);
    assert_eq!(found.receipt, expected.receipt);
}

#[test]
fn a_record_is_enough_to_wrap_by_later() {
    let book = Book::of(module_path!());
    let mut device = Device::new(1);
    let statement = device.statement();
    let trust = Trust {
        policy: "serial-list",
        reason: "its id is on the list".to_owned(),
    };
    let enrolled = Enrolled {
        statement: &statement,
        trust: &trust,
        serial: Some("SN-1"),
    };
    assert_eq!(book.registry.enrolled(&enrolled).unwrap(), Recorded::New);
    device.counter = 4;
    device.state = State::Provisioned;
    let receipt = device.receipt(
        Kind::Prove,
        Digest([2; 32]),
        Outcome::Refused(Refusal::Stale),
    );
    assert!(book.registry.moved(device.id, &receipt).unwrap().newest);

    // In another process, on another day.
    let registry = Registry::open_existing_at(&book.location, None).unwrap();
    let record = registry.find(device.id).unwrap().unwrap();
    assert_eq!(record.identity, device.fingerprint());
    assert_eq!(record.serial.as_deref(), Some("SN-1"));
    assert_eq!(
        (record.policy.as_str(), record.reason.as_str()),
        (trust.policy, trust.reason.as_str())
    );
    assert_eq!((record.state, record.counter), (State::Provisioned, 4));
    let found = record.statement().unwrap();
    assert_same(&found, &statement);
    assert_eq!(found.standing.counter, 4);
    assert_eq!(found.standing.state, State::Provisioned);
    assert!(registry.find(DeviceId([2; 16])).unwrap().is_none());
}

#[test]
fn loose_columns_are_never_believed() {
    let device = Device::new(1);
    let other = Device::new(2);
    let foreign = other.enrolment();
    let changes: [(&str, Vec<u8>); 5] = [
        ("UPDATE devices SET identity = lower(hex(?1))", vec![9; 32]),
        ("UPDATE devices SET unwrap = lower(hex(?1))", vec![9; 32]),
        ("UPDATE devices SET statement = ?1", foreign.bytes.clone()),
        ("UPDATE devices SET latest = ?1", foreign.bytes),
        ("UPDATE devices SET statement_signature = ?1", vec![1; 64]),
    ];
    for (sql, value) in changes {
        let book = Book::of(module_path!());
        book.enrol(&device).unwrap();
        book.spoil(sql, &value);
        let record = book.registry.find(device.id).unwrap().unwrap();
        assert!(
            matches!(record.statement(), Err(RegistryError::Inconsistent { .. })),
            "{sql}"
        );
        // And nothing is decided on it.
        assert!(book.registry.history(device.id).is_err(), "{sql}");
    }
    // A counter that somebody has written down moves nothing.
    let book = Book::of(module_path!());
    book.enrol(&device).unwrap();
    book.spoil("UPDATE devices SET counter = 999 + length(?1)", &[0]);
    let pin = Pin {
        identity: device.fingerprint(),
        unwrap: device.unwrap_fingerprint(),
        counter: 1,
        epoch: 0,
    };
    assert_eq!(
        book.registry.history(device.id).unwrap(),
        History::Enrolled(pin)
    );
}

#[test]
fn only_what_the_device_has_signed_moves_it() {
    let book = Book::of(module_path!());
    let mut device = Device::new(1);
    book.enrol(&device).unwrap();
    device.counter = 3;
    let receipt = device.receipt(Kind::Lock, Digest([2; 32]), Outcome::Applied);
    let mut altered = receipt.clone();
    *altered.bytes.last_mut().unwrap() ^= 1;
    let mut unsigned = receipt.clone();
    unsigned.signature = Signature {
        r: [0; 32],
        s: [0; 32],
    };
    // Signed by another device, and by one that has the same id.
    let mut double = device.clone();
    double.keys = (50, 51);
    let foreign = Device::new(2).receipt(Kind::Lock, Digest([2; 32]), Outcome::Applied);
    let doubled = double.receipt(Kind::Lock, Digest([2; 32]), Outcome::Applied);
    // Signed by the device, but of another id.
    let mut renamed = device.clone();
    renamed.id = DeviceId([2; 16]);
    let renamed = renamed.receipt(Kind::Lock, Digest([2; 32]), Outcome::Applied);
    let neither = device.sign(b"neither receipt nor status");
    for wrong in [altered, unsigned, foreign, doubled, renamed, neither] {
        let result = book.registry.moved(device.id, &wrong);
        assert!(
            matches!(result, Err(RegistryError::NotItsReceipt { .. })),
            "{result:?}"
        );
    }
    assert_eq!(book.registry.find(device.id).unwrap().unwrap().counter, 1);
    book.registry.moved(device.id, &receipt).unwrap();
    assert_eq!(book.registry.find(device.id).unwrap().unwrap().counter, 3);
    let nobody = book.registry.moved(DeviceId([9; 16]), &receipt);
    assert!(matches!(nobody, Err(RegistryError::UnknownDevice { .. })));
}

#[test]
fn an_older_receipt_moves_nothing_back() {
    let book = Book::of(module_path!());
    let mut device = Device::new(1);
    book.enrol(&device).unwrap();
    device.counter = 9;
    let newer = device.receipt(
        Kind::Prove,
        Digest([2; 32]),
        Outcome::Refused(Refusal::Stale),
    );
    device.counter = 5;
    let older = device.receipt(Kind::Lock, Digest([3; 32]), Outcome::Applied);
    assert!(book.registry.moved(device.id, &newer).unwrap().newest);
    assert!(!book.registry.moved(device.id, &older).unwrap().newest);
    assert_eq!(book.registry.find(device.id).unwrap().unwrap().counter, 9);
    // Nor does a statement from before.
    let result = book.enrol(&device);
    assert!(
        matches!(
            result,
            Err(RegistryError::Older {
                known: 9,
                found: 5,
                ..
            })
        ),
        "{result:?}"
    );
}

pub(crate) fn status(device: &Device, order: Digest, applied: bool) -> SignedReceipt {
    let status = SignedStatus {
        tag: STATUS_TAG,
        format: FORMAT,
        device: device.id,
        identity: device.fingerprint(),
        order,
        nonce: Challenge([3; 32]),
        applied,
        state: device.state,
        counter: device.counter,
    };
    let mut buffer = [0; 256];
    device.sign(status.encode(&mut buffer).unwrap())
}

#[test]
fn an_order_on_its_way_ends_with_a_receipt() {
    let book = Book::of(module_path!());
    let registry = &book.registry;
    let mut device = Device::new(1);
    book.enrol(&device).unwrap();
    assert_eq!(registry.next_counter(device.id).unwrap(), 2);
    let bytes = inject(&device, 2, 1);
    let digest = registry.order_made(&bytes).unwrap();
    // Written down twice is written down once.
    assert_eq!(registry.order_made(&bytes).unwrap(), digest);
    assert_eq!(registry.orders(device.id).unwrap().len(), 1);
    assert_eq!(registry.next_counter(device.id).unwrap(), 3);
    let state = || registry.order(&digest).unwrap().unwrap().state;
    let pending = [(0, 1, SlotState::Pending), (3, 1, SlotState::Pending)];
    assert_eq!(
        (state(), states(registry, &device)),
        (OrderState::Prepared, pending.to_vec())
    );
    registry.order_delivered(&digest).unwrap();
    assert_eq!(state(), OrderState::Delivered);
    // "Not the last one" decides nothing; a receipt does, and the proofs are still open.
    registry
        .moved(device.id, &status(&device, digest, false))
        .unwrap();
    assert_eq!(state(), OrderState::Delivered);
    (device.counter, device.state) = (2, State::Provisioned);
    registry
        .moved(device.id, &status(&device, digest, true))
        .unwrap();
    assert_eq!(
        (state(), states(registry, &device)),
        (OrderState::Applied, pending.to_vec())
    );
    // A replay is refused by the device, and changes nothing here.
    let replayed = device.receipt(Kind::Inject, digest, Outcome::Refused(Refusal::Stale));
    registry.moved(device.id, &replayed).unwrap();
    assert_eq!(
        (state(), states(registry, &device)),
        (OrderState::Applied, pending.to_vec())
    );

    registry
        .slots_proved(device.id, &digest, &[(0, 1), (3, 1)])
        .unwrap();
    let slots = registry.slots(device.id).unwrap();
    assert_eq!(slots[0].key_type, "aes-128");
    assert_eq!(slots[1].key_type, "hmac-256");
    assert_eq!(
        (slots[0].label.as_str(), slots[0].proof),
        ("key 0", Proof::Cmac)
    );
    assert!(slots.iter().all(|slot| slot.state == SlotState::Proved));
    let missing = registry.slots_proved(device.id, &digest, &[(0, 1), (4, 1)]);
    assert!(matches!(
        missing,
        Err(RegistryError::UnknownSlot { slot: 4, .. })
    ));
}

#[test]
fn a_refused_order_fails_its_slots_and_may_be_made_again() {
    let book = Book::of(module_path!());
    let registry = &book.registry;
    let device = Device::new(1);
    book.enrol(&device).unwrap();
    let digest = registry.order_made(&inject(&device, 2, 1)).unwrap();
    let refusal = device.receipt(Kind::Inject, digest, Outcome::Refused(Refusal::Unwrap));
    registry.moved(device.id, &refusal).unwrap();
    assert_eq!(
        registry.order(&digest).unwrap().unwrap().state,
        OrderState::Failed
    );
    assert!(
        states(registry, &device)
            .iter()
            .all(|it| it.2 == SlotState::Failed)
    );
    // Counter and version are free again.
    assert_eq!(registry.next_counter(device.id).unwrap(), 2);
    let first = inject(&device, 2, 1);
    let (header, body) = order::decode(&first).unwrap();
    let header = Header {
        audit_head: Digest([4; 32]),
        ..header
    };
    let again = encoded(header, &body);
    let second = registry.order_made(&again).unwrap();
    assert_ne!(second, digest);
    assert!(
        states(registry, &device)
            .iter()
            .all(|it| it.2 == SlotState::Pending)
    );
}

#[test]
fn a_higher_version_replaces_and_a_lower_one_is_refused() {
    let book = Book::of(module_path!());
    let registry = &book.registry;
    let mut device = Device::new(1);
    book.enrol(&device).unwrap();
    for (counter, version) in [(2, 1), (3, 2)] {
        let digest = registry
            .order_made(&inject(&device, counter, version))
            .unwrap();
        device.counter = counter;
        let receipt = device.receipt(Kind::Inject, digest, Outcome::Refused(Refusal::Stale));
        assert!(registry.moved(device.id, &receipt).is_ok());
        let applied = status(&device, digest, true);
        registry.moved(device.id, &applied).unwrap();
        registry
            .slots_proved(device.id, &digest, &[(0, version), (3, version)])
            .unwrap();
    }
    let found = states(registry, &device);
    assert_eq!(found[0], (0, 1, SlotState::Removed));
    assert_eq!(found[1], (0, 2, SlotState::Proved));
    for version in [1, 2] {
        let result = registry.order_made(&inject(&device, 4, version));
        assert!(
            matches!(result, Err(RegistryError::SlotHeld { version: 2, .. })),
            "{result:?}"
        );
    }
    // A removal is known when its receipt is there, and does not make room for old versions.
    let terms = (address(&device), Freshness::Challenge(Challenge([8; 32])));
    let header = Header::new(Kind::Remove, terms.0, terms.1, 4);
    let remove = encoded(
        header,
        &Body::Remove(Remove {
            slots: [0].into_iter().collect(),
        }),
    );
    let digest = registry.order_made(&remove).unwrap();
    assert_eq!(states(registry, &device)[1].2, SlotState::Proved);
    device.counter = 4;
    registry
        .moved(
            device.id,
            &device.receipt(Kind::Remove, digest, Outcome::Applied),
        )
        .unwrap();
    assert_eq!(states(registry, &device)[1].2, SlotState::Removed);
    assert_eq!(states(registry, &device)[3].2, SlotState::Proved);
    assert!(registry.order_made(&inject(&device, 5, 2)).is_err());
}

#[test]
fn a_doubt_goes_with_a_proof_that_came_after_it_only() {
    let book = Book::of(module_path!());
    let registry = &book.registry;
    let mut device = Device::new(1);
    book.enrol(&device).unwrap();
    let present = Freshness::Challenge(Challenge([8; 32]));
    let brought = registry
        .order_made(&inject_when(&device, present, 2, 1))
        .unwrap();
    device.counter = 2;
    registry
        .moved(device.id, &status(&device, brought, true))
        .unwrap();
    let is_doubted_after = |order, slots: &[(u16, u32)]| {
        registry.slots_proved(device.id, &order, slots).unwrap();
        let held = registry.slots(device.id).unwrap();
        let held = held.iter().filter(|it| it.state == SlotState::Proved);
        let doubted: Vec<_> = held.map(|it| (it.slot, it.doubted)).collect();
        doubted
    };
    let heard_at = |counter| {
        let heard = Device {
            counter,
            ..device.clone()
        };
        book.enrol(&heard).unwrap();
        heard
    };
    assert_eq!(is_doubted_after(brought, &[(0, 1)]), [(0, false)]);
    // Somebody else has met it since, and two of its orders are nobody's. What was on its way then is as doubtful.
    let heard = heard_at(5);
    let both = [(0, 1), (3, 1)];
    assert_eq!(is_doubted_after(brought, &both), [(0, true), (3, true)]);
    // Whichever order was answered with the proofs.
    let header = Header::new(Kind::Lock, address(&heard), present, 6);
    let asked = registry.order_made(&encoded(header, &Body::Lock));
    let asked = asked.unwrap();
    assert_eq!(is_doubted_after(asked, &[(3, 1)]), [(0, true), (3, false)]);
    // Nor is what was found wrong since right again.
    registry.slots_failed(device.id, &asked, &[(3, 1)]).unwrap();
    assert_eq!(is_doubted_after(brought, &[(3, 1)]), [(0, true), (3, true)]);
    // The answers to detached orders may come in any order.
    let detached = registry.order_made(&inject(&device, 7, 2)).unwrap();
    heard_at(9);
    let newer = [(0, 2), (3, 2)];
    assert_eq!(is_doubted_after(detached, &newer), [(0, false), (3, false)]);
}

#[test]
fn what_is_told_late_counts_only_for_what_it_was_asked_of() {
    let book = Book::of(module_path!());
    let registry = &book.registry;
    let present = Freshness::Challenge(Challenge([8; 32]));
    let ordered = |device: &Device, counter| {
        let order = inject_when(device, present, counter, 1);
        registry.order_made(&order).unwrap()
    };
    let slots = [(0, 1), (3, 1)];
    let are = |device: &Device, expected| {
        let held = registry.slots(device.id).unwrap();
        assert!(held.iter().all(|it| it.state == expected), "{held:?}");
    };
    let mut device = Device::new(1);
    book.enrol(&device).unwrap();
    let first = ordered(&device, 2);
    // Another station has ordered other keys for the same slots since: what was proved is not what stands there now.
    device.counter = 7;
    book.enrol(&device).unwrap();
    let second = ordered(&device, 8);
    let late = registry.slots_proved(device.id, &first, &slots);
    assert!(
        matches!(late, Err(RegistryError::NotItsOrder { .. })),
        "{late:?}"
    );
    are(&device, SlotState::Pending);
    device.counter = 8;
    let receipt = status(&device, second, true);
    registry.moved(device.id, &receipt).unwrap();
    registry.slots_proved(device.id, &second, &slots).unwrap();
    // What was found wrong before it was proved puts it in doubt, no more.
    registry.slots_failed(device.id, &first, &slots).unwrap();
    are(&device, SlotState::Proved);
    let held = registry.slots(device.id).unwrap();
    assert!(held.iter().all(|it| it.doubted), "{held:?}");
    // What is told twice is true twice: whoever told it may not have heard that it was taken.
    for _ in 0..2 {
        registry
            .slots_gone(device.id, device.fingerprint(), &slots)
            .unwrap();
        are(&device, SlotState::Removed);
    }
    let other = registry.slots_gone(device.id, device.fingerprint(), &[(5, 1)]);
    assert!(
        matches!(other, Err(RegistryError::UnknownSlot { slot: 5, .. })),
        "{other:?}"
    );

    // The device was let go of, and enrolled with other keys: what was found out of the former ones is not said of these.
    registry
        .release(device.id, device.fingerprint(), "wiped")
        .unwrap();
    let former = device.fingerprint();
    let mut anew = Device::new(1);
    anew.keys = (50, 51);
    book.enrol(&anew).unwrap();
    ordered(&anew, 2);
    for told in [
        registry.slots_proved(device.id, &second, &slots),
        registry.slots_failed(device.id, &second, &slots),
        registry.slots_gone(device.id, former, &slots),
        registry.release(device.id, former, "wiped"),
        registry.certified(device.id, b"no certificate"),
    ] {
        assert!(told.is_err());
    }
    are(&anew, SlotState::Pending);
}

#[test]
fn an_order_is_kept_for_the_keys_that_were_pinned_only() {
    let book = Book::of(module_path!());
    let registry = &book.registry;
    let device = Device::new(1);
    book.enrol(&device).unwrap();
    let mut double = device.clone();
    double.keys.1 = 51;
    for (bytes, what) in [
        (inject(&double, 2, 1), "other unwrap key"),
        (b"no order".to_vec(), "garbage"),
    ] {
        let result = registry.order_made(&bytes);
        assert!(
            matches!(result, Err(RegistryError::NotItsOrder { .. })),
            "{what}"
        );
    }
    let unknown = registry.order_made(&inject(&Device::new(2), 2, 1));
    assert!(matches!(unknown, Err(RegistryError::UnknownDevice { .. })));
    registry.order_made(&inject(&device, 2, 1)).unwrap();
    // A second one with the same counter could never be applied beside it.
    let result = registry.order_made(&inject(&device, 2, 7));
    assert!(
        matches!(result, Err(RegistryError::CounterTaken { counter: 2, .. })),
        "{result:?}"
    );
    // What failed half-way has left nothing.
    assert_eq!(states(registry, &device).len(), 2);
    assert_eq!(registry.orders(device.id).unwrap().len(), 1);
    let nothing = registry.order_delivered(&Digest([1; 32]));
    assert!(matches!(nothing, Err(RegistryError::UnknownOrder { .. })));
}

#[test]
fn what_is_anothers_is_not_written_down() {
    let book = Book::of(module_path!());
    let (one, two) = (Device::new(1), Device::new(2));
    let enrol = |device: &Device, serial| {
        let (statement, trust) = (
            device.statement(),
            Trust {
                policy: "open",
                reason: String::new(),
            },
        );
        book.registry.enrolled(&Enrolled {
            statement: &statement,
            trust: &trust,
            serial,
        })
    };
    enrol(&one, Some("SN-1")).unwrap();
    assert_eq!(enrol(&one, None).unwrap(), Recorded::Again);
    assert!(matches!(
        enrol(&two, Some("SN-1")),
        Err(RegistryError::SerialTaken { holder, .. }) if holder == one.id
    ));
    for keys in [(one.keys.0, 60), (60, one.keys.1)] {
        let mut thief = two.clone();
        thief.keys = keys;
        assert!(matches!(
            enrol(&thief, None),
            Err(RegistryError::KeyTaken { holder, .. }) if holder == one.id
        ));
    }
    let mut changed = one.clone();
    changed.keys = (60, 61);
    assert!(matches!(
        enrol(&changed, None),
        Err(RegistryError::OtherKeys { expected, .. }) if expected == one.fingerprint()
    ));
    assert!(book.registry.find(two.id).unwrap().is_none());
    let record = book.registry.find(one.id).unwrap().unwrap();
    assert_eq!(record.serial.as_deref(), Some("SN-1"));
}

#[test]
fn released_keys_never_come_back() {
    let book = Book::of(module_path!());
    let registry = &book.registry;
    let device = Device::new(1);
    book.enrol(&device).unwrap();
    registry.order_made(&inject(&device, 2, 1)).unwrap();
    registry
        .release(device.id, device.fingerprint(), "wiped")
        .unwrap();
    assert_eq!(registry.history(device.id).unwrap(), History::Released);
    let record = registry.find(device.id).unwrap().unwrap();
    assert_eq!(record.released.as_ref().unwrap().reason, "wiped");
    assert!(matches!(
        record.statement(),
        Err(RegistryError::Released { .. })
    ));
    assert!(matches!(
        registry.order_made(&inject(&device, 3, 1)),
        Err(RegistryError::Released { .. })
    ));
    assert!(
        registry
            .orders(device.id)
            .unwrap()
            .iter()
            .all(|it| it.state == OrderState::Failed)
    );
    assert!(matches!(
        registry.release(device.id, device.fingerprint(), "twice"),
        Err(RegistryError::Released { .. })
    ));

    let mut wiped = device.clone();
    wiped.keys = (60, 61);
    assert_eq!(book.enrol(&wiped).unwrap(), Recorded::AfterRelease);
    assert!(states(registry, &wiped).is_empty(), "new keys, empty slots");
    assert_eq!(
        registry.holder(device.fingerprint()).unwrap(),
        Some(device.id)
    );
    // The old flash, or the old keys in another device, also after a second release.
    registry
        .release(wiped.id, wiped.fingerprint(), "again")
        .unwrap();
    assert!(matches!(
        book.enrol(&device),
        Err(RegistryError::KeyTaken { .. })
    ));
    let mut thief = Device::new(2);
    thief.keys = device.keys;
    assert!(matches!(
        book.enrol(&thief),
        Err(RegistryError::KeyTaken { .. })
    ));
    // The same keys again, where the device was not wiped after all.
    assert_eq!(book.enrol(&wiped).unwrap(), Recorded::AfterRelease);
    assert!(registry.find(wiped.id).unwrap().unwrap().released.is_none());
}

#[test]
fn an_applied_wipe_empties_the_slots() {
    let book = Book::of(module_path!());
    let registry = &book.registry;
    let mut device = Device::new(1);
    book.enrol(&device).unwrap();
    registry.order_made(&inject(&device, 2, 1)).unwrap();
    (device.counter, device.state) = (3, State::Blank);
    let receipt = device.receipt(Kind::Wipe, Digest([2; 32]), Outcome::Applied);
    registry.moved(device.id, &receipt).unwrap();
    assert!(
        states(registry, &device)
            .iter()
            .all(|it| it.2 == SlotState::Removed)
    );
    assert_eq!(
        registry.find(device.id).unwrap().unwrap().state,
        State::Blank
    );
}

#[test]
fn a_new_statement_is_kept_once_a_policy_has_accepted_it() {
    let book = Book::of(module_path!());
    let mut device = Device::new(1);
    book.enrol(&device).unwrap();
    (device.counter, device.epoch) = (2, 1);
    device.suites = vec![Suite::EcdhP256Null];
    let moved = book.registry.moved(device.id, &device.enrolment()).unwrap();
    assert_eq!((moved.outcome, moved.newest), (None, false));
    let found = || book.registry.find(device.id).unwrap().unwrap();
    assert_eq!(
        (found().counter, found().epoch),
        (1, 0),
        "nobody has accepted it"
    );
    // Nor that of a stranger, which a policy is still to refuse; it is no failure of the registry.
    let mut double = device.clone();
    double.keys = (50, 51);
    assert!(book.registry.moved(device.id, &double.enrolment()).is_ok());
    assert_eq!(found().identity, device.fingerprint());

    assert_eq!(book.enrol(&device).unwrap(), Recorded::Again);
    assert_eq!(found().suites, "ecdh-p256-null");
    assert_eq!(found().statement().unwrap().epoch, 1);
    // Not with another unwrap key, though the identity key has signed it.
    let mut changed = device.clone();
    (changed.counter, changed.keys.1) = (3, 70);
    let result = book.enrol(&changed);
    assert!(
        matches!(result, Err(RegistryError::OtherKeys { .. })),
        "{result:?}"
    );
    assert_eq!(found().counter, 2, "nothing of it was written");
}

#[test]
fn an_enroll_order_is_not_kept() {
    let book = Book::of(module_path!());
    let device = Device::new(1);
    let authority = SoftAuthority::new(0);
    let fresh = Freshness::Challenge(Challenge([8; 32]));
    let blank = Address {
        device: device.id,
        identity: Fingerprint::ZERO,
        unwrap: Fingerprint::ZERO,
    };
    let body = Body::Enroll(order::Enroll {
        authority: authority.public_key(),
        nonce: Challenge([7; 32]),
        unwrap: UnwrapAlgorithm::P256,
    });
    let bytes = encoded(Header::new(Kind::Enroll, blank, fresh, 1), &body);
    let digest = book.registry.order_made(&bytes).unwrap();
    assert_eq!(book.registry.order(&digest).unwrap(), None);
}

#[test]
fn devices_are_found_page_by_page() {
    let book = Book::of(module_path!());
    let many = u8::try_from(PAGE).unwrap() + 7;
    for number in 0..many {
        let mut device = Device::new(number);
        // Two keys each, all different.
        device.keys = (number, number);
        device.state = if number % 2 == 0 {
            State::Enrolled
        } else {
            State::Locked
        };
        book.enrol(&device).unwrap();
    }
    let sold = book.registry.find(DeviceId([0; 16])).unwrap().unwrap();
    book.registry
        .release(sold.device, sold.identity, "sold")
        .unwrap();
    let all = |filter: &Filter| {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = book.registry.devices(filter, after).unwrap();
            after = page.last().map(|record| record.device);
            found.extend(page.iter().map(|record| record.device));
            if page.len() < PAGE {
                return found;
            }
        }
    };
    let expected: Vec<_> = (1..many).map(|number| DeviceId([number; 16])).collect();
    assert_eq!(all(&Filter::default()), expected);
    let filter = Filter {
        released: true,
        ..Filter::default()
    };
    assert_eq!(all(&filter).len(), usize::from(many));
    let filter = Filter {
        state: Some(State::Locked),
        ..Filter::default()
    };
    assert_eq!(all(&filter).len(), usize::from(many / 2));
    let filter = Filter {
        board: Some("another".into()),
        ..Filter::default()
    };
    assert!(all(&filter).is_empty());
}

/// The `Wipe` of a quarantined device, whose keys nobody knows any more.
fn recovery(device: DeviceId, counter: u32, challenge: u8) -> Vec<u8> {
    let authority = SoftAuthority::new(0);
    let fresh = Freshness::Challenge(Challenge([challenge; 32]));
    let unknown = Address {
        device,
        identity: Fingerprint::ZERO,
        unwrap: Fingerprint::ZERO,
    };
    let body = Body::Recover(order::Recover {
        authority: authority.public_key(),
    });
    encoded(Header::new(Kind::Wipe, unknown, fresh, counter), &body)
}

#[test]
fn each_wipe_of_a_quarantined_device_has_a_counter_of_its_own() {
    let book = Book::new();
    let registry = &book.registry;
    let device = Device::new(1);
    book.enrol(&device).unwrap();
    registry.order_made(&inject(&device, 7, 1)).unwrap();
    let record = || registry.find(device.id).unwrap().unwrap();
    let next = || registry.recovery_counter(&record()).unwrap();
    assert_eq!(next(), 8);
    let first = registry.order_made(&recovery(device.id, 8, 1)).unwrap();
    assert_eq!(registry.order(&first).unwrap().unwrap().counter, 8);
    // Nobody knows what became of it.
    assert_eq!(next(), 9);
    registry.order_made(&recovery(device.id, 9, 2)).unwrap();
    registry
        .release(device.id, device.fingerprint(), "quarantined, and wiped")
        .unwrap();
    let state = |order| registry.order(order).unwrap().unwrap().state;
    assert_eq!(state(&first), OrderState::Failed);
    // And of a device that was let go of.
    assert_eq!(next(), 10);
    let third = registry.order_made(&recovery(device.id, 10, 3)).unwrap();
    assert_eq!(next(), 11);
    let receipt = device.receipt(Kind::Wipe, third, Outcome::Applied);
    assert!(matches!(
        registry.moved(device.id, &receipt),
        Err(RegistryError::Released { .. })
    ));
    // What says that it began anew is signed by a key that is nobody's, and moves nothing.
    let key = SoftAuthority::new(77);
    let header = keyferry_protocol::receipt::Header {
        identity: fingerprint(key.public_key()),
        state: State::Blank,
        counter: 10,
        ..device.header(Kind::Wipe, third, Outcome::Applied)
    };
    let mut buffer = [0; 512];
    let mut writer = Writer::new(&header, &mut buffer).unwrap();
    let recovered = keyferry_protocol::receipt::Recovered {
        key: key.public_key(),
    };
    writer.recovered(&recovered, &mut buffer).unwrap();
    let bytes = buffer[..writer.length()].to_vec();
    let receipt = SignedReceipt {
        signature: Signature::from_bytes(&key.sign(&bytes).unwrap()),
        bytes,
    };
    let before = record();
    let moved = registry.moved(device.id, &receipt).unwrap();
    assert_eq!((moved.outcome, moved.newest), (None, false));
    assert_eq!(record().counter, before.counter);
    assert_eq!(state(&third), OrderState::Delivered);

    // One that would leave the device no orders is not made.
    let highest = recovery(device.id, order::MAX_RECOVERED_COUNTER, 4);
    registry.order_made(&highest).unwrap();
    assert!(matches!(
        registry.recovery_counter(&record()),
        Err(RegistryError::CounterSpent { .. })
    ));
    // Of a stranger there is nothing to keep it with.
    let stranger = recovery(DeviceId([9; 16]), 5, 5);
    let order = registry.order_made(&stranger).unwrap();
    assert_eq!(registry.order(&order).unwrap(), None);
}

#[test]
fn a_serial_number_that_is_known_is_kept() {
    let book = Book::new();
    let mut device = Device::new(1);
    let enrol = |device: &Device, serial| {
        let (statement, trust) = (
            device.statement(),
            Trust {
                policy: "open",
                reason: String::new(),
            },
        );
        let enrolled = Enrolled {
            statement: &statement,
            trust: &trust,
            serial,
        };
        book.registry.enrolled(&enrolled).unwrap();
        let record = book.registry.find(device.id).unwrap().unwrap();
        record.serial
    };
    assert_eq!(enrol(&device, None), None);
    for serial in [Some("SN-1"), None] {
        device.counter += 1;
        assert_eq!(enrol(&device, serial).as_deref(), Some("SN-1"));
    }
    book.registry
        .release(device.id, device.fingerprint(), "wiped")
        .unwrap();
    device.keys = (60, 61);
    assert_eq!(enrol(&device, None).as_deref(), Some("SN-1"));
}
