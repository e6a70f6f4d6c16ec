//! Orders: the only thing that changes a device. Signed by the authority key in the HSM.
//!
//! An order is verified exactly as transmitted; nothing is re-encoded. Wrapped blobs follow outside the signature, which
//! covers their digests, so a device with little memory checks the header first and each blob as it streams in.

use heapless::Vec;
use serde::{Deserialize, Serialize};
use serde_big_array::BigArray;

use crate::attributes::Attributes;
use crate::codec::{self, DecodeError, TooLong};
use crate::identity::{Challenge, DeviceId, Digest, Fingerprint};
use crate::proof::Proof;
use crate::suite::{Suite, UnwrapAlgorithm};
use crate::{MAX_ENTRIES, MAX_QUESTIONS};

mod view;

pub use view::{BlobRole, InjectView, List, ProveView, View, view};

/// First 16 bytes of every order.
pub const TAG: [u8; 16] = *b"keyferry order  ";

/// The format version that follows the tag.
pub const FORMAT: u8 = 1;

/// Longest label in bytes of UTF-8.
pub const MAX_LABEL: usize = 32;

/// A slot's label.
pub type Label = heapless::String<MAX_LABEL>;

/// What an order asks for. Numbers are appended, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// Pin the authority and make unwrap and identity key; on an enrolled device, state them again.
    Enroll,
    /// Put keys into slots.
    Inject,
    /// Prove keys that are in slots.
    Prove,
    /// Take keys out of slots.
    Remove,
    /// Hand the device over to a new authority; signed by the old and the new.
    Rotate,
    /// Refuse every later `Inject`, `Remove` and `Rotate`.
    Lock,
    /// Destroy unwrap key, identity key and all slots.
    Wipe,
}

impl Kind {
    /// The name used in output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Enroll => "enroll",
            Self::Inject => "inject",
            Self::Prove => "prove",
            Self::Remove => "remove",
            Self::Rotate => "rotate",
            Self::Lock => "lock",
            Self::Wipe => "wipe",
        }
    }
}

/// What keeps an order from being used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Freshness {
    /// The device's current one-time challenge: the station talks to the device now.
    Challenge(Challenge),
    /// Prepared earlier: valid while the device's counter is below the bound.
    Detached {
        /// The order is refused once the device's counter has reached this.
        #[serde(with = "postcard::fixint::le")]
        below: u32,
    },
}

/// The part that all kinds of order share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// [`TAG`].
    #[serde(with = "BigArray")]
    pub tag: [u8; 16],
    /// [`FORMAT`].
    pub format: u8,
    /// What is asked for, and so which body follows.
    pub kind: Kind,
    /// The one device this is for.
    pub device: DeviceId,
    /// Its identity key; zero while it has none.
    pub identity: Fingerprint,
    /// Its unwrap key; zero in an [`Kind::Enroll`], whose sender learns the key from the answer.
    pub unwrap: Fingerprint,
    /// What keeps it from being used twice.
    pub freshness: Freshness,
    /// The device's counter once this is applied: the next one for a challenge; for a detached order above the present one, by at
    /// most [`MAX_COUNTER_STEP`].
    #[serde(with = "postcard::fixint::le")]
    pub counter: u32,
    /// How the KEK travels; present in `Inject` only.
    pub suite: Option<Suite>,
    /// Head of the station's audit chain when the order was made; zero without an audit log.
    pub audit_head: Digest,
}

/// How far one detached order may move a device's counter.
pub const MAX_COUNTER_STEP: u32 = 1024;

/// The highest counter that a `Wipe` may give to a quarantined device. No other order moves a counter so far at once, and one at the end of
/// its range would take no order ever again; from here there are as many left as there were.
pub const MAX_RECOVERED_COUNTER: u32 = 1 << 31;

impl Header {
    /// A header with tag and format filled in.
    #[must_use]
    pub const fn new(kind: Kind, to: Address, freshness: Freshness, counter: u32) -> Self {
        Self {
            tag: TAG,
            format: FORMAT,
            kind,
            device: to.device,
            identity: to.identity,
            unwrap: to.unwrap,
            freshness,
            counter,
            suite: None,
            audit_head: Digest::ZERO,
        }
    }

