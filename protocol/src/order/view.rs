//! An order's body as it stands in its bytes. A device has little memory: it keeps the bytes, and decodes an entry when it is that
//! entry's turn.

use core::marker::PhantomData;

use serde::Deserialize;

use super::{BlobRef, Enroll, Entry, Header, Kind, ProofRequest, Recover, Rotate, decode_header};
use crate::codec::{self, DecodeError};
use crate::identity::{Challenge, p256_spki};
use crate::{MAX_CERTIFICATE, MAX_ENTRIES, MAX_QUESTIONS, MAX_SLOTS};

/// A list as it stands in an order: whole and valid, and decoded at each visit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List<'a, T> {
    count: usize,
    bytes: &'a [u8],
    of: PhantomData<T>,
}

impl<'a, T: Deserialize<'a>> List<'a, T> {
    /// Finds the list's end, and with it that every item decodes.
    fn read(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), DecodeError> {
        let (count, items): (usize, _) = codec::decode_front(bytes)?;
        if count > MAX_ENTRIES {
            return Err(DecodeError::Malformed);
        }
        let mut rest = items;
        for _ in 0..count {
            (_, rest) = codec::decode_front::<T>(rest)?;
        }
        let list = Self {
            count,
            bytes: &items[..items.len() - rest.len()],
            of: PhantomData,
        };
        Ok((list, rest))
    }

    /// How many items there are, at most [`MAX_ENTRIES`].
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The items, one after the other.
    pub fn iter(&self) -> impl Iterator<Item = T> + use<'a, T> {
        let mut rest = self.bytes;
        core::iter::from_fn(move || {
            let (item, after) = codec::decode_front(rest).ok()?;
            rest = after;
            Some(item)
        })
    }

    /// The item at this place.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<T> {
        self.iter().nth(index)
    }
}

/// Bytes with their count before them.
fn read_bytes(bytes: &[u8], longest: usize) -> Result<(&[u8], &[u8]), DecodeError> {
    let (found, rest): (&[u8], _) = codec::decode_front(bytes)?;
    if found.len() > longest {
        return Err(DecodeError::Malformed);
    }
    Ok((found, rest))
}

