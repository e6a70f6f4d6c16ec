//! The certificate of a device: an IDevID in the style of IEEE 802.1AR-2018 §8.

use std::time::SystemTime;

use der::Decode;
use der::asn1::OctetString;
use x509_cert::builder::CertificateBuilder;

use super::ca::{CaCertificate, Validity};
use super::document::Document;
use super::extension::{self, Profile, key_identifier, new_serial};
use super::signer::Signer;
use super::subject::{Serial, device_subject};
use super::{CertificateError, MAXIMUM_DEVICE_CERTIFICATE};
use crate::device::flow::Authority;
use crate::hsm::PublicKey;

/// For whom a certificate is.
#[derive(Clone, Debug)]
pub struct Identity<'a> {
    /// The serial number in the subject.
    pub serial: Serial,
    /// `O` of the subject: who makes the device.
    pub organization: Option<&'a str>,
    /// `CN` of the subject: what the device is, for example its board.
    pub common_name: Option<&'a str>,
    /// The identity key of the verified statement: P-256 `SubjectPublicKeyInfo` in DER, 91 bytes.
    pub key: &'a [u8],
}

/// A CA that issues certificates of devices: its certificate, and its key wherever that lives.
pub struct Issuer<'a> {
    authority: &'a dyn Authority,
    signer: Signer<'a>,
    ca: CaCertificate,
}

impl<'a> Issuer<'a> {
    /// Brings certificate and key together.
    ///
    /// # Errors
    /// [`CertificateError::OtherCaKey`] if they do not belong together; [`CertificateError::KeyType`].
    pub fn new(authority: &'a dyn Authority, ca: CaCertificate) -> Result<Self, CertificateError> {
        let signer = Signer::new(authority)?;
        let certified = ca.document().key()?;
        let key = PublicKey::from_spki_der(authority.public_key())
            .map_err(|error| CertificateError::KeyType(error.to_string()))?;
        if certified != key {
            return Err(CertificateError::OtherCaKey {
                certificate: certified.fingerprint(),
                key: key.fingerprint(),
            });
        }
        Ok(Self {
            authority,
            signer,
            ca,
        })
    }

    /// The CA's certificate.
    #[must_use]
    pub const fn ca(&self) -> &CaCertificate {
        &self.ca
    }

    /// Issues a certificate: valid from now on and without a well-defined end, for digital signatures. Gives DER.
    ///
    /// # Errors
    /// [`CertificateError::NotYetValid`] or [`CertificateError::Expired`] of the CA's own certificate;
    /// [`CertificateError::KeyType`], [`CertificateError::Subject`]; [`CertificateError::TooLongForDevice`];
    /// [`CertificateError::Signer`], [`CertificateError::SignerWrong`]; [`CertificateError::Hsm`] without random numbers.
    pub fn issue(
        &self,
        identity: &Identity<'_>,
        now: SystemTime,
    ) -> Result<Vec<u8>, CertificateError> {
        let ca = self.ca.document();
        ca.check_time(now)?;
        // Whoever looks for the issuer compares with the identifier that its certificate has, however that was made.
        let issuer_key = match ca.subject_key_identifier() {
            Some(identifier) => {
                OctetString::new(identifier).map_err(|_| CertificateError::Encoding)?
            }
            None => key_identifier(self.authority.public_key())?,
        };
        let profile = Profile {
            issuer: ca.subject().clone(),
            subject: device_subject(
                identity.organization,
                identity.common_name,
                &identity.serial,
            )?,
            extensions: extension::of_device(identity.key, issuer_key)?,
        };
        // A point that lies on the curve, and in the one encoding.
        let key = PublicKey::from_spki_der(identity.key)
            .map_err(|error| CertificateError::KeyType(error.to_string()))?;
        let key = x509_cert::SubjectPublicKeyInfo::from_der(key.spki_der())
            .map_err(|_| CertificateError::Encoding)?;
        let period = Validity::Unlimited.from(now)?;
        let builder = CertificateBuilder::new(profile, new_serial()?, period, key)
            .map_err(|_| CertificateError::Encoding)?;
        let der = self.signer.build(builder)?;
        if der.len() > MAXIMUM_DEVICE_CERTIFICATE {
            return Err(CertificateError::TooLongForDevice { length: der.len() });
        }
        // Nothing leaves that the check would refuse.
        Document::read(&der, MAXIMUM_DEVICE_CERTIFICATE)?;
        Ok(der)
    }
}
