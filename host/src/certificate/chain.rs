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
    /// The key in it: P-256 `SubjectPublicKeyInfo` in DER.
    pub key: Vec<u8>,
}

impl Accepted {
    /// Checks that the certificate is for this identity key: P-256 `SubjectPublicKeyInfo` in DER.
    ///
    /// # Errors
    /// [`CertificateError::OtherKey`].
    pub fn check_key(&self, identity_key: &[u8]) -> Result<(), CertificateError> {
        if self.key == identity_key {
            return Ok(());
        }
        Err(CertificateError::OtherKey {
            expected: Fingerprint(Sha256::digest(identity_key).into()),
            found: Fingerprint(Sha256::digest(&self.key).into()),
        })
    }

    /// Checks that the certificate is for the device with this serial number.
    ///
    /// # Errors
    /// [`CertificateError::OtherSerial`].
    pub fn check_serial(&self, serial: &Serial) -> Result<(), CertificateError> {
        if self.serial == serial.as_str() {
            return Ok(());
        }
        Err(CertificateError::OtherSerial {
            expected: serial.to_string(),
            found: self.serial.clone(),
        })
    }
}

impl DeviceCa {
    /// Trusts nobody, yet.
    #[must_use]
    pub const fn nobody() -> Self {
        Self {
            trusted: Vec::new(),
            between: Vec::new(),
        }
    }

    /// Trusts the CAs in these files, each of one or more certificates in PEM or one in DER.
    ///
    /// # Errors
    /// As [`DeviceCa::trusting`]; [`CertificateError::NoCertificate`] if there is no file.
    pub fn new<B: AsRef<[u8]>>(files: &[B]) -> Result<Self, CertificateError> {
        if files.is_empty() {
            return Err(CertificateError::NoCertificate);
        }
        files
            .iter()
            .try_fold(Self::nobody(), |cas, bytes| cas.trusting(bytes.as_ref()))
    }

    /// Trusts the CAs in a file too. Nothing else is looked at to trust them: who gives them here vouches for them.
    ///
    /// # Errors
    /// As [`CaCertificate::read`]; [`CertificateError::Several`] if they become more than [`MAXIMUM_CAS`].
    pub fn trusting(mut self, bytes: &[u8]) -> Result<Self, CertificateError> {
        for ca in read_all(bytes)? {
            add(&mut self.trusted, ca)?;
        }
        Ok(self)
    }

    /// Whether this CA is trusted itself: its name and its key, in whichever certificate.
    #[must_use]
    pub fn trusts(&self, ca: &CaCertificate) -> bool {
        let of = |ca: &CaCertificate| ca.document().key().ok().map(|key| key.fingerprint());
        let subject = ca.document().subject();
        self.trusted
            .iter()
            .any(|it| it.document().subject() == subject && of(it) == of(ca))
    }

    /// Takes the CAs in a file that stand between a trusted one and devices. Each must have been issued by a trusted one.
    ///
    /// # Errors
    /// As [`DeviceCa::trusting`]; [`CertificateError::UnknownIssuer`], [`CertificateError::Signature`],
    /// [`CertificateError::Algorithm`]; [`CertificateError::PathTooLong`].
    pub fn with_between(mut self, bytes: &[u8]) -> Result<Self, CertificateError> {
        for ca in read_all(bytes)? {
            let places = self.trusted.iter().enumerate();
            let (above, place) = issuer_of(ca.document(), places.map(|(place, ca)| (ca, place)))?;
            if above.path_length() == Some(0) {
                return Err(CertificateError::PathTooLong {
                    issuer: printable(above.document().subject()),
                });
            }
            add(&mut self.between, (ca, place))?;
        }
        Ok(self)
    }

    /// Checks a device's certificate in DER: that a trusted CA has issued it, that it and the CAs above are valid now, that it
    /// is an identity certificate, for this identity key (P-256 `SubjectPublicKeyInfo` in DER) and this serial number.
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
        let accepted = self.check_issued(certificate, now)?;
        accepted.check_key(identity_key)?;
        accepted.check_serial(serial)?;
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
        let document = Document::read(certificate, MAXIMUM_DEVICE_CERTIFICATE)?;
        let direct = self.trusted.iter().map(|ca| (ca, ca));
        let between = self
            .between
            .iter()
            .filter_map(|(ca, above)| Some((ca, self.trusted.get(*above)?)));
        let (issuer, trusted) = issuer_of(&document, direct.chain(between))?;
        for certificate in [trusted.document(), issuer.document(), &document] {
            certificate.check_time(now)?;
        }
        check_device(&document)?;
        Ok(Accepted {
            serial: serial_number(document.subject())?.to_owned(),
            subject: printable(document.subject()),
            issuer: printable(issuer.document().subject()),
            trusted: trusted.document().fingerprint(),
            fingerprint: document.fingerprint(),
            number: hex::encode(document.number()),
            key: document.key()?.spki_der().to_vec(),
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

/// The one of several CAs that has signed a certificate, with what stands beside it.
fn issuer_of<'a, T>(
    document: &Document,
    cas: impl Iterator<Item = (&'a CaCertificate, T)>,
) -> Result<(&'a CaCertificate, T), CertificateError> {
    let mut named = false;
    for (ca, beside) in cas {
        if !document.names(ca.document()) {
            continue;
        }
        named = true;
        if document.is_signed_by(&ca.document().p256_key()?)? {
            return Ok((ca, beside));
        }
    }
    let issuer = printable(document.issuer());
    Err(if named {
        CertificateError::Signature { issuer }
    } else {
        CertificateError::UnknownIssuer { issuer }
    })
}

fn read_all(bytes: &[u8]) -> Result<Vec<CaCertificate>, CertificateError> {
    let found = file::certificates(bytes, MAXIMUM_CAS)?;
    found
        .iter()
        .map(|der| CaCertificate::from_der(der))
        .collect()
}

/// Adds one more, if it is not one too many.
fn add<T>(list: &mut Vec<T>, ca: T) -> Result<(), CertificateError> {
    if list.len() == MAXIMUM_CAS {
        return Err(CertificateError::Several {
            found: MAXIMUM_CAS + 1,
            limit: MAXIMUM_CAS,
        });
    }
    list.push(ca);
    Ok(())
}
