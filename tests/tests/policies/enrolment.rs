//! Which blank devices may be enrolled.

use keyferry::certificate::{CertificateError, Serial};
use keyferry::error::{Exit, Failure};
use keyferry::station::policy::{Enrolment, NoRegistry, PolicyError, Rules, SerialList, Visiting};
use keyferry_protocol::identity::{Challenge, DeviceId};
use keyferry_protocol::proof::{Level, Proof};
use keyferry_protocol::receipt::{Flavour, SourceClass};
use keyferry_protocol::suite::Suite;

use crate::{Book, Ca, Device, NONCE, earlier, enrolling, now, refused, visiting};

#[test]
fn open_trusts_the_room_and_says_so() {
    let rules = enrolling(Enrolment::Open);
    let trust = rules
        .enrolment(&Device::new(1).statement(), &NoRegistry, now())
        .unwrap();
    assert!(trust.trusts_the_room());
    assert_eq!(trust.policy, "open");
    assert!(trust.reason.contains("the room"), "{}", trust.reason);
}

#[test]
fn without_a_policy_nobody_is_trusted() {
    let statement = Device::new(1).statement();
    let error = refused(Rules::closed().enrolment(&statement, &NoRegistry, now()));
    assert!(matches!(error, PolicyError::NoEnrolment { .. }), "{error}");
    // A policy for one of the two is none for the other.
    let error = refused(visiting(Visiting::Open).enrolment(&statement, &NoRegistry, now()));
    assert!(matches!(error, PolicyError::NoEnrolment { .. }), "{error}");
    assert_eq!(Failure::from(error).exit(), Exit::Policy);
}

use crate::VENDOR_KEY as VENDOR;

/// A device whose vendor key was certified by this CA for this id.
fn vouched(ca: &Ca, certified: DeviceId) -> Device {
    let mut device = Device::new(1);
    let certificate = ca.certify(Serial::from(certified), VENDOR);
    device.voucher = Some((certificate, device.vouch(VENDOR, NONCE)));
    device
}

#[test]
fn a_vendor_key_vouches_for_its_device() {
    let ca = Ca::new(30, "CN=Vendor");
    let device = vouched(&ca, Device::new(1).id);
    let rules = enrolling(Enrolment::VendorCertificate(ca.trusted()));
    let trust = rules
        .enrolment(&device.statement(), &NoRegistry, now())
        .unwrap();
    assert_eq!(trust.policy, "vendor-certificate");
    assert!(!trust.trusts_the_room());
    assert!(trust.reason.contains("CN=Vendor"), "{}", trust.reason);
}

#[test]
fn a_missing_voucher_is_never_skipped() {
    let ca = Ca::new(30, "CN=Vendor");
    let rules = enrolling(Enrolment::VendorCertificate(ca.trusted()));
    let error = refused(rules.enrolment(&Device::new(1).statement(), &NoRegistry, now()));
    assert!(matches!(error, PolicyError::NoVoucher { .. }), "{error}");
}

