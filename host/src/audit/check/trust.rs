//! Which devices are taken for the right ones, and by which keys they are known.

use keyferry_protocol::identity::{DeviceId, Digest, Fingerprint, Signature};
use keyferry_protocol::order::Kind;
use keyferry_protocol::receipt::{self, Body, Outcome};

use super::super::fault::Fault;
use super::super::record::{Certified, JobId, Trust};
use super::{Checker, Notice};
use crate::certificate::{Document, MAXIMUM_DEVICE_CERTIFICATE};
use crate::device::verify::{digest, fingerprint};

/// A device as the log knows it.
pub(super) struct Device {
    /// Its identity key.
    pub(super) identity: Fingerprint,
    /// Its unwrap key.
    pub(super) unwrap: Fingerprint,
    /// Which of the checker's authorities it obeys.
    pub(super) authority: usize,
    /// How far it is trusted.
    pub(super) standing: Standing,
    /// The certificate that was made for its identity key last.
    pub(super) certificate: Option<Digest>,
    /// Its jobs that are not done.
    pub(super) jobs: Vec<JobId>,
}

/// How far a device is trusted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It has stated itself in answer to this order.
    Stated(Digest),
    /// It was taken for the right one.
    Trusted,
    /// It has destroyed its keys.
    Wiped,
    /// It says that it was quarantined and has begun anew, and nobody can vouch for that.
    Recovered,
}

/// What a statement says.
pub(super) struct Stated {
    pub(super) device: DeviceId,
    pub(super) identity: Fingerprint,
    pub(super) unwrap: Fingerprint,
    pub(super) authority: usize,
}

impl Checker {
    /// The device, if it was taken for the right one.
    pub(super) fn trusted(&self, device: &DeviceId) -> Result<&Device, Fault> {
        self.devices
            .get(device)
            .filter(|known| known.standing == Standing::Trusted)
            .ok_or(Fault::NotTrusted(*device))
    }

    /// A device has stated itself in answer to `order`. On each visit it is taken for the right one anew.
    pub(super) fn stated(&mut self, stated: &Stated, order: Digest) {
        let before = self.devices.remove(&stated.device);
        if let Some(before) = &before
            && before.standing != Standing::Wiped
            && before.identity != stated.identity
        {
            self.notice = Some(Notice::IdentityChanged(stated.device));
        }
        let device = Device {
            identity: stated.identity,
            unwrap: stated.unwrap,
            authority: stated.authority,
            standing: Standing::Stated(order),
            certificate: before
                .as_ref()
                .filter(|before| before.identity == stated.identity)
                .and_then(|before| before.certificate),
            jobs: before.map(|before| before.jobs).unwrap_or_default(),
        };
        self.devices.insert(stated.device, device);
    }

    pub(super) fn trust(&mut self, trust: &Trust) -> Result<(), Fault> {
        let missing = Fault::NoStatement(trust.device);
        if let Some(statement) = &trust.statement {
            let stated = self.foreign_statement(trust, &statement.receipt, &statement.signature)?;
            if (stated.device, stated.identity, stated.unwrap)
                != (trust.device, trust.identity, trust.unwrap)
            {
                return Err(missing);
            }
            self.stated(&stated, trust.order);
        }
        let device = self.devices.get_mut(&trust.device);
        let Some(device) = device.filter(|device| {
            device.standing == Standing::Stated(trust.order)
                && (device.identity, device.unwrap) == (trust.identity, trust.unwrap)
        }) else {
            return Err(missing);
        };
        device.standing = Standing::Trusted;
        Ok(())
    }

    /// A statement that answered an order of another log: it must be signed by the identity key in it, and name an authority of
    /// this log. That it is fresh, the policy of the line has to say.
    fn foreign_statement(
        &self,
        trust: &Trust,
        bytes: &[u8],
        signature: &Signature,
    ) -> Result<Stated, Fault> {
        let (header, body) = receipt::decode(bytes).map_err(Fault::Receipt)?;
        let Body::Statement(statement) = body else {
            return Err(Fault::NoStatement(trust.device));
        };
        if !self.signed(statement.identity_key, bytes, signature) {
            return Err(Fault::ReceiptSignature);
        }
        if header.identity != fingerprint(statement.identity_key) {
            return Err(Fault::OtherDevice);
        }
        if header.order != trust.order {
            return Err(Fault::OtherOrder);
        }
        Ok(Stated {
            device: header.device,
            identity: header.identity,
            unwrap: fingerprint(statement.unwrap_key),
            authority: self
                .authority_for_all(&statement.authority)
                .ok_or(Fault::Statement)?,
        })
    }

    /// A receipt says that an order was applied which changes who the device is or whom it obeys.
    pub(super) fn changed(&mut self, device: DeviceId, kind: Kind, outcome: Outcome, next: usize) {
        let Some(known) = self.devices.get_mut(&device) else {
            return;
        };
        match (kind, outcome) {
            (Kind::Rotate, Outcome::Applied) => known.authority = next,
            (Kind::Wipe, Outcome::Applied) => {
                known.standing = Standing::Wiped;
                if known.jobs.is_empty() {
                    self.devices.remove(&device);
                }
            }
            (
                Kind::Enroll | Kind::Inject | Kind::Prove | Kind::Remove | Kind::Lock,
                Outcome::Applied,
            )
            | (_, Outcome::Refused(_)) => {}
        }
    }

    /// A device says that it was quarantined and has begun anew. Whether it was this one no receipt can show: it is believed no
    /// more, and another key of it is noticed.
    pub(super) fn recovered(&mut self, device: &DeviceId) {
        if let Some(known) = self.devices.get_mut(device) {
            known.standing = Standing::Recovered;
        }
    }

    pub(super) fn certified(&mut self, certified: &Certified) -> Result<(), Fault> {
        let device = self.trusted(&certified.device)?;
        if digest(&certified.certificate) != certified.digest {
            return Err(Fault::Certificate("has another SHA-256"));
        }
        let document = Document::read(&certified.certificate, MAXIMUM_DEVICE_CERTIFICATE)
            .map_err(|_| Fault::Certificate("is none that a device may have"))?;
        if document.number() != certified.serial {
            return Err(Fault::Certificate("has another serial number"));
        }
        let key = document.key().map(|key| key.fingerprint());
        if key.ok() != Some(device.identity) {
            return Err(Fault::Certificate("is not for the device's identity key"));
        }
        if let Some(device) = self.devices.get_mut(&certified.device) {
            device.certificate = Some(certified.digest);
        }
        self.tally.certified += 1;
        Ok(())
    }
}
