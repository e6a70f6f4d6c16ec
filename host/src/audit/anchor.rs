//! Anchors: what was kept elsewhere of a log, and shows later that the log was neither cut off nor replaced.
//!
//! A *checkpoint* is signed by the audit key. A *witness* is an order, with the device's receipt if there is one: the authority
//! has signed into the order which head the chain had when it was made.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use keyferry_protocol::identity::{Digest, Signature};
use keyferry_protocol::order;
use keyferry_protocol::receipt;
use serde::{Deserialize, Serialize};

use super::checkpoint::Checkpoint;
use super::error::{AnchorFault, AuditError};
use super::words::printable;
use crate::device::verify::{digest, fingerprint, signature_is_valid};

/// Longest anchor file in bytes.
pub const MAXIMUM_ANCHOR: usize = 16 * 1024;

/// Something that has seen a log, and the file it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// The file, for messages.
    pub path: PathBuf,
    /// What it holds.
    pub seen: Seen,
}

/// What an anchor holds. In a file, `format` says which it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "format")]
pub enum Seen {
    /// A checkpoint.
    #[serde(rename = "keyferry-checkpoint-1")]
    Checkpoint(Checkpoint),
    /// An order.
    #[serde(rename = "keyferry-witness-1")]
    Witness(Witness),
}

/// An order, and perhaps its receipt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Witness {
    /// The order's bytes.
    #[serde(with = "super::text")]
    pub order: Vec<u8>,
    /// The authority's signature over them.
    #[serde(with = "super::text")]
    pub signature: Signature,
    /// The device's answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<WitnessReceipt>,
}

/// The receipt of a [`Witness`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WitnessReceipt {
    /// The device's identity key, P-256 `SubjectPublicKeyInfo` DER, 91 bytes.
    #[serde(with = "super::text")]
    pub identity_key: Vec<u8>,
    /// The receipt's bytes.
    #[serde(with = "super::text")]
    pub receipt: Vec<u8>,
    /// The identity key's signature over them.
    #[serde(with = "super::text")]
    pub signature: Signature,
}

impl Witness {
    /// SHA-256 of the order's bytes.
    #[must_use]
    pub fn digest(&self) -> Digest {
        digest(&self.order)
    }

    /// The head of the chain that the order names.
    ///
    /// # Errors
    /// [`AnchorFault::Malformed`], [`AnchorFault::NoHead`]; [`AnchorFault::Signature`] if there is a receipt that does not answer
    /// this order with the signature of its device.
    pub fn head(&self) -> Result<Digest, AnchorFault> {
        let malformed =
            |error: keyferry_protocol::DecodeError| AnchorFault::Malformed(error.to_string());
        let (header, _) = order::decode(&self.order).map_err(malformed)?;
        if let Some(answer) = &self.receipt {
            let (receipt, _) = receipt::decode(&answer.receipt).map_err(malformed)?;
            let is_answer = (receipt.order, receipt.device) == (self.digest(), header.device)
                && receipt.identity == fingerprint(&answer.identity_key);
            if !is_answer
                || !signature_is_valid(&answer.identity_key, &answer.receipt, &answer.signature)
            {
                return Err(AnchorFault::Signature);
            }
        }
        if header.audit_head == Digest::ZERO {
            return Err(AnchorFault::NoHead);
        }
        Ok(header.audit_head)
    }
}

impl Seen {
    /// The file's content.
    ///
    /// # Errors
    /// [`AnchorFault::Malformed`], which does not happen.
    pub fn to_json(&self) -> Result<String, AnchorFault> {
        serde_json::to_string_pretty(self)
            .map(|json| json + "\n")
            .map_err(|error| AnchorFault::Malformed(error.to_string()))
    }

    /// Reads a file's content, and checks all that can be checked without the log.
    ///
    /// # Errors
    /// [`AnchorFault`].
    pub fn from_json(bytes: &[u8]) -> Result<Self, AnchorFault> {
        if bytes.len() > MAXIMUM_ANCHOR {
            return Err(AnchorFault::TooLong);
        }
        let seen: Self = serde_json::from_slice(bytes)
            .map_err(|error| AnchorFault::Malformed(printable(&error.to_string())))?;
        match &seen {
            Self::Checkpoint(checkpoint) if !checkpoint.is_signed() => {
                return Err(AnchorFault::Signature);
            }
            Self::Checkpoint(_) => {}
            Self::Witness(witness) => {
                witness.head()?;
            }
        }
        Ok(seen)
    }
}

impl Anchor {
    /// Reads an anchor's file.
    ///
    /// # Errors
    /// [`AuditError::Read`], [`AuditError::NotAnAnchor`].
    pub fn read(path: &Path) -> Result<Self, AuditError> {
        let failed = |source| AuditError::Read {
            path: path.into(),
            source,
        };
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(MAXIMUM_ANCHOR as u64 + 1).read_to_end(&mut bytes))
            .map_err(failed)?;
        let seen = Seen::from_json(&bytes).map_err(|reason| AuditError::NotAnAnchor {
            path: path.into(),
            reason,
        })?;
        Ok(Self {
            path: path.into(),
            seen,
        })
    }
}
