//! Keys that do not sign as they should, keys that are none, and requests.

use keyferry::certificate::{
    CaCertificate, CertificateError, Identity, Issuer, Request, Validity, parse_subject, request,
    self_signed,
};
use keyferry::device::flow::Authority;
use keyferry_tests::openssl::openssl;
use keyferry_tests::software::SoftAuthority;

use crate::{DEVICE, SoftCa, identity_key, now};

const SUBJECT: &str = "CN=factory-ca";

/// A CA's key that does not do as it should.
struct Broken {
    public: Vec<u8>,
    signature: Option<[u8; 64]>,
}

impl Authority for Broken {
    fn public_key(&self) -> &[u8] {
        &self.public
    }

    fn sign(&self, _message: &[u8]) -> Result<[u8; 64], Box<dyn std::error::Error + Send + Sync>> {
        self.signature.ok_or_else(|| "the token is gone".into())
    }
}

#[test]
fn a_key_that_does_not_sign_rightly_issues_nothing() {
    let ca = SoftCa::new(1, SUBJECT, Validity::Unlimited);
    let subject = parse_subject(SUBJECT).unwrap();
    let other = ca.authority.sign(b"something else").unwrap();
    for signature in [None, Some([0; 64]), Some([0xff; 64]), Some(other)] {
        let public = ca.authority.public_key().to_vec();
        let broken = Broken { public, signature };
        let identity = Identity {
            serial: DEVICE.into(),
            organization: None,
            common_name: None,
            key: &identity_key(2),
        };
        let read = CaCertificate::read(&ca.certificate).unwrap();
        let results = [
            self_signed(&broken, &subject, Validity::Unlimited, now()),
            request(&broken, &subject),
            Issuer::new(&broken, read).unwrap().issue(&identity, now()),
        ];
        for result in results {
            match (signature, result) {
                (None, Err(CertificateError::Signer(source))) => {
                    assert_eq!(source.to_string(), "the token is gone");
                }
                (Some(_), Err(CertificateError::SignerWrong)) => {}
                (_, other) => panic!("{other:?}"),
            }
        }
    }
    // What is no P-256 key does not get as far.
    let public = ca.authority.public_key();
    for public in [&[][..], &public[..90], &[0x30; 91]] {
        let broken = Broken {
            public: public.to_vec(),
            signature: None,
        };
        let refused = request(&broken, &subject);
        assert!(
            matches!(refused, Err(CertificateError::KeyType(_))),
            "{refused:?}"
        );
    }
}

#[test]
fn an_identity_key_off_the_curve_is_not_certified() {
    let ca = SoftCa::new(1, SUBJECT, Validity::Unlimited);
    let mut off = identity_key(2);
    *off.last_mut().unwrap() ^= 1;
    let good = identity_key(2);
    for key in [&off[..], &good[..90], &[&good[..], &[0]].concat(), &[]] {
        let identity = Identity {
            serial: DEVICE.into(),
            organization: None,
            common_name: None,
            key,
        };
        let refused = ca.issuer().issue(&identity, now());
        assert!(
            matches!(refused, Err(CertificateError::KeyType(_))),
            "{refused:?}"
        );
    }
}

#[test]
fn every_altered_bit_of_a_request_is_refused() {
    let ca = SoftCa::new(1, SUBJECT, Validity::Unlimited);
    let made = request(&ca.authority, &parse_subject(SUBJECT).unwrap()).unwrap();
    Request::read(&made).unwrap();
    for bit in 0..made.len() * 8 {
        let mut altered = made.clone();
        altered[bit / 8] ^= 1 << (bit % 8);
        assert!(Request::read(&altered).is_err(), "bit {bit}");
    }
    let tail = Request::read(&[&made[..], &[0]].concat());
    assert!(matches!(tail, Err(CertificateError::Malformed)), "{tail:?}");
}

#[test]
fn a_request_asks_for_what_a_ca_has_to_be() {
    let authority = SoftAuthority::new(1);
    let subject = parse_subject("CN=factory-ca,O=Example").unwrap();
    let request = request(&authority, &subject).unwrap();
    let arguments = ["req", "-inform", "DER", "-noout", "-text", "-verify"];
    let said = String::from_utf8(openssl(&arguments, &request)).unwrap();
    for expected in [
        "Subject: O = Example, CN = factory-ca",
        "CA:TRUE, pathlen:0",
        "Certificate Sign, CRL Sign",
        "X509v3 Subject Key Identifier",
    ] {
        assert!(said.contains(expected), "{expected} is not in {said}");
    }
    assert_eq!(authority.public_key().len(), 91);
}
