//! The attacker has valid blobs and valid orders, and puts them together in his own way.

use keyferry::device::flow;
use keyferry::device::verify::Statement;
use keyferry_firmware::device::Operations;
use keyferry_protocol::attributes::usage;
use keyferry_protocol::identity::Digest;
use keyferry_protocol::order::Body;
use keyferry_protocol::receipt::Refusal;
use keyferry_tests::orders::Order;
use keyferry_tests::software::{SoftAuthority, SoftKey, hmac_key, wrap, wrap_under};

use crate::{Victim, injecting, rewritten};

/// Two keys of one length.
fn two_keys() -> Vec<SoftKey> {
    vec![hmac_key(1), hmac_key(2)]
}

/// A new order for a shipment of the two keys under the KEK with this number, for the device as it is now.
fn shipped(victim: &Victim, authority: &SoftAuthority, kek: u8) -> (Order, Statement) {
    let statement = victim.enroll(authority).unwrap();
    let (shipment, _) = wrap_under(&statement, &two_keys(), 1, kek);
    let terms = flow::terms(&statement, Digest::ZERO).unwrap();
    (injecting(authority, terms, &shipment), statement)
}

/// Places of the blobs that follow an order of two keys.
const KEK: usize = 0;
const FIRST: usize = 1;
const SECOND: usize = 2;

/// SPEC: M-20, M-21
#[test]
fn a_blob_counts_only_in_its_own_place_of_its_own_order() {
    for (mut victim, other) in Victim::both(50).into_iter().zip(Victim::both(51)) {
        let authority = SoftAuthority::new(0);
        let (elsewhere, _) = shipped(&other, &authority, 2);
        let (earlier, _) = shipped(&victim, &authority, 0);
        type Swap<'a> = Box<dyn Fn(&mut Vec<Vec<u8>>, &Statement) + 'a>;
        let swaps: Vec<(&str, Swap<'_>)> = vec![
            (
                "slots exchanged",
                Box::new(|blobs, _| blobs.swap(FIRST, SECOND)),
            ),
            (
                "one key in both slots",
                Box::new(|blobs, _| blobs[SECOND] = blobs[FIRST].clone()),
            ),
            (
                "another device's KEK",
                Box::new(|blobs, _| blobs[KEK] = elsewhere.blobs[KEK].clone()),
            ),
            (
                "another device's key",
                Box::new(|blobs, _| blobs[FIRST] = elsewhere.blobs[FIRST].clone()),
            ),
            (
                "all of another device's",
                Box::new(|blobs, _| *blobs = elsewhere.blobs.clone()),
            ),
            (
                "another order's KEK",
                Box::new(|blobs, statement| {
                    blobs[KEK] = wrap_under(statement, &two_keys(), 1, 1).0.kek;
                }),
            ),
        ];
        for (what, swap) in swaps {
            let (mut order, statement) = shipped(&victim, &authority, 0);
            let before = order.blobs.clone();
            swap(&mut order.blobs, &statement);
            assert_ne!(order.blobs, before, "{what}");
            println!("{what}");
            victim.refuses(&order, Refusal::Unwrap, true);
        }
        let opened = victim.operations().unwrap;
        // The order alone, of an earlier shipment, is used up.
        victim.refuses(&earlier, Refusal::Stale, true);
        assert_eq!(victim.operations().unwrap, opened);
        let (order, _) = shipped(&victim, &authority, 0);
        victim.obeys(&order);
    }
}

/// The right authority signs an order around blobs that were wrapped for another device.
///
/// SPEC: M-18, M-21
#[test]
fn a_blob_for_another_device_does_not_open_even_under_a_right_order() {
    for (victim, other) in Victim::both(52).into_iter().zip(Victim::both(53)) {
        let authority = SoftAuthority::new(0);
        let statement = victim.enroll(&authority).unwrap();
        let foreign = wrap(&other.enroll(&authority).unwrap(), &two_keys(), 1);
        let terms = flow::terms(&statement, Digest::ZERO).unwrap();
        victim.refuses(
            &injecting(&authority, terms, &foreign),
            Refusal::Unwrap,
            true,
        );
    }
}

/// SPEC: M-12, M-14
#[test]
fn an_order_cannot_be_readdressed_or_its_attributes_changed_on_the_way() {
    for (mut victim, other) in Victim::both(54).into_iter().zip(Victim::both(55)) {
        let authority = SoftAuthority::new(0);
        let (order, statement) = shipped(&victim, &authority, 0);
        let target = other.enroll(&authority).unwrap();
        victim.restart();
        let moved = rewritten(&order, |header, _| {
            let address = flow::address(&target);
            header.device = address.device;
            header.identity = address.identity;
            header.unwrap = address.unwrap;
        });
        other.refuses(&moved, Refusal::BadSignature, false);

        type Change = fn(&mut keyferry_protocol::order::Inject);
        let changes: [Change; 7] = [
            |inject| inject.entries[0].slot = 7,
            |inject| inject.entries[0].version = 9,
            |inject| inject.entries[0].attributes.usage |= usage::EXPORT,
            |inject| inject.entries[0].attributes.lifetime ^= 1,
            |inject| inject.entries[0].proof = keyferry_protocol::proof::Proof::None,
            |inject| {
                let label = keyferry_protocol::order::Label::try_from("mine").unwrap();
                inject.entries[0].label = label;
            },
            |inject| {
                let (first, second) = (inject.entries[0].blob, inject.entries[1].blob);
                (inject.entries[0].blob, inject.entries[1].blob) = (second, first);
            },
        ];
        for change in changes {
            let altered = rewritten(&order, |_, body| match body {
                Body::Inject(inject) => change(inject),
                other => panic!("{other:?}"),
            });
            victim.refuses(&altered, Refusal::BadSignature, false);
        }
        // The same blobs under an order of somebody else's.
        let shipment = wrap(&statement, &two_keys(), 1);
        let terms = flow::terms(&statement, Digest::ZERO).unwrap();
        let stranger = injecting(&SoftAuthority::new(9), terms, &shipment);
        victim.refuses(&stranger, Refusal::BadSignature, false);
        assert_eq!(victim.operations(), Operations::default());
    }
}

/// A blob that is too long ends the order while others are on their way: one signed refusal, and the next question gets the next
/// answer.
///
/// SPEC: M-18, M-20
#[test]
fn blobs_that_come_after_the_refusal_get_no_answer() {
    for victim in Victim::both(56) {
        let authority = SoftAuthority::new(0);
        let statement = victim.enroll(&authority).unwrap();
        let shipment = wrap(&statement, &crate::two_keys(), 1);
        let terms = flow::terms(&statement, Digest::ZERO).unwrap();
        let mut order = injecting(&authority, terms, &shipment);
        order.blobs.swap(FIRST, SECOND);
        order.blobs.extend(vec![vec![0; 100]; 4]);
        let before = victim.scene();
        let mut session = victim.session();
        assert_eq!(
            order.send(&mut session).refusal(),
            Some((Refusal::Sequence, true))
        );
        assert!(flow::list(&mut session).unwrap().is_empty());
        drop(session);
        assert_eq!(victim.scene(), before);
    }
}
