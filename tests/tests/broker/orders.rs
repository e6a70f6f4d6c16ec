//! The broker is no signing oracle: it signs orders only, of allowed kinds only, and only about what it has made itself.

use heapless::String as Fixed;
use keyferry::audit::{LogId, signed_bytes};
use keyferry::device::DeviceError;
use keyferry::device::flow::{
    Authority, Demand, ORDERS_AGAIN, Parcel, Shipment, SignedOrder, enroll_order, inject_order,
    lock_order, prove_order, recover_order, remove_order, rotate_order, wipe_order,
};
use keyferry::device::verify::Statement;
use keyferry::error::{Exit, Failure};
use keyferry::hsm::WrappedKeys;
use keyferry::station::{Hsm, KeyCard};
use keyferry_protocol::attributes::usage;
use keyferry_protocol::identity::{Challenge, DeviceId, Digest, Fingerprint};
use keyferry_protocol::order::{Body, Freshness, Header, Kind, MAX_RECOVERED_COUNTER, Recover};
use keyferry_protocol::proof::{INPUT_LENGTH, Proof};
use keyferry_protocol::suite::UnwrapAlgorithm;
use keyferry_tests::broker::{Broker, FakeDevice};
use keyferry_tests::software::SoftAuthority;

use crate::recipients::{card, enroll, greeting, recipient, refused, suite, terms};
use crate::{OPEN, token};

const CHALLENGE: Challenge = Challenge([3; 32]);

fn forbidden(result: Result<SignedOrder, DeviceError>, words: &str) {
    refused(result, words);
}

#[test]
fn arbitrary_bytes_are_not_signed() {
    let scratch = token();
    scratch.done([
        "key", "create", "--label", "audit", "--type", "p-256", "--usage", "sign",
    ]);
    let broker = Broker::start(&scratch, &[&OPEN[..], &["--audit-key", "audit"]].concat());
    let hsm = broker.client();
    let authority = hsm.authority();
    let sign = |bytes: &[u8]| {
        let error = authority.sign(bytes).unwrap_err();
        refused::<()>(Err(DeviceError::Authority(error)), "no order");
    };
    let time = der_now();
    let checkpoint = signed_bytes(&LogId([1; 16]), 5, &Digest([2; 32]), time);
    let mut proof = [0; INPUT_LENGTH];
    proof[..16].copy_from_slice(&keyferry_protocol::proof::TAG);
    sign(b"");
    sign(b"hello");
    sign(&[0; 2000]);
    sign(&checkpoint);
    sign(&proof);
    // A certificate's or a request's bytes begin like this.
    sign(&[0x30, 0x82, 0x01, 0x00]);
    // An order with something behind it.
    let fake = FakeDevice::new(1);
    let order = enroll_order(
        authority,
        &greeting(fake.id(), Fingerprint::ZERO),
        UnwrapAlgorithm::P256,
        CHALLENGE,
        Digest::ZERO,
    )
    .unwrap();
    sign(&[&order.bytes[..], b"!"].concat());
    sign(&order.bytes[..order.bytes.len() - 1]);

    let auditor = hsm.auditor().unwrap();
    let error = auditor.sign(&order.bytes).unwrap_err();
    assert!(error.to_string().contains("no checkpoint"), "{error}");
    auditor.sign(&checkpoint).unwrap();
    assert_eq!(broker.counts()["checkpoints"], 1);
    assert_eq!(broker.counts()["orders"], 1);
    assert_eq!(broker.counts()["refused"], 8);
}

/// Now, in whole seconds.
fn der_now() -> der::DateTime {
    der::DateTime::from_system_time(std::time::SystemTime::now()).unwrap()
}

#[test]
fn a_log_never_goes_back() {
    let scratch = token();
    scratch.done([
        "key", "create", "--label", "audit", "--type", "p-256", "--usage", "sign",
    ]);
    let broker = Broker::start(&scratch, &[&OPEN[..], &["--audit-key", "audit"]].concat());
    let hsm = broker.client();
    let auditor = hsm.auditor().unwrap();
    let sign = |log: u8, lines: u64, head: u8| {
        let bytes = signed_bytes(&LogId([log; 16]), lines, &Digest([head; 32]), der_now());
        auditor.sign(&bytes).map_err(DeviceError::Authority)
    };
    sign(1, 5, 5).unwrap();
    sign(1, 5, 5).unwrap();
    sign(1, 9, 9).unwrap();
    refused(sign(1, 8, 8), "not the one of its last checkpoint");
    refused(sign(1, 9, 8), "not the one of its last checkpoint");
    sign(2, 1, 1).unwrap();
    let old = der::DateTime::new(2020, 1, 1, 0, 0, 0).unwrap();
    let bytes = signed_bytes(&LogId([1; 16]), 20, &Digest([20; 32]), old);
    let late = auditor.sign(&bytes).map_err(DeviceError::Authority);
    refused(late, "seconds off");
}

