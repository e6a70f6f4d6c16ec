//! Orders as they go over the wire, also those that no station would send, and what comes back.

use keyferry::device::flow::{Authority, Parcel, Shipment};
use keyferry::device::session::Session;
use keyferry::device::verify;
use keyferry_protocol::MAX_MESSAGE;
use keyferry_protocol::identity::{Challenge, Digest, Signature};
use keyferry_protocol::message::{Reply, Request};
use keyferry_protocol::order::{self, BlobRef, Body, Entry, Freshness, Header, Inject, Kind};
use keyferry_protocol::receipt::{self, Header as ReceiptHeader, Outcome, Refusal};

use crate::desk::OnDesk;
use crate::software::SoftAuthority;

/// A signed order and the blobs that follow it.
#[derive(Clone, Debug)]
pub struct Order {
    /// The order's bytes.
    pub bytes: Vec<u8>,
    /// The authority's signature.
    pub signature: Signature,
    /// The second signature, of a `Rotate`.
    pub second: Option<Signature>,
    /// The blobs.
    pub blobs: Vec<Vec<u8>>,
}

/// What a device answers to an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A refusal that nobody signed.
    Unsigned(Refusal),
    /// A receipt, not verified yet.
    Receipt(Receipt),
}

/// A receipt as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Its signature.
    pub signature: Signature,
}

impl Receipt {
    /// Its header.
    ///
    /// # Panics
    /// If it does not decode.
    #[must_use]
    pub fn header(&self) -> ReceiptHeader {
        receipt::decode(&self.bytes).expect("a receipt decodes").0
    }

    /// Its header, once its signature is known to be that of this identity key.
    ///
    /// # Panics
    /// If it is not.
    #[must_use]
    pub fn verified(&self, identity_key: &[u8]) -> ReceiptHeader {
        assert!(
            verify::signature_is_valid(identity_key, &self.bytes, &self.signature),
            "the receipt is not signed by this key"
        );
        let header = self.header();
        assert_eq!(header.identity, verify::fingerprint(identity_key));
        header
    }
}

impl Answer {
    /// The receipt.
    ///
    /// # Panics
    /// If it is a refusal without a signature.
    #[must_use]
    pub fn receipt(self) -> Receipt {
        match self {
            Self::Receipt(receipt) => receipt,
            Self::Unsigned(refusal) => panic!("no receipt: {refusal}"),
        }
    }

    /// The refusal, and whether it came as a receipt; `None` if the order was applied.
    #[must_use]
    pub fn refusal(&self) -> Option<(Refusal, bool)> {
        match self {
            Self::Unsigned(refusal) => Some((*refusal, false)),
            Self::Receipt(receipt) => match receipt.header().outcome {
                Outcome::Applied => None,
                Outcome::Refused(refusal) => Some((refusal, true)),
            },
        }
    }
}

/// A header for the device that was greeted, with its challenge and the counter that follows.
#[must_use]
pub fn fresh(device: &OnDesk, session: &Session, kind: Kind) -> Header {
    let header = enrolment(session);
    let unwrap = match kind {
        Kind::Enroll => header.unwrap,
        Kind::Inject | Kind::Prove | Kind::Remove | Kind::Rotate | Kind::Lock | Kind::Wipe => {
            device.unwrap_key()
        }
    };
    Header {
        kind,
        unwrap,
        ..header
    }
}

/// [`fresh`] for an `Enroll`.
#[must_use]
pub fn enrolment(session: &Session) -> Header {
    let greeting = session.greeting();
    let freshness = Freshness::Challenge(greeting.challenge);
    let address = greeting.enrolment_address();
    Header::new(Kind::Enroll, address, freshness, greeting.counter + 1)
}

