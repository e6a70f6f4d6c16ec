//! What is issued: content, size, and two other programs' opinion.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use keyferry::certificate::{
    CertificateError, DeviceCa, Document, Identity, MAXIMUM_CA_CERTIFICATE,
    MAXIMUM_DEVICE_CERTIFICATE, Serial, Validity, parse_subject, to_pem,
};
use keyferry_tests::openssl::openssl;
use keyferry_tests::pyca;
use keyferry_tests::tokens::Scratch;
use serde_json::json;

use crate::{DEVICE, SoftCa, file, identity_key, now, text};

const SUBJECT: &str = "CN=Factory 1,O=Example";

#[test]
fn openssl_verifies_what_is_issued() {
    let scratch = Scratch::with(&[]);
    let ca = SoftCa::new(1, SUBJECT, Validity::Unlimited);
    let trusted = file(
        &scratch,
        "ca.pem",
        to_pem("CERTIFICATE", &ca.certificate).unwrap(),
    );
    // Each certificate has other numbers, and signatures of other lengths.
    for _ in 0..20 {
        let device = to_pem("CERTIFICATE", &ca.issue(2)).unwrap();
        let device = file(&scratch, "device.pem", device);
        openssl(
            &["verify", "-x509_strict", "-CAfile", &trusted, &device],
            b"",
        );
    }
}

#[test]
fn a_device_certificate_says_what_802_1ar_wants() {
    let ca = SoftCa::new(1, SUBJECT, Validity::Unlimited);
    let said = text(&ca.issue(2));
    for expected in [
        "Version: 3 (0x2)",
        "Signature Algorithm: ecdsa-with-SHA256",
        "Issuer: O = Example, CN = Factory 1",
        "Subject: serialNumber = d5d5d5d5d5d5d5d5d5d5d5d5d5d5d5d5",
        "Not After : Dec 31 23:59:59 9999 GMT",
        "NIST CURVE: P-256",
        "X509v3 Basic Constraints: critical\n                CA:FALSE",
        "X509v3 Key Usage: critical\n                Digital Signature\n",
        "X509v3 Authority Key Identifier",
        "X509v3 Subject Key Identifier",
    ] {
        assert!(said.contains(expected), "{expected} is not in {said}");
    }
}

#[test]
fn a_ca_certificate_says_that_it_certifies_devices_only() {
    let ca = SoftCa::new(1, SUBJECT, Validity::Days(3650));
    let said = text(&ca.certificate);
    for expected in [
        "Version: 3 (0x2)",
        "Issuer: O = Example, CN = Factory 1",
        "Subject: O = Example, CN = Factory 1",
        "X509v3 Basic Constraints: critical\n                CA:TRUE, pathlen:0",
        "X509v3 Key Usage: critical\n                Certificate Sign, CRL Sign\n",
        "X509v3 Subject Key Identifier",
    ] {
        assert!(said.contains(expected), "{expected} is not in {said}");
    }
    let document = Document::read(&ca.certificate, MAXIMUM_CA_CERTIFICATE).unwrap();
    let days = (document.not_after().unix_duration() - document.not_before().unix_duration())
        .as_secs()
        / (24 * 60 * 60);
    assert_eq!(days, 3650);
    // A verifier's clock may be behind.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let since = now.saturating_sub(document.not_before().unix_duration());
    assert!(since >= Duration::from_secs(60));
}

