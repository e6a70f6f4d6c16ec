//! What a broker may do: which keys it gives out, which orders it signs, how much of both. It remembers what it asked devices and
//! what it wrapped for them, and signs only what fits to that.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use keyferry_protocol::identity::{Challenge, Digest, Fingerprint};
use keyferry_protocol::order::{
    self, Address, Body, Entry, Freshness, Header, Inject, Kind, MAX_RECOVERED_COUNTER,
};
use keyferry_protocol::suite::Suite;

use super::error::GuardError;
use super::wire::Counts;
use crate::device::flow::{ORDERS_AGAIN, address};
use crate::device::verify::{Statement, digest};
use crate::export::Trust;
use crate::hsm::{DeviceUse, WrappedKeys};
use crate::station::KeyCard;
use crate::station::offline::Batch;

/// How long a statement counts as fresh after its order was signed. A device that makes an RSA-4096 key needs minutes; a visit is
/// over long before.
const FRESH: Duration = Duration::from_secs(60 * 60);

/// How many orders, wraps and certificates are remembered, each. The oldest is forgotten first: then the job begins again.
const REMEMBERED: usize = 4096;

/// How many devices are counted one by one, whatever the limit.
const MAXIMUM_DEVICES: u64 = 1_000_000;

/// How many audit logs are followed.
const MAXIMUM_LOGS: usize = 64;

/// A key that may go to devices, and what for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedKey {
    /// Its label on the token.
    pub label: String,
    /// What devices may use it for; `None`: what it may do on the token.
    pub device_use: Option<DeviceUse>,
}

/// The keys that may go to devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedKeys {
    /// Every key of the token that may leave it, for every use.
    All,
    /// These.
    Only(Vec<AllowedKey>),
}

impl AllowedKeys {
    /// What devices may use the key of this label for; nothing if it is not given out.
    fn uses(&self, label: &str) -> Vec<Option<DeviceUse>> {
        match self {
            Self::All => std::iter::once(None)
                .chain(DeviceUse::ALL.into_iter().map(Some))
                .collect(),
            Self::Only(keys) => keys
                .iter()
                .filter(|key| key.label == label)
                .map(|key| key.device_use)
                .collect(),
        }
    }
}

/// What a broker is allowed at most.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The kinds of order that it signs.
    pub kinds: Vec<Kind>,
    /// The keys that it gives out.
    pub keys: AllowedKeys,
    /// The keys of the token under which random keys of single devices are kept.
    pub keepers: Vec<String>,
    /// How many keys it wraps, one device's key being one; `None`: any number.
    pub maximum_keys: Option<u64>,
    /// How many devices it wraps keys for; `None`: any number.
    pub maximum_devices: Option<u64>,
}

/// An `Enroll` that was signed here: a statement that answers it is fresh.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question {
    order: Digest,
    nonce: Challenge,
    /// Whom it was for.
    pub(super) address: Address,
    asked: Instant,
}

impl Question {
    /// Whether the device had no keys of its own yet.
    pub(super) fn is_to_blank(&self) -> bool {
        self.address.identity == Fingerprint::ZERO
    }
}

/// Keys that were wrapped here and not yet ordered.
#[derive(Debug)]
struct Packed {
    address: Address,
    suite: Suite,
    kek: Digest,
    keys: Vec<(KeyCard, Digest)>,
    ordered: Option<OrderedPack>,
}

/// The order that a wrap was good for. A device that loses it with the session needs it with another challenge.
#[derive(Clone, Copy, Debug)]
struct OrderedPack {
    /// SHA-256 of the order's body.
    body: Digest,
    counter: u32,
    /// How often it was signed.
    times: usize,
}

impl Packed {
    /// Whether this order may carry it: the first one, or that one with another challenge. Its counter must be the same, so the
    /// device applies one of them at most.
    fn good_for(&self, header: &Header, body: &Digest) -> bool {
        match (self.ordered, header.freshness) {
            (None, _) => true,
            (Some(ordered), Freshness::Challenge(_)) => {
                (ordered.body, ordered.counter) == (*body, header.counter)
                    && ordered.times <= ORDERS_AGAIN
            }
            (Some(_), Freshness::Detached { .. }) => false,
        }
    }
}

