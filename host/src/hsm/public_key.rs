//! Public keys: read from files and tokens, checked, named by fingerprint.

use der::asn1::{AnyRef, BitString, BitStringRef, ObjectIdentifier, UintRef};
use der::{Decode, Encode, Sequence};
use keyferry_protocol::identity::{Fingerprint, p256_spki};
use keyferry_protocol::suite::UnwrapAlgorithm;
use sha2::{Digest, Sha256};
use spki::{AlgorithmIdentifier, SubjectPublicKeyInfo};

use super::key::KeyType;

/// `rsaEncryption` (RFC 8017 appendix A.1).
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
/// `id-ecPublicKey` (RFC 5480 §2.1.1).
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
/// `secp256r1` (RFC 5480 §2.1.1.1).
const SECP256R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
/// `secp384r1` (RFC 5480 §2.1.1.1).
const SECP384R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
/// `id-Ed25519` (RFC 8410 §3); it names algorithm and curve at once, and has no parameters.
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// Smallest RSA modulus of a recipient, in bits.
pub const MINIMUM_RSA_BITS: u16 = 2048;

/// Longest RSA modulus that is read at all, in bits.
const MAXIMUM_RSA_BITS: usize = 16384;

/// The label of a public key in PEM (RFC 7468 §13).
const PEM_LABEL: &str = "PUBLIC KEY";

/// Why bytes are not a public key, or not one to wrap for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublicKeyError {
    /// Neither PEM nor DER of a public key.
    #[error(
        "this is not a public key (SubjectPublicKeyInfo, PKCS#1 or X.509 certificate, in PEM or DER)"
    )]
    Malformed,
    /// More than one PEM block: which one is meant is not to be guessed.
    #[error("there is more than one key or certificate in it")]
    Several,
    /// It is a private key.
    #[error("this is a private key")]
    Private,
    /// A public key, but of an algorithm or curve that is not used here.
    #[error("this public key's algorithm ({0}) is not supported")]
    Unsupported(String),
    /// The RSA modulus is too short to wrap for.
    #[error("this RSA key has {bits} bits; a recipient needs at least {MINIMUM_RSA_BITS}")]
    WeakModulus {
        /// Length of the modulus in bits.
        bits: u16,
    },
    /// An even modulus, or a public exponent that is even or 1: what is wrapped for it would lie open.
    #[error("this RSA key is not a sound one (even modulus, or public exponent even or 1)")]
    Unsound,
    /// The RSA public exponent is smaller than was asked for.
    #[error("this RSA key's public exponent is {exponent}; at least {minimum} was asked for")]
    SmallExponent {
        /// The public exponent.
        exponent: u64,
        /// The smallest that is allowed.
        minimum: u64,
    },
}

impl PublicKeyError {
    /// The next move for a person.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Malformed => Some("`openssl pkey -in KEY -pubout` makes the right form".into()),
            Self::Several => Some("put the one key that is meant into a file of its own".into()),
            Self::Private => Some(
                "a private key has no place here; `openssl pkey -in KEY -pubout` gives its public key".into(),
            ),
            Self::Unsupported(_) => Some("use an RSA or P-256 key".into()),
            Self::WeakModulus { .. } | Self::Unsound => {
                Some("ask the recipient for a new RSA key of 2048 bits or more".into())
            }
            Self::SmallExponent { .. } => {
                Some("ask the recipient for an RSA key with public exponent 65537".into())
            }
        }
    }
}

/// `RSAPublicKey` (RFC 8017 appendix A.1.1).
#[derive(Sequence)]
struct RsaPublicKey<'a> {
    modulus: UintRef<'a>,
    public_exponent: UintRef<'a>,
}

/// The numbers a token needs to import a public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublicNumbers {
    /// An RSA key; both big-endian without leading zeros.
    Rsa {
        /// The modulus.
        modulus: Vec<u8>,
        /// The public exponent.
        exponent: Vec<u8>,
    },
    /// A P-256 key: the uncompressed point `04 ‖ x ‖ y` (SEC 1 §2.3.3), which lies on the curve.
    P256([u8; 65]),
    /// A P-384 key: the uncompressed point `04 ‖ x ‖ y`.
    P384([u8; 97]),
    /// An Ed25519 key: the encoded point (RFC 8032 §5.1.2). Only its length is checked.
    Ed25519([u8; 32]),
}

/// A public key: its `SubjectPublicKeyInfo` (RFC 5280 §4.1.2.7) and the numbers in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    spki: Vec<u8>,
    numbers: PublicNumbers,
}

