//! Orders and what comes of them: enrol, inject, prove, list.

use heapless::Vec as Fixed;
use keyferry_protocol::attributes::Attributes;
use keyferry_protocol::identity::{Challenge, Digest, Signature};
use keyferry_protocol::message::{Reply, Request, SlotInfo};
use keyferry_protocol::order::{
    self, Address, BlobRef, Body, Enroll, Entry, Freshness, Header, Inject, Kind, Label,
    ProofRequest, Prove,
};
use keyferry_protocol::proof::Proof;
use keyferry_protocol::suite::{Suite, UnwrapAlgorithm};
use keyferry_protocol::{BLOB_CHUNK, MAX_MESSAGE};

use super::DeviceError;
use super::session::{OnProgress, Session};
use super::verify::{self, SlotReport, Standing, Statement, digest};

/// The key that signs orders, wherever it lives.
pub trait Authority {
    /// Its public key, P-256 `SubjectPublicKeyInfo` DER, 91 bytes.
    fn public_key(&self) -> &[u8];

    /// Signs SHA-256 of `message` with ECDSA P-256; gives `r ‖ s`.
    ///
    /// # Errors
    /// Whatever the key's home says.
    fn sign(&self, message: &[u8]) -> Result<[u8; 64], Box<dyn std::error::Error + Send + Sync>>;
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
    /// AES-KWP of the key under the order's KEK.
    pub blob: Vec<u8>,
}

/// Keys under one KEK.
#[derive(Clone, Debug)]
pub struct Shipment {
    /// How the KEK travels.
    pub suite: Suite,
    /// The wrapped KEK.
    pub kek: Vec<u8>,
    /// The keys.
    pub parcels: Vec<Parcel>,
}

/// A verified receipt with proofs still to be checked against the HSM.
#[derive(Clone, Debug)]
pub struct Proofs {
    /// The order that asked; goes into every proof.
    pub order: Digest,
    /// The challenge that goes into every proof.
    pub challenge: Challenge,
    /// What the device reports.
    pub reports: Vec<SlotReport>,
    /// Where the device stands now.
    pub standing: Standing,
}

/// A signed order, as it goes over the wire.
#[derive(Clone, Debug)]
pub struct SignedOrder {
    /// The order's bytes.
    pub bytes: Vec<u8>,
    /// The authority's signature over them.
    pub signature: Signature,
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
        })
    }

    /// The request that carries it.
    #[must_use]
    pub fn request(&self) -> Request<'_> {
        Request::Order {
            signature: self.signature,
            second: None,
            order: &self.bytes,
        }
    }

    /// SHA-256 of the order's bytes.
    #[must_use]
    pub fn digest(&self) -> Digest {
        digest(&self.bytes)
    }
}

fn header(kind: Kind, address: Address, standing: &Standing) -> Header {
    let freshness = Freshness::Challenge(standing.challenge);
    Header::new(kind, address, freshness, standing.counter.saturating_add(1))
}

/// Address of a device whose statement is known.
#[must_use]
pub fn address(device: &Statement) -> Address {
    Address {
        device: device.device,
        identity: verify::fingerprint(&device.identity_key),
        unwrap: verify::fingerprint(&device.unwrap_key),
    }
}

/// What a receipt message holds.
fn receipt(message: &[u8]) -> Result<(Signature, &[u8]), DeviceError> {
    match Reply::decode(message) {
        Ok(Reply::Receipt { signature, receipt }) => Ok((signature, receipt)),
        Ok(Reply::Refused(refusal)) => Err(DeviceError::Refused {
            refusal,
            signed: false,
        }),
        Ok(_) | Err(_) => Err(DeviceError::Unexpected),
    }
}

/// Enrols a blank device, or has an enrolled one state itself anew: either way ends in a fresh, verified statement.
///
/// # Errors
/// [`DeviceError`].
pub fn enroll(
    session: &mut Session,
    authority: &dyn Authority,
    unwrap: UnwrapAlgorithm,
    nonce: Challenge,
    on_progress: &mut OnProgress<'_>,
) -> Result<Statement, DeviceError> {
    let greeting = session.greeting().clone();
    // Counter and challenge of the greeting are only claims. A false challenge gets the order refused; a false counter can
    // at most move the device's counter by one order's step.
    let standing = Standing {
        state: greeting.state,
        counter: greeting.counter,
        challenge: greeting.challenge,
    };
    let body = Body::Enroll(Enroll {
        authority: authority.public_key(),
        nonce,
        unwrap,
    });
    let header = header(Kind::Enroll, greeting.address(), &standing);
    let order = SignedOrder::new(authority, header, &body)?;
    let message = session.exchange(&order.request(), on_progress)?;
    let (signature, bytes) = receipt(&message)?;
    verify::statement(
        bytes,
        &signature,
        greeting.device,
        &order.digest(),
        nonce,
        verify::fingerprint(authority.public_key()),
    )
}

fn blob_ref(blob: &[u8]) -> Result<BlobRef, DeviceError> {
    Ok(BlobRef {
        length: u16::try_from(blob.len()).map_err(|_| DeviceError::TooLong)?,
        digest: digest(blob),
    })
}

