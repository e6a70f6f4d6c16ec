//! Public keys in files, in every form that tools write them: PEM (RFC 7468) or DER of a `SubjectPublicKeyInfo`, of a PKCS#1
//! `RSAPublicKey`, or of an X.509 certificate.
//!
//! Of a certificate only the key is taken. Its dates and its signature say nothing here; what names a recipient is the
//! fingerprint of its key.

use der::asn1::{AnyRef, UintRef};
use der::pem::Decoder;
use der::{Decode, Encode, Reader, SliceReader, Tag, Tagged};
use x509_cert::Certificate;

use super::public_key::{PublicKey, PublicKeyError};
use crate::pem;

/// Longest file that is read, in bytes.
pub const MAXIMUM_KEY_FILE: usize = 64 * 1024;

/// The labels of the three forms in PEM (RFC 7468 §13 and §5; that of PKCS#1 is OpenSSL's).
const SPKI: &str = "PUBLIC KEY";
const PKCS1: &str = "RSA PUBLIC KEY";
const CERTIFICATE: &str = "CERTIFICATE";

impl PublicKey {
    /// Reads a file's content. Text around a PEM block is passed over, as certificates often have some.
    ///
    /// # Errors
    /// [`PublicKeyError::Malformed`] if there is no public key in it, [`PublicKeyError::Several`] if there are more blocks than
    /// one, [`PublicKeyError::Private`] if a private key is in it, [`PublicKeyError::Unsupported`] if the key is of a kind that is
    /// not used here.
    pub fn from_file_content(bytes: &[u8]) -> Result<Self, PublicKeyError> {
        if bytes.len() > MAXIMUM_KEY_FILE {
            return Err(PublicKeyError::Malformed);
        }
        if pem::contains(bytes, b"PRIVATE KEY-") {
            return Err(PublicKeyError::Private);
        }
        let mut blocks = pem::blocks(bytes);
        match (blocks.next(), blocks.next()) {
            (None, _) => from_der(bytes),
            (Some(block), None) => from_pem(block.ok_or(PublicKeyError::Malformed)?),
            (Some(_), Some(_)) => Err(PublicKeyError::Several),
        }
    }
}

/// Reads one PEM block with lines of any one width; most tools write 64 characters.
fn from_pem(block: &[u8]) -> Result<PublicKey, PublicKeyError> {
    let malformed = |_| PublicKeyError::Malformed;
    let mut decoder = Decoder::new_detect_wrap(block).map_err(malformed)?;
    let label = decoder.type_label();
    let mut bytes = Vec::new();
    decoder.decode_to_end(&mut bytes).map_err(malformed)?;
    match label {
        SPKI => PublicKey::from_spki_der(&bytes),
        PKCS1 => from_pkcs1(&bytes),
        CERTIFICATE => from_certificate(&bytes),
        _ => Err(PublicKeyError::Malformed),
    }
}

/// Reads DER whose form nothing announces.
fn from_der(bytes: &[u8]) -> Result<PublicKey, PublicKeyError> {
    if is_private(bytes) {
        return Err(PublicKeyError::Private);
    }
    for form in [PublicKey::from_spki_der, from_pkcs1, from_certificate] {
        match form(bytes) {
            Err(PublicKeyError::Malformed) => {}
            result => return result,
        }
    }
    Err(PublicKeyError::Malformed)
}

/// PKCS#1 `RSAPublicKey` (RFC 8017 appendix A.1.1).
fn from_pkcs1(bytes: &[u8]) -> Result<PublicKey, PublicKeyError> {
    let (modulus, exponent) = SliceReader::new(bytes)
        .and_then(|mut reader| {
            let numbers = reader.sequence(|inner| {
                Ok::<_, der::Error>((UintRef::decode(inner)?, UintRef::decode(inner)?))
            })?;
            reader.finish()?;
            Ok(numbers)
        })
        .map_err(|_| PublicKeyError::Malformed)?;
    PublicKey::from_rsa(modulus.as_bytes(), exponent.as_bytes())
}

/// X.509 certificate (RFC 5280 §4.1).
fn from_certificate(bytes: &[u8]) -> Result<PublicKey, PublicKeyError> {
    let malformed = |_| PublicKeyError::Malformed;
    let certificate = Certificate::from_der(bytes).map_err(malformed)?;
    let spki = certificate
        .tbs_certificate()
        .subject_public_key_info()
        .to_der()
        .map_err(malformed)?;
    PublicKey::from_spki_der(&spki)
}

/// Whether this is DER of a private key. PKCS#8, PKCS#1 and SEC 1 all begin with a version number of 0 or 1, and no public form
/// begins with so small a number; an encrypted PKCS#8 is an algorithm and then an octet string.
fn is_private(bytes: &[u8]) -> bool {
    let Ok(mut reader) = SliceReader::new(bytes) else {
        return false;
    };
    reader
        .sequence(|inner| {
            let first = AnyRef::decode(inner)?;
            let second = AnyRef::decode(inner)?;
            let versioned = first.tag() == Tag::Integer && matches!(first.value(), [0] | [1]);
            let encrypted = first.tag() == Tag::Sequence && second.tag() == Tag::OctetString;
            while !inner.is_finished() {
                AnyRef::decode(inner)?;
            }
            Ok::<_, der::Error>(versioned || encrypted)
        })
        .unwrap_or(false)
}