impl PublicKey {
    /// Reads a `SubjectPublicKeyInfo` in DER that fills `spki` exactly.
    ///
    /// # Errors
    /// [`PublicKeyError`] if it is anything else, or an algorithm that is not used here.
    pub fn from_spki_der(spki: &[u8]) -> Result<Self, PublicKeyError> {
        let info = SubjectPublicKeyInfo::<AnyRef<'_>, BitStringRef<'_>>::from_der(spki)
            .map_err(|_| PublicKeyError::Malformed)?;
        let key = info
            .subject_public_key
            .as_bytes()
            .ok_or(PublicKeyError::Malformed)?;
        if info.algorithm.oid == RSA_ENCRYPTION {
            let key = RsaPublicKey::from_der(key).map_err(|_| PublicKeyError::Malformed)?;
            return Self::from_rsa(key.modulus.as_bytes(), key.public_exponent.as_bytes());
        }
        if info.algorithm.oid == ED25519 {
            if info.algorithm.parameters.is_some() {
                return Err(PublicKeyError::Malformed);
            }
            return Self::from_ed25519(key);
        }
        if info.algorithm.oid != EC_PUBLIC_KEY {
            return Err(PublicKeyError::Unsupported(info.algorithm.oid.to_string()));
        }
        let curve = info
            .algorithm
            .parameters_oid()
            .map_err(|_| PublicKeyError::Malformed)?;
        Self::from_point(curve, key)
    }

    /// Makes a public key from an RSA modulus and public exponent, both big-endian.
    ///
    /// # Errors
    /// [`PublicKeyError::Malformed`] if one of them is zero or the modulus is longer than 16 384 bits.
    pub fn from_rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self, PublicKeyError> {
        let malformed = |_| PublicKeyError::Malformed;
        let modulus = UintRef::new(modulus).map_err(malformed)?;
        let public_exponent = UintRef::new(exponent).map_err(malformed)?;
        let numbers = PublicNumbers::Rsa {
            modulus: modulus.as_bytes().to_vec(),
            exponent: public_exponent.as_bytes().to_vec(),
        };
        if modulus.as_bytes().len() > MAXIMUM_RSA_BITS / 8
            || modulus.as_bytes() == [0]
            || public_exponent.as_bytes() == [0]
        {
            return Err(PublicKeyError::Malformed);
        }
        let key = RsaPublicKey {
            modulus,
            public_exponent,
        };
        let key = key.to_der().map_err(malformed)?;
        Ok(Self {
            spki: encode(RSA_ENCRYPTION, Some(AnyRef::NULL), &key)?,
            numbers,
        })
    }

    /// Makes a public key from the curve's `ECParameters` in DER (a named curve, as in `CKA_EC_PARAMS`) and a point.
    ///
    /// # Errors
    /// [`PublicKeyError`] if the curve is neither P-256 nor P-384, or the point is not an uncompressed point of it.
    pub fn from_ec(parameters: &[u8], point: &[u8]) -> Result<Self, PublicKeyError> {
        let curve = ObjectIdentifier::from_der(parameters)
            .map_err(|_| PublicKeyError::Unsupported("elliptic curve".into()))?;
        Self::from_point(curve, point)
    }

    fn from_point(curve: ObjectIdentifier, point: &[u8]) -> Result<Self, PublicKeyError> {
        if curve == SECP256R1 {
            let point: [u8; 65] = point.try_into().map_err(|_| PublicKeyError::Malformed)?;
            p256::PublicKey::from_sec1_bytes(&point).map_err(|_| PublicKeyError::Malformed)?;
            Ok(Self {
                spki: p256_spki::from_point(&point).to_vec(),
                numbers: PublicNumbers::P256(point),
            })
        } else if curve == SECP384R1 {
            let point: [u8; 97] = point.try_into().map_err(|_| PublicKeyError::Malformed)?;
            if point[0] != 0x04 {
                return Err(PublicKeyError::Malformed);
            }
            Ok(Self {
                spki: encode(EC_PUBLIC_KEY, Some(AnyRef::from(&SECP384R1)), &point)?,
                numbers: PublicNumbers::P384(point),
            })
        } else {
            Err(PublicKeyError::Unsupported(format!("curve {curve}")))
        }
    }

    /// Makes a public key from an encoded Ed25519 point (RFC 8032 §5.1.2).
    ///
    /// # Errors
    /// [`PublicKeyError::Malformed`] if it is not 32 bytes long.
    pub fn from_ed25519(point: &[u8]) -> Result<Self, PublicKeyError> {
        let point: [u8; 32] = point.try_into().map_err(|_| PublicKeyError::Malformed)?;
        Ok(Self {
            spki: encode(ED25519, None, &point)?,
            numbers: PublicNumbers::Ed25519(point),
        })
    }

    /// The `SubjectPublicKeyInfo` in DER.
    #[must_use]
    pub fn spki_der(&self) -> &[u8] {
        &self.spki
    }