#[test]
fn kinds_that_are_not_allowed_are_not_signed() {
    let scratch = token();
    let broker = Broker::start(&scratch, &OPEN);
    let hsm = broker.client();
    let authority = hsm.authority();
    let statement = enroll(&hsm, &FakeDevice::new(1), Fingerprint::ZERO);
    let terms = || terms(&statement);
    let new = SoftAuthority::new(1);
    let lost = greeting(DeviceId([1; 16]), Fingerprint::ZERO);
    forbidden(wipe_order(authority, terms()), "no order of kind wipe");
    forbidden(
        recover_order(authority, &lost, 9, Digest::ZERO),
        "no order of kind wipe",
    );
    forbidden(
        rotate_order(authority, &new, terms()),
        "no order of kind rotate",
    );
    lock_order(authority, terms()).unwrap();
    remove_order(authority, terms(), &[1]).unwrap();
    prove_order(
        authority,
        terms(),
        &[Demand::from((0, Proof::Cmac))],
        CHALLENGE,
    )
    .unwrap();
    drop(broker);

    let broker = Broker::start(
        &scratch,
        &[&OPEN[..], &["--allow-kinds", "wipe,rotate"]].concat(),
    );
    let hsm = broker.client();
    let authority = hsm.authority();
    wipe_order(authority, terms()).unwrap();
    recover_order(authority, &lost, 9, Digest::ZERO).unwrap();
    rotate_order(authority, &new, terms()).unwrap();
    forbidden(lock_order(authority, terms()), "no order of kind lock");
    let kinds = ["--allow-kinds", "enroll,everything"];
    let answer = keyferry_tests::command::Answer::of(&mut keyferry_tests::broker::serve(
        &scratch,
        &[&OPEN[..], &kinds].concat(),
    ));
    assert_eq!(answer.code, 2, "{answer:?}");
}

#[test]
fn an_order_that_names_another_authority_is_not_signed() {
    let scratch = token();
    let kinds = ["--allow-kinds", "enroll,wipe"];
    let broker = Broker::start(&scratch, &[&OPEN[..], &kinds].concat());
    let hsm = broker.client();
    /// Signs with one key, and names another.
    struct Liar<'a>(&'a dyn Authority, Vec<u8>);
    impl Authority for Liar<'_> {
        fn public_key(&self) -> &[u8] {
            &self.1
        }
        fn sign(
            &self,
            message: &[u8],
        ) -> Result<[u8; 64], Box<dyn std::error::Error + Send + Sync>> {
            self.0.sign(message)
        }
    }
    let liar = Liar(hsm.authority(), SoftAuthority::new(3).public_key().to_vec());
    let device = greeting(DeviceId([1; 16]), Fingerprint::ZERO);
    let order = enroll_order(
        &liar,
        &device,
        UnwrapAlgorithm::P256,
        CHALLENGE,
        Digest::ZERO,
    );
    forbidden(order, "names an authority");
    let recovery = recover_order(&liar, &device, 9, Digest::ZERO);
    forbidden(recovery, "names an authority");
    // Nor one that would leave the device no orders: the flow makes none.
    let recover = |counter| {
        let fresh = Freshness::Challenge(device.challenge);
        let header = Header::new(Kind::Wipe, device.enrolment_address(), fresh, counter);
        let authority = hsm.authority();
        let body = Body::Recover(Recover {
            authority: authority.public_key(),
        });
        SignedOrder::new(authority, header, &body)
    };
    recover(MAX_RECOVERED_COUNTER).unwrap();
    forbidden(recover(MAX_RECOVERED_COUNTER + 1), "is the highest");
    forbidden(recover(u32::MAX), "is the highest");
}

/// Keys that the broker has wrapped for a device, as they would be shipped.
fn shipment(wrapped: &WrappedKeys, cards: &[&KeyCard]) -> Shipment {
    Shipment {
        suite: wrapped.suite,
        certificate: None,
        kek: wrapped.kek_blob.clone(),
        parcels: cards
            .iter()
            .zip(&wrapped.blobs)
            .enumerate()
            .map(|(slot, (card, blob))| Parcel {
                slot: slot as u16,
                version: 1,
                attributes: card.attributes,
                label: Fixed::try_from(card.label.as_str()).unwrap(),
                proof: card.proof,
                question: Vec::new(),
                blob: blob.clone(),
            })
            .collect(),
    }
}

