//! Messages: the unsigned envelope in which orders, blobs and receipts travel. Nothing is decided from a message itself.

use serde::{Deserialize, Serialize};

use crate::MAX_SLOTS;
use crate::attributes::Attributes;
use crate::codec::{self, DecodeError, TooLong};
use crate::identity::{Challenge, DeviceId, Digest, Fingerprint, Hint, Signature};
use crate::order::Label;
use crate::receipt::{Refusal, State};

/// From the station to the device. Numbers are appended, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request<'a> {
    /// The greeting, first in every session.
    Hello {
        /// Oldest protocol version the station speaks.
        min: u8,
        /// Newest protocol version the station speaks.
        max: u8,
    },
    /// An order. Its blobs follow at once, as [`Self::Blob`].
    Order {
        /// The authority's signature over `order`.
        signature: Signature,
        /// The new authority's signature, in a `Rotate` only.
        second: Option<Signature>,
        /// The order's bytes.
        order: &'a [u8],
    },
    /// A piece of the order's blobs, which stand one after the other without gaps. A piece may end one blob and begin others, and may
    /// hold them all.
    Blob {
        /// As many as the link takes in a message.
        bytes: &'a [u8],
    },
    /// Asks for a signed [`crate::receipt::Status`].
    Status {
        /// SHA-256 of the order asked about.
        order: Digest,
        /// Comes back in the answer.
        nonce: Challenge,
    },
    /// Asks for the table of slots.
    List,
    /// Asks for the same bytes back.
    Echo {
        /// Any bytes.
        bytes: &'a [u8],
    },
    /// Asks for the certificate of the identity key.
    Certificate,
    /// Asks for another line rate: see [`crate::link::rates`].
    Rate {
        /// In baud.
        #[serde(with = "postcard::fixint::le")]
        baud: u32,
    },
    /// The station gives the device up, for reasons of its own: the device's LED shall tell the person in front of it.
    Failed,
}

/// From the device to the station. Numbers are appended, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply<'a> {
    /// Answer to the greeting.
    Hello(Hello<'a>),
    /// Work goes on. The first of an order says that the order has passed.
    Progress(Progress),
    /// The receipt of the order.
    Receipt {
        /// The identity key's signature over `receipt`.
        signature: Signature,
        /// The receipt's bytes.
        receipt: &'a [u8],
    },
    /// The request is refused, unsigned: it was not authentic, or the device has no identity key to sign with.
    Refused(Refusal),
    /// Answer to [`Request::Status`].
    Status {
        /// The identity key's signature over `status`.
        signature: Signature,
        /// The status's bytes.
        status: &'a [u8],
    },
    /// Answer to [`Request::List`].
    Slots {
        /// The slots that are not empty, one [`SlotInfo`] after the other: see [`SlotInfo::table`].
        table: &'a [u8],
    },
    /// Answer to [`Request::Echo`].
    Echo {
        /// The same bytes.
        bytes: &'a [u8],
    },
    /// Answer to [`Request::Certificate`]. Refused with [`Refusal::SlotEmpty`] where there is none.
    Certificate {
        /// X.509 in DER, at most [`crate::MAX_CERTIFICATE`] bytes.
        bytes: &'a [u8],
    },
    /// Answer to [`Request::Rate`]: the device changes as soon as this has left. Refused with [`Refusal::Unsupported`] where the
    /// board cannot.
    Rate {
        /// In baud.
        #[serde(with = "postcard::fixint::le")]
        baud: u32,
    },
    /// Answer to [`Request::Failed`].
    Failed,
}

/// What a device says of itself in the greeting, unsigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello<'a> {
    /// The protocol version that both ends now speak.
    pub version: u8,
    /// The device's id.
    pub device: DeviceId,
    /// Its identity key; zero while it has none.
    pub identity: Fingerprint,
    /// Its authority; zero while it has none.
    pub authority: Hint,
    /// Its state.
    pub state: State,
    /// Whether it holds a certificate of its identity key, to be had with [`Request::Certificate`].
    pub certified: bool,
    /// Its counter.
    #[serde(with = "postcard::fixint::le")]
    pub counter: u32,
    /// The challenge for the next order.
    pub challenge: Challenge,
    /// The board's name.
    pub board: &'a str,
    /// The firmware's version.
    pub firmware: &'a str,
}