/// What follows the header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum View<'a> {
    /// Body of `Enroll`.
    Enroll(Enroll<'a>),
    /// Body of `Inject`.
    Inject(InjectView<'a>),
    /// Body of `Prove`.
    Prove(ProveView<'a>),
    /// Body of `Remove`: slot numbers, a byte each, at most [`MAX_ENTRIES`].
    Remove(&'a [u8]),
    /// Body of `Rotate`.
    Rotate(Rotate<'a>),
    /// `Lock` has no body.
    Lock,
    /// `Wipe` has no body, but for a quarantined device.
    Wipe,
    /// Body of a `Wipe` of a quarantined device.
    Recover(Recover<'a>),
}

/// Looks at a whole order.
///
/// # Errors
/// [`DecodeError`].
pub fn view(bytes: &[u8]) -> Result<(Header, View<'_>), DecodeError> {
    let (header, body) = decode_header(bytes)?;
    Ok((header, View::read(header.kind, body)?))
}

impl<'a> View<'a> {
    /// Looks at the body of an order of this kind.
    ///
    /// # Errors
    /// [`DecodeError::Malformed`].
    pub fn read(kind: Kind, body: &'a [u8]) -> Result<Self, DecodeError> {
        let (view, rest) = match kind {
            Kind::Enroll => {
                let (enroll, rest) = codec::decode_front(body)?;
                (Self::Enroll(enroll), rest)
            }
            Kind::Inject => {
                let (inject, rest) = InjectView::read(body)?;
                (Self::Inject(inject), rest)
            }
            Kind::Prove => {
                let (challenge, rest) = codec::decode_front(body)?;
                let (slots, rest) = List::read(rest)?;
                let (questions, rest) = read_bytes(rest, MAX_QUESTIONS)?;
                let prove = ProveView {
                    challenge,
                    slots,
                    questions,
                };
                (Self::Prove(prove), rest)
            }
            Kind::Remove => {
                let (slots, rest) = read_bytes(body, MAX_ENTRIES)?;
                (Self::Remove(slots), rest)
            }
            Kind::Rotate => {
                let (rotate, rest) = codec::decode_front(body)?;
                (Self::Rotate(rotate), rest)
            }
            Kind::Lock => (Self::Lock, body),
            Kind::Wipe if body.is_empty() => (Self::Wipe, body),
            Kind::Wipe => {
                let (recover, rest): (Recover<'_>, _) = codec::decode_front(body)?;
                // So that nothing short that hangs on to a `Wipe` passes for a key.
                if recover.authority.len() != p256_spki::LENGTH {
                    return Err(DecodeError::Malformed);
                }
                (Self::Recover(recover), rest)
            }
        };
        if rest.is_empty() {
            Ok(view)
        } else {
            Err(DecodeError::Malformed)
        }
    }
}

/// Body of a `Prove`: see [`super::Prove`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProveView<'a> {
    /// Goes into the proofs.
    pub challenge: Challenge,
    /// The slots to prove.
    pub slots: List<'a, ProofRequest>,
    /// As in an `Inject`.
    pub questions: &'a [u8],
}

/// Body of an `Inject`: see [`super::Inject`].
///
/// It has at least one entry or a certificate; slots are in range and each named at most once; KEK indices are sorted and without gaps;
/// blobs are at most [`crate::MAX_BLOB`] bytes long, a certificate [`MAX_CERTIFICATE`]; attributes are supported, proofs permitted, and
/// there are as many bytes of questions as the proofs need. Anything else does not decode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InjectView<'a> {
    /// Goes into the proofs of this order's receipt.
    pub challenge: Challenge,
    /// A certificate for the device's identity key.
    pub certificate: Option<BlobRef>,
    /// The wrapped KEKs.
    pub keks: List<'a, BlobRef>,
    /// The keys.
    pub entries: List<'a, Entry>,
    /// What proofs with a question are asked.
    pub questions: &'a [u8],
}

/// What one blob of an `Inject` carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlobRole {
    /// The certificate.
    Certificate,
    /// The wrapped KEK with this index.
    Kek(usize),
    /// The wrapped key of the entry with this index.
    Entry(usize),
}

impl<'a> InjectView<'a> {
    fn read(body: &'a [u8]) -> Result<(Self, &'a [u8]), DecodeError> {
        let (challenge, rest) = codec::decode_front(body)?;
        let (certificate, rest) = codec::decode_front(rest)?;
        let (keks, rest) = List::read(rest)?;
        let (entries, rest) = List::read(rest)?;
        let (questions, rest) = read_bytes(rest, MAX_QUESTIONS)?;
        let inject = Self {
            challenge,
            certificate,
            keks,
            entries,
            questions,
        };
        inject.check()?;
        Ok((inject, rest))
    }

    fn check(&self) -> Result<(), DecodeError> {
        let mut slots = [false; MAX_SLOTS];
        let mut keks = 0;
        let mut questions = 0;
        for entry in self.entries.iter() {
            let seen = slots
                .get_mut(usize::from(entry.slot))
                .ok_or(DecodeError::Malformed)?;
            let kek = usize::from(entry.kek);
            let kind = entry
                .attributes
                .kind()
                .map_err(|_| DecodeError::Malformed)?;
            if *seen
                || kek > keks
                || kek + 1 < keks
                || usize::from(entry.blob.length) > crate::MAX_BLOB
                || !entry.proof.permitted(kind, &entry.attributes)
            {
                return Err(DecodeError::Malformed);
            }
            *seen = true;
            keks = kek + 1;
            questions += entry.proof.question_length(kind, &entry.attributes);
        }
        if keks != self.keks.len() || questions != self.questions.len() {
            return Err(DecodeError::Malformed);
        }
        match &self.certificate {
            Some(certificate)
                if !(1..=MAX_CERTIFICATE).contains(&usize::from(certificate.length)) =>
            {
                return Err(DecodeError::Malformed);
            }
            None if self.entries.is_empty() => return Err(DecodeError::Malformed),
            Some(_) | None => {}
        }
        if self
            .keks
            .iter()
            .any(|kek| usize::from(kek.length) > crate::MAX_BLOB)
        {
            return Err(DecodeError::Malformed);
        }
        Ok(())
    }

    /// Number of blobs that follow the order.
    #[must_use]
    pub fn blob_count(&self) -> usize {
        usize::from(self.certificate.is_some()) + self.keks.len() + self.entries.len()
    }

    /// What the blob with this place in the stream carries, and what the order says of it.
    #[must_use]
    pub fn blob(&self, index: usize) -> Option<(BlobRole, BlobRef)> {
        let mut at = 0;
        if let Some(certificate) = self.certificate {
            if index == 0 {
                return Some((BlobRole::Certificate, certificate));
            }
            at += 1;
        }
        let mut next_kek = 0;
        for (position, entry) in self.entries.iter().enumerate() {
            if usize::from(entry.kek) == next_kek {
                if at == index {
                    return Some((BlobRole::Kek(next_kek), self.keks.get(next_kek)?));
                }
                at += 1;
                next_kek += 1;
            }
            if at == index {
                return Some((BlobRole::Entry(position), entry.blob));
            }
            at += 1;
        }
        None
    }
}