    /// Whom the order is for.
    #[must_use]
    pub const fn address(&self) -> Address {
        Address {
            device: self.device,
            identity: self.identity,
            unwrap: self.unwrap,
        }
    }
}

/// Whom an order is for: a device, and the two keys that make it that device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The device's id.
    pub device: DeviceId,
    /// Fingerprint of its identity key; zero while it has none.
    pub identity: Fingerprint,
    /// Fingerprint of its unwrap key; zero while it has none.
    pub unwrap: Fingerprint,
}

/// Body of [`Kind::Enroll`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enroll<'a> {
    /// The authority's public key, P-256 `SubjectPublicKeyInfo` DER, 91 bytes; its signature covers this order.
    pub authority: &'a [u8],
    /// Comes back in the statement, which is so known to be fresh.
    pub nonce: Challenge,
    /// Which unwrap key to make.
    pub unwrap: UnwrapAlgorithm,
}

/// A blob that follows the order: its length and its SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobRef {
    /// Length in bytes.
    #[serde(with = "postcard::fixint::le")]
    pub length: u16,
    /// SHA-256 of the blob.
    pub digest: Digest,
}

/// One key of an [`Inject`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Slot number, below [`crate::MAX_SLOTS`].
    #[serde(with = "postcard::fixint::le")]
    pub slot: u16,
    /// Key version: replaces a lower one in the slot; never goes down, not even after a removal.
    #[serde(with = "postcard::fixint::le")]
    pub version: u32,
    /// What the key is and may do.
    pub attributes: Attributes,
    /// The slot's label.
    pub label: Label,
    /// How the key is to be proved from its slot in the receipt of this order.
    pub proof: Proof,
    /// Index into [`Inject::keks`].
    pub kek: u8,
    /// The AES-KWP blob.
    pub blob: BlobRef,
}

/// Body of [`Kind::Inject`].
///
/// Blobs follow in this order: the certificate if there is one; then each KEK, followed by the entries that name it. So entries
/// stand sorted by `kek`, beginning with 0 and without gaps. One KEK for all entries costs the device one private-key operation;
/// a token that can only wrap in a single step brings one KEK an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inject {
    /// Goes into the proofs of this order's receipt.
    pub challenge: Challenge,
    /// A certificate for the device's identity key, X.509 in DER; replaces the one it has.
    pub certificate: Option<BlobRef>,
    /// The wrapped KEKs: OAEP ciphertexts, or uncompressed ephemeral points.
    pub keks: Vec<BlobRef, MAX_ENTRIES>,
    /// The keys.
    pub entries: Vec<Entry, MAX_ENTRIES>,
    /// What proofs with a question are asked, one after the other in the order of the entries; each as long as
    /// [`Proof::question_length`] says.
    pub questions: Questions,
}

/// The questions of an order, one after the other.
pub type Questions = Vec<u8, MAX_QUESTIONS>;

/// One slot of a [`Prove`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofRequest {
    /// Slot number.
    #[serde(with = "postcard::fixint::le")]
    pub slot: u16,
    /// The proof wanted.
    pub proof: Proof,
}

/// Body of [`Kind::Prove`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prove {
    /// Goes into the proofs.
    pub challenge: Challenge,
    /// The slots to prove; none asks only for a signed receipt with state and counter.
    pub slots: Vec<ProofRequest, MAX_ENTRIES>,
    /// As in an [`Inject`].
    pub questions: Questions,
}

/// Body of [`Kind::Remove`]: slot numbers, one byte each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remove {
    /// The slots to empty.
    pub slots: Vec<u8, MAX_ENTRIES>,
}

/// Body of [`Kind::Rotate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotate<'a> {
    /// The new authority's public key, P-256 `SubjectPublicKeyInfo` DER, 91 bytes; it signs this order too.
    pub authority: &'a [u8],
}

/// Body of a [`Kind::Wipe`] of a quarantined device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recover<'a> {
    /// The public key that signed this order, P-256 `SubjectPublicKeyInfo` DER, 91 bytes: the device remembers none.
    pub authority: &'a [u8],
}