#[test]
fn a_vendor_certificate_must_be_the_devices_and_from_a_trusted_ca() {
    let ca = Ca::new(30, "CN=Vendor");
    let rules = enrolling(Enrolment::VendorCertificate(ca.trusted()));
    let refuse =
        |device: &Device| match refused(rules.enrolment(&device.statement(), &NoRegistry, now())) {
            PolicyError::VendorCertificate { source, .. } => source,
            error => panic!("{error}"),
        };
    let other_device = vouched(&ca, DeviceId([2; 16]));
    assert!(matches!(
        refuse(&other_device),
        CertificateError::OtherSerial { .. }
    ));
    let stranger = vouched(&Ca::new(31, "CN=Somebody"), Device::new(1).id);
    assert!(matches!(
        refuse(&stranger),
        CertificateError::UnknownIssuer { .. }
    ));
    let same_name = vouched(&Ca::new(31, "CN=Vendor"), Device::new(1).id);
    assert!(matches!(
        refuse(&same_name),
        CertificateError::Signature { .. } | CertificateError::UnknownIssuer { .. }
    ));
    let mut garbage = vouched(&ca, Device::new(1).id);
    garbage.voucher = Some((vec![0x30; 20], garbage.vouch(VENDOR, NONCE)));
    assert!(matches!(refuse(&garbage), CertificateError::Malformed));
    // Before it was valid.
    let device = vouched(&ca, Device::new(1).id);
    let before = earlier() - std::time::Duration::from_secs(1000);
    let error = refused(rules.enrolment(&device.statement(), &NoRegistry, before));
    assert!(
        matches!(
            &error,
            PolicyError::VendorCertificate {
                source: CertificateError::NotYetValid { .. },
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_voucher_is_for_these_keys_and_this_enrolment() {
    let ca = Ca::new(30, "CN=Vendor");
    let rules = enrolling(Enrolment::VendorCertificate(ca.trusted()));
    let device = vouched(&ca, Device::new(1).id);
    let certificate = device.voucher.clone().unwrap().0;
    let other = |change: fn(&mut Device)| {
        let mut other = device.clone();
        change(&mut other);
        other.vouch(VENDOR, NONCE)
    };
    for (what, signature) in [
        ("another nonce", device.vouch(VENDOR, Challenge([6; 32]))),
        ("another key signed", device.vouch(VENDOR + 1, NONCE)),
        ("other identity key", other(|it| it.keys.0 = 50)),
        ("other unwrap key", other(|it| it.keys.1 = 50)),
        ("other id", other(|it| it.id = DeviceId([2; 16]))),
        (
            "nothing",
            keyferry_protocol::identity::Signature {
                r: [0; 32],
                s: [0; 32],
            },
        ),
    ] {
        let mut device = device.clone();
        device.voucher = Some((certificate.clone(), signature));
        let error = refused(rules.enrolment(&device.statement(), &NoRegistry, now()));
        assert!(
            matches!(error, PolicyError::VoucherForged { .. }),
            "{what}: {error}"
        );
    }
}

fn serials(devices: &[&Device]) -> Rules {
    let lines: Vec<_> = devices.iter().map(|device| device.id.to_string()).collect();
    let list = SerialList::read("serials.txt", lines.join("\n").as_bytes()).unwrap();
    enrolling(Enrolment::SerialList(list))
}

#[test]
fn a_serial_list_enrols_each_of_its_ids_once() {
    let (one, two) = (Device::new(1), Device::new(2));
    let rules = serials(&[&one]);
    let book = Book::new();
    let check = |device: &Device| rules.enrolment(&device.statement(), &book.registry, now());
    let trust = check(&one).unwrap();
    assert_eq!(trust.policy, "serial-list");
    assert!(
        trust.reason.contains("for the first time"),
        "{}",
        trust.reason
    );
    book.enrol(&one).unwrap();

    // The same device states itself anew.
    assert!(check(&one).unwrap().reason.contains("again"));
    // Another one with the id of the first.
    let mut double = one.clone();
    double.keys = (50, 51);
    let error = refused(check(&double));
    assert!(
        matches!(error, PolicyError::OtherIdentity { .. }),
        "{error}"
    );

    let error = refused(check(&two));
    assert!(matches!(error, PolicyError::NotExpected { .. }), "{error}");
    assert!(error.to_string().contains("serials.txt"));
}

#[test]
fn once_takes_a_memory() {
    let device = Device::new(1);
    let error = refused(serials(&[&device]).enrolment(&device.statement(), &NoRegistry, now()));
    assert!(
        matches!(error, PolicyError::NeedsRegistry { .. }),
        "{error}"
    );
    assert_eq!(Failure::from(error).exit(), Exit::Usage);
}

#[test]
fn test_devices_need_leave_under_every_policy() {
    let cases: [fn(&mut Device); 2] = [
        |device| device.rng = SourceClass::Test,
        |device| device.root_key = SourceClass::Test,
    ];
    for change in cases {
        let mut device = Device::new(1);
        change(&mut device);
        let statement = device.statement();
        let mut rules = enrolling(Enrolment::Open);
        rules.visiting = Some(Visiting::Open);
        for error in [
            refused(rules.enrolment(&statement, &NoRegistry, now())),
            refused(rules.visit(&statement, None, &NoRegistry, now())),
        ] {
            assert!(matches!(error, PolicyError::TestDevice { .. }), "{error}");
        }
        rules.allow_test_devices = true;
        let trust = rules.enrolment(&statement, &NoRegistry, now()).unwrap();
        // What had to be allowed is in the record.
        assert!(trust.reason.contains("class test"), "{}", trust.reason);
        assert!(rules.visit(&statement, None, &NoRegistry, now()).is_ok());
    }
}

#[test]
fn development_firmware_needs_leave() {
    let mut device = Device::new(1);
    device.flavour = Flavour::Development;
    let mut rules = enrolling(Enrolment::Open);
    rules.allow_test_devices = true;
    let error = refused(rules.enrolment(&device.statement(), &NoRegistry, now()));
    assert!(matches!(error, PolicyError::Development { .. }), "{error}");
    rules.allow_development = true;
    let trust = rules
        .enrolment(&device.statement(), &NoRegistry, now())
        .unwrap();
    assert!(trust.reason.contains("development"), "{}", trust.reason);
}

#[test]
fn sabotaged_firmware_is_refused_whatever_is_allowed() {
    let mut device = Device::new(1);
    device.flavour = Flavour::Sabotaged;
    let rules = Rules {
        enrolment: Some(Enrolment::Open),
        visiting: Some(Visiting::Open),
        allow_test_devices: true,
        allow_development: true,
        minimum_proof: Level::None,
        suites: Suite::ALL.to_vec(),
    };
    for error in [
        refused(rules.enrolment(&device.statement(), &NoRegistry, now())),
        refused(rules.visit(&device.statement(), None, &NoRegistry, now())),
    ] {
        assert!(matches!(error, PolicyError::Sabotaged { .. }), "{error}");
        assert_eq!(Failure::from(error).exit(), Exit::Policy);
    }
}

#[test]
fn a_device_must_offer_a_suite_that_is_allowed() {
    let device = Device::new(1);
    let mut rules = enrolling(Enrolment::Open);
    rules.suites = vec![Suite::EcdhP256X963Sha256];
    let statement = device.statement();
    assert!(rules.enrolment(&statement, &NoRegistry, now()).is_ok());
    assert_eq!(
        rules.permitted_suites(&statement),
        [Suite::EcdhP256X963Sha256]
    );
    rules.suites = vec![Suite::RsaOaepSha256];
    let error = refused(rules.enrolment(&statement, &NoRegistry, now()));
    assert!(matches!(error, PolicyError::NoSuite { .. }), "{error}");
    assert!(error.to_string().contains("rsa-oaep-sha256"), "{error}");
}

#[test]
fn a_proof_below_the_minimum_is_refused_before_anything_is_wrapped() {
    let mut rules = Rules::closed();
    assert!(rules.check_proof("k", Proof::CheckValue).is_ok());
    // No proof at all is below everything that rules can ask for.
    assert!(rules.check_proof("k", Proof::None).is_err());
    rules.minimum_proof = Level::Signature;
    for proof in [Proof::CheckValue, Proof::Agreement, Proof::Decryption] {
        let error = rules.check_proof("telemetry", proof).unwrap_err();
        assert!(error.to_string().contains("telemetry"), "{error}");
    }
    assert!(rules.check_proof("k", Proof::Cmac).is_ok());
}
