//! The attacker has recorded orders, and sends them again: at once, later, after a restart, after a wipe, in another order, to
//! another device.

use keyferry::device::flow::{self, Terms};
use keyferry_firmware::device::Operations;
use keyferry_protocol::identity::{Digest, Fingerprint, Signature};
use keyferry_protocol::order::{Body, Enroll, Freshness, Kind};
use keyferry_protocol::proof::Proof;
use keyferry_protocol::receipt::{Refusal, State};
use keyferry_protocol::suite::UnwrapAlgorithm;
use keyferry_tests::orders::{Order, enrolment};
use keyferry_tests::software::{SoftAuthority, wrap};

use crate::{ASKED, NONCE, Victim, injecting, provisioned, two_keys, with_blobs};

/// An `Enroll` as the wire has it.
fn enrolling(authority: &SoftAuthority, terms: Terms) -> Order {
    let header = keyferry_protocol::order::Header {
        audit_head: terms.audit_head,
        unwrap: Fingerprint::ZERO,
        ..keyferry_protocol::order::Header::new(
            Kind::Enroll,
            terms.address,
            terms.freshness,
            terms.counter,
        )
    };
    Order::new(authority, header, &enroll_body(authority))
}

fn enroll_body(authority: &SoftAuthority) -> Body<'_> {
    use keyferry::device::flow::Authority as _;
    Body::Enroll(Enroll {
        authority: authority.public_key(),
        nonce: NONCE,
        unwrap: UnwrapAlgorithm::P256,
    })
}

/// One order of each kind that leaves the device usable, made and applied one after the other.
fn recorded(victim: &Victim, authority: &SoftAuthority) -> Vec<Order> {
    let mut tape = Vec::new();
    let mut play = |order: Order| {
        let first = victim.obeys(&order).receipt();
        // At once: the stored receipt, the same to the last byte, and nothing done.
        let before = victim.scene();
        assert_eq!(victim.obeys(&order).receipt(), first);
        assert_eq!(victim.scene(), before);
        tape.push(order);
    };
    let blank = enrolment(&victim.session());
    play(Order::new(authority, blank, &enroll_body(authority)));
    play(enrolling(authority, victim.terms(authority)));

    let statement = victim.enroll(authority).unwrap();
    let shipment = wrap(&statement, &two_keys(), 1);
    let terms = flow::terms(&statement, Digest::ZERO).unwrap();
    play(injecting(authority, terms, &shipment));

    let demands = [(0, Proof::Cmac).into()];
    let terms = victim.terms(authority);
    play(with_blobs(
        flow::prove_order(authority, terms, &demands, ASKED).unwrap(),
        None,
    ));
    let terms = victim.terms(authority);
    play(with_blobs(
        flow::remove_order(authority, terms, &[1]).unwrap(),
        None,
    ));
    // Detached: prepared before, with the next counter and a bound that it uses up itself.
    let statement = victim.enroll(authority).unwrap();
    let address = flow::address(&statement);
    let detached =
        |step| Terms::detached(address, &statement.standing, step, Digest::ZERO).unwrap();
    play(enrolling(authority, detached(1)));
    let keys = [two_keys().remove(1)];
    let mut shipment = wrap(&statement, &keys, 1);
    shipment.parcels[0].slot = 5;
    play(injecting(authority, detached(2), &shipment));
    tape
}

/// SPEC: M-15, M-16, M-17
#[test]
fn a_recorded_order_is_never_done_twice() {
    for (mut victim, number) in Victim::both(40).into_iter().zip(0..) {
        let authority = SoftAuthority::new(0);
        let tape = recorded(&victim, &authority);
        let (last, older) = tape.split_last().unwrap();
        for restarted in [false, true] {
            if restarted {
                victim.restart();
            }
            for (place, order) in older.iter().enumerate() {
                let (refusal, signed) = match place {
                    // Addressed to a device that had no keys.
                    0 => (Refusal::WrongAddress, false),
                    _ => (Refusal::Stale, true),
                };
                victim.refuses(order, refusal, signed);
            }
            let before = victim.scene();
            victim.obeys(last);
            assert_eq!(victim.scene(), before);
        }
        // Refusing and repeating opened nothing.
        assert_eq!(victim.operations().unwrap, 0, "victim {number}");
    }
}

