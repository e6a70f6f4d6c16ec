//! The attacker wants something weaker: another suite, an older key, wider attributes, another authority.

use keyferry::device::flow::{self, Authority as _};
use keyferry_firmware::device::Operations;
use keyferry_protocol::identity::Digest;
use keyferry_protocol::order::{Body, Enroll, Header, Kind, Rotate};
use keyferry_protocol::receipt::Refusal;
use keyferry_protocol::suite::{Suite, UnwrapAlgorithm};
use keyferry_tests::orders::{Order, enrolment};
use keyferry_tests::software::{SoftAuthority, wrap};

use crate::{NONCE, Victim, injecting, provisioned, rewritten, two_keys, with_blobs};

/// SPEC: M-12, M-19
#[test]
fn a_suite_cannot_be_changed_on_the_way_nor_forced_on_the_device() {
    let authority = SoftAuthority::new(0);
    // The third has an RSA key, and so two suites of different strength.
    let rsa = Victim::desk(63);
    let (session, unwrap) = (&mut rsa.session(), UnwrapAlgorithm::Rsa2048);
    flow::enroll(session, &authority, unwrap, NONCE, &mut crate::quiet).unwrap();
    for mut victim in Victim::both(60).into_iter().chain([rsa]) {
        let statement = victim.enroll(&authority).unwrap();
        let shipment = wrap(&statement, &two_keys(), 1);
        let order = injecting(
            &authority,
            flow::terms(&statement, Digest::ZERO).unwrap(),
            &shipment,
        );
        for suite in Suite::ALL
            .into_iter()
            .filter(|suite| *suite != shipment.suite)
        {
            let altered = rewritten(&order, |header, _| header.suite = Some(suite));
            victim.refuses(&altered, Refusal::BadSignature, false);
            // Signed by the right authority, and still nothing that this device offered.
            if !statement.suites.contains(&suite) {
                let mut forced = shipment.clone();
                forced.suite = suite;
                let order = injecting(&authority, victim.terms(&authority), &forced);
                victim.refuses(&order, Refusal::Suite, true);
            }
        }
        assert_eq!(victim.operations().unwrap, 0);
    }
}

/// SPEC: M-19
#[test]
fn a_key_version_never_goes_back_also_after_a_removal() {
    for victim in Victim::both(61) {
        let authority = SoftAuthority::new(0);
        let (victim, statement) = provisioned(victim, &authority);
        let put = |version| {
            let shipment = wrap(&statement, &two_keys(), version);
            injecting(&authority, victim.terms(&authority), &shipment)
        };
        victim.refuses(&put(1), Refusal::SlotTaken, true);
        victim.obeys(&put(7));
        for version in [0, 1, 6] {
            victim.refuses(&put(version), Refusal::VersionRollback, true);
        }
        let terms = victim.terms(&authority);
        let remove = flow::remove_order(&authority, terms, &[0, 1]).unwrap();
        victim.obeys(&with_blobs(remove, None));
        for version in [0, 1, 6, 7] {
            victim.refuses(&put(version), Refusal::VersionRollback, true);
        }
        victim.obeys(&put(8));
    }
}

/// SPEC: M-12, M-14
#[test]
fn nobody_but_the_authority_is_obeyed() {
    for victim in Victim::both(62) {
        let authority = SoftAuthority::new(0);
        let stranger = SoftAuthority::new(9);
        let (mut victim, statement) = provisioned(victim, &authority);
        victim.restart();
        let terms = flow::terms(&statement, Digest::ZERO).unwrap();
        let shipment = wrap(&statement, &two_keys(), 2);
        let demands = [(0, keyferry_protocol::proof::Proof::Cmac).into()];
        let simple = [
            flow::prove_order(&stranger, terms, &demands, crate::ASKED),
            flow::remove_order(&stranger, terms, &[0]),
            flow::lock_order(&stranger, terms),
            flow::wipe_order(&stranger, terms),
            flow::rotate_order(&stranger, &stranger, terms),
            // Half a handover: the new authority wants, the old one was not asked.
            flow::rotate_order(&stranger, &authority, terms),
        ];
        let mut orders: Vec<_> = simple
            .into_iter()
            .map(|order| with_blobs(order.unwrap(), None))
            .collect();
        orders.push(injecting(&stranger, terms, &shipment));
        for signer in [&stranger, &authority] {
            // Who signs, and whom the order names: only both right is right.
            for named in [&stranger, &authority] {
                if std::ptr::eq(signer, named) && std::ptr::eq(signer, &authority) {
                    continue;
                }
                let header = enrolment(&victim.session());
                let body = Body::Enroll(Enroll {
                    authority: named.public_key(),
                    nonce: NONCE,
                    unwrap: UnwrapAlgorithm::P256,
                });
                orders.push(Order::new(signer, header, &body));
            }
        }
        // The old authority signs a handover that nobody takes, or somebody else.
        let header = Header::new(Kind::Rotate, terms.address, terms.freshness, terms.counter);
        let body = Body::Rotate(Rotate {
            authority: stranger.public_key(),
        });
        let alone = Order::new(&authority, header, &body);
        orders.push(alone.clone());
        orders.push(alone.clone().seconded(&authority));
        orders.push(alone.seconded(&SoftAuthority::new(10)));
        for order in &orders {
            victim.refuses(order, Refusal::BadSignature, false);
        }
        assert_eq!(victim.operations(), Operations::default());
    }
}
