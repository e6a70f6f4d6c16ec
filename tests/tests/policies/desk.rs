//! The same with the real firmware: what its statement says is what the policies see.

use keyferry::certificate::Serial;
use keyferry::device::flow;
use keyferry::device::session::Session;
use keyferry::device::verify::{Statement, fingerprint};
use keyferry::station::policy::{
    Allowlist, Enrolment, NoRegistry, PolicyError, Rules, SerialList, Visiting,
};
use keyferry_protocol::identity::{Challenge, DeviceId};
use keyferry_protocol::suite::UnwrapAlgorithm;
use keyferry_tests::desk::{Desk, OnDesk};
use keyferry_tests::software::SoftAuthority;
use sha2::{Digest as _, Sha256};

use crate::{Book, Ca, VENDOR_KEY, now, refused};

/// Has the device state itself; it is enrolled if it was blank.
fn state(device: &OnDesk) -> Statement {
    let authority = SoftAuthority::new(0);
    let mut session = Session::open(device.port()).unwrap();
    let (unwrap, nonce) = (UnwrapAlgorithm::P256, Challenge([9; 32]));
    flow::enroll(&mut session, &authority, unwrap, nonce, &mut |_| {}).unwrap()
}

/// What such a device needs leave for.
fn lenient(rules: Rules) -> Rules {
    Rules {
        allow_test_devices: true,
        allow_development: true,
        ..rules
    }
}

#[test]
fn a_device_is_enrolled_once_and_known_again() {
    let book = Book::new();
    let device = OnDesk::start(Desk::new(1, 32));
    let id = DeviceId([1; 16]);
    let list = SerialList::read("serials", id.to_string().as_bytes()).unwrap();
    let strict = Rules {
        enrolment: Some(Enrolment::SerialList(list)),
        visiting: Some(Visiting::Registry),
        ..Rules::closed()
    };
    let statement = state(&device);
    let error = refused(strict.enrolment(&statement, &book.registry, now()));
    assert!(
        matches!(
            error,
            PolicyError::Development { .. } | PolicyError::TestDevice { .. }
        ),
        "{error}"
    );
    let rules = lenient(strict);
    let trust = rules.enrolment(&statement, &book.registry, now()).unwrap();
    assert!(
        trust.reason.contains("rng of class test"),
        "{}",
        trust.reason
    );
    let enrolled = keyferry::station::registry::Enrolled {
        statement: &statement,
        trust: &trust,
        serial: None,
    };
    book.registry.enrolled(&enrolled).unwrap();

    // On another day, after a power cut.
    let device = OnDesk::start(Desk::with_flash(1, device.stop()));
    let again = state(&device);
    assert!(again.standing.counter > statement.standing.counter);
    assert_eq!(
        rules
            .visit(&again, None, &book.registry, now())
            .unwrap()
            .policy,
        "registry"
    );
    let allowed = Allowlist::one(fingerprint(&again.identity_key));
    let by_key = lenient(Rules {
        visiting: Some(Visiting::Allowlist(allowed)),
        ..Rules::closed()
    });
    assert!(by_key.visit(&again, None, &book.registry, now()).is_ok());

    // A blank part with the same id, as after a wipe, or in the hands of an attacker.
    // It has been started once more than the first one, so that its stuck entropy source does not give the same keys.
    let started = OnDesk::start(Desk::new(1, 32)).stop();
    let blank = state(&OnDesk::start(Desk::with_flash(1, started)));
    assert_ne!(blank.identity_key, statement.identity_key);
    let error = refused(rules.enrolment(&blank, &book.registry, now()));
    assert!(
        matches!(error, PolicyError::OtherIdentity { .. }),
        "{error}"
    );
    let error = refused(rules.visit(&blank, None, &book.registry, now()));
    assert!(
        matches!(error, PolicyError::OtherIdentity { .. }),
        "{error}"
    );
}

#[test]
fn a_copy_of_its_flash_from_before_is_refused() {
    let book = Book::new();
    let device = OnDesk::start(Desk::new(1, 32));
    state(&device);
    let copy = device.stop();
    let rules = lenient(Rules {
        enrolment: Some(Enrolment::Open),
        visiting: Some(Visiting::Open),
        ..Rules::closed()
    });
    let device = OnDesk::start(Desk::with_flash(1, copy.clone()));
    for _ in 0..4 {
        let statement = state(&device);
        let trust = rules.enrolment(&statement, &book.registry, now()).unwrap();
        let enrolled = keyferry::station::registry::Enrolled {
            statement: &statement,
            trust: &trust,
            serial: None,
        };
        book.registry.enrolled(&enrolled).unwrap();
    }
    let older = state(&OnDesk::start(Desk::with_flash(1, copy)));
    let error = refused(rules.visit(&older, None, &book.registry, now()));
    assert!(
        matches!(error, PolicyError::CounterWentBack { .. }),
        "{error}"
    );
}

#[test]
fn the_firmwares_own_voucher_is_accepted_and_only_for_its_id() {
    let vendor = Ca::new(30, "CN=Vendor");
    // The private half of the key that the certificate is for.
    let scalar: [u8; 32] = Sha256::digest([b'a', VENDOR_KEY]).into();
    let rules = lenient(Rules {
        enrolment: Some(Enrolment::VendorCertificate(vendor.trusted())),
        ..Rules::closed()
    });
    let check = |certified: DeviceId| {
        let mut desk = Desk::new(1, 32);
        desk.vendor = Some((scalar, vendor.certify(Serial::from(certified), VENDOR_KEY)));
        rules.enrolment(&state(&OnDesk::start(desk)), &NoRegistry, now())
    };
    let trust = check(DeviceId([1; 16])).unwrap();
    assert_eq!(trust.policy, "vendor-certificate");
    let error = refused(check(DeviceId([2; 16])));
    assert!(
        matches!(error, PolicyError::VendorCertificate { .. }),
        "{error}"
    );
    // A board without such a key.
    let bare = state(&OnDesk::start(Desk::new(1, 32)));
    let error = refused(rules.enrolment(&bare, &NoRegistry, now()));
    assert!(matches!(error, PolicyError::NoVoucher { .. }), "{error}");
}
