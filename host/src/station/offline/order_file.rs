//! One order as a file, format `keyferry-order-1`: the order as it was signed, the blobs that follow it, and the statement of the
//! device it is for, so that a line can tell that device's answer from another's.

use keyferry_protocol::MAX_ENTRIES;
use keyferry_protocol::identity::{DeviceId, Digest, Fingerprint, Signature};
use keyferry_protocol::order::{self, Body, Freshness, Header, Kind, View};
use serde::{Deserialize, Serialize};

use super::error::OfflineError;
use crate::device::flow::SignedOrder;
use crate::device::verify::{
    SignedReceipt, Statement, digest, fingerprint, signature_is_valid, stated,
};
use crate::export::wire::{named, named_option};
use crate::export::{ExportError, Trust, read_document, write_document};

/// Longest file with an order that is read or written, in bytes: 17 blobs of 2432 bytes in hexadecimal digits, and what is beside.
pub const MAXIMUM_ORDER_FILE: usize = 128 * 1024;

/// The most blobs of one order: a certificate, and each key with a KEK of its own.
const MAXIMUM_BLOBS: usize = 1 + 2 * MAX_ENTRIES;

/// The format's name.
const FORMAT: &str = "keyferry-order-1";

/// The file's fields.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OrderFile {
    format: String,
    #[serde(with = "named")]
    device: DeviceId,
    statement: Signed,
    order: Signed,
    #[serde(
        with = "named_option",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    second: Option<Signature>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    blobs: Vec<Hex>,
}

/// Signed bytes, exactly as they were signed.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signed {
    #[serde(with = "named")]
    bytes: Vec<u8>,
    #[serde(with = "named")]
    signature: Signature,
}

#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Hex(#[serde(with = "named")] Vec<u8>);

/// An order for a device that is not there now, with all that goes with it.
#[derive(Clone, Debug)]
pub struct DetachedOrder {
    /// The order.
    pub order: SignedOrder,
    /// The blobs that follow it.
    pub blobs: Vec<Vec<u8>>,
    /// The device, by its own statement.
    pub statement: Statement,
    /// The order's header.
    pub header: Header,
    /// The order is refused once the device's counter has reached this.
    pub below: u32,
}

impl DetachedOrder {
    /// Brings an order and what goes with it together, and checks that they belong together: the order is detached and for this
    /// device with these keys, and the blobs are those it names. Who signed it is for [`DetachedOrder::is_signed_by`].
    ///
    /// # Errors
    /// [`OfflineError::BadOrder`].
    pub fn new(
        order: SignedOrder,
        blobs: Vec<Vec<u8>>,
        statement: Statement,
    ) -> Result<Self, OfflineError> {
        let device = statement.device;
        let bad = |reason| OfflineError::BadOrder { device, reason };
        let (header, body) = order::view(&order.bytes).map_err(|_| bad("it does not decode"))?;
        let address = (header.device, header.identity, header.unwrap);
        let stated = (
            device,
            fingerprint(&statement.identity_key),
            fingerprint(&statement.unwrap_key),
        );
        if address != stated {
            return Err(bad("order and statement are of different devices"));
        }
        let Freshness::Detached { below } = header.freshness else {
            return Err(bad("it is not a detached one"));
        };
        if header.kind == Kind::Enroll {
            return Err(bad("a blank device has no statement yet"));
        }
        if order.second.is_some() != (header.kind == Kind::Rotate) {
            return Err(bad("it has one signature too many, or too few"));
        }
        let expected = match &body {
            View::Inject(inject) => inject.blob_count(),
            View::Enroll(_)
            | View::Prove(_)
            | View::Remove(_)
            | View::Rotate(_)
            | View::Lock
            | View::Wipe
            | View::Recover(_) => 0,
        };
        if blobs.len() != expected {
            return Err(bad("there are more or fewer blobs than it names"));
        }
        if let View::Inject(inject) = &body {
            let right = blobs.iter().enumerate().all(|(index, blob)| {
                inject.blob(index).is_some_and(|(_, named)| {
                    usize::from(named.length) == blob.len() && named.digest == digest(blob)
                })
            });
            if !right {
                return Err(bad("a blob is not the one that it names"));
            }
        }
        Ok(Self {
            order,
            blobs,
            statement,
            header,
            below,
        })
    }

    /// SHA-256 of the order's bytes.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.order.digest()
    }

    /// What the order asks for in full.
    ///
    /// # Errors
    /// [`OfflineError::BadOrder`]; not of an order that [`DetachedOrder::new`] has taken.
    pub fn body(&self) -> Result<Body<'_>, OfflineError> {
        let decoded = order::decode(&self.order.bytes);
        decoded
            .map(|(_, body)| body)
            .map_err(|_| OfflineError::BadOrder {
                device: self.statement.device,
                reason: "it does not decode",
            })
    }

    /// Whether this authority has signed the order; `authority` is P-256 `SubjectPublicKeyInfo` DER.
    #[must_use]
    pub fn is_signed_by(&self, authority: &[u8]) -> bool {
        signature_is_valid(authority, &self.order.bytes, &self.order.signature)
    }

    /// The authority that the device obeyed when it stated itself.
    #[must_use]
    pub const fn authority(&self) -> Fingerprint {
        self.statement.authority
    }

    /// The file: JSON with two spaces of indentation and a newline at the end.
    ///
    /// # Errors
    /// [`ExportError::TooLong`].
    pub fn to_json(&self) -> Result<Vec<u8>, ExportError> {
        let signed = |bytes: &[u8], signature| Signed {
            bytes: bytes.to_vec(),
            signature,
        };
        let receipt = &self.statement.receipt;
        let file = OrderFile {
            format: FORMAT.into(),
            device: self.statement.device,
            statement: signed(&receipt.bytes, receipt.signature),
            order: signed(&self.order.bytes, self.order.signature),
            second: self.order.second,
            blobs: self.blobs.iter().cloned().map(Hex).collect(),
        };
        write_document(&file, MAXIMUM_ORDER_FILE)
    }

    /// Reads a file and checks all of it but the authority's signature.
    ///
    /// # Errors
    /// [`ExportError::TooLong`], [`ExportError::OtherFormat`], [`ExportError::Malformed`]; [`OfflineError::BadOrder`],
    /// [`OfflineError::BadStatement`].
    pub fn read(document: &[u8]) -> Result<Self, OfflineError> {
        let file: OrderFile = read_document(
            document,
            None,
            // What is in it carries signatures of its own.
            Trust::Unauthenticated,
            FORMAT,
            MAXIMUM_ORDER_FILE,
        )?;
        let device = file.device;
        if file.blobs.len() > MAXIMUM_BLOBS {
            return Err(OfflineError::BadOrder {
                device,
                reason: "there are more blobs than any order has",
            });
        }
        let receipt = SignedReceipt {
            bytes: file.statement.bytes,
            signature: file.statement.signature,
        };
        let statement = stated(&receipt, device)
            .map_err(|source| OfflineError::BadStatement { device, source })?;
        let order = SignedOrder {
            bytes: file.order.bytes,
            signature: file.order.signature,
            second: file.second,
        };
        let blobs = file.blobs.into_iter().map(|Hex(blob)| blob).collect();
        Self::new(order, blobs, statement)
    }
}