#[test]
fn an_injection_carries_what_was_wrapped_here_for_this_device_and_no_more() {
    let scratch = token();
    let broker = Broker::start(&scratch, &OPEN);
    let hsm = broker.client();
    let cards = [card(&hsm, "sensor"), card(&hsm, "telemetry")];
    let cards = [&cards[0], &cards[1]];
    let make = |number| {
        let statement = enroll(&hsm, &FakeDevice::new(number), Fingerprint::ZERO);
        let suite = suite(&hsm, &statement);
        let wrapped = hsm.wrap(recipient(&statement), suite, &cards).unwrap();
        (statement, wrapped)
    };
    let (one, wrapped) = make(1);
    let (two, for_two) = make(2);
    let good = shipment(&wrapped, &cards);
    let order = |device: &Statement, change: &dyn Fn(&mut Shipment)| {
        let mut changed = good.clone();
        change(&mut changed);
        inject_order(hsm.authority(), terms(device), &changed, CHALLENGE)
    };
    forbidden(order(&two, &|_| {}), "not made for it");
    forbidden(
        order(&one, &|shipment| shipment.kek[9] ^= 1),
        "not made for it",
    );
    forbidden(
        order(&one, &|shipment| shipment.parcels[1].blob[9] ^= 1),
        "a wrapped key",
    );
    forbidden(
        order(&one, &|shipment| {
            shipment.parcels[1].blob.clone_from(&for_two.blobs[1])
        }),
        "a wrapped key",
    );
    forbidden(
        order(&one, &|shipment| {
            let other = keyferry_protocol::suite::Suite::ALL
                .into_iter()
                .find(|suite| *suite != shipment.suite);
            shipment.suite = other.unwrap();
        }),
        "a wrapped KEK",
    );
    forbidden(
        order(&one, &|shipment| {
            shipment.parcels[0].attributes.usage |= usage::ENCRYPT
        }),
        "another set of attributes",
    );
    forbidden(
        order(&one, &|shipment| shipment.parcels[0].proof = Proof::None),
        "another proof",
    );
    forbidden(
        order(&one, &|shipment| {
            shipment.parcels[0].label = Fixed::try_from("other").unwrap()
        }),
        "another label",
    );
    forbidden(
        order(&one, &|shipment| {
            shipment.certificate = Some(vec![0x30; 40])
        }),
        "a certificate",
    );
    // Slots and versions are the station's to choose.
    let seven = |shipment: &mut Shipment| shipment.parcels[0].slot = 7;
    order(&one, &seven).unwrap();
    // A wrap is good for one order.
    forbidden(order(&one, &|_| {}), "a wrapped KEK");
    // The device that lost it gets the same with another challenge; never with another counter or before it is met, since it could
    // apply both then.
    let at = |challenge: u8, counter: u32| {
        let mut now = terms(&one);
        now.freshness = Freshness::Challenge(Challenge([challenge; 32]));
        now.counter += counter;
        now
    };
    let mut moved = good.clone();
    seven(&mut moved);
    let again = |terms| inject_order(hsm.authority(), terms, &moved, CHALLENGE);
    forbidden(again(at(1, 1)), "a wrapped KEK");
    let mut detached = at(1, 0);
    detached.freshness = Freshness::Detached {
        below: detached.counter,
    };
    forbidden(again(detached), "a wrapped KEK");
    let other = inject_order(hsm.authority(), at(1, 0), &moved, Challenge([1; 32]));
    forbidden(other, "a wrapped KEK");
    for times in 1..=ORDERS_AGAIN {
        again(at(times as u8, 0)).unwrap();
    }
    forbidden(again(at(9, 0)), "a wrapped KEK");
    inject_order(
        hsm.authority(),
        terms(&two),
        &shipment(&for_two, &cards),
        CHALLENGE,
    )
    .unwrap();
    let counts = broker.counts();
    assert_eq!(
        (&counts["refused"], &counts["keys_wrapped"]),
        (&14.into(), &4.into())
    );
}

/// A station without a broker says no less: an authority that fails is the HSM's fault, not the device's.
#[test]
fn a_signature_that_fails_is_told_from_a_device_that_fails() {
    let failed = DeviceError::Authority("the reason".into());
    assert!(failed.to_string().contains("the reason"));
    assert_eq!(Failure::from(failed).exit(), Exit::Device);
    let hsm = keyferry::hsm::HsmError::NoModule;
    assert_eq!(
        Failure::from(DeviceError::Authority(Box::new(hsm))).exit(),
        Exit::Usage
    );
}
