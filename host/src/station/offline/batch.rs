//! The manifest of a batch, format `keyferry-batch-1`: which order is for which device, and what each is to do there.

use std::collections::HashSet;

use der::DateTime;
use keyferry_protocol::MAX_ENTRIES;
use keyferry_protocol::identity::{DeviceId, Digest, Fingerprint};
use keyferry_protocol::order::{Body, Freshness, Header, Kind};
use keyferry_protocol::proof::Proof;
use keyferry_protocol::suite::Suite;
use serde::{Deserialize, Serialize};

use crate::export::wire::{Named, named, named_option};
use crate::export::{DeviceAttributes, ExportError, Trust, read_document, write_document};
use crate::hsm::PublicKey;

/// The manifest's file; its signature is in a file of this name and `.sig`.
pub const BATCH: &str = "batch.json";

/// Longest manifest that is read or written, in bytes.
pub const MAXIMUM_BATCH: usize = 64 * 1024 * 1024;

/// The most orders in one batch.
pub const MAXIMUM_ORDERS: usize = 10_000;

/// The format's name.
const FORMAT: &str = "keyferry-batch-1";

/// The name of the format, which has one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Format;

impl Named for Format {
    const WHAT: &'static str = "the format that is read here";

    fn to_name(&self) -> String {
        FORMAT.into()
    }

    fn from_name(name: &str) -> Option<Self> {
        (name == FORMAT).then_some(Self)
    }
}

/// Orders for devices, at most one for each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    #[serde(with = "named")]
    format: Format,
    /// Its name, made at random.
    #[serde(with = "named")]
    pub batch: [u8; 16],
    /// When it was made, by the clock of whoever made it.
    #[serde(with = "named")]
    pub made: DateTime,
    /// The key that signed the orders, and this.
    #[serde(with = "named")]
    pub authority: PublicKey,
    /// The orders.
    pub orders: Vec<BatchOrder>,
    /// Fingerprint of the key that signed this.
    #[serde(with = "named")]
    pub signer: Fingerprint,
}

/// One order of a batch. What the order itself says stands here again, so that a manifest can be read by itself; the two must agree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchOrder {
    /// The device.
    #[serde(with = "named")]
    pub device: DeviceId,
    /// Its identity key.
    #[serde(with = "named")]
    pub identity: Fingerprint,
    /// Its unwrap key.
    #[serde(with = "named")]
    pub unwrap: Fingerprint,
    /// What the order asks for.
    #[serde(with = "named")]
    pub kind: Kind,
    /// SHA-256 of the order's bytes.
    #[serde(with = "named")]
    pub order: Digest,
    /// SHA-256 of the file with the order.
    #[serde(with = "named")]
    pub file: Digest,
    /// The device's counter once the order is applied.
    pub counter: u32,
    /// The order is refused once the device's counter has reached this.
    pub below: u32,
    /// How the KEK travels, of an `Inject`.
    #[serde(
        with = "named_option",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub suite: Option<Suite>,
    /// The keys that come into slots, or are proved there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<BatchKey>,
}

/// One key of an `Inject` or a `Prove`: what the HSM needs to verify its proof.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchKey {
    /// The slot.
    pub slot: u16,
    /// The version that comes into it, of an `Inject`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// `CKA_LABEL` on the token.
    pub label: String,
    /// `CKA_ID` on the token.
    #[serde(with = "named")]
    pub id: Vec<u8>,
    /// Algorithm and size, in words.
    #[serde(rename = "type")]
    pub key_type: String,
    /// What it is and may do on the device.
    pub attributes: DeviceAttributes,
    /// The proof that is demanded.
    #[serde(with = "named")]
    pub proof: Proof,
    /// SHA-256 of the one right answer, of proofs that the token does not check itself. It helps nobody to give it.
    #[serde(
        with = "named_option",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub answer: Option<Digest>,
    /// Whether it is a random key of this device, kept where the HSM is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fresh: bool,
}

impl Batch {
    /// Describes orders that were signed by `authority`.
    ///
    /// # Errors
    /// [`ExportError::Inconsistent`].
    pub fn new(
        batch: [u8; 16],
        made: DateTime,
        authority: PublicKey,
        orders: Vec<BatchOrder>,
    ) -> Result<Self, ExportError> {
        let batch = Self {
            format: Format,
            batch,
            made,
            signer: authority.fingerprint(),
            authority,
            orders,
        };
        batch.check()?;
        Ok(batch)
    }

    /// Its name, 32 hexadecimal digits.
    #[must_use]
    pub fn name(&self) -> String {
        hex::encode(self.batch)
    }

