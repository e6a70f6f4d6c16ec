//! Certificates and public keys in files.

use std::time::{Duration, SystemTime};

use keyferry::certificate::{
    CaCertificate, DeviceCa, Document, Item, MAXIMUM_CA_CERTIFICATE, printable, read_items,
};
use keyferry::hsm::PublicKey;

use super::seeds;

/// The moment at which all of it happens: in 2026.
pub(super) fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_780_000_000)
}

/// A file with certificates or requests, CAs that somebody wants to trust, and what a device shows for its own certificate.
pub(super) fn certificate(data: &[u8]) -> bool {
    let items = read_items(data).unwrap_or_default();
    for item in &items {
        match item {
            Item::Certificate(document) => look_at(document),
            Item::Request(request) => {
                assert!(!printable(request.subject()).chars().any(char::is_control));
            }
        }
    }
    let ca = CaCertificate::read(data);
    let cas = DeviceCa::nobody().trusting(data);
    assert!(ca.is_err() || cas.is_ok(), "one CA may be trusted");
    if let Ok(cas) = cas {
        let _ = cas.clone().with_between(data);
        let _ = cas.check_issued(data, now());
    }
    let issued = seeds::trusted().check_issued(data, now());
    if let Ok(accepted) = &issued {
        assert!(accepted.check_key(&accepted.key).is_ok());
        PublicKey::from_spki_der(&accepted.key).expect("the key was looked at");
    }
    !items.is_empty() || issued.is_ok()
}

/// All that is ever asked of a certificate.
fn look_at(document: &Document) {
    let again = Document::read(document.der(), MAXIMUM_CA_CERTIFICATE).expect("it was read");
    assert_eq!(again.fingerprint(), document.fingerprint());
    for name in [document.subject(), document.issuer()] {
        assert!(!printable(name).chars().any(char::is_control));
    }
    assert!((1..=20).contains(&document.number().len()));
    let _ = (document.not_before(), document.not_after());
    let _ = (document.key(), document.algorithm());
    let _ = (document.is_ca(), document.is_self_signed());
    let _ = document.subject_key_identifier();
    let _ = document.authority_key_identifier();
    let _ = document.check_time(now());
}

/// A file with a public key, in any of its forms.
pub(super) fn public_key(data: &[u8]) -> bool {
    let Ok(key) = PublicKey::from_file_content(data) else {
        return false;
    };
    assert_eq!(PublicKey::from_spki_der(key.spki_der()), Ok(key.clone()));
    assert_eq!(
        PublicKey::from_file_content(key.to_pem().as_bytes()),
        Ok(key.clone())
    );
    let _ = (key.key_type().to_string(), key.fingerprint());
    true
}
