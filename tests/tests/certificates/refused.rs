//! What is refused: every altered bit, every other CA, key, device and time, and everything that is no certificate.

use std::time::{Duration, UNIX_EPOCH};

use chacha20::ChaCha20Rng;
use chacha20::rand_core::{Rng as _, SeedableRng as _};
use keyferry::certificate::{
    Accepted, CaCertificate, CertificateError, DeviceCa, Identity, Issuer, MAXIMUM_CAS,
    MAXIMUM_FILE, Serial, Validity, to_pem,
};
use keyferry_protocol::identity::DeviceId;

use crate::{DAY, DEVICE, SoftCa, identity_key, now};

const SUBJECT: &str = "CN=factory-ca";

fn check(ca: &DeviceCa, certificate: &[u8]) -> Result<Accepted, CertificateError> {
    ca.check(certificate, &identity_key(2), &DEVICE.into(), now())
}

fn trusted(ca: &SoftCa) -> DeviceCa {
    DeviceCa::new(&[&ca.certificate]).unwrap()
}

#[test]
fn every_altered_bit_is_refused() {
    let ca = SoftCa::new(1, SUBJECT, Validity::Unlimited);
    let cas = trusted(&ca);
    let certificate = ca.issue(2);
    check(&cas, &certificate).unwrap();
    for bit in 0..certificate.len() * 8 {
        let mut altered = certificate.clone();
        altered[bit / 8] ^= 1 << (bit % 8);
        assert!(check(&cas, &altered).is_err(), "bit {bit}");
    }
}

#[test]
fn every_altered_bit_of_a_ca_is_refused_but_in_the_name_of_who_is_above() {
    let ca = SoftCa::new(1, SUBJECT, Validity::Unlimited);
    let certificate = ca.issue(2);
    let original = CaCertificate::read(&ca.certificate).unwrap();
    for bit in 0..ca.certificate.len() * 8 {
        let mut altered = ca.certificate.clone();
        altered[bit / 8] ^= 1 << (bit % 8);
        let Ok(read) = CaCertificate::read(&altered) else {
            continue;
        };
        // If issuer and subject differ, another has signed it, who is not known. What is trusted is a name and its key.
        assert!(!read.document().is_self_issued(), "bit {bit}");
        if check(&DeviceCa::new(&[&altered]).unwrap(), &certificate).is_ok() {
            assert_ne!(read.document().issuer(), original.document().issuer());
            assert_eq!(read.document().subject(), original.document().subject());
            assert_eq!(
                read.document().key().unwrap(),
                original.document().key().unwrap()
            );
        }
    }
}

#[test]
fn whatever_is_cut_or_follows_is_refused() {
    let ca = SoftCa::new(1, SUBJECT, Validity::Unlimited);
    let cas = trusted(&ca);
    let certificate = ca.issue(2);
    for length in 0..certificate.len() {
        let refused = check(&cas, &certificate[..length]);
        assert!(
            matches!(refused, Err(CertificateError::Malformed)),
            "{length}: {refused:?}"
        );
    }
    for tail in [&b"\0"[..], b"\n", b"\x30\x00", &certificate] {
        let refused = check(&cas, &[&certificate, tail].concat());
        assert!(
            matches!(refused, Err(CertificateError::Malformed)),
            "{refused:?}"
        );
    }
    let long = check(&cas, &[0x30; 1025]);
    assert!(
        matches!(
            long,
            Err(CertificateError::TooLong {
                length: 1025,
                limit: 1024
            })
        ),
        "{long:?}"
    );
    // A device's certificate comes over the wire, in DER and nothing else.
    let pem = to_pem("CERTIFICATE", &certificate).unwrap();
    assert!(check(&cas, pem.as_bytes()).is_err());
}

