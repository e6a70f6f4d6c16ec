//! Certificates that others have made, here with OpenSSL: chains under an offline root, and everything that looks like an
//! identity certificate and is none.

use keyferry::certificate::{
    CaCertificate, CertificateError, DeviceCa, Identity, Issuer, Validity, parse_subject, request,
};
use keyferry_tests::openssl::openssl;
use keyferry_tests::software::SoftAuthority;
use keyferry_tests::tokens::Scratch;

use crate::made::{CA, Made, OF_DEVICE, P256, P384, RSA, SUBJECT, device_key};
use crate::{DEVICE, SoftCa, file, identity_key, now};

/// Runs the check of a certificate that one of OpenSSL's CAs has issued.
fn check(ca: &Made<'_>, certificate: &[u8]) -> Result<(), CertificateError> {
    let cas = DeviceCa::new(&[ca.read()])?;
    cas.check(certificate, &device_key(ca.scratch), &DEVICE.into(), now())
        .map(|_| ())
}

/// Expects a refusal of this kind.
macro_rules! refused {
    ($result:expr, $pattern:pat) => {
        match $result {
            Err($pattern) => {}
            other => panic!("{other:?} is not {}", stringify!($pattern)),
        }
    };
}

#[test]
fn a_plain_certificate_of_another_maker_is_accepted() {
    let scratch = Scratch::with(&[]);
    let ca = Made::new(&scratch, "vendor", P256, CA);
    check(&ca, &ca.device(SUBJECT, OF_DEVICE, &[])).unwrap();
    // What is not critical and not known may be there.
    let more = format!("{OF_DEVICE}extendedKeyUsage=clientAuth\n1.3.6.1.4.1.32473.1=ASN1:NULL\n");
    check(&ca, &ca.device(SUBJECT, &more, &[])).unwrap();
}

#[test]
fn what_looks_like_an_identity_and_is_none_is_refused() {
    use CertificateError as E;
    let scratch = Scratch::with(&[]);
    let ca = Made::new(&scratch, "vendor", P256, CA);
    let device = |extensions: &str| check(&ca, &ca.device(SUBJECT, extensions, &[]));
    let with = |more: &str| device(&format!("{OF_DEVICE}{more}\n"));

    refused!(
        with("1.3.6.1.4.1.32473.1=critical,ASN1:NULL"),
        E::UnknownExtension(_)
    );
    refused!(
        with("extendedKeyUsage=critical,clientAuth"),
        E::UnknownExtension(_)
    );
    refused!(
        with("nameConstraints=permitted;DNS:a"),
        E::UnknownExtension(_)
    );
    refused!(device("keyUsage=critical,keyAgreement\n"), E::MayNotSign);
    refused!(
        device("basicConstraints=critical,CA:FALSE\n"),
        E::MayNotSign
    );
    refused!(
        device("keyUsage=digitalSignature,keyCertSign\n"),
        E::NotDevice
    );
    refused!(
        device(&format!("{CA}authorityKeyIdentifier=keyid\n")),
        E::NotDevice
    );
    // Encoded in another way than DER has it: FALSE written out, a bit list with a zero behind it.
    refused!(
        device("2.5.29.19=DER:30:03:01:01:00\nkeyUsage=digitalSignature\n"),
        E::Malformed
    );
    refused!(device("2.5.29.15=DER:03:02:00:80\n"), E::Malformed);

    let subject = |subject: &str| check(&ca, &ca.device(subject, OF_DEVICE, &[]));
    refused!(subject("/CN=d5d5d5d5d5d5d5d5d5d5d5d5d5d5d5d5"), E::NoSerial);
    refused!(subject(&format!("{SUBJECT}{SUBJECT}")), E::NoSerial);
    refused!(
        subject("/serialNumber=D5D5D5D5D5D5D5D5D5D5D5D5D5D5D5D5"),
        E::OtherSerial { .. }
    );

    refused!(
        check(&ca, &ca.device(SUBJECT, OF_DEVICE, &["-sha384"])),
        E::Algorithm(_)
    );
    // Without extensions OpenSSL makes version 1.
    refused!(check(&ca, &ca.device(SUBJECT, "", &[])), E::Profile(_));
}

