//! Orders and the receipts that answer them.

use std::collections::HashMap;

use keyferry_protocol::attributes::Attributes;
use keyferry_protocol::identity::{Challenge, DeviceId, Digest, Fingerprint};
use keyferry_protocol::order::{self, Body, Enroll, Freshness, Header, Kind, Recover};
use keyferry_protocol::proof::Proof;
use keyferry_protocol::receipt::{self, Outcome};

use super::super::fault::Fault;
use super::super::record::{JobId, Ordered, Received};
use super::trust::Stated;
use super::{AuthorityKey, Checker, check_key};
use crate::device::verify::{digest, fingerprint};

/// The orders that are not done, by digest.
pub(super) type Orders = HashMap<Digest, Order>;

/// An order that is not done.
pub(super) struct Order {
    pub(super) device: DeviceId,
    pub(super) kind: Kind,
    /// Whether it is for a quarantined device, of which no keys are known.
    recovers: bool,
    pub(super) job: Option<JobId>,
    /// The identity key it is addressed to; zero for a blank device.
    identity: Fingerprint,
    /// Which of the checker's authorities the device obeys once it is applied.
    authority: usize,
    freshness: Freshness,
    /// The device's counter once it is applied.
    counter: u32,
    /// The nonce of an `Enroll`.
    nonce: Option<Challenge>,
    /// What the receipt has to report, and does: of an `Inject` or a `Prove`.
    pub(super) slots: Vec<Asked>,
    pub(super) answer: Answer,
}

/// A slot that an order asks a report of.
pub(super) struct Asked {
    pub(super) slot: u16,
    /// The proof that is demanded.
    pub(super) proof: Proof,
    /// What an `Inject` puts there.
    content: Option<(u32, Attributes)>,
    /// The version that the receipt reports, if it reports all that was asked.
    pub(super) reported: Option<u32>,
    /// Whether a proof was verified.
    pub(super) proved: bool,
}

impl Order {
    /// Whether another order with the same keys may stand for this one. It was refused by a device that it reached in a session: its
    /// challenge is used up. And the other has the same counter, so a device applies one of them at most.
    pub(super) fn gives_way_to(&self, header: &Header) -> bool {
        let challenged = |freshness| matches!(freshness, Freshness::Challenge(_));
        self.answer == Answer::Refused
            && challenged(self.freshness)
            && challenged(header.freshness)
            && self.counter == header.counter
    }
}

/// What a device has said to an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Nothing that is in the log.
    None,
    /// It was refused; it may still be applied, if it is a detached one.
    Refused,
    /// It was applied.
    Applied,
    /// It was given up; an answer may still come.
    GivenUp,
}

/// An order without keys of its own that waits for an answer, or for the proofs in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenOrder {
    /// The device.
    pub device: DeviceId,
    /// What it asks for.
    pub kind: Kind,
    /// SHA-256 of its bytes.
    pub digest: Digest,
}

impl Checker {
    /// The order, if it is not done.
    pub(super) fn order(&self, order: &Digest) -> Result<&Order, Fault> {
        self.orders.get(order).ok_or(Fault::NoSuchOrder)
    }

    /// Orders without keys of their own that are not done, by device.
    pub(in crate::audit) fn open_orders(&self) -> Vec<OpenOrder> {
        let mut open: Vec<_> = self
            .orders
            .iter()
            .filter(|(_, order)| {
                // A signed refusal is an answer.
                order.job.is_none() && !matches!(order.answer, Answer::GivenUp | Answer::Refused)
            })
            .map(|(digest, order)| OpenOrder {
                device: order.device,
                kind: order.kind,
                digest: *digest,
            })
            .collect();
        open.sort_by_key(|order| (order.device, order.digest));
        open
    }

    pub(super) fn ordered(&mut self, line: &Ordered, previous: &Digest) -> Result<(), Fault> {
        let (header, body) = order::decode(&line.order).map_err(Fault::Order)?;
        if digest(&line.order) != line.digest
            || (header.device, header.kind) != (line.device, line.kind)
            || line.second.is_some() != (header.kind == Kind::Rotate)
        {
            return Err(Fault::OrderFields);
        }
        if header.audit_head != *previous {
            return Err(Fault::OrderHead);
        }
        if self.orders.contains_key(&line.digest) {
            return Err(Fault::OrderTwice);
        }
        let authority = self.signer_of(&header, &body)?;
        let key = &self.authorities[authority].spki;
        if !self.signed(key, &line.order, &line.signature) {
            return Err(Fault::OrderSignature);
        }
        let mut order = Order {
            device: header.device,
            kind: header.kind,
            recovers: matches!(body, Body::Recover(_)),
            job: line.job,
            identity: header.identity,
            authority,
            freshness: header.freshness,
            counter: header.counter,
            nonce: None,
            slots: Vec::new(),
            answer: Answer::None,
        };
        match &body {
            Body::Inject(inject) => {
                if let Some(certificate) = inject.certificate {
                    let made = self.trusted(&header.device)?.certificate;
                    if made != Some(certificate.digest) {
                        return Err(Fault::OtherCertificate);
                    }
                }
                self.check_job(line, &header, inject)?;
                order.slots = inject
                    .entries
                    .iter()
                    .map(|entry| {
                        Asked::new(
                            entry.slot,
                            entry.proof,
                            Some((entry.version, entry.attributes)),
                        )
                    })
                    .collect();
            }
            Body::Enroll(_)
            | Body::Prove(_)
            | Body::Remove(_)
            | Body::Rotate(_)
            | Body::Lock
            | Body::Wipe
            | Body::Recover(_)
                if line.job.is_some() =>
            {
                return Err(Fault::OtherKeys);
            }
            Body::Enroll(enroll) => order.nonce = Some(enroll.nonce),
            Body::Prove(prove) => {
                let asked =
                    |request: &order::ProofRequest| Asked::new(request.slot, request.proof, None);
                order.slots = prove.slots.iter().map(asked).collect();
            }
            Body::Rotate(rotate) => {
                let second = line.second.ok_or(Fault::OrderFields)?;
                check_key(rotate.authority, "the new authority")?;
                if !self.signed(rotate.authority, &line.order, &second) {
                    return Err(Fault::OrderSignature);
                }
                order.authority = self.authority_number(rotate.authority);
            }
            Body::Remove(_) | Body::Lock | Body::Wipe | Body::Recover(_) => {}
        }
        if let Some(job) = line.job.and_then(|job| self.jobs.get_mut(&job)) {
            // The one that it stands for was refused, and nothing more comes of it.
            if let Some(before) = job.order.replace(line.digest) {
                self.orders.remove(&before);
            }
        }
        self.orders.insert(line.digest, order);
        self.tally.orders += 1;
        Ok(())
    }