/// Damage that keeps some of the structure: parts exchanged, doubled, removed, random bytes.
#[test]
fn damage_of_any_kind_is_refused_and_ends() {
    let ca = SoftCa::new(1, SUBJECT, Validity::Unlimited);
    let cas = trusted(&ca);
    let certificate = ca.issue(2);
    let mut rng = ChaCha20Rng::seed_from_u64(0x1de5);
    let mut below = |limit: usize| rng.next_u64() as usize % limit;
    for round in 0..4_000 {
        let mut altered = certificate.clone();
        for _ in 0..=below(3) {
            let (from, length) = (below(altered.len()), below(40));
            let to = (from + length).min(altered.len());
            match below(4) {
                0 => drop(altered.drain(from..to)),
                1 => {
                    let part = altered[from..to].to_vec();
                    let at = below(altered.len() + 1);
                    altered.splice(at..at, part);
                }
                2 => altered[from] = [0, 1, 0x7f, 0x80, 0x81, 0x84, 0xff][below(7)],
                _ => altered[from..to].fill_with(|| below(256) as u8),
            }
            if altered.is_empty() {
                break;
            }
        }
        if altered != certificate {
            assert!(check(&cas, &altered).is_err(), "round {round}");
            assert!(CaCertificate::read(&altered).is_err());
        }
    }
    for length in 0..300 {
        let noise: Vec<u8> = (0..length).map(|_| below(256) as u8).collect();
        assert!(check(&cas, &noise).is_err());
        assert!(DeviceCa::new(&[&noise]).is_err());
    }
}

#[test]
fn another_ca_another_key_and_another_device_are_told_apart() {
    let ca = SoftCa::new(1, SUBJECT, Validity::Unlimited);
    let certificate = ca.issue(2);
    let (key, serial) = (identity_key(2), Serial::from(DEVICE));

    let other = trusted(&SoftCa::new(3, "CN=other-ca", Validity::Unlimited));
    let refused = check(&other, &certificate);
    assert!(
        matches!(&refused, Err(CertificateError::UnknownIssuer { issuer }) if issuer == SUBJECT),
        "{refused:?}"
    );
    // The same name: its key identifier differs.
    let impostor = trusted(&SoftCa::new(3, SUBJECT, Validity::Unlimited));
    let refused = check(&impostor, &certificate);
    assert!(
        matches!(refused, Err(CertificateError::UnknownIssuer { .. })),
        "{refused:?}"
    );

    let cas = trusted(&ca);
    let refused = cas.check(&certificate, &identity_key(4), &serial, now());
    assert!(
        matches!(refused, Err(CertificateError::OtherKey { .. })),
        "{refused:?}"
    );
    for key in [&[][..], &key[..90], &[&key[..], &[0]].concat()] {
        let refused = cas.check(&certificate, key, &serial, now());
        assert!(
            matches!(refused, Err(CertificateError::OtherKey { .. })),
            "{refused:?}"
        );
    }
    for other in [
        Serial::from(DeviceId([0xd4; 16])),
        Serial::product("AB-17").unwrap(),
    ] {
        let refused = cas.check(&certificate, &key, &other, now());
        assert!(
            matches!(refused, Err(CertificateError::OtherSerial { .. })),
            "{refused:?}"
        );
    }
    let accepted = cas.check(&certificate, &key, &serial, now()).unwrap();
    assert_eq!(accepted.serial, "d5".repeat(16));
    assert_eq!(accepted.issuer, SUBJECT);
}

#[test]
fn a_ca_is_no_device_and_a_device_no_ca() {
    let ca = SoftCa::new(1, SUBJECT, Validity::Unlimited);
    let cas = trusted(&ca);
    let refused = cas.check_issued(&ca.certificate, now());
    assert!(
        matches!(refused, Err(CertificateError::NotDevice)),
        "{refused:?}"
    );
    let refused = CaCertificate::read(&ca.issue(2));
    assert!(
        matches!(refused, Err(CertificateError::NotCa { .. })),
        "{refused:?}"
    );
}

