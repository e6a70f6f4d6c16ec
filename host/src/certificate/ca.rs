//! The factory's CA: its certificate, signed by itself, and what a CA's certificate must
//! say before anything is built on it.

use std::time::{Duration, SystemTime};

use der::{DateTime, Decode};
use x509_cert::builder::CertificateBuilder;
use x509_cert::name::Name;
use x509_cert::time::{Time, Validity as Period};

use super::document::Document;
use super::extension::{self, Profile, new_serial};
use super::signer::Signer;
use super::{CertificateError, MAXIMUM_CA_CERTIFICATE, file, printable};
use crate::device::flow::Authority;

/// How long a certificate is valid, from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// As long as there are dates: `99991231235959Z`, which means no well-defined end (RFC 5280 §4.1.2.5), as IEEE 802.1AR
    /// has it for devices that outlive everybody's plans.
    Unlimited,
    /// This many days.
    Days(u32),
}

/// Seconds of a day.
const DAY: u64 = 24 * 60 * 60;

/// How far the clock of whoever verifies a certificate at once may be behind.
const CLOCKS_DIFFER: Duration = Duration::from_secs(60);

impl Validity {
    /// Checks that the period can be written down.
    ///
    /// # Errors
    /// [`CertificateError::Time`].
    pub fn check(self, now: SystemTime) -> Result<(), CertificateError> {
        self.from(now).map(|_| ())
    }

    /// The period that has just begun: a minute ago, for the clocks of those who verify at once.
    pub(super) fn from(self, now: SystemTime) -> Result<Period, CertificateError> {
        let time = |at: SystemTime| {
            DateTime::from_system_time(at)
                .map(Time::from)
                .map_err(|_| CertificateError::Time)
        };
        let begin = now
            .checked_sub(CLOCKS_DIFFER)
            .ok_or(CertificateError::Time)?;
        let end = match self {
            Self::Unlimited => Time::INFINITY,
            Self::Days(days) => {
                let length = Duration::from_secs(DAY * u64::from(days));
                time(begin.checked_add(length).ok_or(CertificateError::Time)?)?
            }
        };
        Ok(Period::new(time(begin)?, end))
    }
}

/// Makes the CA's own certificate, signed by its own key: X.509 v3, may sign certificates of devices and revocation lists,
/// no CA below it. Gives DER.
///
/// # Errors
/// [`CertificateError::KeyType`] if the key is not a P-256 key; [`CertificateError::Time`]; [`CertificateError::Signer`],
/// [`CertificateError::SignerWrong`]; [`CertificateError::Hsm`] without random numbers; [`CertificateError::Encoding`].
pub fn self_signed(
    authority: &dyn Authority,
    subject: &Name,
    validity: Validity,
    now: SystemTime,
) -> Result<Vec<u8>, CertificateError> {
    let signer = Signer::new(authority)?;
    let key = authority.public_key();
    let profile = Profile {
        issuer: subject.clone(),
        subject: subject.clone(),
        extensions: extension::of_ca(key)?,
    };
    let key =
        x509_cert::SubjectPublicKeyInfo::from_der(key).map_err(|_| CertificateError::Encoding)?;
    let builder = CertificateBuilder::new(profile, new_serial()?, validity.from(now)?, key)
        .map_err(|_| CertificateError::Encoding)?;
    signer.build(builder)
}

/// The certificate of a CA that may issue certificates of devices.
#[derive(Clone, Debug)]
pub struct CaCertificate {
    document: Document,
}

impl CaCertificate {
    /// Reads a certificate in DER or PEM, the only one in `bytes`.
    ///
    /// # Errors
    /// As [`Document::read`]; [`CertificateError::NoCertificate`], [`CertificateError::Several`],
    /// [`CertificateError::Private`]; [`CertificateError::NotCa`]; [`CertificateError::KeyType`];
    /// [`CertificateError::Signature`] if it says that it has signed itself, and has not.
    pub fn read(bytes: &[u8]) -> Result<Self, CertificateError> {
        Self::from_der(&file::one_certificate(bytes)?)
    }

    pub(super) fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        let document = Document::read(der, MAXIMUM_CA_CERTIFICATE)?;
        let not_ca = |reason| {
            Err(CertificateError::NotCa {
                subject: printable(document.subject()),
                reason,
            })
        };
        if !document.is_ca() {
            return not_ca("basicConstraints is not CA:TRUE");
        }
        // RFC 5280 §4.2.1.3: a CA's certificate has it.
        if !document
            .key_usage()
            .is_some_and(|usage| usage.key_cert_sign())
        {
            return not_ca("keyUsage is not keyCertSign");
        }
        if document.subject().is_empty() {
            return not_ca("it has no name");
        }
        let key = document.p256_key()?;
        if document.is_self_issued() && !document.is_signed_by(&key)? {
            return Err(CertificateError::Signature {
                issuer: printable(document.issuer()),
            });
        }
        Ok(Self { document })
    }

    /// The certificate.
    #[must_use]
    pub const fn document(&self) -> &Document {
        &self.document
    }

    /// How many CAs may stand below it, if that is limited.
    pub(super) fn path_length(&self) -> Option<u8> {
        self.document
            .basic_constraints()
            .and_then(|constraints| constraints.path_len_constraint)
    }
}
