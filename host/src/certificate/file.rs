//! Certificates and requests in files: PEM (RFC 7468) with text around it, or one in DER.

use der::pem::{Decoder, LineEnding, encode_string};

use super::document::Document;
use super::request::Request;
use super::{CertificateError, MAXIMUM_CA_CERTIFICATE};
use crate::pem;

/// Longest file with certificates that is read, in bytes.
pub const MAXIMUM_FILE: usize = 256 * 1024;

/// Most certificates in a file that is only looked at.
const MAXIMUM_ITEMS: usize = 64;

/// The label of a certificate in PEM (RFC 7468 §5).
pub const CERTIFICATE_LABEL: &str = "CERTIFICATE";

/// The label of a certification request in PEM (RFC 7468 §7).
pub const REQUEST_LABEL: &str = "CERTIFICATE REQUEST";

/// DER in PEM, with a newline at the end.
///
/// # Errors
/// [`CertificateError::Encoding`] if the label is none.
pub fn to_pem(label: &'static str, der: &[u8]) -> Result<String, CertificateError> {
    encode_string(label, LineEnding::LF, der).map_err(|_| CertificateError::Encoding)
}

/// What may be in a file.
#[derive(Clone, Debug)]
pub enum Item {
    /// A certificate.
    Certificate(Box<Document>),
    /// A certification request.
    Request(Box<Request>),
}

/// What is in a file, to show it to a person. Nothing is checked but its form.
///
/// # Errors
/// [`CertificateError`] of the first thing that is neither certificate nor request.
pub fn read_items(bytes: &[u8]) -> Result<Vec<Item>, CertificateError> {
    let certificate = |der: &[u8]| {
        Document::read(der, MAXIMUM_CA_CERTIFICATE).map(|it| Item::Certificate(it.into()))
    };
    let request = |der: &[u8]| Request::read(der).map(|it| Item::Request(it.into()));
    parts(bytes, MAXIMUM_ITEMS)?
        .iter()
        .map(|(label, der)| match label {
            Label::Certificate => certificate(der),
            Label::Request => request(der),
            Label::Unknown => match certificate(der) {
                Err(CertificateError::Malformed) => request(der),
                result => result,
            },
        })
        .collect()
}

/// The one certificate in a file, in DER.
///
/// # Errors
/// [`CertificateError::NoCertificate`], [`CertificateError::Several`], [`CertificateError::Private`],
/// [`CertificateError::TooLong`].
pub fn one_certificate(bytes: &[u8]) -> Result<Vec<u8>, CertificateError> {
    certificates(bytes, 1)?
        .pop()
        .ok_or(CertificateError::NoCertificate)
}

/// The certificates in a file, each in DER: at least one, at most `limit`, and nothing else.
pub(super) fn certificates(bytes: &[u8], limit: usize) -> Result<Vec<Vec<u8>>, CertificateError> {
    parts(bytes, limit)?
        .into_iter()
        .map(|(label, der)| match label {
            Label::Certificate | Label::Unknown => Ok(der),
            Label::Request => Err(CertificateError::NoCertificate),
        })
        .collect()
}

/// What a file says a part of it is.
#[derive(Clone, Copy, Debug)]
enum Label {
    Certificate,
    Request,
    /// DER, which says nothing.
    Unknown,
}

/// The parts of a file in DER, at most `limit`.
fn parts(bytes: &[u8], limit: usize) -> Result<Vec<(Label, Vec<u8>)>, CertificateError> {
    if bytes.len() > MAXIMUM_FILE {
        return Err(CertificateError::TooLong {
            length: bytes.len(),
            limit: MAXIMUM_FILE,
        });
    }
    let blocks: Vec<_> = pem::blocks(bytes).collect();
    if blocks.is_empty() {
        return Ok(vec![(Label::Unknown, bytes.to_vec())]);
    }
    let mut found = Vec::new();
    for block in &blocks {
        let none = |_| CertificateError::NoCertificate;
        let block = block.ok_or(CertificateError::NoCertificate)?;
        let mut decoder = Decoder::new_detect_wrap(block).map_err(none)?;
        let label = match decoder.type_label() {
            CERTIFICATE_LABEL => Label::Certificate,
            REQUEST_LABEL => Label::Request,
            label if label.ends_with("PRIVATE KEY") => return Err(CertificateError::Private),
            _ => return Err(CertificateError::NoCertificate),
        };
        if blocks.len() > limit {
            return Err(CertificateError::Several {
                found: blocks.len(),
                limit,
            });
        }
        let mut der = Vec::new();
        decoder.decode_to_end(&mut der).map_err(none)?;
        found.push((label, der));
    }
    Ok(found)
}
