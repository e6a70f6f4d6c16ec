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