/// SPEC: M-13, M-15, M-29
#[test]
fn orders_recorded_before_a_wipe_die_with_the_keys() {
    for mut victim in Victim::both(41) {
        let authority = SoftAuthority::new(0);
        let tape = recorded(&victim, &authority);
        let terms = victim.terms(&authority);
        let wipe = with_blobs(flow::wipe_order(&authority, terms).unwrap(), None);
        victim.obeys(&wipe);

        // Blank: nothing but an Enroll is listened to, and the recorded ones are used up.
        for restarted in [false, true] {
            if restarted {
                victim.restart();
            }
            assert_eq!(victim.scene().state, State::Blank);
            for (place, order) in tape.iter().enumerate() {
                let refusal = match place {
                    0 => Refusal::Stale,
                    1 | 5 => Refusal::WrongAddress,
                    _ => Refusal::State,
                };
                victim.refuses(order, refusal, false);
            }
            let before = victim.scene();
            victim.obeys(&wipe);
            assert_eq!(victim.scene(), before);
        }

        // Enrolled again, by the same authority: it is another device.
        let again = victim.enroll(&authority).unwrap();
        for order in tape.iter().chain([&wipe]) {
            victim.refuses(order, Refusal::WrongAddress, false);
        }
        assert_eq!(victim.operations().unwrap, 0);
        assert_eq!(again.standing.state, State::Enrolled);
    }
}

/// SPEC: M-16, M-17
#[test]
fn detached_orders_cannot_be_delivered_in_another_order() {
    for victim in Victim::both(42) {
        let authority = SoftAuthority::new(0);
        let (victim, statement) = provisioned(victim, &authority);
        let address = flow::address(&statement);
        let terms =
            |step| Terms::detached(address, &statement.standing, step, Digest::ZERO).unwrap();
        let first = flow::remove_order(&authority, terms(1), &[0]).unwrap();
        let second = flow::remove_order(&authority, terms(2), &[1]).unwrap();
        let third = flow::remove_order(&authority, terms(3), &[0]).unwrap();
        let [first, second, third] = [first, second, third].map(|order| with_blobs(order, None));
        // The second alone is within its bound; the first has missed its turn for good.
        victim.obeys(&second);
        victim.refuses(&first, Refusal::Stale, true);
        victim.obeys(&third);
        for order in [&first, &second] {
            victim.refuses(order, Refusal::Stale, true);
        }
    }
}

/// SPEC: M-16, M-17
#[test]
fn a_used_up_bound_and_a_counter_that_jumps_are_refused() {
    for victim in Victim::both(43) {
        let authority = SoftAuthority::new(0);
        let (mut victim, statement) = provisioned(victim, &authority);
        let address = flow::address(&statement);
        let counter = statement.standing.counter;
        let remove = |below, counter| {
            let terms = Terms {
                address,
                freshness: Freshness::Detached { below },
                counter,
                audit_head: Digest::ZERO,
            };
            with_blobs(flow::remove_order(&authority, terms, &[0]).unwrap(), None)
        };
        for (below, to, expected) in [
            (counter, counter + 1, Refusal::Stale),
            (0, counter + 1, Refusal::Stale),
            (counter + 1, counter, Refusal::Counter),
            (counter + 1, 0, Refusal::Counter),
            (u32::MAX, counter + 1025, Refusal::Counter),
            (u32::MAX, u32::MAX, Refusal::Counter),
        ] {
            victim.refuses(&remove(below, to), expected, true);
        }
        // With a challenge there is one counter that is right.
        for to in [0, counter, counter + 2, counter + 1024, u32::MAX] {
            let challenge = victim.session().greeting().challenge;
            let terms = Terms {
                address,
                freshness: Freshness::Challenge(challenge),
                counter: to,
                audit_head: Digest::ZERO,
            };
            let order = flow::remove_order(&authority, terms, &[0]).unwrap();
            victim.refuses(&with_blobs(order, None), Refusal::Counter, true);
        }
        // As far as one may jump.
        victim.obeys(&remove(counter + 1, counter + 1024));
        assert_eq!(victim.scene().counter, counter + 1024);
        assert_eq!(victim.operations().unwrap, 1);
    }
}

