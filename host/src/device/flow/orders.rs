//! Makes orders: encoded once, signed by the authority, never changed after.

use heapless::Vec as Fixed;
use keyferry_protocol::MAX_MESSAGE;
use keyferry_protocol::attributes::Attributes;
use keyferry_protocol::identity::{Challenge, Digest, Signature};
use keyferry_protocol::message::Request;
use keyferry_protocol::order::{
    self, Address, BlobRef, Body, Enroll, Entry, Freshness, Header, Inject, Kind, Label,
    ProofRequest, Prove, Questions, Recover, Remove, Rotate,
};
use keyferry_protocol::proof::Proof;
use keyferry_protocol::suite::{Suite, UnwrapAlgorithm};

use crate::device::DeviceError;
use crate::device::session::Greeting;
use crate::device::verify::{Standing, digest};

/// A key that signs for its owner, wherever it lives: the authority's orders, the auditor's checkpoints, a CA's certificates.
pub trait Authority {
    /// Its public key, P-256 `SubjectPublicKeyInfo` DER, 91 bytes.
    fn public_key(&self) -> &[u8];

    /// Signs SHA-256 of `message` with ECDSA P-256; gives `r ‖ s`.
    ///
    /// # Errors
    /// Whatever the key's home says.
    fn sign(&self, message: &[u8]) -> Result<[u8; 64], Box<dyn std::error::Error + Send + Sync>>;
}

/// What an order carries besides its body.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Whom it is for.
    pub address: Address,
    /// What keeps it from being used twice.
    pub freshness: Freshness,
    /// The device's counter once it is applied.
    pub counter: u32,
    /// Head of the audit chain; zero without one.
    pub audit_head: Digest,
}

impl Terms {
    /// For the device that the station talks to now: with its challenge and its next counter.
    ///
    /// # Errors
    /// [`DeviceError::CounterSpent`]; so in all functions here.
    pub fn now(
        address: Address,
        standing: &Standing,
        audit_head: Digest,
    ) -> Result<Self, DeviceError> {
        let counter = standing.counter.checked_add(1);
        Ok(Self {
            address,
            freshness: Freshness::Challenge(standing.challenge),
            counter: counter.ok_or(DeviceError::CounterSpent)?,
            audit_head,
        })
    }

    /// For a device that will be met later, `step` orders after the one that its standing is known from: good for one use, as the
    /// device's counter then reaches the bound.
    ///
    /// # Errors
    /// As [`Terms::now`].
    pub fn detached(
        address: Address,
        standing: &Standing,
        step: u32,
        audit_head: Digest,
    ) -> Result<Self, DeviceError> {
        let counter = standing.counter.checked_add(step.max(1));
        let counter = counter.ok_or(DeviceError::CounterSpent)?;
        Ok(Self {
            address,
            freshness: Freshness::Detached { below: counter },
            counter,
            audit_head,
        })
    }

    fn header(self, kind: Kind, suite: Option<Suite>) -> Header {
        Header {
            suite,
            audit_head: self.audit_head,
            ..Header::new(kind, self.address, self.freshness, self.counter)
        }
    }
}

/// One key on its way: what the order says of it, and its wrapped blob.
#[derive(Clone, Debug)]
pub struct Parcel {
    /// The slot.
    pub slot: u16,
    /// The key version.
    pub version: u32,
    /// What the key is and may do.
    pub attributes: Attributes,
    /// The slot's label.
    pub label: Label,
    /// The proof wanted.
    pub proof: Proof,
    /// What the key is asked, where the proof has a question.
    pub question: Vec<u8>,
    /// AES-KWP of the key under the order's KEK.
    pub blob: Vec<u8>,
}

/// Keys under one KEK, and a certificate where the device gets one.
#[derive(Clone, Debug)]
pub struct Shipment {
    /// How the KEK travels.
    pub suite: Suite,
    /// X.509 in DER, for the device's identity key.
    pub certificate: Option<Vec<u8>>,
    /// The wrapped KEK.
    pub kek: Vec<u8>,
    /// The keys.
    pub parcels: Vec<Parcel>,
}