    /// The `SubjectPublicKeyInfo` in PEM, with a newline at the end.
    #[must_use]
    pub fn to_pem(&self) -> String {
        // Encoding fails only for labels that PEM does not allow; this one is from RFC 7468.
        der::pem::encode_string(PEM_LABEL, der::pem::LineEnding::LF, &self.spki).unwrap_or_default()
    }

    /// SHA-256 of the `SubjectPublicKeyInfo` in DER: how a recipient is named.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint(Sha256::digest(&self.spki).into())
    }

    /// The numbers in it.
    #[must_use]
    pub fn numbers(&self) -> &PublicNumbers {
        &self.numbers
    }

    /// Its type and size.
    #[must_use]
    pub fn key_type(&self) -> KeyType {
        match &self.numbers {
            PublicNumbers::Rsa { modulus, .. } => KeyType::Rsa {
                bits: bit_length(modulus),
            },
            PublicNumbers::P256(_) => KeyType::P256,
            PublicNumbers::P384(_) => KeyType::P384,
            PublicNumbers::Ed25519(_) => KeyType::Ed25519,
        }
    }

    /// The kind of unwrap key it is in the protocol, if a device can have one like it.
    #[must_use]
    pub fn unwrap_algorithm(&self) -> Option<UnwrapAlgorithm> {
        match self.key_type() {
            KeyType::Rsa { bits: 2048 } => Some(UnwrapAlgorithm::Rsa2048),
            KeyType::Rsa { bits: 3072 } => Some(UnwrapAlgorithm::Rsa3072),
            KeyType::Rsa { bits: 4096 } => Some(UnwrapAlgorithm::Rsa4096),
            KeyType::P256 => Some(UnwrapAlgorithm::P256),
            KeyType::Rsa { .. }
            | KeyType::P384
            | KeyType::Ed25519
            | KeyType::Aes { .. }
            | KeyType::Secret { .. }
            | KeyType::Other => None,
        }
    }

    /// Checks that keys may be wrapped for this key: RSA of at least [`MINIMUM_RSA_BITS`] bits with an odd modulus and an
    /// odd public exponent above 1, or P-256.
    ///
    /// # Errors
    /// [`PublicKeyError`] naming what is wrong.
    pub fn check_recipient(&self) -> Result<(), PublicKeyError> {
        match &self.numbers {
            PublicNumbers::Rsa { modulus, exponent } => {
                let odd = |number: &[u8]| number.last().is_some_and(|byte| byte & 1 == 1);
                let bits = bit_length(modulus);
                if bits < MINIMUM_RSA_BITS {
                    Err(PublicKeyError::WeakModulus { bits })
                } else if !odd(modulus) || !odd(exponent) || exponent.as_slice() == [1] {
                    Err(PublicKeyError::Unsound)
                } else {
                    Ok(())
                }
            }
            PublicNumbers::P256(_) => Ok(()),
            PublicNumbers::P384(_) => Err(PublicKeyError::Unsupported("P-384".into())),
            PublicNumbers::Ed25519(_) => Err(PublicKeyError::Unsupported("Ed25519".into())),
        }
    }

    /// Checks that an RSA key's public exponent is at least `minimum`: small ones are sound with OAEP, but some policies
    /// (FIPS 186-5 §5.4 asks for more than 65536) do not take them. Other keys have none and pass.
    ///
    /// # Errors
    /// [`PublicKeyError::SmallExponent`].
    pub fn check_exponent(&self, minimum: u64) -> Result<(), PublicKeyError> {
        let PublicNumbers::Rsa { exponent, .. } = &self.numbers else {
            return Ok(());
        };
        let value = exponent.iter().try_fold(0_u64, |value, byte| {
            Some(value.checked_mul(256)? | u64::from(*byte))
        });
        match value {
            Some(exponent) if exponent < minimum => {
                Err(PublicKeyError::SmallExponent { exponent, minimum })
            }
            // One that does not fit is larger than any minimum.
            Some(_) | None => Ok(()),
        }
    }
}

/// Length in bits of a big-endian number without leading zero bytes; at most [`MAXIMUM_RSA_BITS`].
fn bit_length(number: &[u8]) -> u16 {
    let leading = number
        .first()
        .map_or(0, |byte| byte.leading_zeros() as usize);
    u16::try_from(number.len() * 8 - leading).unwrap_or(u16::MAX)
}

/// Puts an algorithm and the bytes of a key into a `SubjectPublicKeyInfo`.
fn encode(
    algorithm: ObjectIdentifier,
    parameters: Option<AnyRef<'_>>,
    key: &[u8],
) -> Result<Vec<u8>, PublicKeyError> {
    let malformed = |_| PublicKeyError::Malformed;
    SubjectPublicKeyInfo {
        algorithm: AlgorithmIdentifier {
            oid: algorithm,
            parameters,
        },
        subject_public_key: BitString::from_bytes(key).map_err(malformed)?,
    }
    .to_der()
    .map_err(malformed)
}