/// SPEC: M-13, M-14
#[test]
fn an_order_for_one_device_is_refused_by_another() {
    for (make, numbers) in [
        (Victim::desk as fn(u8) -> Victim, [44, 45]),
        (Victim::board, [44, 45]),
    ] {
        let authority = SoftAuthority::new(0);
        let [mut one, mut two] = numbers.map(make);
        for device in [&one, &two] {
            device.enroll(&authority).unwrap();
        }
        let statement = one.enroll(&authority).unwrap();
        let terms = flow::terms(&statement, Digest::ZERO).unwrap();
        let shipment = wrap(&statement, &two_keys(), 1);
        let inject = injecting(&authority, terms, &shipment);
        let wipe = with_blobs(flow::wipe_order(&authority, terms).unwrap(), None);
        let enroll = enrolling(&authority, terms);
        two.restart();
        for order in [&inject, &wipe, &enroll] {
            two.refuses(order, Refusal::WrongAddress, false);
        }
        assert_eq!(two.operations(), Operations::default());
        // Where it is meant for, it is done.
        one.restart();
        let terms = one.terms(&authority);
        one.obeys(&injecting(&authority, terms, &shipment));
        assert_eq!(one.operations().unwrap, 1);
    }
}

/// An ECDSA signature has a twin, `r ‖ n − s`, that anybody can make. It is no second order.
///
/// SPEC: M-15
#[test]
fn the_twin_of_a_signature_makes_no_second_order() {
    let victim = Victim::desk(46);
    let authority = SoftAuthority::new(0);
    let (victim, _) = provisioned(victim, &authority);
    let terms = victim.terms(&authority);
    let order = with_blobs(flow::remove_order(&authority, terms, &[0]).unwrap(), None);
    let receipt = victim.obeys(&order).receipt();
    let twin = p256::ecdsa::Signature::from_scalars(order.signature.r, order.signature.s).unwrap();
    let (r, s) = twin.split_scalars();
    let twin = p256::ecdsa::Signature::from_scalars(r, -s).unwrap();
    let twin = Order {
        signature: Signature::from_bytes(&twin.to_bytes().into()),
        ..order.clone()
    };
    assert_ne!(twin.signature, order.signature);
    let before = victim.scene();
    match victim.send(&twin).refusal() {
        None => assert_eq!(victim.send(&twin).receipt(), receipt),
        refused => assert_eq!(refused, Some((Refusal::BadSignature, false))),
    }
    assert_eq!(victim.scene(), before);
    victim.terms(&authority);
    let before = victim.scene();
    assert!(victim.send(&twin).refusal().is_some());
    assert_eq!(victim.scene(), before);
}

/// An `Enroll` that was prepared for a blank device, and recorded: the counter outlives the wipe, so it does not pass again.
///
/// SPEC: M-16, M-29
#[test]
fn a_detached_enroll_of_a_blank_device_does_not_pass_again_after_a_wipe() {
    for mut victim in Victim::both(47) {
        let authority = SoftAuthority::new(0);
        let blank = enrolment(&victim.session());
        let header = keyferry_protocol::order::Header {
            freshness: Freshness::Detached {
                below: blank.counter,
            },
            ..blank
        };
        let enroll = Order::new(&authority, header, &enroll_body(&authority));
        victim.obeys(&enroll);
        let terms = victim.terms(&authority);
        let wipe = with_blobs(flow::wipe_order(&authority, terms).unwrap(), None);
        victim.obeys(&wipe);
        assert_eq!(victim.scene().state, State::Blank);
        for _ in 0..2 {
            victim.refuses(&enroll, Refusal::Stale, false);
            victim.restart();
        }
    }
}

/// Handed over and back: what the first authority signed before does not count again.
///
/// SPEC: M-15, M-16, M-30
#[test]
fn orders_from_before_a_handover_do_not_come_back_with_the_authority() {
    for victim in Victim::both(48) {
        let (first, second) = (SoftAuthority::new(0), SoftAuthority::new(1));
        let (victim, _) = provisioned(victim, &first);
        let prepared = flow::lock_order(&first, victim.terms(&first)).unwrap();
        let prepared = with_blobs(prepared, None);
        let away = flow::rotate_order(&first, &second, victim.terms(&first)).unwrap();
        let away = with_blobs(away, None);
        victim.obeys(&away);
        victim.refuses(&prepared, Refusal::BadSignature, false);
        let back = flow::rotate_order(&second, &first, victim.terms(&second)).unwrap();
        let back = with_blobs(back, None);
        victim.obeys(&back);
        for order in [&prepared, &away] {
            victim.refuses(order, Refusal::Stale, true);
        }
        // The last order is answered from the store.
        let before = victim.scene();
        victim.obeys(&back);
        assert_eq!(victim.scene(), before);
    }
}
