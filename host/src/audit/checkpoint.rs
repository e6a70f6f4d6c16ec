//! Checkpoints: the audit key's signature over the chain so far.

use der::DateTime;
use keyferry_protocol::identity::{Digest, Signature};

use super::record::LogId;
use super::text::Text;
use crate::device::verify::signature_is_valid;

/// What the signed bytes begin with.
const TAG: [u8; 16] = *b"keyferry checkpt";

/// The layout of the signed bytes.
const FORMAT: u8 = 1;

/// What the audit key vouches for: this log had this head after so many lines, at this time.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// The log.
    #[serde(with = "super::text")]
    pub log: LogId,
    /// How many lines it had.
    pub lines: u64,
    /// The head of the chain after them.
    #[serde(with = "super::text")]
    pub head: Digest,
    /// When, by the station's clock.
    #[serde(with = "super::text")]
    pub time: DateTime,
    /// The audit key, P-256 `SubjectPublicKeyInfo` DER, 91 bytes.
    #[serde(with = "super::text")]
    pub audit_key: Vec<u8>,
    /// Its signature over [`signed_bytes`].
    #[serde(with = "super::text")]
    pub signature: Signature,
}

impl Checkpoint {
    /// Whether the signature is that of the key it names.
    #[must_use]
    pub fn is_signed(&self) -> bool {
        let message = signed_bytes(&self.log, self.lines, &self.head, self.time);
        signature_is_valid(&self.audit_key, &message, &self.signature)
    }
}

/// The bytes that a checkpoint signs: tag "keyferry checkpt", format 1, log id (16 bytes), number of lines (8 bytes,
/// little-endian), head (32 bytes), time (RFC 3339 in UTC, 20 bytes of ASCII).
#[must_use]
pub fn signed_bytes(log: &LogId, lines: u64, head: &Digest, time: DateTime) -> Vec<u8> {
    let mut bytes = TAG.to_vec();
    bytes.push(FORMAT);
    bytes.extend(log.0);
    bytes.extend(lines.to_le_bytes());
    bytes.extend(head.0);
    bytes.extend(time.to_text().into_bytes());
    bytes
}

/// Takes apart what [`signed_bytes`] has put together; nothing if it is anything else.
#[must_use]
pub fn read_signed_bytes(bytes: &[u8]) -> Option<(LogId, u64, Digest, DateTime)> {
    let rest = bytes.strip_prefix(&TAG)?.strip_prefix(&[FORMAT])?;
    let (log, rest) = rest.split_first_chunk::<16>()?;
    let (lines, rest) = rest.split_first_chunk::<8>()?;
    let (head, time) = rest.split_first_chunk::<32>()?;
    let time = std::str::from_utf8(time).ok()?.parse().ok()?;
    let read = (LogId(*log), u64::from_le_bytes(*lines), Digest(*head), time);
    // The one form that these values have.
    (signed_bytes(&read.0, read.1, &read.2, read.3) == bytes).then_some(read)
}
