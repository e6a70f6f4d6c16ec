//! One certificate, read strictly: the whole input, one DER for one content, and what RFC 5280 wants of every certificate.

use std::time::{SystemTime, UNIX_EPOCH};

use der::asn1::ObjectIdentifier;
use der::oid::AssociatedOid;
use der::{DateTime, Decode, Encode};
use keyferry_protocol::identity::Fingerprint;
use p256::ecdsa::signature::Verifier;
use p256::ecdsa::{DerSignature, VerifyingKey};
use sha2::{Digest, Sha256};
use x509_cert::certificate::Version;
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, KeyUsage, SubjectKeyIdentifier,
};
use x509_cert::name::Name;
use x509_cert::{AlgorithmIdentifier, Certificate, TbsCertificate};

use super::subject::serial_number;
use super::{CertificateError, printable};
use crate::hsm::{PublicKey, PublicNumbers};

/// `ecdsa-with-SHA256` (RFC 5758 §3.2); it has no parameters.
const ECDSA_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
/// `nameConstraints`, `policyConstraints`, `inhibitAnyPolicy` (RFC 5280 §4.2.1.10, .11, .14): they forbid something, and are
/// not understood here.
const CONSTRAINING: [ObjectIdentifier; 3] = [
    ObjectIdentifier::new_unwrap("2.5.29.30"),
    ObjectIdentifier::new_unwrap("2.5.29.36"),
    ObjectIdentifier::new_unwrap("2.5.29.54"),
];

/// A certificate as it was read, and its bytes. That it was read says nothing about who made it.
#[derive(Clone, Debug)]
pub struct Document {
    der: Vec<u8>,
    certificate: Certificate,
    basic_constraints: Option<BasicConstraints>,
    key_usage: Option<KeyUsage>,
    subject_key: Option<Vec<u8>>,
    authority_key: Option<Vec<u8>>,
}

impl Document {
    /// Reads a certificate of at most `limit` bytes in DER that fills `bytes` exactly.
    ///
    /// # Errors
    /// [`CertificateError::TooLong`], [`CertificateError::Malformed`], [`CertificateError::Profile`],
    /// [`CertificateError::UnknownExtension`].
    pub fn read(bytes: &[u8], limit: usize) -> Result<Self, CertificateError> {
        if bytes.len() > limit {
            return Err(CertificateError::TooLong {
                length: bytes.len(),
                limit,
            });
        }
        let malformed = |_| CertificateError::Malformed;
        let certificate = Certificate::from_der(bytes).map_err(malformed)?;
        // One content, one encoding: what the reader was lenient about would be encoded otherwise. It also means that the
        // signed bytes are those of the part encoded by itself.
        if certificate.to_der().map_err(malformed)? != bytes {
            return Err(CertificateError::Malformed);
        }
        let tbs = certificate.tbs_certificate();
        check_profile(&certificate)?;
        check_extensions(tbs)?;
        let authority = tbs
            .get_extension::<AuthorityKeyIdentifier>()
            .map_err(malformed)?;
        let subject = tbs
            .get_extension::<SubjectKeyIdentifier>()
            .map_err(malformed)?;
        Ok(Self {
            basic_constraints: tbs
                .get_extension()
                .map_err(malformed)?
                .map(|(_, value)| value),
            key_usage: tbs
                .get_extension()
                .map_err(malformed)?
                .map(|(_, value)| value),
            subject_key: subject.map(|(_, identifier)| identifier.0.as_bytes().to_vec()),
            authority_key: authority
                .and_then(|(_, identifier)| identifier.key_identifier)
                .map(|identifier| identifier.as_bytes().to_vec()),
            der: bytes.to_vec(),
            certificate,
        })
    }

    fn tbs(&self) -> &TbsCertificate {
        self.certificate.tbs_certificate()
    }

