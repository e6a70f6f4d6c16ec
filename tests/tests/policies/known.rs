//! What is pinned counts under every policy.

use keyferry::certificate::Serial;
use keyferry::station::policy::{Allowlist, Enrolment, PolicyError, Rules, SerialList, Visiting};

use crate::{Book, Ca, Device, NONCE, VENDOR_KEY, now, refused};

/// Rules for every policy, each of which would accept this device by itself, and its certificate.
fn all_that_accept(device: &Device) -> (Vec<Rules>, Vec<u8>) {
    let ca = Ca::new(30, "CN=Both");
    let certificate = ca.certify(Serial::from(device.id), device.keys.0);
    let serials = SerialList::read("s", device.id.to_string().as_bytes()).unwrap();
    let line = format!("{} {}", device.id, device.fingerprint());
    let allowlist = Allowlist::read("a", line.as_bytes()).unwrap();
    let enrolments = [
        Enrolment::VendorCertificate(ca.trusted()),
        Enrolment::SerialList(serials),
        Enrolment::Open,
        Enrolment::Open,
    ];
    let visits = [
        Visiting::Certificate(ca.trusted()),
        Visiting::Allowlist(allowlist),
        Visiting::Registry,
        Visiting::Open,
    ];
    let rules = enrolments.into_iter().zip(visits);
    let rules = rules.map(|(enrolment, visiting)| Rules {
        enrolment: Some(enrolment),
        visiting: Some(visiting),
        ..Rules::closed()
    });
    (rules.collect(), certificate)
}

fn with_voucher(mut device: Device) -> Device {
    let ca = Ca::new(30, "CN=Both");
    let certificate = ca.certify(Serial::from(device.id), VENDOR_KEY);
    device.voucher = Some((certificate, device.vouch(VENDOR_KEY, NONCE)));
    device
}

/// Under each policy, at enrolment and on a visit.
fn everywhere(book: &Book, device: &Device, check: impl Fn(&PolicyError) -> bool) {
    let (all, certificate) = all_that_accept(device);
    for rules in all {
        let statement = device.statement();
        let enrolment = refused(rules.enrolment(&statement, &book.registry, now()));
        let visit = refused(rules.visit(&statement, Some(&certificate), &book.registry, now()));
        for error in [enrolment, visit] {
            assert!(check(&error), "{rules:?}: {error}");
        }
    }
}

#[test]
fn each_of_the_rules_accepts_the_device_that_was_enrolled() {
    let book = Book::of(module_path!());
    let device = with_voucher(Device::new(1));
    book.enrol(&device).unwrap();
    let (all, certificate) = all_that_accept(&device);
    for rules in all {
        let statement = device.statement();
        rules.enrolment(&statement, &book.registry, now()).unwrap();
        rules
            .visit(&statement, Some(&certificate), &book.registry, now())
            .unwrap();
    }
}

#[test]
fn a_changed_identity_key_is_refused_under_every_policy() {
    let book = Book::of(module_path!());
    let device = Device::new(1);
    book.enrol(&device).unwrap();
    let mut other = device.clone();
    other.keys = (50, 51);
    let other = with_voucher(other);
    everywhere(&book, &other, |error| {
        let words = error.to_string();
        let hint = error.hint().unwrap();
        matches!(error, PolicyError::OtherIdentity { .. })
            && words.contains(&device.fingerprint().to_string())
            && words.contains(&other.fingerprint().to_string())
            && hint.contains("keyferry registry release --registry")
            && hint.contains(&device.id.to_string())
    });
}

#[test]
fn a_changed_unwrap_key_is_refused_under_every_policy() {
    let book = Book::of(module_path!());
    let device = Device::new(1);
    book.enrol(&device).unwrap();
    let mut other = device.clone();
    other.keys.1 = 51;
    everywhere(&book, &with_voucher(other), |error| {
        matches!(error, PolicyError::OtherUnwrapKey { .. })
    });
}

#[test]
fn an_identity_key_under_another_id_is_refused_under_every_policy() {
    let book = Book::of(module_path!());
    let device = Device::new(1);
    book.enrol(&device).unwrap();
    let mut double = Device::new(2);
    double.keys = (device.keys.0, 51);
    everywhere(
        &book,
        &with_voucher(double),
        |error| matches!(error, PolicyError::IdentityElsewhere { holder, .. } if *holder == device.id),
    );
}

#[test]
fn a_flash_that_was_put_back_is_refused_under_every_policy() {
    let book = Book::of(module_path!());
    let mut device = Device::new(1);
    (device.counter, device.epoch) = (7, 2);
    book.enrol(&device).unwrap();
    let mut older = device.clone();
    older.counter = 6;
    everywhere(&book, &with_voucher(older), |error| {
        matches!(
            error,
            PolicyError::CounterWentBack {
                known: 7,
                found: 6,
                ..
            }
        )
    });
    let mut older = device.clone();
    older.epoch = 1;
    everywhere(&book, &with_voucher(older), |error| {
        matches!(
            error,
            PolicyError::EpochWentBack {
                known: 2,
                found: 1,
                ..
            }
        )
    });
}

#[test]
fn a_released_device_gets_nothing_until_it_is_enrolled_again() {
    let book = Book::of(module_path!());
    let device = with_voucher(Device::new(1));
    book.enrol(&device).unwrap();
    book.registry
        .release(device.id, device.fingerprint(), "wiped for rework")
        .unwrap();
    let (all, certificate) = all_that_accept(&device);
    for rules in &all {
        let error = refused(rules.visit(
            &device.statement(),
            Some(&certificate),
            &book.registry,
            now(),
        ));
        assert!(matches!(error, PolicyError::Released { .. }), "{error}");
    }
    // With new keys, under the policies that do not know the keys before.
    let mut wiped = device.clone();
    wiped.keys = (50, 51);
    let wiped = with_voucher(wiped);
    for rules in &all {
        rules
            .enrolment(&wiped.statement(), &book.registry, now())
            .unwrap();
    }
}