#[test]
fn what_is_no_ca_is_not_trusted() {
    use CertificateError as E;
    let scratch = Scratch::with(&[]);
    let read = |name: &str, key: &[&str], extensions: &str| {
        CaCertificate::read(&Made::new(&scratch, name, key, extensions).read())
    };
    refused!(
        read(
            "leaf",
            P256,
            OF_DEVICE.trim_end_matches("authorityKeyIdentifier=keyid\n")
        ),
        E::NotCa { .. }
    );
    refused!(
        read(
            "usage",
            P256,
            "basicConstraints=critical,CA:TRUE\nkeyUsage=digitalSignature\n"
        ),
        E::NotCa { .. }
    );
    refused!(
        read("unused", P256, "basicConstraints=critical,CA:TRUE\n"),
        E::NotCa { .. }
    );
    refused!(
        read("bare", P256, "keyUsage=keyCertSign\n"),
        E::NotCa { .. }
    );
    refused!(
        read(
            "names",
            P256,
            &format!("{CA}nameConstraints=critical,permitted;DNS:a\n")
        ),
        E::UnknownExtension(_)
    );
    refused!(read("curve", P384, CA), E::KeyType(_));
    refused!(read("rsa", RSA, CA), E::KeyType(_));
    read("sound", P256, CA).unwrap();
}

/// An offline root of OpenSSL's certifies our CA, which certifies a device.
struct Factory<'s> {
    root: Made<'s>,
    authority: SoftAuthority,
    certificate: Vec<u8>,
}

impl<'s> Factory<'s> {
    fn new(scratch: &'s Scratch, root: &[&str], extensions: &str) -> Self {
        let root = Made::new(scratch, "root", root, extensions);
        let authority = SoftAuthority::new(1);
        let subject = parse_subject("CN=factory-ca,O=Example").unwrap();
        let request = file(scratch, "ca.csr", request(&authority, &subject).unwrap());
        openssl(
            &[
                "req", "-inform", "DER", "-in", &request, "-noout", "-verify",
            ],
            b"",
        );
        // The root takes over what was asked for.
        let asked = ["-inform", "DER", "-copy_extensions", "copyall"];
        let certificate = root.sign(&request, "authorityKeyIdentifier=keyid\n", &asked);
        Self {
            root,
            authority,
            certificate,
        }
    }

    fn issue(&self) -> Vec<u8> {
        let ca = CaCertificate::read(&self.certificate).unwrap();
        let identity = Identity {
            serial: DEVICE.into(),
            organization: None,
            common_name: None,
            key: &identity_key(2),
        };
        let issuer = Issuer::new(&self.authority, ca).unwrap();
        issuer.issue(&identity, now()).unwrap()
    }
}

#[test]
fn a_chain_from_an_offline_root_verifies() {
    let scratch = Scratch::with(&[]);
    let factory = Factory::new(&scratch, P256, CA);
    let device = factory.issue();
    let below = file(&scratch, "factory.der", &factory.certificate);
    let below_pem = scratch.path("factory.pem").display().to_string();
    openssl(
        &["x509", "-inform", "DER", "-in", &below, "-out", &below_pem],
        b"",
    );
    let device_pem = openssl(&["x509", "-inform", "DER"], &device);
    let device_file = file(&scratch, "device.pem", device_pem);
    let arguments = [
        "verify",
        "-x509_strict",
        "-CAfile",
        &factory.root.certificate,
    ];
    openssl(
        &[&arguments[..], &["-untrusted", &below_pem, &device_file]].concat(),
        b"",
    );

    let check = |cas: &DeviceCa| cas.check(&device, &identity_key(2), &DEVICE.into(), now());
    // By the root, with the CA between; or by that CA alone.
    let root = DeviceCa::new(&[factory.root.read()]).unwrap();
    refused!(check(&root), CertificateError::UnknownIssuer { .. });
    let root = root.with_between(&factory.certificate).unwrap();
    let accepted = check(&root).unwrap();
    assert_eq!(accepted.issuer, "CN=factory-ca,O=Example");
    let direct = DeviceCa::new(&[&factory.certificate]).unwrap();
    assert_ne!(check(&direct).unwrap().trusted, accepted.trusted);
    // The root ends after 100 days, the CA after 50.
    let later = root.check(
        &device,
        &identity_key(2),
        &DEVICE.into(),
        now() + 60 * crate::DAY,
    );
    refused!(later, CertificateError::Expired { .. });
}

