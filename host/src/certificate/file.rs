//! Certificates in files: PEM (RFC 7468) with text around it, or DER.

use der::pem::{Decoder, LineEnding, encode_string};

use super::CertificateError;

/// Longest file with certificates that is read, in bytes.
pub const MAXIMUM_FILE: usize = 256 * 1024;

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

/// The certificates in a file, each in DER, at most `limit`: one in DER, or PEM blocks.
pub(super) fn certificates(bytes: &[u8], limit: usize) -> Result<Vec<Vec<u8>>, CertificateError> {
    if bytes.len() > MAXIMUM_FILE {
        return Err(CertificateError::TooLong {
            length: bytes.len(),
            limit: MAXIMUM_FILE,
        });
    }
    let starts: Vec<_> = positions(bytes, BEGIN).collect();
    if starts.is_empty() {
        return Ok(vec![bytes.to_vec()]);
    }
    let mut found = Vec::new();
    for start in &starts {
        let block = block(bytes.get(*start..).unwrap_or_default())
            .ok_or(CertificateError::NoCertificate)?;
        let mut decoder =
            Decoder::new_detect_wrap(block).map_err(|_| CertificateError::NoCertificate)?;
        let label = decoder.type_label();
        if label.ends_with("PRIVATE KEY") {
            return Err(CertificateError::Private);
        }
        if label != CERTIFICATE_LABEL {
            return Err(CertificateError::NoCertificate);
        }
        if starts.len() > limit {
            return Err(CertificateError::Several {
                found: starts.len(),
                limit,
            });
        }
        let mut der = Vec::new();
        decoder
            .decode_to_end(&mut der)
            .map_err(|_| CertificateError::NoCertificate)?;
        found.push(der);
    }
    Ok(found)
}

/// What begins a PEM block (RFC 7468 §2).
const BEGIN: &[u8] = b"-----BEGIN ";

/// The one block at the beginning of `bytes`; what follows its closing line is none of it.
fn block(bytes: &[u8]) -> Option<&[u8]> {
    const END: &[u8] = b"-----END ";
    const DASHES: &[u8] = b"-----";
    let end = positions(bytes, END).next()? + END.len();
    let close = end + positions(bytes.get(end..)?, DASHES).next()? + DASHES.len();
    bytes.get(..close)
}

/// Where `wanted` stands in `bytes`.
fn positions<'b>(bytes: &'b [u8], wanted: &'b [u8]) -> impl Iterator<Item = usize> + 'b {
    bytes
        .windows(wanted.len())
        .enumerate()
        .filter(move |(_, window)| *window == wanted)
        .map(|(position, _)| position)
}
