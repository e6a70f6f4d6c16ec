//! Whether a device's certificate is to be believed: from a trusted CA, directly or over one CA between, for this identity
//! key and this device, now (RFC 5280 §6, for chains of at most three certificates).

use std::time::SystemTime;

use keyferry_protocol::identity::Fingerprint;
use sha2::{Digest, Sha256};

use super::ca::CaCertificate;
use super::document::Document;
use super::subject::{Serial, printable, serial_number};
use super::{CertificateError, MAXIMUM_DEVICE_CERTIFICATE, file};

/// Most CAs that are trusted at once, and most between them and devices.
pub const MAXIMUM_CAS: usize = 16;

/// The CAs whose devices are accepted.
#[derive(Clone, Debug)]
pub struct DeviceCa {
    trusted: Vec<CaCertificate>,
    /// CAs below trusted ones, each with the place of the one above in `trusted`.
    between: Vec<(CaCertificate, usize)>,
}

/// A certificate that was accepted: what a record says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The serial number in its subject.
    pub serial: String,
    /// Its subject (RFC 4514).
    pub subject: String,
    /// The subject of the CA that signed it (RFC 4514).
    pub issuer: String,
    /// SHA-256 of the certificate of the trusted CA.
    pub trusted: Fingerprint,
    /// SHA-256 of the certificate.
    pub fingerprint: Fingerprint,
    /// The certificate's own serial number in hexadecimal digits.
    pub number: String,
}

impl DeviceCa {
    /// Trusts the CAs in these files, each of one or more certificates in PEM or one in DER. Nothing else is looked at to
    /// trust them: who gives them here vouches for them.
    ///
    /// # Errors
    /// As [`CaCertificate::read`]; [`CertificateError::Several`] if they are more than [`MAXIMUM_CAS`];
    /// [`CertificateError::NoCertificate`] if there is none.
    pub fn new<B: AsRef<[u8]>>(files: &[B]) -> Result<Self, CertificateError> {
        let trusted = read_all(files)?;
        if trusted.is_empty() {
            return Err(CertificateError::NoCertificate);
        }
        Ok(Self {
            trusted,
            between: Vec::new(),
        })
    }

    /// Takes CAs that stand between a trusted one and devices. Each must have been issued by a trusted one.
    ///
    /// # Errors
    /// As [`DeviceCa::new`]; [`CertificateError::UnknownIssuer`], [`CertificateError::Signature`],
    /// [`CertificateError::Algorithm`]; [`CertificateError::PathTooLong`].
    pub fn with_between<B: AsRef<[u8]>>(mut self, files: &[B]) -> Result<Self, CertificateError> {
        for ca in read_all(files)? {
            let place = issuer_of(ca.document(), self.trusted.iter())?;
            let allows = |above: &CaCertificate| above.path_length() != Some(0);
            if !self.trusted.get(place).is_some_and(allows) {
                return Err(CertificateError::PathTooLong {
                    issuer: printable(ca.document().issuer()),
                });
            }
            self.between.push((ca, place));
        }
        Ok(self)
    }

    /// Checks a device's certificate: that a trusted CA has issued it, that it and the CAs above are valid now, that it is an
    /// identity certificate, for this identity key (P-256 `SubjectPublicKeyInfo` in DER) and this serial number.
    ///
    /// # Errors
    /// [`CertificateError`], the first thing that is wrong.
    pub fn check(
        &self,
        certificate: &[u8],
        identity_key: &[u8],
        serial: &Serial,
        now: SystemTime,
    ) -> Result<Accepted, CertificateError> {
        let document = Document::read(certificate, MAXIMUM_DEVICE_CERTIFICATE)?;
        let accepted = self.check_document(&document, now)?;
        let key = document.key()?;
        if key.spki_der() != identity_key {
            return Err(CertificateError::OtherKey {
                expected: Fingerprint(Sha256::digest(identity_key).into()),
                found: key.fingerprint(),
            });
        }
        if accepted.serial != serial.as_str() {
            return Err(CertificateError::OtherSerial {
                expected: serial.to_string(),
                found: accepted.serial,
            });
        }
        Ok(accepted)
    }

    /// As [`DeviceCa::check`], without a device: says whose certificate it is, not that anybody here is that one.
    ///
    /// # Errors
    /// As [`DeviceCa::check`].
    pub fn check_issued(
        &self,
        certificate: &[u8],
        now: SystemTime,
    ) -> Result<Accepted, CertificateError> {
        self.check_document(
            &Document::read(certificate, MAXIMUM_DEVICE_CERTIFICATE)?,
            now,
        )
    }

    fn check_document(
        &self,
        document: &Document,
        now: SystemTime,
    ) -> Result<Accepted, CertificateError> {
        let cas = self
            .trusted
            .iter()
            .chain(self.between.iter().map(|(ca, _)| ca));
        let place = issuer_of(document, cas)?;
        let (issuer, trusted) = match self.trusted.get(place) {
            Some(trusted) => (Some(trusted), Some(trusted)),
            None => {
                let between = self.between.get(place - self.trusted.len());
                (
                    between.map(|(ca, _)| ca),
                    between.and_then(|(_, above)| self.trusted.get(*above)),
                )
            }
        };
        let (Some(issuer), Some(trusted)) = (issuer, trusted) else {
            return Err(CertificateError::UnknownIssuer {
                issuer: printable(document.issuer()),
            });
        };
        for certificate in [trusted.document(), issuer.document(), document] {
            certificate.check_time(now)?;
        }
        check_device(document)?;
        Ok(Accepted {
            serial: serial_number(document.subject())?.to_owned(),
            subject: printable(document.subject()),
            issuer: printable(issuer.document().subject()),
            trusted: trusted.document().fingerprint(),
            fingerprint: document.fingerprint(),
            number: hex::encode(document.number()),
        })
    }
}

/// Whether the certificate is one of a device that may sign.
fn check_device(document: &Document) -> Result<(), CertificateError> {
    let usage = document.key_usage();
    if document.is_ca() || usage.is_some_and(|usage| usage.key_cert_sign()) {
        return Err(CertificateError::NotDevice);
    }
    if !usage.is_some_and(|usage| usage.digital_signature()) {
        return Err(CertificateError::MayNotSign);
    }
    document.p256_key().map(|_| ())
}

/// The CA that has signed a certificate, by its place.
fn issuer_of<'a>(
    document: &Document,
    cas: impl Iterator<Item = &'a CaCertificate>,
) -> Result<usize, CertificateError> {
    let mut named = false;
    for (place, ca) in cas.enumerate() {
        if !document.names(ca.document()) {
            continue;
        }
        named = true;
        if document.is_signed_by(&ca.document().p256_key()?)? {
            return Ok(place);
        }
    }
    let issuer = printable(document.issuer());
    Err(if named {
        CertificateError::Signature { issuer }
    } else {
        CertificateError::UnknownIssuer { issuer }
    })
}

fn read_all<B: AsRef<[u8]>>(files: &[B]) -> Result<Vec<CaCertificate>, CertificateError> {
    let mut cas = Vec::new();
    for bytes in files {
        for der in file::certificates(bytes.as_ref(), MAXIMUM_CAS)? {
            cas.push(CaCertificate::from_der(&der)?);
        }
        if cas.len() > MAXIMUM_CAS {
            return Err(CertificateError::Several {
                found: cas.len(),
                limit: MAXIMUM_CAS,
            });
        }
    }
    Ok(cas)
}
