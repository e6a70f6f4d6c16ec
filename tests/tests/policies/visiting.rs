//! Which enrolled devices are the right ones.

use keyferry::certificate::{CertificateError, Serial};
use keyferry::station::policy::{Allowlist, Enrolment, NoRegistry, PolicyError, Rules, Visiting};
use keyferry_protocol::identity::DeviceId;

use crate::{Book, Ca, Device, enrolling, now, refused, visiting};

#[test]
fn without_a_policy_no_device_is_the_right_one() {
    let statement = Device::new(1).statement();
    for rules in [Rules::closed(), enrolling(Enrolment::Open)] {
        let error = refused(rules.visit(&statement, None, &NoRegistry, now()));
        assert!(matches!(error, PolicyError::NoVisiting { .. }), "{error}");
    }
}

#[test]
fn a_certificate_of_the_identity_key_is_accepted() {
    let ca = Ca::new(30, "CN=Factory");
    let rules = visiting(Visiting::Certificate(ca.trusted()));
    let device = Device::new(1);
    for serial in [Serial::from(device.id), Serial::product("SN-0001").unwrap()] {
        let certificate = ca.certify(serial, device.keys.0);
        let trust = rules
            .visit(&device.statement(), Some(&certificate), &NoRegistry, now())
            .unwrap();
        assert_eq!(trust.policy, "certificate");
        assert!(trust.reason.contains("CN=Factory"), "{}", trust.reason);
    }
}

#[test]
fn a_certificate_must_be_there_and_be_this_devices() {
    let ca = Ca::new(30, "CN=Factory");
    let rules = visiting(Visiting::Certificate(ca.trusted()));
    let device = Device::new(1);
    let statement = device.statement();
    let error = refused(rules.visit(&statement, None, &NoRegistry, now()));
    assert!(
        matches!(error, PolicyError::NoCertificate { .. }),
        "{error}"
    );

    let refuse = |certificate: &[u8]| match refused(rules.visit(
        &statement,
        Some(certificate),
        &NoRegistry,
        now(),
    )) {
        PolicyError::Certificate { source, .. } => source,
        error => panic!("{error}"),
    };
    let id = Serial::from(device.id);
    assert!(matches!(
        refuse(&ca.certify(id.clone(), 50)),
        CertificateError::OtherKey { .. }
    ));
    let other_id = Serial::from(DeviceId([2; 16]));
    assert!(matches!(
        refuse(&ca.certify(other_id, device.keys.0)),
        CertificateError::OtherSerial { .. }
    ));
    let stranger = Ca::new(31, "CN=Somebody");
    assert!(matches!(
        refuse(&stranger.certify(id, device.keys.0)),
        CertificateError::UnknownIssuer { .. }
    ));
    assert!(matches!(refuse(&[]), CertificateError::Malformed));
    // The CA's own certificate is no device's.
    assert!(matches!(
        refuse(&ca.certificate),
        CertificateError::NotDevice
    ));
}

fn allowlist(devices: &[&Device]) -> Rules {
    let lines: Vec<_> = devices
        .iter()
        .map(|device| format!("{},{}", device.id, device.fingerprint()))
        .collect();
    let list = Allowlist::read("allowed.csv", lines.join("\n").as_bytes()).unwrap();
    visiting(Visiting::Allowlist(list))
}

#[test]
fn an_allowlist_accepts_id_and_identity_key_together() {
    let (one, two, three) = (Device::new(1), Device::new(2), Device::new(3));
    let rules = allowlist(&[&one, &two]);
    let trust = rules
        .visit(&one.statement(), None, &NoRegistry, now())
        .unwrap();
    assert_eq!(trust.policy, "allowlist");
    assert!(trust.reason.contains("allowed.csv"), "{}", trust.reason);

    let error = refused(rules.visit(&three.statement(), None, &NoRegistry, now()));
    assert!(matches!(error, PolicyError::NotAllowed { .. }), "{error}");
    // The id of one device with the key of another that is on the list as well.
    let mut mixed = one.clone();
    mixed.keys = two.keys;
    let error = refused(rules.visit(&mixed.statement(), None, &NoRegistry, now()));
    let words = error.to_string();
    assert!(matches!(error, PolicyError::NotTheOne { .. }), "{words}");
    assert!(words.contains(&one.fingerprint().to_string()), "{words}");
    assert!(words.contains(&two.fingerprint().to_string()), "{words}");
}

#[test]
fn an_allowlist_of_one_accepts_one_identity_key() {
    let (one, two) = (Device::new(1), Device::new(2));
    let rules = visiting(Visiting::Allowlist(Allowlist::one(one.fingerprint())));
    assert!(
        rules
            .visit(&one.statement(), None, &NoRegistry, now())
            .is_ok()
    );
    let error = refused(rules.visit(&two.statement(), None, &NoRegistry, now()));
    assert!(matches!(error, PolicyError::NotTheOne { .. }), "{error}");
}

#[test]
fn the_registry_accepts_what_it_has_pinned() {
    let book = Book::new();
    let (one, two) = (Device::new(1), Device::new(2));
    book.enrol(&one).unwrap();
    let rules = visiting(Visiting::Registry);
    let visit = |device: &Device| rules.visit(&device.statement(), None, &book.registry, now());
    let trust = visit(&one).unwrap();
    assert_eq!(trust.policy, "registry");
    assert!(trust.reason.contains(&one.fingerprint().to_string()));

    let error = refused(visit(&two));
    assert!(matches!(error, PolicyError::Unknown { .. }), "{error}");
    let error = refused(rules.visit(&one.statement(), None, &NoRegistry, now()));
    assert!(
        matches!(error, PolicyError::NeedsRegistry { .. }),
        "{error}"
    );
    let none: Option<keyferry::station::registry::Registry> = None;
    let error = refused(rules.visit(&one.statement(), None, &none, now()));
    assert!(
        matches!(error, PolicyError::NeedsRegistry { .. }),
        "{error}"
    );
}