    /// The document: JSON with two spaces of indentation and a newline at the end.
    ///
    /// # Errors
    /// [`ExportError::TooLong`].
    pub fn to_json(&self) -> Result<Vec<u8>, ExportError> {
        write_document(self, MAXIMUM_BATCH)
    }

    /// Reads a manifest, once it is believed.
    ///
    /// # Errors
    /// [`ExportError::TooLong`]; [`ExportError::Unsigned`], [`ExportError::SignatureMalformed`], [`ExportError::OtherSigner`],
    /// [`ExportError::Altered`]; [`ExportError::OtherFormat`], [`ExportError::Malformed`], [`ExportError::Inconsistent`].
    pub fn read(
        document: &[u8],
        signature: Option<&[u8]>,
        trust: Trust<'_>,
    ) -> Result<Self, ExportError> {
        let batch: Self = read_document(document, signature, trust, FORMAT, MAXIMUM_BATCH)?;
        batch.check()?;
        Ok(batch)
    }

    /// The order for a device.
    #[must_use]
    pub fn order_for(&self, device: DeviceId) -> Option<&BatchOrder> {
        self.orders.iter().find(|order| order.device == device)
    }

    /// Checks what the format alone does not rule out.
    fn check(&self) -> Result<(), ExportError> {
        let inconsistent = |what| Err(ExportError::Inconsistent(what));
        if self.orders.is_empty() || self.orders.len() > MAXIMUM_ORDERS {
            return inconsistent("it has 1 to 10000 orders");
        }
        if self.signer != self.authority.fingerprint() {
            return inconsistent("it is not signed by the authority of its orders");
        }
        let mut devices = HashSet::new();
        if !self.orders.iter().all(|order| devices.insert(order.device)) {
            return inconsistent("two orders are for the same device");
        }
        if self
            .orders
            .iter()
            .any(|order| order.keys.len() > MAX_ENTRIES)
        {
            return inconsistent("an order has at most 16 keys");
        }
        Ok(())
    }
}

impl BatchOrder {
    /// The name of the file with the order. It follows from the device, so that no manifest can name a file elsewhere.
    #[must_use]
    pub fn file_name(&self) -> String {
        format!("{}.order", self.device)
    }

    /// The name of the file with the receipt.
    #[must_use]
    pub fn receipt_name(&self) -> String {
        format!("{}.receipt", self.device)
    }

    /// The name of the file with a receipt that says no.
    #[must_use]
    pub fn refusal_name(&self) -> String {
        format!("{}.refused", self.device)
    }

    /// The first thing in which this and the order do not agree.
    pub(super) fn contradiction(
        &self,
        header: &Header,
        body: &Body<'_>,
        order: &Digest,
    ) -> Option<&'static str> {
        let address = (header.device, header.identity, header.unwrap);
        let below = match header.freshness {
            Freshness::Detached { below } => Some(below),
            Freshness::Challenge(_) => None,
        };
        let keys = match body {
            Body::Inject(inject) => {
                inject.entries.len() == self.keys.len()
                    && inject.entries.iter().zip(&self.keys).all(|(entry, key)| {
                        (entry.slot, Some(entry.version), entry.proof)
                            == (key.slot, key.version, key.proof)
                            && entry.label.as_str() == key.name()
                            && DeviceAttributes::from(entry.attributes) == key.attributes
                    })
            }
            Body::Prove(prove) => {
                prove.slots.len() == self.keys.len()
                    && prove.slots.iter().zip(&self.keys).all(|(asked, key)| {
                        (asked.slot, asked.proof, None) == (key.slot, key.proof, key.version)
                    })
            }
            Body::Enroll(_)
            | Body::Remove(_)
            | Body::Rotate(_)
            | Body::Lock
            | Body::Wipe
            | Body::Recover(_) => self.keys.is_empty(),
        };
        let cases = [
            (
                (self.device, self.identity, self.unwrap) != address,
                "it is for another device or other keys",
            ),
            (*order != self.order, "it is another order"),
            (header.kind != self.kind, "it is of another kind"),
            (
                (header.counter, below, header.suite)
                    != (self.counter, Some(self.below), self.suite),
                "it has another counter, bound or suite",
            ),
            (!keys, "it has other keys"),
        ];
        let mut wrong = cases.into_iter().filter(|(wrong, _)| *wrong);
        wrong.next().map(|(_, what)| what)
    }
}

impl BatchKey {
    /// What the slot is called.
    #[must_use]
    pub fn name(&self) -> String {
        if self.label.is_empty() {
            format!("id {}", hex::encode(&self.id))
        } else {
            self.label.clone()
        }
    }
}