    /// Its bytes.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// SHA-256 of its bytes.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint(Sha256::digest(&self.der).into())
    }

    /// Whose it is.
    #[must_use]
    pub fn subject(&self) -> &Name {
        self.tbs().subject()
    }

    /// Who has issued it, as it says.
    #[must_use]
    pub fn issuer(&self) -> &Name {
        self.tbs().issuer()
    }

    /// The device's serial number, in its subject.
    ///
    /// # Errors
    /// [`CertificateError::NoSerial`].
    pub fn device_serial(&self) -> Result<&str, CertificateError> {
        serial_number(self.subject())
    }

    /// Its own serial number, big-endian: not the device's.
    #[must_use]
    pub fn number(&self) -> &[u8] {
        self.tbs().serial_number().as_bytes()
    }

    /// Its first moment.
    #[must_use]
    pub fn not_before(&self) -> DateTime {
        self.tbs().validity().not_before.to_date_time()
    }

    /// Its last moment.
    #[must_use]
    pub fn not_after(&self) -> DateTime {
        self.tbs().validity().not_after.to_date_time()
    }

    /// The key in it.
    ///
    /// # Errors
    /// [`CertificateError::KeyType`] if it is of a kind that is not known here, or no sound key.
    pub fn key(&self) -> Result<PublicKey, CertificateError> {
        let spki = self
            .tbs()
            .subject_public_key_info()
            .to_der()
            .map_err(|_| CertificateError::Malformed)?;
        PublicKey::from_spki_der(&spki)
            .map_err(|error| CertificateError::KeyType(error.to_string()))
    }

    /// The P-256 key in it.
    ///
    /// # Errors
    /// [`CertificateError::KeyType`].
    pub(super) fn p256_key(&self) -> Result<VerifyingKey, CertificateError> {
        let key = self.key()?;
        let other = || CertificateError::KeyType(key.key_type().to_string());
        match key.numbers() {
            PublicNumbers::P256(point) => VerifyingKey::from_sec1_bytes(point).map_err(|_| other()),
            PublicNumbers::Rsa { .. } | PublicNumbers::P384(_) | PublicNumbers::Ed25519(_) => {
                Err(other())
            }
        }
    }

    /// What it says on being a CA.
    #[must_use]
    pub fn basic_constraints(&self) -> Option<&BasicConstraints> {
        self.basic_constraints.as_ref()
    }

    /// What its key may do.
    #[must_use]
    pub fn key_usage(&self) -> Option<&KeyUsage> {
        self.key_usage.as_ref()
    }

    /// Whether it says that it is a CA's.
    #[must_use]
    pub fn is_ca(&self) -> bool {
        self.basic_constraints.as_ref().is_some_and(|it| it.ca)
    }

    /// The identifier of its key.
    #[must_use]
    pub fn subject_key_identifier(&self) -> Option<&[u8]> {
        self.subject_key.as_deref()
    }

    /// The identifier of its issuer's key.
    #[must_use]
    pub fn authority_key_identifier(&self) -> Option<&[u8]> {
        self.authority_key.as_deref()
    }

    /// The name of the algorithm it is signed with.
    #[must_use]
    pub fn algorithm(&self) -> String {
        algorithm_name(self.certificate.signature_algorithm())
    }

    /// Whether subject and issuer are the same.
    #[must_use]
    pub fn is_self_issued(&self) -> bool {
        self.subject() == self.issuer()
    }

    /// Whether the key in it has signed it, as far as that can be known here: with ECDSA and SHA-256.
    #[must_use]
    pub fn is_self_signed(&self) -> bool {
        let signed = self.p256_key().and_then(|key| self.is_signed_by(&key));
        self.is_self_issued() && matches!(signed, Ok(true))
    }

    /// Whether `issuer` can have issued it: the names are the same, and the key identifiers, where both are there.
    #[must_use]
    pub(super) fn names(&self, issuer: &Self) -> bool {
        let identifiers = (&self.authority_key, &issuer.subject_key);
        let key_fits = match identifiers {
            (Some(named), Some(own)) => named == own,
            (None, _) | (_, None) => true,
        };
        key_fits && self.issuer() == issuer.subject()
    }

    /// Whether this key has signed it.
    ///
    /// # Errors
    /// [`CertificateError::Algorithm`] if it is signed in another way than with ECDSA and SHA-256.
    pub(super) fn is_signed_by(&self, key: &VerifyingKey) -> Result<bool, CertificateError> {
        check_algorithm(self.certificate.signature_algorithm())?;
        let message = self
            .tbs()
            .to_der()
            .map_err(|_| CertificateError::Malformed)?;
        let signature = self.certificate.signature().as_bytes();
        let Some(Ok(signature)) = signature.map(DerSignature::from_bytes) else {
            return Ok(false);
        };
        Ok(key.verify(&message, &signature).is_ok())
    }

    /// Checks that it is valid now.
    ///
    /// # Errors
    /// [`CertificateError::NotYetValid`], [`CertificateError::Expired`].
    pub fn check_time(&self, now: SystemTime) -> Result<(), CertificateError> {
        // To the second, as certificates are: the last moment is the whole last second.
        // A clock before 1970 is as good as one at its first second.
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let subject = || printable(self.subject());
        let (from, until) = (self.not_before(), self.not_after());
        if now < from.unix_duration().as_secs() {
            return Err(CertificateError::NotYetValid {
                subject: subject(),
                from: from.to_string(),
            });
        }
        if now > until.unix_duration().as_secs() {
            return Err(CertificateError::Expired {
                subject: subject(),
                until: until.to_string(),
            });
        }
        Ok(())
    }
}