/// What a device is busy with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Task {
    /// Making its unwrap key.
    GenerateUnwrapKey,
    /// Unwrapping keys.
    Unwrap,
    /// Making proofs.
    Prove,
}

/// How far the work is. Any progress message starts the station's patience anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The work.
    pub task: Task,
    /// Steps done.
    #[serde(with = "postcard::fixint::le")]
    pub done: u16,
    /// Steps in all; for work of random length, the expected number, which `done` may exceed.
    #[serde(with = "postcard::fixint::le")]
    pub total: u16,
}

/// One occupied slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotInfo {
    /// Slot number.
    #[serde(with = "postcard::fixint::le")]
    pub slot: u16,
    /// Key version.
    #[serde(with = "postcard::fixint::le")]
    pub version: u32,
    /// What the key is and may do.
    pub attributes: Attributes,
    /// Its label.
    pub label: Label,
}

impl<'a> Request<'a> {
    /// An upper bound of the encoding's length in bytes.
    #[must_use]
    pub const fn longest(&self) -> usize {
        match self {
            Self::Blob { bytes } | Self::Echo { bytes } => 16 + bytes.len(),
            Self::Order { order, .. } => 256 + order.len(),
            Self::Hello { .. }
            | Self::Status { .. }
            | Self::List
            | Self::Certificate
            | Self::Rate { .. }
            | Self::Failed => 128,
        }
    }

    /// Whether a message that begins with these bytes is a [`Self::Blob`], so that it can be taken before all of it is there. Then
    /// the length in bytes of what stands before the blob's bytes, and how many those are. [`Self::BLOB_FRONT`] bytes are enough.
    #[must_use]
    pub fn blob_front(bytes: &[u8]) -> Option<(usize, usize)> {
        let ((number, length), rest) = codec::decode_front::<(u32, u16)>(bytes).ok()?;
        (number == 2).then_some((bytes.len() - rest.len(), usize::from(length)))
    }

    /// See [`Self::blob_front`].
    pub const BLOB_FRONT: usize = 1 + 3;

    /// Encodes into `out`.
    ///
    /// # Errors
    /// [`TooLong`].
    pub fn encode<'o>(&self, out: &'o mut [u8]) -> Result<&'o [u8], TooLong> {
        codec::encode(self, out)
    }

    /// Decodes.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        codec::decode(bytes)
    }
}

impl<'a> Reply<'a> {
    /// Encodes into `out`.
    ///
    /// # Errors
    /// [`TooLong`].
    pub fn encode<'o>(&self, out: &'o mut [u8]) -> Result<&'o [u8], TooLong> {
        codec::encode(self, out)
    }

    /// Decodes.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        codec::decode(bytes)
    }
}

impl SlotInfo {
    /// Longest encoding in bytes.
    pub const MAX_LENGTH: usize = 2 + 4 + 18 + 1 + crate::order::MAX_LABEL;

    /// The slots of a [`Reply::Slots`]. Ends after the first that does not decode, or after [`MAX_SLOTS`].
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn table(table: &[u8]) -> impl Iterator<Item = Result<Self, DecodeError>> {
        let mut rest = table;
        core::iter::from_fn(move || {
            let found = (!rest.is_empty()).then(|| codec::decode_front(rest))?;
            rest = found.as_ref().map_or(&[][..], |(_, after)| *after);
            Some(found.map(|(slot, _)| slot))
        })
        .take(MAX_SLOTS)
    }

    /// Encodes into `out`.
    ///
    /// # Errors
    /// [`TooLong`].
    pub fn encode<'o>(&self, out: &'o mut [u8]) -> Result<&'o [u8], TooLong> {
        codec::encode(self, out)
    }

    /// Decodes.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode(bytes)
    }
}