/// What follows the header.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(
    clippy::large_enum_variant,
    reason = "no allocation here; orders are decoded one at a time"
)]
pub enum Body<'a> {
    /// Body of `Enroll`.
    Enroll(Enroll<'a>),
    /// Body of `Inject`.
    Inject(Inject),
    /// Body of `Prove`.
    Prove(Prove),
    /// Body of `Remove`.
    Remove(Remove),
    /// Body of `Rotate`.
    Rotate(Rotate<'a>),
    /// `Lock` has no body.
    Lock,
    /// `Wipe` has no body, but for a quarantined device.
    Wipe,
    /// Body of a `Wipe` of a quarantined device.
    Recover(Recover<'a>),
}

impl Body<'_> {
    /// The kind of order this is the body of.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Enroll(_) => Kind::Enroll,
            Self::Inject(_) => Kind::Inject,
            Self::Prove(_) => Kind::Prove,
            Self::Remove(_) => Kind::Remove,
            Self::Rotate(_) => Kind::Rotate,
            Self::Lock => Kind::Lock,
            Self::Wipe | Self::Recover(_) => Kind::Wipe,
        }
    }
}

/// Encodes an order into `out` and gives back the bytes to sign and to send. The header's kind is taken from the body.
///
/// # Errors
/// [`TooLong`] if `out` is too small.
pub fn encode<'a>(
    mut header: Header,
    body: &Body<'_>,
    out: &'a mut [u8],
) -> Result<&'a [u8], TooLong> {
    header.kind = body.kind();
    match body {
        Body::Enroll(body) => codec::encode_pair(&header, body, out),
        Body::Inject(body) => codec::encode_pair(&header, body, out),
        Body::Prove(body) => codec::encode_pair(&header, body, out),
        Body::Remove(body) => codec::encode_pair(&header, body, out),
        Body::Rotate(body) => codec::encode_pair(&header, body, out),
        Body::Recover(body) => codec::encode_pair(&header, body, out),
        Body::Lock | Body::Wipe => codec::encode(&header, out),
    }
}

/// Decodes the header alone and gives back the bytes of the body, still unread.
///
/// # Errors
/// [`DecodeError`]; a suite in anything but an `Inject`, or an `Inject` without one, is malformed.
pub fn decode_header(bytes: &[u8]) -> Result<(Header, &[u8]), DecodeError> {
    codec::check_front(bytes, &TAG, FORMAT)?;
    let (header, body): (Header, _) = codec::decode_front(bytes)?;
    if header.suite.is_some() == matches!(header.kind, Kind::Inject) {
        Ok((header, body))
    } else {
        Err(DecodeError::Malformed)
    }
}

/// Decodes a whole order into values of their own, for whoever goes on with them. A device works from a [`view`] of the bytes.
///
/// # Errors
/// [`DecodeError`].
pub fn decode(bytes: &[u8]) -> Result<(Header, Body<'_>), DecodeError> {
    let (header, view) = view(bytes)?;
    let body = match view {
        View::Enroll(body) => Body::Enroll(body),
        View::Inject(body) => Body::Inject(Inject {
            challenge: body.challenge,
            certificate: body.certificate,
            keks: body.keks.iter().collect(),
            entries: body.entries.iter().collect(),
            questions: owned(body.questions)?,
        }),
        View::Prove(body) => Body::Prove(Prove {
            challenge: body.challenge,
            slots: body.slots.iter().collect(),
            questions: owned(body.questions)?,
        }),
        View::Remove(slots) => Body::Remove(Remove {
            slots: owned(slots)?,
        }),
        View::Rotate(body) => Body::Rotate(body),
        View::Lock => Body::Lock,
        View::Wipe => Body::Wipe,
        View::Recover(body) => Body::Recover(body),
    };
    Ok((header, body))
}

fn owned<const N: usize>(bytes: &[u8]) -> Result<Vec<u8, N>, DecodeError> {
    Vec::from_slice(bytes).map_err(|_| DecodeError::Malformed)
}