impl Order {
    /// Encodes and signs.
    ///
    /// # Panics
    /// If it does not fit into a message.
    #[must_use]
    pub fn new(authority: &SoftAuthority, header: Header, body: &Body<'_>) -> Self {
        let mut buffer = [0; MAX_MESSAGE];
        let bytes = order::encode(header, body, &mut buffer).expect("an order of a test fits");
        Self {
            bytes: bytes.to_vec(),
            signature: signature(authority, bytes),
            second: None,
            blobs: Vec::new(),
        }
    }

    /// An `Inject` of a shipment.
    ///
    /// # Panics
    /// If it does not fit.
    #[must_use]
    pub fn inject(authority: &SoftAuthority, header: Header, shipment: &Shipment) -> Self {
        let header = Header {
            suite: Some(shipment.suite),
            ..header
        };
        Self {
            blobs: shipment.blobs().cloned().collect(),
            ..Self::new(authority, header, &Body::Inject(body(shipment)))
        }
    }

    /// The same order with the signature of the authority it hands the device over to.
    #[must_use]
    pub fn seconded(mut self, authority: &SoftAuthority) -> Self {
        self.second = Some(signature(authority, &self.bytes));
        self
    }

    /// SHA-256 of its bytes.
    #[must_use]
    pub fn digest(&self) -> Digest {
        verify::digest(&self.bytes)
    }

    /// Sends it, and its blobs behind it until the device answers.
    ///
    /// # Panics
    /// If the device answers neither with a receipt nor with a refusal.
    pub fn send(&self, session: &mut Session) -> Answer {
        let request = Request::Order {
            signature: self.signature,
            second: self.second,
            order: &self.bytes,
        };
        let mut early = session.send(&request, &mut |_| {}).expect("it is taken");
        let stream = self.blobs.concat();
        let mut pieces = stream.chunks(512);
        while early.is_none()
            && let Some(bytes) = pieces.next()
        {
            early = session
                .send(&Request::Blob { bytes }, &mut |_| {})
                .expect("blobs are taken");
        }
        let message = early.unwrap_or_else(|| session.answer(&mut |_| {}).expect("an answer"));
        match Reply::decode(&message).expect("a reply decodes") {
            Reply::Refused(refusal) => Answer::Unsigned(refusal),
            Reply::Receipt { signature, receipt } => Answer::Receipt(Receipt {
                bytes: receipt.to_vec(),
                signature,
            }),
            other => panic!("{other:?}"),
        }
    }

    /// Sends it in a session of its own.
    ///
    /// # Panics
    /// If the device does not answer.
    #[must_use]
    pub fn send_to(&self, device: &OnDesk) -> Answer {
        self.send(&mut open(device))
    }
}

/// A new session with the device.
///
/// # Panics
/// If it does not answer the greeting.
#[must_use]
pub fn open(device: &OnDesk) -> Session {
    Session::open(device.port()).expect("the device answers")
}

fn signature(authority: &SoftAuthority, bytes: &[u8]) -> Signature {
    Signature::from_bytes(&authority.sign(bytes).expect("signs"))
}

fn blob_ref(blob: &[u8]) -> BlobRef {
    BlobRef {
        length: u16::try_from(blob.len()).expect("short"),
        digest: verify::digest(blob),
    }
}

fn body(shipment: &Shipment) -> Inject {
    let entry = |parcel: &Parcel| Entry {
        slot: parcel.slot,
        version: parcel.version,
        attributes: parcel.attributes,
        label: parcel.label.clone(),
        proof: parcel.proof,
        kek: 0,
        blob: blob_ref(&parcel.blob),
    };
    let kek = (!shipment.parcels.is_empty()).then_some(&shipment.kek);
    let questions = shipment.parcels.iter().flat_map(|parcel| &parcel.question);
    Inject {
        challenge: Challenge([3; 32]),
        certificate: shipment.certificate.as_deref().map(blob_ref),
        keks: kek.into_iter().map(|kek| blob_ref(kek)).collect(),
        entries: shipment.parcels.iter().map(entry).collect(),
        questions: questions.copied().collect(),
    }
}