/// What a broker remembers, and so what it may do.
#[derive(Debug)]
pub struct Guard {
    limits: Limits,
    /// The authority key, P-256 `SubjectPublicKeyInfo` DER.
    authority: Vec<u8>,
    questions: VecDeque<Question>,
    packed: VecDeque<Packed>,
    /// Random keys of single devices that were made here.
    made: VecDeque<KeyCard>,
    certificates: VecDeque<(Address, Digest)>,
    /// Detached orders that were signed here.
    detached: VecDeque<Digest>,
    logs: HashMap<[u8; 16], (u64, Digest)>,
    devices: HashSet<Fingerprint>,
    /// What was done.
    pub counts: Counts,
}

fn remember<T>(memory: &mut VecDeque<T>, one: T) {
    if memory.len() >= REMEMBERED {
        memory.pop_front();
    }
    memory.push_back(one);
}

impl Guard {
    /// Nothing is done yet.
    #[must_use]
    pub fn new(limits: Limits, authority: Vec<u8>) -> Self {
        Self {
            limits,
            authority,
            questions: VecDeque::new(),
            packed: VecDeque::new(),
            made: VecDeque::new(),
            certificates: VecDeque::new(),
            detached: VecDeque::new(),
            logs: HashMap::new(),
            devices: HashSet::new(),
            counts: Counts::default(),
        }
    }

    /// The limits.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What devices may use the key of this label for, at least one thing.
    ///
    /// # Errors
    /// [`GuardError::KeyForbidden`].
    pub fn uses(&self, label: &str) -> Result<Vec<Option<DeviceUse>>, GuardError> {
        let uses = self.limits.keys.uses(label);
        if uses.is_empty() {
            return Err(GuardError::KeyForbidden {
                label: label.to_owned(),
                device_use: None,
            });
        }
        Ok(uses)
    }

    /// Whether random keys of devices may be kept under the key of this label.
    ///
    /// # Errors
    /// [`GuardError::NoKeeper`].
    pub fn check_keeper(&self, label: &str) -> Result<(), GuardError> {
        if self.limits.keepers.iter().any(|keeper| keeper == label) {
            return Ok(());
        }
        Err(GuardError::NoKeeper {
            label: label.to_owned(),
        })
    }

    /// Remembers a random key that was made for a device.
    pub(super) fn made(&mut self, card: &KeyCard) {
        remember(&mut self.made, card.clone());
    }

    /// Whether a kept key was made here, as it is described.
    ///
    /// # Errors
    /// [`GuardError::OtherCard`].
    pub fn check_made(&self, card: &KeyCard) -> Result<(), GuardError> {
        if self.made.contains(card) {
            return Ok(());
        }
        Err(GuardError::OtherCard { label: card.name() })
    }

    /// The order that a statement answers, if it was signed here and not long ago.
    pub(super) fn question(&self, statement: &Statement, now: Instant) -> Option<Question> {
        self.questions.iter().copied().find(|question| {
            let address = address(statement);
            question.order == statement.order
                && question.nonce == statement.nonce
                && question.address.device == address.device
                && (question.is_to_blank() || question.address.identity == address.identity)
                && now.saturating_duration_since(question.asked) <= FRESH
        })
    }

    /// Whether so many more keys may be wrapped for a device.
    ///
    /// # Errors
    /// [`GuardError::LimitReached`].
    pub fn check_count(&self, device: &Statement, keys: usize) -> Result<(), GuardError> {
        let keys = u64::try_from(keys).unwrap_or(u64::MAX);
        if let Some(limit) = self.limits.maximum_keys
            && self.counts.keys_wrapped.saturating_add(keys) > limit
        {
            return Err(GuardError::LimitReached {
                what: "wrapped keys",
                limit,
            });
        }
        let limit = self.limits.maximum_devices.unwrap_or(MAXIMUM_DEVICES);
        let known = self.devices.contains(&address(device).identity);
        if !known && self.counts.devices >= limit {
            return Err(GuardError::LimitReached {
                what: "devices",
                limit,
            });
        }
        Ok(())
    }

