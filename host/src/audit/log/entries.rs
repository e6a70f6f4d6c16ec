//! What a station says to its log, one function for each thing that happens.

use keyferry_protocol::identity::{DeviceId, Digest};
use keyferry_protocol::order::{self, Body};
use keyferry_protocol::proof::Proof;
use keyferry_protocol::receipt;
use keyferry_protocol::suite::Suite;

use super::{AuditLog, Head};
use crate::audit::error::AuditError;
use crate::audit::fault::Fault;
use crate::audit::record::{
    self, Certified, Disbelieved, Event, Failed, JobId, Note, Ordered, Proved, ProvedSlot,
    Received, Trust, Work, Wrapped, WrappedKey,
};
use crate::certificate::{Document, MAXIMUM_DEVICE_CERTIFICATE};
use crate::device::flow::SignedOrder;
use crate::device::verify::{SignedReceipt, Statement, digest, fingerprint};

impl AuditLog {
    /// Writes an order down that was made with the present head of the chain. The job whose keys it carries is found by them.
    ///
    /// # Errors
    /// As [`AuditLog::append`].
    pub fn ordered(&mut self, order: &SignedOrder) -> Result<Head, AuditError> {
        let (header, body) = order::decode(&order.bytes)
            .map_err(|error| AuditError::Rejected(Fault::Order(error)))?;
        let job = match &body {
            Body::Inject(inject) => self.checker.job_of(&header, inject),
            Body::Enroll(_)
            | Body::Prove(_)
            | Body::Remove(_)
            | Body::Rotate(_)
            | Body::Lock
            | Body::Wipe
            | Body::Recover(_) => None,
        };
        self.append(Event::Ordered(Ordered {
            job,
            device: header.device,
            kind: header.kind,
            digest: order.digest(),
            order: order.bytes.clone(),
            signature: order.signature,
            second: order.second,
        }))
    }

    /// Writes a device's answer to an order down.
    ///
    /// # Errors
    /// As [`AuditLog::append`]; [`AuditError::Rejected`] with [`Fault::OtherDevice`] if no statement in this log tells the identity key.
    pub fn received(
        &mut self,
        order: &Digest,
        receipt: &SignedReceipt,
    ) -> Result<Head, AuditError> {
        let (header, body) = receipt::decode(&receipt.bytes)
            .map_err(|error| AuditError::Rejected(Fault::Receipt(error)))?;
        let identity_key = match &body {
            receipt::Body::Statement(statement) => statement.identity_key.to_vec(),
            // Made for this receipt alone.
            receipt::Body::Recovered(recovered) => recovered.key.to_vec(),
            receipt::Body::Slots(_) | receipt::Body::Empty => self
                .identities
                .get(&header.identity)
                .cloned()
                .ok_or(AuditError::Rejected(Fault::OtherDevice))?,
        };
        self.append(Event::Received(Received {
            device: header.device,
            order: *order,
            identity_key,
            receipt: receipt.bytes.clone(),
            signature: receipt.signature,
        }))
    }

    /// Writes down what came as an answer to an order, whatever it is: a receipt as such, what is not to be believed as that. What
    /// came before is not written again.
    ///
    /// # Errors
    /// As [`AuditLog::append`].
    pub fn answered(
        &mut self,
        order: &Digest,
        receipt: &SignedReceipt,
    ) -> Result<Head, AuditError> {
        match self.received(order, receipt) {
            Err(AuditError::Rejected(Fault::AnsweredTwice | Fault::NoSuchOrder)) => Ok(self.head()),
            Err(AuditError::Rejected(fault)) => self.append(Event::Disbelieved(Disbelieved {
                order: *order,
                receipt: receipt.bytes.clone(),
                signature: receipt.signature,
                reason: fault.to_string(),
            })),
            result => result,
        }
    }