    /// Which authority has to have signed this order: the one that the device obeys, or would obey.
    fn signer_of(&self, header: &Header, body: &Body<'_>) -> Result<usize, Fault> {
        let known = self.devices.get(&header.device);
        match body {
            Body::Enroll(Enroll { authority, .. }) | Body::Recover(Recover { authority }) => {
                let wanted = fingerprint(authority);
                let own = known
                    .map(|device| device.authority)
                    .filter(|&own| self.authorities[own].fingerprint == wanted);
                own.or_else(|| self.authority_for_all(&wanted))
                    .ok_or(Fault::OrderSignature)
            }
            Body::Inject(_)
            | Body::Prove(_)
            | Body::Remove(_)
            | Body::Rotate(_)
            | Body::Lock
            | Body::Wipe => {
                let device = self.trusted(&header.device)?;
                if (device.identity, device.unwrap) != (header.identity, header.unwrap) {
                    return Err(Fault::NotTrusted(header.device));
                }
                Ok(device.authority)
            }
        }
    }

    /// The number of an authority that some device is handed over to.
    fn authority_number(&mut self, key: &[u8]) -> usize {
        let known = self.authorities.iter().position(|known| known.spki == key);
        known.unwrap_or_else(|| {
            self.authorities.push(AuthorityKey {
                for_all: false,
                ..AuthorityKey::new(key)
            });
            self.authorities.len() - 1
        })
    }

    pub(super) fn received(&mut self, line: &Received) -> Result<(), Fault> {
        let order = self.order(&line.order)?;
        let (header, body) = receipt::decode(&line.receipt).map_err(Fault::Receipt)?;
        if !self.signed(&line.identity_key, &line.receipt, &line.signature) {
            return Err(Fault::ReceiptSignature);
        }
        let identity = fingerprint(&line.identity_key);
        if (header.device, header.identity) != (order.device, identity)
            || line.device != order.device
            || (order.identity != Fingerprint::ZERO && order.identity != identity)
        {
            return Err(Fault::OtherDevice);
        }
        if (header.order, header.kind) != (line.order, order.kind) {
            return Err(Fault::OtherOrder);
        }
        if order.answer == Answer::Applied {
            return Err(Fault::AnsweredTwice);
        }
        let stated = match &body {
            receipt::Body::Statement(statement) => {
                if order.nonce != Some(statement.nonce)
                    || statement.identity_key != line.identity_key
                    || statement.authority != self.authorities[order.authority].fingerprint
                {
                    return Err(Fault::Statement);
                }
                Some(Stated {
                    device: header.device,
                    identity,
                    unwrap: fingerprint(statement.unwrap_key),
                    authority: order.authority,
                })
            }
            receipt::Body::Recovered(recovered) => {
                if !order.recovers || recovered.key != line.identity_key {
                    return Err(Fault::OtherOrder);
                }
                None
            }
            receipt::Body::Empty if order.recovers && header.outcome == Outcome::Applied => {
                return Err(Fault::OtherOrder);
            }
            receipt::Body::Slots(_) | receipt::Body::Empty => None,
        };
        let recovers = order.recovers;

        let authority = order.authority;
        if let Outcome::Refused(_) = header.outcome {
            self.tally.refused += 1;
            self.answered(&line.order, Answer::Refused);
            return Ok(());
        }
        self.tally.applied += 1;
        self.answered(&line.order, Answer::Applied);
        if recovers {
            self.recovered(&header.device);
        } else {
            self.changed(header.device, header.kind, header.outcome, authority);
        }
        match body {
            receipt::Body::Statement(_) => {
                self.orders.remove(&line.order);
            }
            receipt::Body::Slots(reports) => self.reported(&line.order, &reports),
            receipt::Body::Recovered(_) | receipt::Body::Empty => {
                self.orders.remove(&line.order);
            }
        }
        if let Some(stated) = stated {
            self.stated(&stated, line.order);
        }
        Ok(())
    }

    fn answered(&mut self, order: &Digest, answer: Answer) {
        if let Some(order) = self.orders.get_mut(order) {
            order.answer = answer;
        }
    }
}

impl Asked {
    const fn new(slot: u16, proof: Proof, content: Option<(u32, Attributes)>) -> Self {
        Self {
            slot,
            proof,
            content,
            reported: None,
            proved: false,
        }
    }

    /// Whether a report is the one that was asked for, its proof as strong and as long as demanded.
    pub(super) fn is_met_by(&self, report: &receipt::SlotReport<'_>) -> bool {
        let length = report.attributes.kind().map(|kind| self.proof.length(kind));
        (self.slot, self.proof) == (report.slot, report.proof)
            && length == Ok(report.value.len())
            && self
                .content
                .is_none_or(|content| content == (report.version, report.attributes))
    }
}
