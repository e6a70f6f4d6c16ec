//! What can be wrong with a certificate, and with making one.

use std::error::Error;

use keyferry_protocol::identity::Fingerprint;

use super::MAXIMUM_DEVICE_CERTIFICATE;
use crate::hsm::{Flag, HsmError};

/// Why a certificate is refused, or cannot be made.
///
/// Names in it come out of certificates; control characters in them are written as escapes.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// Longer than anything of its kind. Nothing of it was read.
    #[error("{length} bytes are more than a certificate may have here ({limit})")]
    TooLong {
        /// Its length in bytes.
        length: usize,
        /// The most that is read, in bytes.
        limit: usize,
    },
    /// Not a certificate, or not in strict DER, or something follows it.
    #[error("this is no X.509 certificate in DER (RFC 5280)")]
    Malformed,
    /// A file without any certificate, or with something else in it.
    #[error("this file holds no certificate in PEM or DER")]
    NoCertificate,
    /// A file with more certificates than are wanted of it.
    #[error("there are {found} certificates in it, where at most {limit} are wanted")]
    Several {
        /// How many there are.
        found: usize,
        /// How many may be.
        limit: usize,
    },
    /// A private key where a certificate belongs.
    #[error("a private key is in this file")]
    Private,
    /// RFC 5280 forbids it, in a way that no other variant names.
    #[error("the certificate breaks RFC 5280: {0}")]
    Profile(&'static str),
    /// Signed with another algorithm than ECDSA P-256 with SHA-256.
    #[error("it is signed with {0}; only ECDSA P-256 with SHA-256 is taken")]
    Algorithm(String),
    /// The key in it is of another type.
    #[error("the key is of type {0}; only P-256 keys are taken")]
    KeyType(String),
    /// An extension that must be understood, and is not.
    #[error("the certificate has a critical extension that is not known here ({0})")]
    UnknownExtension(String),
    /// A certificate that is no CA's, where a CA's is wanted.
    #[error("'{subject}' is no CA that may sign certificates: {reason}")]
    NotCa {
        /// Its subject.
        subject: String,
        /// What is missing.
        reason: &'static str,
    },
    /// A CA's certificate, where a device's is wanted.
    #[error("this is the certificate of a CA, not of a device")]
    NotDevice,
    /// The device's key may not sign.
    #[error(
        "the certificate does not say that the device's key may sign (keyUsage digitalSignature)"
    )]
    MayNotSign,
    /// Nobody who is trusted has that name.
    #[error("the certificate was issued by '{issuer}', which is not among the trusted CAs")]
    UnknownIssuer {
        /// Who it says has issued it.
        issuer: String,
    },
    /// A trusted CA has that name, but has not signed this.
    #[error("the certificate says that '{issuer}' has issued it, and the signature is wrong")]
    Signature {
        /// Who it says has issued it.
        issuer: String,
    },
    /// The CA above allows no CA below itself.
    #[error("'{issuer}' may not issue certificates of CAs (pathLenConstraint)")]
    PathTooLong {
        /// The CA above.
        issuer: String,
    },
    /// Its time has not come.
    #[error("the certificate of '{subject}' is valid from {from} on")]
    NotYetValid {
        /// Its subject.
        subject: String,
        /// Its first moment (RFC 3339).
        from: String,
    },
    /// Its time is over.
    #[error("the certificate of '{subject}' was valid until {until}")]
    Expired {
        /// Its subject.
        subject: String,
        /// Its last moment (RFC 3339).
        until: String,
    },
    /// The certificate is for another key than the device's.
    #[error("the certificate is for another key: {found}, and the identity key is {expected}")]
    OtherKey {
        /// The identity key's fingerprint.
        expected: Fingerprint,
        /// The fingerprint of the key in the certificate.
        found: Fingerprint,
    },
    /// The certificate has no serial number in its subject, or more than one.
    #[error("the certificate's subject does not have one serialNumber (IEEE 802.1AR)")]
    NoSerial,
    /// The certificate is for another device.
    #[error("the certificate is for device '{found}', not '{expected}'")]
    OtherSerial {
        /// As it should be.
        expected: String,
        /// As the certificate says.
        found: String,
    },
    /// The CA's certificate is for another key than the one that is to sign.
    #[error("the CA's certificate is for key {certificate}, and the signing key is {key}")]
    OtherCaKey {
        /// The fingerprint of the key in the certificate.
        certificate: Fingerprint,
        /// That of the signing key.
        key: Fingerprint,
    },
    /// The key may do more than sign, or can leave the token.
    #[error("key '{label}' may do more than sign ({} is true)", flag.attribute())]
    NotSignOnly {
        /// The key.
        label: String,
        /// What it has and should not have.
        flag: Flag,
    },
    /// The key can be read out of the token.
    #[error("key '{label}' can be read out of the token in the clear (CKA_SENSITIVE is false)")]
    NotSensitive {
        /// The key.
        label: String,
    },
    /// A subject that cannot be put into a certificate.
    #[error("'{0}' is no subject name (RFC 4514) with values of 1 to 64 characters")]
    Subject(String),
    /// A serial number that cannot be a product's.
    #[error(
        "'{0}' is no product serial number: 1 to 64 of letters, digits and ' ()+,-./:=?, and not 32 hexadecimal digits"
    )]
    Serial(String),
    /// A point in time that no certificate can hold.
    #[error("that many days lead past the year 9999")]
    Time,
    /// The certificate would not fit into a device.
    #[error(
        "the certificate would be {length} bytes long; a device keeps at most {MAXIMUM_DEVICE_CERTIFICATE}"
    )]
    TooLongForDevice {
        /// Its length in bytes.
        length: usize,
    },
    /// It could not be put together.
    #[error("the certificate could not be encoded")]
    Encoding,
    /// The CA's key did not sign.
    #[error("the CA's key did not sign")]
    Signer(#[source] Box<dyn Error + Send + Sync>),
    /// What the CA's key gave is no signature of it.
    #[error("the signature that the CA's key gave does not verify")]
    SignerWrong,
    /// The HSM, or the system's random numbers.
    #[error(transparent)]
    Hsm(#[from] HsmError),
}

impl CertificateError {
    /// The next move, for a person.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Malformed | Self::NoCertificate => {
                "`openssl x509 -in FILE -out NEW` makes PEM of what OpenSSL can read"
            }
            Self::TooLong { .. } | Self::Profile(_) | Self::UnknownExtension(_) => {
                "ask whoever issued it for a plain certificate"
            }
            Self::Several { .. } => "put the one that is meant into a file of its own",
            Self::Private => "a private key has no place here: take it out, and take it for known",
            Self::Algorithm(_) | Self::KeyType(_) => {
                "use a P-256 key; a factory CA under another kind of root is trusted by its own certificate"
            }
            Self::NotCa { .. } => {
                "a CA's certificate has basicConstraints CA:TRUE and keyUsage keyCertSign: make it with `keyferry ca init`, or have the root set them"
            }
            Self::NotDevice => "give the device's certificate, not its CA's",
            Self::MayNotSign | Self::NoSerial => {
                "have the device certified anew: this is no identity certificate"
            }
            Self::UnknownIssuer { .. } => {
                "give the certificate of the CA that certified the device, if that CA is to be trusted"
            }
            Self::Signature { .. } => {
                "do not trust it: it was altered, or another CA uses that name"
            }
            Self::PathTooLong { .. } => {
                "trust the factory CA's own certificate, or have the root issue it without a path limit of 0"
            }
            Self::NotYetValid { .. } => "check this computer's clock",
            Self::Expired { .. } => {
                "check this computer's clock; an expired CA needs a new certificate for its key"
            }
            Self::OtherKey { .. } | Self::OtherSerial { .. } => {
                "take the device off the line: it shows the certificate of another"
            }
            Self::OtherCaKey { .. } => {
                "give the certificate that was made for this key, or name the key that it was made for"
            }
            Self::NotSignOnly { .. } | Self::NotSensitive { .. } => {
                "create one that may do nothing else: `keyferry ca init --create`"
            }
            Self::Subject(_) => {
                r"write it like CN=Factory 1,O=Example, without blanks around the commas, and \, for a comma in a value"
            }
            Self::Serial(_) => "leave it out to name the device by its id",
            Self::Time => "choose fewer days; without --days there is no end",
            Self::TooLongForDevice { .. } => "choose shorter names for the CA and the device",
            Self::Encoding => return None,
            Self::Signer(source) => {
                return match source.downcast_ref::<HsmError>() {
                    Some(error) => error.hint(),
                    None => Some("check the token and the CA's key".to_owned()),
                };
            }
            Self::SignerWrong => {
                "the token is broken, or the key's public half on it is another key's"
            }
            Self::Hsm(error) => return error.hint(),
        };
        Some(hint.to_owned())
    }
}
