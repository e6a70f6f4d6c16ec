//! Certificates and public keys.

use std::sync::OnceLock;

use keyferry::certificate::{
    CERTIFICATE_LABEL, CaCertificate, DeviceCa, Identity, Issuer, REQUEST_LABEL, Validity,
    parse_subject, request, self_signed, to_pem,
};
use keyferry::device::flow::Authority;
use keyferry::hsm::PublicKey;
use keyferry_protocol::identity::DeviceId;

use super::Inputs;
use crate::fuzz::certificates::now;
use crate::software::SoftAuthority;

/// The key of the CA that the target trusts.
fn ca_authority() -> SoftAuthority {
    SoftAuthority::new(50)
}

/// The certificate of that CA, in DER. Its own number is another one in each process; nothing looks at that.
fn ca_certificate() -> &'static [u8] {
    static CERTIFICATE: OnceLock<Vec<u8>> = OnceLock::new();
    CERTIFICATE.get_or_init(|| {
        let subject = parse_subject("CN=Factory 1,O=Example").expect("a subject");
        self_signed(&ca_authority(), &subject, Validity::Unlimited, now()).expect("a certificate")
    })
}

/// What the target trusts.
pub(in crate::fuzz) fn trusted() -> &'static DeviceCa {
    static TRUSTED: OnceLock<DeviceCa> = OnceLock::new();
    TRUSTED.get_or_init(|| DeviceCa::new(&[ca_certificate()]).expect("a CA's certificate"))
}

/// The key of an authority, P-256 `SubjectPublicKeyInfo` DER.
pub(in crate::fuzz) fn authority_key() -> &'static [u8] {
    static KEY: OnceLock<Vec<u8>> = OnceLock::new();
    KEY.get_or_init(|| SoftAuthority::new(0).public_key().to_vec())
}

/// A device's certificate, in DER.
fn device_certificate() -> Vec<u8> {
    let authority = ca_authority();
    let ca = CaCertificate::read(ca_certificate()).expect("a CA's certificate");
    let issuer = Issuer::new(&authority, ca).expect("key and certificate fit");
    let identity = Identity {
        serial: DeviceId([1; 16]).into(),
        organization: Some("Example"),
        common_name: Some("desk"),
        key: authority_key(),
    };
    issuer.issue(&identity, now()).expect("a certificate")
}

/// Certificates of a CA and of a device, and a request, in DER and in PEM.
pub(in crate::fuzz) fn certificates() -> Inputs {
    let subject = parse_subject("CN=Factory 1,O=Example").expect("a subject");
    let request = request(&ca_authority(), &subject).expect("a request");
    let (ca, device) = (ca_certificate().to_vec(), device_certificate());
    let pem = |label, der: &[u8]| to_pem(label, der).expect("it can be written").into_bytes();
    vec![
        pem(CERTIFICATE_LABEL, &ca),
        [pem(CERTIFICATE_LABEL, &ca), pem(CERTIFICATE_LABEL, &device)].concat(),
        pem(REQUEST_LABEL, &request),
        ca,
        device,
        request,
    ]
}

pub(super) fn public_key_pem() -> String {
    PublicKey::from_spki_der(authority_key())
        .expect("a P-256 key")
        .to_pem()
}

/// Public keys of every type, in every form.
pub(in crate::fuzz) fn public_keys() -> Inputs {
    let rsa = PublicKey::from_rsa(&[0xc1; 256], &[1, 0, 1]).expect("numbers of an RSA key");
    let edwards = PublicKey::from_ed25519(&[7; 32]).expect("32 bytes");
    let p384 = {
        // OID secp384r1, 1.3.132.0.34; only the length of the point is checked.
        let curve = [0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];
        let point = [&[4][..], &[9; 96]].concat();
        PublicKey::from_ec(&curve, &point).expect("a point of the right length")
    };
    let certificate = to_pem(CERTIFICATE_LABEL, &device_certificate()).expect("it can be written");
    vec![
        authority_key().to_vec(),
        public_key_pem().into_bytes(),
        rsa.spki_der().to_vec(),
        rsa.to_pem().into_bytes(),
        edwards.spki_der().to_vec(),
        p384.spki_der().to_vec(),
        certificate.into_bytes(),
    ]
}
