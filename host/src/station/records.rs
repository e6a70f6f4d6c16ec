//! What a station writes down, and when: nothing is wrapped, sent or believed that is not in the audit log first, where one is
//! kept; and what a device is known by is in the registry, where one is kept.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use keyferry_protocol::identity::{DeviceId, Digest};
use keyferry_protocol::proof::Proof;

use super::journal::Journal;
use super::policy::{History, Known, Trust};
use super::registry::{Enrolled, Registry, RegistryError};
use super::{JobError, Shipping};
use crate::audit::{self, AuditLog, Event, Failed, JobId, ProvedSlot, Work, WrappedKey};
use crate::certificate::Document;
use crate::device::flow::SignedOrder;
use crate::device::verify::{self, SignedReceipt, Statement, fingerprint};
use crate::device::{DeviceError, MakeOrder, Witness};

/// The books of a station. One of each for all its ports.
#[derive(Default)]
pub struct Records {
    /// The audit log.
    pub audit: Option<AuditLog>,
    /// The registry.
    pub registry: Option<Registry>,
    /// The journal, where many devices are worked on.
    pub journal: Option<Journal>,
}

impl Known for Records {
    fn history(&self, device: DeviceId) -> Result<History, RegistryError> {
        self.registry.history(device)
    }

    fn holder(
        &self,
        identity: keyferry_protocol::identity::Fingerprint,
    ) -> Result<Option<DeviceId>, RegistryError> {
        self.registry.holder(identity)
    }
}

/// Writes one session down. Clones write about the same session.
#[derive(Clone, Default)]
pub struct Scribe {
    records: Arc<Mutex<Records>>,
    /// The keys that are on their way.
    job: Arc<Mutex<Option<JobId>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whoever panicked had written whole lines or none.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Scribe {
    /// For a new session.
    #[must_use]
    pub fn new(records: Arc<Mutex<Records>>) -> Self {
        Self {
            records,
            job: Arc::default(),
        }
    }

    /// The books, for looking something up in them.
    pub fn records(&self) -> MutexGuard<'_, Records> {
        lock(&self.records)
    }

    fn write(&self, event: impl FnOnce() -> Event) -> Result<(), JobError> {
        if let Some(log) = &mut self.records().audit {
            log.append(event())?;
        }
        Ok(())
    }

    /// A policy has accepted a device: for the first time where it was blank before.
    ///
    /// # Errors
    /// [`JobError::Audit`], [`JobError::Registry`]; so in all functions here.
    pub fn trusted(
        &self,
        device: &Statement,
        trust: &Trust,
        first: bool,
        serial: Option<&str>,
    ) -> Result<(), JobError> {
        if let Some(log) = &mut self.records().audit {
            log.trusted(device, first, trust.policy, &trust.reason)?;
        }
        if let Some(registry) = &self.records().registry {
            registry.enrolled(&Enrolled {
                statement: device,
                trust,
                serial,
            })?;
        }
        Ok(())
    }

    /// Keys are about to be wrapped.
    ///
    /// # Errors
    /// As [`Scribe::trusted`].
    pub fn wrapping(
        &self,
        hsm: &str,
        device: &Statement,
        shipping: &Shipping<'_>,
    ) -> Result<(), JobError> {
        if shipping.targets.is_empty() {
            return Ok(());
        }
        let job = JobId::random()?;
        let keys = shipping.targets.iter().map(|target| WrappedKey {
            slot: target.slot,
            version: shipping.version,
            label: target.key.name(),
            key_type: target.key.key_type.clone(),
            proof: target.key.proof,
        });
        self.write(|| {
            Event::Wrapped(audit::Wrapped {
                job,
                device: device.device,
                unwrap: fingerprint(&device.unwrap_key),
                suite: shipping.suite,
                token: hsm.to_owned(),
                keys: keys.collect(),
            })
        })?;
        *lock(&self.job) = Some(job);
        Ok(())
    }

    /// Proofs were verified.
    ///
    /// # Errors
    /// As [`Scribe::trusted`].
    pub fn proved(
        &self,
        device: DeviceId,
        order: Digest,
        slots: &[(u16, u32, Proof)],
    ) -> Result<(), JobError> {
        *lock(&self.job) = None;
        // Of a key without a demanded proof, the receipt alone says that it arrived.
        let proved: Vec<_> = slots
            .iter()
            .filter(|(_, _, proof)| *proof != Proof::None)
            .map(|&(slot, _, proof)| ProvedSlot { slot, proof })
            .collect();
        if !proved.is_empty() {
            self.write(|| {
                Event::Proved(audit::Proved {
                    device,
                    order,
                    slots: proved,
                })
            })?;
        }
        if let Some(registry) = &self.records().registry {
            let slots: Vec<_> = slots
                .iter()
                .map(|&(slot, version, _)| (slot, version))
                .collect();
            registry.slots_proved(device, &slots)?;
        }
        Ok(())
    }