#[test]
fn another_strict_reader_takes_both() {
    let ca = SoftCa::new(1, SUBJECT, Validity::Unlimited);
    let identity = Identity {
        serial: Serial::product("AB-0017/2").unwrap(),
        organization: Some("Beispiel GmbH"),
        common_name: Some("Türschloß 3"),
        key: &identity_key(2),
    };
    let device = ca.issuer().issue(&identity, now()).unwrap();
    let said = pyca::read_certificate(&device, &ca.certificate).unwrap();
    assert_eq!(said["version"], 3);
    assert_eq!(said["serial_number"], json!(["AB-0017/2"]));
    assert_eq!(
        said["subject"],
        "2.5.4.5=AB-0017/2,CN=Türschloß 3,O=Beispiel GmbH"
    );
    assert_eq!(said["issuer"], SUBJECT);
    assert_eq!(said["not_after"], "9999-12-31T23:59:59");
    assert_eq!(said["critical"], json!(["2.5.29.19", "2.5.29.15"]));
    assert_eq!(said["ca"], false);
    assert_eq!(said["usage"], json!(["digital_signature"]));
    assert_eq!(said["spki"], hex::encode(identity_key(2)));
    // RFC 7093, method 1, computed there.
    assert_eq!(said["subject_key"], said["expected_subject_key"]);
    assert_eq!(said["authority_key"], said["expected_authority_key"]);

    let mut altered = device;
    *altered.last_mut().unwrap() ^= 1;
    let error = pyca::read_certificate(&altered, &ca.certificate).unwrap_err();
    assert_eq!(error, "InvalidSignature");
}

#[test]
fn serial_numbers_are_long_positive_and_never_the_same() {
    let ca = SoftCa::new(1, SUBJECT, Validity::Unlimited);
    let mut seen = std::collections::HashSet::new();
    for _ in 0..200 {
        let der = ca.issue(2);
        let document = Document::read(&der, MAXIMUM_DEVICE_CERTIFICATE).unwrap();
        let number = document.number().to_vec();
        assert_eq!(number.len(), 16);
        assert_eq!(number[0] & 0xc0, 0x40);
        assert!(seen.insert(number));
    }
}

#[test]
fn a_certificate_is_small_and_one_that_is_not_is_not_issued() {
    let ca = SoftCa::new(1, "CN=factory-ca", Validity::Unlimited);
    let length = ca.issue(2).len();
    assert!(length < 500, "{length} bytes");

    let identity = |text| Identity {
        serial: Serial::from(DEVICE),
        organization: Some(text),
        common_name: Some(text),
        key: &[],
    };
    let key = identity_key(2);
    // 64 characters of four bytes each, in four names.
    let long = "🔑".repeat(64);
    let subject = format!("CN={long},O={long}");
    let large = SoftCa::new(1, &subject, Validity::Unlimited);
    let request = Identity {
        key: &key,
        ..identity(&long)
    };
    match large.issuer().issue(&request, now()) {
        Err(CertificateError::TooLongForDevice { length }) => {
            assert!(length > MAXIMUM_DEVICE_CERTIFICATE);
        }
        other => panic!("{other:?}"),
    }
    let cas = DeviceCa::new(&[&large.certificate]).unwrap();
    let fits = large.issue(2);
    cas.check(&fits, &key, &Serial::from(DEVICE), now())
        .unwrap();
}

#[test]
fn names_that_are_none_are_refused() {
    let long = "x".repeat(65);
    for subject in [
        "",
        "CN=",
        "factory",
        "CN = factory",
        "CN=a, O=b",
        "CN=a,,O=b",
        "NOSUCH=a",
        r"CN=\ff",
        r"CN=a\",
        r"CN=a\\,O=b",
        "C=Ö",
        "CN=#0500",
        &format!("CN={long}"),
        &format!("CN=a,{}", "O=b,".repeat(200)),
    ] {
        let refused = parse_subject(subject);
        assert!(
            matches!(refused, Err(CertificateError::Subject(_))),
            "{subject}: {refused:?}"
        );
    }
    for serial in [
        "",
        "a_b",
        "Ä",
        "a\n",
        &long,
        "00000000000000000000000000000001",
        "D5D5D5D5D5D5D5D5D5D5D5D5D5D5D5D5",
    ] {
        let refused = Serial::product(serial);
        assert!(
            matches!(refused, Err(CertificateError::Serial(_))),
            "{serial}: {refused:?}"
        );
    }
    // Nothing that a terminal would obey.
    let error = parse_subject("CN=\u{1b}]0;x\u{9b}").map(|name| name.to_string());
    let shown = match error {
        Ok(name) => name,
        Err(error) => error.to_string(),
    };
    assert!(!shown.contains('\u{1b}'), "{shown:?}");
}