fn algorithm_name(algorithm: &AlgorithmIdentifier) -> String {
    match der::oid::db::DB.by_oid(&algorithm.oid) {
        Some(name) => name.to_owned(),
        None => algorithm.oid.to_string(),
    }
}

/// Checks that something is signed with ECDSA and SHA-256.
pub(super) fn check_algorithm(algorithm: &AlgorithmIdentifier) -> Result<(), CertificateError> {
    if algorithm.oid == ECDSA_WITH_SHA256 && algorithm.parameters.is_none() {
        Ok(())
    } else {
        Err(CertificateError::Algorithm(algorithm_name(algorithm)))
    }
}

/// What RFC 5280 §4.1 wants of every certificate, and the reader does not look at.
fn check_profile(certificate: &Certificate) -> Result<(), CertificateError> {
    let tbs = certificate.tbs_certificate();
    let wrong = |reason| Err(CertificateError::Profile(reason));
    if tbs.version() != Version::V3 {
        return wrong("it is not of version 3");
    }
    if certificate.signature_algorithm() != tbs.signature() {
        return wrong("the algorithm outside is not the one inside (§4.1.1.2)");
    }
    if tbs.issuer_unique_id().is_some() || tbs.subject_unique_id().is_some() {
        return wrong("it has unique identifiers (§4.1.2.8)");
    }
    let number = tbs.serial_number().as_bytes();
    let negative = number.first().is_none_or(|byte| byte & 0x80 != 0);
    if negative || number.iter().all(|byte| *byte == 0) || number.len() > 20 {
        return wrong("its serial number is not positive, or longer than 20 bytes (§4.1.2.2)");
    }
    if tbs.issuer().is_empty() {
        return wrong("its issuer has no name (§4.1.2.4)");
    }
    Ok(())
}

/// No extension twice, and none that would have to be understood and is not (RFC 5280 §4.2).
fn check_extensions(tbs: &TbsCertificate) -> Result<(), CertificateError> {
    let extensions = tbs.extensions().map_or(&[][..], Vec::as_slice);
    for (index, extension) in extensions.iter().enumerate() {
        let earlier = extensions.get(..index).unwrap_or_default();
        if earlier.iter().any(|it| it.extn_id == extension.extn_id) {
            return Err(CertificateError::Profile(
                "it has an extension twice (§4.2)",
            ));
        }
        let known = [BasicConstraints::OID, KeyUsage::OID].contains(&extension.extn_id);
        if extension.critical && !known || CONSTRAINING.contains(&extension.extn_id) {
            return Err(CertificateError::UnknownExtension(
                extension.extn_id.to_string(),
            ));
        }
        check_encoding(extension.extn_id, extension.extn_value.as_bytes())?;
    }
    Ok(())
}

/// The extensions that are read must be in DER as well: one content, one encoding.
fn check_encoding(id: ObjectIdentifier, bytes: &[u8]) -> Result<(), CertificateError> {
    fn strict<'a, T: Decode<'a> + Encode>(bytes: &'a [u8]) -> bool {
        T::from_der(bytes).is_ok_and(|value| value.to_der().is_ok_and(|again| again == bytes))
    }
    let sound = match id {
        BasicConstraints::OID => strict::<BasicConstraints>(bytes),
        KeyUsage::OID => strict::<KeyUsage>(bytes),
        AuthorityKeyIdentifier::OID => strict::<AuthorityKeyIdentifier>(bytes),
        SubjectKeyIdentifier::OID => strict::<SubjectKeyIdentifier>(bytes),
        _ => true,
    };
    if sound {
        Ok(())
    } else {
        Err(CertificateError::Malformed)
    }
}
