//! The extensions that are written into certificates, and the profile that puts them there.

use der::asn1::OctetString;
use keyferry_protocol::identity::p256_spki;
use sha2::{Digest, Sha256};
use spki::SubjectPublicKeyInfoRef;
use x509_cert::TbsCertificate;
use x509_cert::builder::{self, profile::BuilderProfile};
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, KeyUsage, KeyUsages, SubjectKeyIdentifier,
};
use x509_cert::ext::{Extension, ToExtension};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;

use super::CertificateError;
use crate::hsm::random;

/// Random bytes in a certificate's serial number: at least 64 bits (CA/Browser Forum Baseline Requirements §7.1), at most
/// 20 bytes with a sign (RFC 5280 §4.1.2.2).
const SERIAL_BYTES: usize = 16;

/// Length of a key identifier in bytes.
const KEY_IDENTIFIER: usize = 20;

/// What is written into a certificate beside key, serial number and dates.
pub(super) struct Profile {
    /// Who signs.
    pub(super) issuer: Name,
    /// For whom it is.
    pub(super) subject: Name,
    /// All extensions.
    pub(super) extensions: Vec<Extension>,
}

impl BuilderProfile for Profile {
    fn get_issuer(&self, _subject: &Name) -> Name {
        self.issuer.clone()
    }

    fn get_subject(&self) -> Name {
        self.subject.clone()
    }

    fn build_extensions(
        &self,
        _key: SubjectPublicKeyInfoRef<'_>,
        _issuer_key: SubjectPublicKeyInfoRef<'_>,
        _certificate: &TbsCertificate,
    ) -> builder::Result<Vec<Extension>> {
        Ok(self.extensions.clone())
    }
}

/// Critical, whatever the type's own opinion.
const CRITICAL: bool = true;

fn extension<E: ToExtension>(extension: E) -> Result<Extension, CertificateError> {
    extension
        .to_extension(&Name::default(), &[])
        .map_err(|_| CertificateError::Encoding)
}

/// The extensions of a CA that issues certificates of devices and of nobody else (RFC 5280 §4.2.1.9, §4.2.1.3).
pub(super) fn of_ca(key: &[u8]) -> Result<Vec<Extension>, CertificateError> {
    let constraints = BasicConstraints {
        ca: true,
        path_len_constraint: Some(0),
    };
    let usage = KeyUsage(KeyUsages::KeyCertSign | KeyUsages::CRLSign);
    let identifier = SubjectKeyIdentifier(key_identifier(key)?);
    Ok(vec![
        extension((CRITICAL, &constraints))?,
        extension((CRITICAL, &usage))?,
        extension((!CRITICAL, &identifier))?,
    ])
}

/// The extensions of a device's certificate, whose issuer has this key identifier. Its own one is a SHOULD of RFC 5280
/// §4.2.1.2, by which others find the certificate of a key; IEEE 802.1AR does without.
pub(super) fn of_device(
    key: &[u8],
    issuer: OctetString,
) -> Result<Vec<Extension>, CertificateError> {
    let constraints = BasicConstraints {
        ca: false,
        path_len_constraint: None,
    };
    let usage = KeyUsage(KeyUsages::DigitalSignature.into());
    let authority = AuthorityKeyIdentifier {
        key_identifier: Some(issuer),
        ..AuthorityKeyIdentifier::default()
    };
    let identifier = SubjectKeyIdentifier(key_identifier(key)?);
    Ok(vec![
        extension((CRITICAL, &constraints))?,
        extension((CRITICAL, &usage))?,
        extension((!CRITICAL, &authority))?,
        extension((!CRITICAL, &identifier))?,
    ])
}

/// The identifier of a P-256 key: the leftmost 160 bits of SHA-256 of the bits of its point (RFC 7093 §2, method 1).
pub(super) fn key_identifier(spki: &[u8]) -> Result<OctetString, CertificateError> {
    let point =
        p256_spki::to_point(spki).ok_or_else(|| CertificateError::KeyType("another".to_owned()))?;
    let digest = Sha256::digest(point);
    let identifier = digest.get(..KEY_IDENTIFIER).unwrap_or_default();
    OctetString::new(identifier).map_err(|_| CertificateError::Encoding)
}

/// A new serial number: positive, 16 bytes, all but its two first bits random.
pub(super) fn new_serial() -> Result<SerialNumber, CertificateError> {
    let mut bytes: [u8; SERIAL_BYTES] = random()?;
    // The first bit is the sign. The second is set so that no leading zero shortens the number: lengths are the same for all.
    bytes[0] = bytes[0] & 0x7f | 0x40;
    SerialNumber::new(&bytes).map_err(|_| CertificateError::Encoding)
}