    /// Writes down that a device is taken for the right one, after its statement was received. `first` says that it is its
    /// enrolment; `reason` is for a person.
    ///
    /// # Errors
    /// As [`AuditLog::append`].
    pub fn trusted(
        &mut self,
        statement: &Statement,
        first: bool,
        policy: &str,
        reason: &str,
    ) -> Result<Head, AuditError> {
        let trust = Trust {
            device: statement.device,
            identity: fingerprint(&statement.identity_key),
            unwrap: fingerprint(&statement.unwrap_key),
            order: statement.order,
            policy: policy.into(),
            reason: reason.into(),
            statement: None,
        };
        self.append(if first {
            Event::Enrolled(trust)
        } else {
            Event::Trusted(trust)
        })
    }

    /// As [`AuditLog::trusted`], of a device that is not here: its statement was kept, for example in the registry, and may have
    /// answered an order of another log. It is written down whole.
    ///
    /// # Errors
    /// As [`AuditLog::append`].
    pub fn trusted_by_statement(
        &mut self,
        statement: &Statement,
        policy: &str,
        reason: &str,
    ) -> Result<Head, AuditError> {
        self.append(Event::Trusted(Trust {
            device: statement.device,
            identity: fingerprint(&statement.identity_key),
            unwrap: fingerprint(&statement.unwrap_key),
            order: statement.order,
            policy: policy.into(),
            reason: reason.into(),
            statement: Some(record::Statement {
                receipt: statement.receipt.bytes.clone(),
                signature: statement.receipt.signature,
            }),
        }))
    }

    /// Writes down that keys are about to be wrapped for a device, and gives the job they belong to.
    ///
    /// # Errors
    /// As [`AuditLog::append`]; [`AuditError::Random`].
    pub fn wrapping(
        &mut self,
        statement: &Statement,
        suite: Suite,
        token: &str,
        keys: Vec<WrappedKey>,
    ) -> Result<JobId, AuditError> {
        let job = JobId::random().map_err(AuditError::Random)?;
        self.append(Event::Wrapped(Wrapped {
            job,
            device: statement.device,
            unwrap: fingerprint(&statement.unwrap_key),
            suite,
            token: token.into(),
            keys,
        }))?;
        Ok(job)
    }

    /// Writes down that this certificate (X.509 DER) was made for a device's identity key, before an order carries it.
    ///
    /// # Errors
    /// As [`AuditLog::append`].
    pub fn certified(&mut self, device: DeviceId, certificate: &[u8]) -> Result<Head, AuditError> {
        let document = Document::read(certificate, MAXIMUM_DEVICE_CERTIFICATE).map_err(|_| {
            AuditError::Rejected(Fault::Certificate("is none that a device may have"))
        })?;
        self.append(Event::Certified(Certified {
            device,
            serial: document.number().to_vec(),
            digest: digest(certificate),
            certificate: certificate.to_vec(),
        }))
    }

    /// Writes down that the HSM has verified these proofs in the receipt of an order.
    ///
    /// # Errors
    /// As [`AuditLog::append`].
    pub fn proved(
        &mut self,
        device: DeviceId,
        order: &Digest,
        slots: impl IntoIterator<Item = (u16, Proof)>,
    ) -> Result<Head, AuditError> {
        let slots = slots.into_iter();
        self.append(Event::Proved(Proved {
            device,
            order: *order,
            slots: slots
                .map(|(slot, proof)| ProvedSlot { slot, proof })
                .collect(),
        }))
    }

    /// Writes down that a job or an order is given up, with all of its keys that are open.
    ///
    /// # Errors
    /// As [`AuditLog::append`].
    pub fn failed(&mut self, work: Work, reason: &str) -> Result<Head, AuditError> {
        self.append(Event::Failed(Failed {
            work,
            slots: Vec::new(),
            reason: reason.into(),
        }))
    }

    /// Writes down that a device was let go of: it is not to be believed before somebody enrols it again.
    ///
    /// # Errors
    /// As [`AuditLog::append`].
    pub fn released(&mut self, device: DeviceId, reason: &str) -> Result<Head, AuditError> {
        self.note(&format!("device {device} is let go of: {reason}"))
    }

    /// Writes words down, for whoever reads the log later.
    ///
    /// # Errors
    /// As [`AuditLog::append`].
    pub fn note(&mut self, text: &str) -> Result<Head, AuditError> {
        self.append(Event::Note(Note { text: text.into() }))
    }
}