    /// Remembers what was wrapped.
    pub(super) fn packed(&mut self, device: &Statement, cards: &[KeyCard], wrapped: &WrappedKeys) {
        let address = address(device);
        let keys = cards
            .iter()
            .cloned()
            .zip(wrapped.blobs.iter().map(|blob| digest(blob)));
        remember(
            &mut self.packed,
            Packed {
                address,
                suite: wrapped.suite,
                kek: digest(&wrapped.kek_blob),
                keys: keys.collect(),
                ordered: None,
            },
        );
        let count = u64::try_from(wrapped.blobs.len()).unwrap_or(u64::MAX);
        self.counts.keys_wrapped = self.counts.keys_wrapped.saturating_add(count);
        if self.devices.insert(address.identity) {
            self.counts.devices += 1;
        }
    }

    /// Remembers a certificate that was issued.
    pub(super) fn certified(&mut self, device: &Statement, certificate: &[u8]) {
        remember(
            &mut self.certificates,
            (address(device), digest(certificate)),
        );
        self.counts.certificates += 1;
    }

    /// Whether an order may be signed.
    ///
    /// # Errors
    /// [`GuardError`].
    pub fn check_order<'a>(&self, bytes: &'a [u8]) -> Result<(Header, Body<'a>), GuardError> {
        let (header, body) = order::decode(bytes).map_err(|_| GuardError::NotAnOrder)?;
        let kind = body.kind();
        if !self.limits.kinds.contains(&kind) {
            return Err(GuardError::KindForbidden(kind));
        }
        match &body {
            Body::Enroll(enroll) => {
                if enroll.authority != self.authority {
                    return Err(GuardError::AuthorityInOrder);
                }
            }
            Body::Inject(inject) => self.check_inject(&header, inject, &body_digest(bytes))?,
            Body::Rotate(rotate) => {
                if keyferry_protocol::identity::p256_spki::to_point(rotate.authority).is_none() {
                    return Err(GuardError::AuthorityInOrder);
                }
            }
            Body::Recover(recover) => {
                if recover.authority != self.authority {
                    return Err(GuardError::AuthorityInOrder);
                }
                if header.counter > MAX_RECOVERED_COUNTER {
                    return Err(GuardError::CounterTooHigh {
                        device: header.device,
                        counter: header.counter,
                    });
                }
            }
            Body::Prove(_) | Body::Remove(_) | Body::Lock | Body::Wipe => {}
        }
        Ok((header, body))
    }

    /// An `Inject` carries what was made here for this very device, and gives it no other rights.
    fn check_inject(
        &self,
        header: &Header,
        inject: &Inject,
        body: &Digest,
    ) -> Result<(), GuardError> {
        let to = header.address();
        let not_made_here = |what| GuardError::NotMadeHere {
            device: to.device,
            what,
        };
        if let Some(certificate) = inject.certificate {
            let mut issued = self.certificates.iter();
            if !issued.any(|(address, digest)| *address == to && *digest == certificate.digest) {
                return Err(not_made_here("a certificate"));
            }
        }
        for (index, kek) in inject.keks.iter().enumerate() {
            let packed = self
                .packed
                .iter()
                .find(|packed| {
                    packed.address == to
                        && packed.kek == kek.digest
                        && Some(packed.suite) == header.suite
                        && packed.good_for(header, body)
                })
                .ok_or_else(|| not_made_here("a wrapped KEK"))?;
            let entries = inject.entries.iter();
            for entry in entries.filter(|entry| usize::from(entry.kek) == index) {
                check_entry(header, packed, entry)?;
            }
        }
        Ok(())
    }

    /// Whether the manifest of a batch may be signed: all its orders were signed here.
    ///
    /// # Errors
    /// [`GuardError::NotABatch`], [`GuardError::NotSignedHere`].
    pub fn check_batch(&self, document: &[u8]) -> Result<(), GuardError> {
        let batch = Batch::read(document, None, Trust::Unauthenticated).map_err(|error| {
            GuardError::NotABatch {
                reason: error.to_string(),
            }
        })?;
        if batch.authority.spki_der() != self.authority {
            return Err(GuardError::NotABatch {
                reason: "it names another authority".to_owned(),
            });
        }
        let stranger = batch
            .orders
            .iter()
            .find(|order| !self.detached.contains(&order.order));
        match stranger {
            Some(order) => Err(GuardError::NotSignedHere {
                device: order.device,
            }),
            None => Ok(()),
        }
    }

    /// Remembers an order that was signed.
    pub(super) fn signed(&mut self, bytes: &[u8], header: &Header, body: &Body<'_>, now: Instant) {
        self.counts.orders += 1;
        if let Freshness::Detached { .. } = header.freshness {
            remember(&mut self.detached, digest(bytes));
        }
        match body {
            Body::Enroll(enroll) => remember(
                &mut self.questions,
                Question {
                    order: digest(bytes),
                    nonce: enroll.nonce,
                    address: header.address(),
                    asked: now,
                },
            ),
            // A wrap is good for one order.
            Body::Inject(inject) => {
                let body = body_digest(bytes);
                let carried = self.packed.iter_mut().filter(|packed| {
                    packed.address == header.address()
                        && inject.keks.iter().any(|kek| kek.digest == packed.kek)
                });
                for packed in carried {
                    packed.ordered = Some(OrderedPack {
                        body,
                        counter: header.counter,
                        times: packed.ordered.map_or(1, |ordered| ordered.times + 1),
                    });
                }
            }
            Body::Prove(_)
            | Body::Remove(_)
            | Body::Rotate(_)
            | Body::Lock
            | Body::Wipe
            | Body::Recover(_) => {}
        }
    }

    /// Whether a checkpoint may be signed: a log only grows.
    ///
    /// # Errors
    /// [`GuardError::LogWentBack`], [`GuardError::LimitReached`].
    pub fn check_checkpoint(
        &self,
        log: [u8; 16],
        lines: u64,
        head: &Digest,
    ) -> Result<(), GuardError> {
        match self.logs.get(&log) {
            Some((known, at)) if lines < *known || (lines == *known && head != at) => {
                Err(GuardError::LogWentBack {
                    known: *known,
                    found: lines,
                })
            }
            Some(_) => Ok(()),
            None if self.logs.len() >= MAXIMUM_LOGS => Err(GuardError::LimitReached {
                what: "audit logs",
                limit: MAXIMUM_LOGS as u64,
            }),
            None => Ok(()),
        }
    }

    /// Remembers a checkpoint that was signed.
    pub(super) fn checkpoint(&mut self, log: [u8; 16], lines: u64, head: Digest) {
        self.logs.insert(log, (lines, head));
        self.counts.checkpoints += 1;
    }
}

/// SHA-256 of an order's body: of all that stands behind its header.
fn body_digest(bytes: &[u8]) -> Digest {
    order::decode_header(bytes).map_or(Digest::ZERO, |(_, body)| digest(body))
}

fn check_entry(header: &Header, packed: &Packed, entry: &Entry) -> Result<(), GuardError> {
    let (card, _) = packed
        .keys
        .iter()
        .find(|(_, blob)| *blob == entry.blob.digest)
        .ok_or(GuardError::NotMadeHere {
            device: header.device,
            what: "a wrapped key",
        })?;
    let what = if entry.attributes != card.attributes {
        "set of attributes"
    } else if entry.proof != card.proof {
        "proof"
    } else if entry.label.as_str() != card.name() {
        "label"
    } else {
        return Ok(());
    };
    Err(GuardError::Widened {
        device: header.device,
        label: card.name(),
        what,
    })
}