#[test]
fn a_root_of_another_kind_leaves_the_ca_to_be_trusted_by_itself() {
    let scratch = Scratch::with(&[]);
    let factory = Factory::new(&scratch, RSA, CA);
    let device = factory.issue();
    refused!(
        DeviceCa::new(&[factory.root.read()]),
        CertificateError::KeyType(_)
    );
    let direct = DeviceCa::new(&[&factory.certificate]).unwrap();
    direct
        .check(&device, &identity_key(2), &DEVICE.into(), now())
        .unwrap();
    // Nobody here verifies what an RSA root has signed.
    let other = Made::new(&scratch, "root", P256, CA);
    let other = DeviceCa::new(&[other.read()]).unwrap();
    let refused = other.with_between(&factory.certificate);
    assert!(refused.is_err(), "{refused:?}");
}

#[test]
fn nothing_stands_between_that_the_root_does_not_allow() {
    let scratch = Scratch::with(&[]);
    let limited = CA.replace("CA:TRUE", "CA:TRUE,pathlen:0");
    let factory = Factory::new(&scratch, P256, &limited);
    let root = DeviceCa::new(&[factory.root.read()]).unwrap();
    refused!(
        root.clone().with_between(&factory.certificate),
        CertificateError::PathTooLong { .. }
    );
    // A CA that the root has not issued; and a device's certificate in the place of a CA's.
    let stranger = SoftCa::new(3, "CN=stranger", Validity::Unlimited);
    refused!(
        root.clone().with_between(&stranger.certificate),
        CertificateError::UnknownIssuer { .. }
    );
    refused!(
        root.clone().with_between(&factory.issue()),
        CertificateError::NotCa { .. }
    );
    // Every altered bit of the CA between.
    let free = Factory::new(&scratch, P256, CA);
    let root = DeviceCa::new(&[free.root.read()]).unwrap();
    root.clone().with_between(&free.certificate).unwrap();
    for bit in 0..free.certificate.len() * 8 {
        let mut altered = free.certificate.clone();
        altered[bit / 8] ^= 1 << (bit % 8);
        assert!(root.clone().with_between(&altered).is_err(), "bit {bit}");
    }
}

#[test]
fn a_device_does_not_certify_devices() {
    let scratch = Scratch::with(&[]);
    let ca = Made::new(&scratch, "vendor", P256, CA);
    let device = ca.device(SUBJECT, OF_DEVICE, &[]);
    let device = openssl(&["x509", "-inform", "DER"], &device);
    let forger = Made {
        scratch: &scratch,
        key: scratch.path("device.key").display().to_string(),
        certificate: file(&scratch, "forger.crt", device),
    };
    let forged = forger.device(SUBJECT, "keyUsage=critical,digitalSignature\n", &[]);
    refused!(check(&ca, &forged), CertificateError::UnknownIssuer { .. });
    let cas = DeviceCa::new(&[ca.read()]).unwrap();
    refused!(
        cas.with_between(&forger.read()),
        CertificateError::NotCa { .. }
    );
}