impl Shipment {
    /// The blobs in the order in which they follow the order.
    pub fn blobs(&self) -> impl Iterator<Item = &Vec<u8>> {
        let kek = (!self.parcels.is_empty()).then_some(&self.kek);
        self.certificate
            .iter()
            .chain(kek)
            .chain(self.parcels.iter().map(|parcel| &parcel.blob))
    }
}

/// A slot that is to be proved.
#[derive(Clone, Debug)]
pub struct Demand {
    /// The slot.
    pub slot: u16,
    /// The proof wanted.
    pub proof: Proof,
    /// What the key is asked, where the proof has a question.
    pub question: Vec<u8>,
}

impl From<(u16, Proof)> for Demand {
    fn from((slot, proof): (u16, Proof)) -> Self {
        Self {
            slot,
            proof,
            question: Vec::new(),
        }
    }
}

/// A signed order, as it goes over the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedOrder {
    /// The order's bytes.
    pub bytes: Vec<u8>,
    /// The authority's signature over them.
    pub signature: Signature,
    /// The new authority's signature, in a `Rotate` only.
    pub second: Option<Signature>,
}

impl SignedOrder {
    /// Encodes and signs.
    ///
    /// # Errors
    /// [`DeviceError::TooLong`], [`DeviceError::Authority`].
    pub fn new(
        authority: &dyn Authority,
        header: Header,
        body: &Body<'_>,
    ) -> Result<Self, DeviceError> {
        let mut buffer = [0; MAX_MESSAGE];
        let bytes = order::encode(header, body, &mut buffer).map_err(|_| DeviceError::TooLong)?;
        let signature = authority.sign(bytes).map_err(DeviceError::Authority)?;
        Ok(Self {
            bytes: bytes.to_vec(),
            signature: Signature::from_bytes(&signature),
            second: None,
        })
    }

    /// The request that carries it.
    #[must_use]
    pub fn request(&self) -> Request<'_> {
        Request::Order {
            signature: self.signature,
            second: self.second,
            order: &self.bytes,
        }
    }

    /// SHA-256 of the order's bytes.
    #[must_use]
    pub fn digest(&self) -> Digest {
        digest(&self.bytes)
    }
}

/// Enrols a blank device, or has an enrolled one state itself anew.
///
/// Counter and challenge of the greeting are only claims: false ones get the order refused.
///
/// # Errors
/// [`DeviceError::TooLong`], [`DeviceError::Authority`]; so in all functions here. [`DeviceError::CounterSpent`].
pub fn enroll_order(
    authority: &dyn Authority,
    greeting: &Greeting,
    unwrap: UnwrapAlgorithm,
    nonce: Challenge,
    audit_head: Digest,
) -> Result<SignedOrder, DeviceError> {
    let standing = Standing {
        state: greeting.state,
        counter: greeting.counter,
        challenge: greeting.challenge,
    };
    let terms = Terms::now(greeting.enrolment_address(), &standing, audit_head)?;
    let body = Body::Enroll(Enroll {
        authority: authority.public_key(),
        nonce,
        unwrap,
    });
    SignedOrder::new(authority, terms.header(Kind::Enroll, None), &body)
}

fn blob_ref(blob: &[u8]) -> Result<BlobRef, DeviceError> {
    Ok(BlobRef {
        length: u16::try_from(blob.len()).map_err(|_| DeviceError::TooLong)?,
        digest: digest(blob),
    })
}

fn questions<'a>(each: impl Iterator<Item = &'a Vec<u8>>) -> Result<Questions, DeviceError> {
    let mut all = Questions::new();
    for question in each {
        all.extend_from_slice(question)
            .map_err(|_| DeviceError::TooLong)?;
    }
    Ok(all)
}