#[test]
fn the_times_of_ca_and_device_count() {
    let ca = SoftCa::new(1, SUBJECT, Validity::Days(10));
    let cas = trusted(&ca);
    let certificate = ca.issue(2);
    let at = |when| cas.check(&certificate, &identity_key(2), &DEVICE.into(), when);
    at(now()).unwrap();
    at(now() + 9 * DAY).unwrap();
    let early = at(now() - DAY);
    assert!(
        matches!(early, Err(CertificateError::NotYetValid { .. })),
        "{early:?}"
    );
    let late = at(now() + 11 * DAY);
    assert!(
        matches!(&late, Err(CertificateError::Expired { subject, .. }) if subject == SUBJECT),
        "{late:?}"
    );
    // An expired CA issues nothing.
    let identity = Identity {
        serial: DEVICE.into(),
        organization: None,
        common_name: None,
        key: &identity_key(2),
    };
    let refused = ca.issuer().issue(&identity, now() + 11 * DAY);
    assert!(
        matches!(refused, Err(CertificateError::Expired { .. })),
        "{refused:?}"
    );
    // Clocks that are far off, and beyond all dates.
    for when in [UNIX_EPOCH, UNIX_EPOCH - DAY] {
        let early = at(when);
        assert!(
            matches!(early, Err(CertificateError::NotYetValid { .. })),
            "{early:?}"
        );
    }
    let late = at(UNIX_EPOCH + Duration::from_secs(1 << 40));
    assert!(
        matches!(late, Err(CertificateError::Expired { .. })),
        "{late:?}"
    );
    let unlimited = SoftCa::new(1, SUBJECT, Validity::Unlimited);
    let cas = trusted(&unlimited);
    let certificate = unlimited.issue(2);
    let last = UNIX_EPOCH + Duration::from_secs(253_402_300_799);
    cas.check(&certificate, &identity_key(2), &DEVICE.into(), last)
        .unwrap();
}

#[test]
fn the_last_second_counts_as_a_whole() {
    let ca = SoftCa::new(1, SUBJECT, Validity::Days(1));
    let cas = trusted(&ca);
    let certificate = ca.issue(2);
    let read = CaCertificate::read(&ca.certificate).unwrap();
    let end = UNIX_EPOCH + read.document().not_after().unix_duration();
    let at = |when| cas.check(&certificate, &identity_key(2), &DEVICE.into(), when);
    at(end + Duration::from_millis(999)).unwrap();
    assert!(at(end + Duration::from_secs(1)).is_err());
}

#[test]
fn a_certificate_of_another_key_does_not_issue() {
    let ca = SoftCa::new(1, SUBJECT, Validity::Unlimited);
    let other = SoftCa::new(3, SUBJECT, Validity::Unlimited);
    let read = CaCertificate::read(&ca.certificate).unwrap();
    let refused = Issuer::new(&other.authority, read).map(|_| ());
    assert!(
        matches!(refused, Err(CertificateError::OtherCaKey { .. })),
        "{refused:?}"
    );
}

#[test]
fn files_are_bounded_and_say_what_they_are() {
    let ca = SoftCa::new(1, SUBJECT, Validity::Unlimited);
    let pem = to_pem("CERTIFICATE", &ca.certificate).unwrap();
    // Text around it, other line ends.
    let dressed = format!("the CA\n{pem}\nof the factory\n").replace('\n', "\r\n");
    CaCertificate::read(dressed.as_bytes()).unwrap();
    let bundle = |count| DeviceCa::new(&[pem.repeat(count)]);
    bundle(MAXIMUM_CAS).unwrap();
    for refused in [
        bundle(MAXIMUM_CAS + 1),
        DeviceCa::new(&vec![pem.clone(); MAXIMUM_CAS + 1]),
    ] {
        assert!(
            matches!(refused, Err(CertificateError::Several { .. })),
            "{refused:?}"
        );
    }
    let twice = CaCertificate::read(pem.repeat(2).as_bytes());
    assert!(
        matches!(twice, Err(CertificateError::Several { found: 2, limit: 1 })),
        "{twice:?}"
    );
    let none = DeviceCa::new::<&[u8]>(&[]);
    assert!(
        matches!(none, Err(CertificateError::NoCertificate)),
        "{none:?}"
    );
    for (text, private) in [
        (
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            true,
        ),
        (
            "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
            false,
        ),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n", false),
        (
            "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n",
            false,
        ),
    ] {
        let refused = DeviceCa::new(&[text]);
        let expected = matches!(refused, Err(CertificateError::Private)) == private
            && matches!(refused, Err(CertificateError::NoCertificate)) != private;
        assert!(expected, "{text}: {refused:?}");
    }
    let long = DeviceCa::new(&[vec![b'x'; MAXIMUM_FILE + 1]]);
    assert!(
        matches!(long, Err(CertificateError::TooLong { .. })),
        "{long:?}"
    );
}
