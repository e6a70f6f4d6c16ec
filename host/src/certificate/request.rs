//! Certification requests (PKCS#10, RFC 2986): made for an offline root, and read to show them to a person.

use der::{Decode, Encode};
use p256::ecdsa::signature::Verifier;
use p256::ecdsa::{DerSignature, VerifyingKey};
use x509_cert::name::Name;
use x509_cert::request::{CertReq, RequestBuilder};

use super::document::check_algorithm;
use super::signer::Signer;
use super::{CertificateError, MAXIMUM_CA_CERTIFICATE, extension, printable};
use crate::device::flow::Authority;
use crate::hsm::{PublicKey, PublicNumbers};

/// Makes a request for the CA's key, which an offline root answers with a certificate. It asks for the extensions that
/// [`self_signed`](super::self_signed) would write. Gives DER.
///
/// # Errors
/// As [`self_signed`](super::self_signed).
pub fn request(authority: &dyn Authority, subject: &Name) -> Result<Vec<u8>, CertificateError> {
    let signer = Signer::new(authority)?;
    let encoding = |_| CertificateError::Encoding;
    let mut builder =
        RequestBuilder::new(subject.clone()).map_err(|_| CertificateError::Encoding)?;
    for extension in extension::of_ca(authority.public_key())? {
        builder.add_extension(extension).map_err(encoding)?;
    }
    signer.build(builder)
}

/// A request as it was read, signed by the key in it.
#[derive(Clone, Debug)]
pub struct Request {
    request: CertReq,
    key: PublicKey,
}

impl Request {
    /// Reads a request in DER that fills `bytes` exactly.
    ///
    /// # Errors
    /// [`CertificateError::TooLong`], [`CertificateError::Malformed`]; [`CertificateError::KeyType`], [`CertificateError::Algorithm`];
    /// [`CertificateError::Signature`] if the key in it has not signed it.
    pub fn read(bytes: &[u8]) -> Result<Self, CertificateError> {
        let limit = MAXIMUM_CA_CERTIFICATE;
        if bytes.len() > limit {
            let length = bytes.len();
            return Err(CertificateError::TooLong { length, limit });
        }
        let malformed = |_| CertificateError::Malformed;
        let request = CertReq::from_der(bytes).map_err(malformed)?;
        if request.to_der().map_err(malformed)? != bytes {
            return Err(CertificateError::Malformed);
        }
        let spki = request.info.public_key.to_der().map_err(malformed)?;
        let key = PublicKey::from_spki_der(&spki)
            .map_err(|error| CertificateError::KeyType(error.to_string()))?;
        let message = request.info.to_der().map_err(malformed)?;
        let PublicNumbers::P256(point) = key.numbers() else {
            return Err(CertificateError::KeyType(key.key_type().to_string()));
        };
        check_algorithm(&request.algorithm)?;
        let signature = request.signature.as_bytes().map(DerSignature::from_bytes);
        let verified = match (VerifyingKey::from_sec1_bytes(point), signature) {
            (Ok(key), Some(Ok(signature))) => key.verify(&message, &signature).is_ok(),
            (Err(_), _) | (_, None | Some(Err(_))) => false,
        };
        if !verified {
            let issuer = printable(&request.info.subject);
            return Err(CertificateError::Signature { issuer });
        }
        Ok(Self { request, key })
    }

    /// For whom a certificate is asked.
    #[must_use]
    pub const fn subject(&self) -> &Name {
        &self.request.info.subject
    }

    /// The key that is to be certified.
    #[must_use]
    pub const fn key(&self) -> &PublicKey {
        &self.key
    }
}