/// Puts keys into slots, and a certificate beside them.
///
/// # Errors
/// As [`enroll_order`].
pub fn inject_order(
    authority: &dyn Authority,
    terms: Terms,
    shipment: &Shipment,
    challenge: Challenge,
) -> Result<SignedOrder, DeviceError> {
    let mut entries = Fixed::new();
    for parcel in &shipment.parcels {
        let entry = Entry {
            slot: parcel.slot,
            version: parcel.version,
            attributes: parcel.attributes,
            label: parcel.label.clone(),
            proof: parcel.proof,
            kek: 0,
            blob: blob_ref(&parcel.blob)?,
        };
        entries.push(entry).map_err(|_| DeviceError::TooLong)?;
    }
    let mut keks = Fixed::new();
    if !shipment.parcels.is_empty() {
        keks.push(blob_ref(&shipment.kek)?)
            .map_err(|_| DeviceError::TooLong)?;
    }
    let body = Body::Inject(Inject {
        challenge,
        certificate: shipment.certificate.as_deref().map(blob_ref).transpose()?,
        keks,
        entries,
        questions: questions(shipment.parcels.iter().map(|parcel| &parcel.question))?,
    });
    SignedOrder::new(
        authority,
        terms.header(Kind::Inject, Some(shipment.suite)),
        &body,
    )
}

/// Has slots proved.
///
/// # Errors
/// As [`enroll_order`].
pub fn prove_order(
    authority: &dyn Authority,
    terms: Terms,
    demands: &[Demand],
    challenge: Challenge,
) -> Result<SignedOrder, DeviceError> {
    let mut slots = Fixed::new();
    for demand in demands {
        let request = ProofRequest {
            slot: demand.slot,
            proof: demand.proof,
        };
        slots.push(request).map_err(|_| DeviceError::TooLong)?;
    }
    let body = Body::Prove(Prove {
        challenge,
        slots,
        questions: questions(demands.iter().map(|demand| &demand.question))?,
    });
    SignedOrder::new(authority, terms.header(Kind::Prove, None), &body)
}

/// Takes keys out of slots.
///
/// # Errors
/// As [`enroll_order`].
pub fn remove_order(
    authority: &dyn Authority,
    terms: Terms,
    slots: &[u8],
) -> Result<SignedOrder, DeviceError> {
    let slots = Fixed::from_slice(slots).map_err(|_| DeviceError::TooLong)?;
    let body = Body::Remove(Remove { slots });
    SignedOrder::new(authority, terms.header(Kind::Remove, None), &body)
}

/// Refuses every later `Inject`, `Remove` and `Rotate`.
///
/// # Errors
/// As [`enroll_order`].
pub fn lock_order(authority: &dyn Authority, terms: Terms) -> Result<SignedOrder, DeviceError> {
    SignedOrder::new(authority, terms.header(Kind::Lock, None), &Body::Lock)
}

/// Destroys the device's own keys and all slots.
///
/// # Errors
/// As [`enroll_order`].
pub fn wipe_order(authority: &dyn Authority, terms: Terms) -> Result<SignedOrder, DeviceError> {
    SignedOrder::new(authority, terms.header(Kind::Wipe, None), &Body::Wipe)
}

/// Has a quarantined device give up what it cannot read, and be blank. Nothing of it is known but its id, and its counter becomes
/// `counter`, which must be above all that it ever had for no old order to pass again, and at most [`order::MAX_RECOVERED_COUNTER`].
///
/// # Errors
/// As [`enroll_order`].
pub fn recover_order(
    authority: &dyn Authority,
    greeting: &Greeting,
    counter: u32,
    audit_head: Digest,
) -> Result<SignedOrder, DeviceError> {
    if counter > order::MAX_RECOVERED_COUNTER {
        return Err(DeviceError::CounterSpent);
    }
    let freshness = Freshness::Challenge(greeting.challenge);
    let header = Header {
        audit_head,
        ..Header::new(Kind::Wipe, greeting.enrolment_address(), freshness, counter)
    };
    let body = Body::Recover(Recover {
        authority: authority.public_key(),
    });
    SignedOrder::new(authority, header, &body)
}

/// Hands the device over: signed by the old authority and the new.
///
/// # Errors
/// As [`enroll_order`].
pub fn rotate_order(
    authority: &dyn Authority,
    new: &dyn Authority,
    terms: Terms,
) -> Result<SignedOrder, DeviceError> {
    let body = Body::Rotate(Rotate {
        authority: new.public_key(),
    });
    let order = SignedOrder::new(authority, terms.header(Kind::Rotate, None), &body)?;
    let second = new.sign(&order.bytes).map_err(DeviceError::Authority)?;
    Ok(SignedOrder {
        second: Some(Signature::from_bytes(&second)),
        ..order
    })
}