    /// A proof is wrong: it is not to be believed of any of these slots and versions that they hold the right key.
    ///
    /// # Errors
    /// As [`Scribe::trusted`].
    pub fn wrong(
        &self,
        device: DeviceId,
        order: Digest,
        slots: &[(u16, u32)],
        reason: &str,
    ) -> Result<(), JobError> {
        *lock(&self.job) = None;
        self.write(|| {
            Event::Failed(Failed {
                work: Work::Order(order),
                slots: Vec::new(),
                reason: reason.to_owned(),
            })
        })?;
        if let Some(registry) = &self.records().registry {
            registry.slots_failed(device, slots)?;
        }
        Ok(())
    }

    /// The keys that are on their way are given up: they are in no slot, or not the right ones.
    ///
    /// # Errors
    /// As [`Scribe::trusted`].
    pub fn failed(&self, reason: &str) -> Result<(), JobError> {
        let Some(job) = lock(&self.job).take() else {
            return Ok(());
        };
        self.write(|| {
            Event::Failed(Failed {
                work: Work::Job(job),
                slots: Vec::new(),
                reason: reason.to_owned(),
            })
        })
    }

    /// A device was wiped: its keys count no more, and it may be enrolled again.
    ///
    /// # Errors
    /// As [`Scribe::trusted`].
    pub fn wiped(&self, device: DeviceId) -> Result<(), JobError> {
        if let Some(registry) = &self.records().registry {
            registry.release(device, "wiped")?;
        }
        Ok(())
    }

    /// A device is not to be believed any more, before somebody enrols it again.
    ///
    /// # Errors
    /// As [`Scribe::trusted`].
    pub fn distrust(&self, device: DeviceId, reason: &str) -> Result<(), JobError> {
        let mut records = self.records();
        if let Some(log) = &mut records.audit {
            log.note(&format!("device {device} is let go of: {reason}"))?;
        }
        if let Some(registry) = &records.registry {
            registry.release(device, reason)?;
        }
        Ok(())
    }

    /// A device's identity key was certified.
    ///
    /// # Errors
    /// As [`Scribe::trusted`], and [`JobError::Certificate`] if it is no certificate.
    pub fn certified(&self, device: DeviceId, certificate: &[u8]) -> Result<(), JobError> {
        let document = Document::read(certificate, crate::certificate::MAXIMUM_DEVICE_CERTIFICATE)?;
        self.write(|| {
            Event::Certified(audit::Certified {
                device,
                serial: document.number().to_vec(),
                digest: verify::digest(certificate),
                certificate: certificate.to_vec(),
            })
        })?;
        if let Some(registry) = &self.records().registry {
            registry.certified(device, certificate)?;
        }
        Ok(())
    }
}

fn witness(error: impl std::error::Error + Send + Sync + 'static) -> DeviceError {
    DeviceError::Witness(Box::new(error))
}

fn unwitnessed(error: impl std::error::Error + Send + Sync + 'static) -> DeviceError {
    DeviceError::Unwitnessed(Box::new(error))
}

impl Witness for Scribe {
    fn order(&mut self, make: &mut MakeOrder<'_>) -> Result<SignedOrder, DeviceError> {
        let mut records = self.records();
        // Held from the head of the chain to the line that follows it.
        let head = records
            .audit
            .as_ref()
            .map_or(Digest::ZERO, |log| log.head().digest);
        let order = make(head)?;
        // First, so that no other book knows an order that the journal does not.
        if let Some(journal) = &records.journal {
            journal.ordered(&order.bytes).map_err(witness)?;
        }
        if let Some(log) = &mut records.audit {
            log.ordered(&order).map_err(witness)?;
        }
        if let Some(registry) = &records.registry {
            registry.order_made(&order.bytes).map_err(witness)?;
        }
        Ok(order)
    }

    fn receipt(&mut self, order: &Digest, receipt: &SignedReceipt) -> Result<(), DeviceError> {
        let mut records = self.records();
        if let Some(log) = &mut records.audit {
            log.answered(order, receipt).map_err(unwitnessed)?;
        }
        if let (Some(registry), Some(device)) = (&records.registry, verify::receipt_device(receipt))
        {
            match registry.moved(device, receipt) {
                // A device that a policy has yet to accept, or an answer that will not be believed either.
                Ok(_)
                | Err(RegistryError::UnknownDevice { .. } | RegistryError::NotItsReceipt { .. }) => {
                }
                Err(error) => return Err(unwitnessed(error)),
            }
        }
        Ok(())
    }
}