/// Makes the order that injects a shipment.
///
/// # Errors
/// [`DeviceError::TooLong`], [`DeviceError::Authority`].
pub fn inject_order(
    authority: &dyn Authority,
    device: &Statement,
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
    keks.push(blob_ref(&shipment.kek)?)
        .map_err(|_| DeviceError::TooLong)?;
    let header = Header {
        suite: Some(shipment.suite),
        ..header(Kind::Inject, address(device), &device.standing)
    };
    let body = Body::Inject(Inject {
        challenge,
        certificate: None,
        keks,
        entries,
        questions: Fixed::new(),
    });
    SignedOrder::new(authority, header, &body)
}

/// Injects a shipment: one order, its blobs, one receipt.
///
/// # Errors
/// [`DeviceError`].
pub fn inject(
    session: &mut Session,
    authority: &dyn Authority,
    device: &Statement,
    shipment: &Shipment,
    challenge: Challenge,
    on_progress: &mut OnProgress<'_>,
) -> Result<Proofs, DeviceError> {
    let order = inject_order(authority, device, shipment, challenge)?;
    let blobs =
        std::iter::once(&shipment.kek).chain(shipment.parcels.iter().map(|parcel| &parcel.blob));
    let message = deliver(session, &order, blobs, on_progress)?;
    let (signature, bytes) = receipt(&message)?;
    let digest = order.digest();
    let (standing, reports) = verify::slots(bytes, &signature, device, &digest, Kind::Inject)?;
    let asked = shipment
        .parcels
        .iter()
        .map(|parcel| (parcel.slot, parcel.proof));
    check_reports(&reports, asked)?;
    let as_ordered = reports
        .iter()
        .zip(&shipment.parcels)
        .all(|(report, parcel)| {
            report.version == parcel.version && report.attributes == parcel.attributes
        });
    if !as_ordered {
        return Err(DeviceError::Untrusted {
            reason: "the receipt reports other versions or attributes than the order gave",
        });
    }
    Ok(Proofs {
        order: digest,
        challenge,
        reports,
        standing,
    })
}

/// Sends an order and its blobs, and gives back the message that answers them.
///
/// # Errors
/// [`DeviceError`].
pub fn deliver<'a>(
    session: &mut Session,
    order: &SignedOrder,
    blobs: impl Iterator<Item = &'a Vec<u8>>,
    on_progress: &mut OnProgress<'_>,
) -> Result<Vec<u8>, DeviceError> {
    let message = session.exchange(&order.request(), on_progress)?;
    if !matches!(Reply::decode(&message), Ok(Reply::Accepted)) {
        return Ok(message);
    }
    for blob in blobs {
        for bytes in blob.chunks(BLOB_CHUNK) {
            if let Some(early) = session.send(&Request::Blob { bytes }, on_progress)? {
                return Ok(early);
            }
        }
    }
    session.answer(on_progress)
}

/// A missing, extra or weaker proof than demanded fails the device.
fn check_reports(
    reports: &[SlotReport],
    asked: impl Iterator<Item = (u16, Proof)>,
) -> Result<(), DeviceError> {
    let reported = reports.iter().map(|report| (report.slot, report.proof));
    if reported.eq(asked) {
        Ok(())
    } else {
        Err(DeviceError::Untrusted {
            reason: "the receipt does not report what the order asked for",
        })
    }
}

/// Has slots proved.
///
/// # Errors
/// [`DeviceError`].
pub fn prove(
    session: &mut Session,
    authority: &dyn Authority,
    device: &Statement,
    slots: &[(u16, Proof)],
    challenge: Challenge,
    on_progress: &mut OnProgress<'_>,
) -> Result<Proofs, DeviceError> {
    let requests = slots
        .iter()
        .map(|&(slot, proof)| ProofRequest { slot, proof });
    let mut wanted = Fixed::new();
    for request in requests {
        wanted.push(request).map_err(|_| DeviceError::TooLong)?;
    }
    let body = Body::Prove(Prove {
        challenge,
        slots: wanted,
        questions: Fixed::new(),
    });
    let header = header(Kind::Prove, address(device), &device.standing);
    let order = SignedOrder::new(authority, header, &body)?;
    let message = session.exchange(&order.request(), on_progress)?;
    let (signature, bytes) = receipt(&message)?;
    let digest = order.digest();
    let (standing, reports) = verify::slots(bytes, &signature, device, &digest, Kind::Prove)?;
    check_reports(&reports, slots.iter().copied())?;
    Ok(Proofs {
        order: digest,
        challenge,
        reports,
        standing,
    })
}

/// The device's table of slots. Unsigned: for people to look at.
///
/// # Errors
/// [`DeviceError`].
pub fn list(session: &mut Session) -> Result<Vec<SlotInfo>, DeviceError> {
    let message = session.exchange(&Request::List, &mut |_| {})?;
    match Reply::decode(&message) {
        Ok(Reply::Slots(slots)) => Ok(slots.iter().cloned().collect()),
        Ok(Reply::Refused(refusal)) => Err(DeviceError::Refused {
            refusal,
            signed: false,
        }),
        Ok(_) | Err(_) => Err(DeviceError::Unexpected),
    }
}
