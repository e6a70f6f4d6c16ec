//! What a station writes down, and when: nothing is wrapped, sent or believed that is not in the audit log first, where one is
//! kept; and what a device is known by is in the registry, where one is kept.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use keyferry_protocol::identity::{DeviceId, Digest, Fingerprint};
use keyferry_protocol::proof::Proof;

use super::finding::Finding;
use super::journal::Journal;
use super::policy::{History, Known, PolicyError, Trust};
use super::registry::{DeviceRecord, Enrolled, Registry, RegistryError};
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

impl Records {
    /// Tells the registry what became of a device. While it cannot be told, the journal keeps it, where there is one.
    pub(super) fn tell(&mut self, device: DeviceId, finding: &Finding) -> Result<(), JobError> {
        if let (Finding::Released { .. }, Some(_), Some(journal)) =
            (finding, &self.registry, &self.journal)
        {
            // Lost with a station that is killed now, it would be made up for by nothing: each try takes a device that was put back one
            // step nearer to where the registry has it.
            journal.keep(device, finding)?;
            return match self.catch_up() {
                Err(error) if cannot_be_told_now(&error) => Ok(()),
                told => told,
            };
        }
        let told = match self.catch_up() {
            Ok(()) => match &self.registry {
                Some(registry) => finding.tell(device, registry).map_err(JobError::from),
                None => Ok(()),
            },
            // What was found out first is told first.
            Err(error) => Err(error),
        };
        match (told, &self.journal) {
            (Err(error), Some(journal)) if cannot_be_told_now(&error) => {
                Ok(journal.keep(device, finding)?)
            }
            (told, Some(_) | None) => told,
        }
    }

    /// Tells the registry what the journal has kept for it. What it does not take is put aside.
    ///
    /// # Errors
    /// [`JobError::Journal`], [`JobError::Registry`].
    pub fn catch_up(&mut self) -> Result<(), JobError> {
        let (Some(registry), Some(journal)) = (&self.registry, &self.journal) else {
            return Ok(());
        };
        loop {
            let waiting = journal.waiting()?;
            if waiting.is_empty() {
                return Ok(());
            }
            for it in waiting {
                match it.finding.tell_again(it.device, registry) {
                    Ok(()) => journal.told(it.number)?,
                    Err(error) if is_passing(&error) => return Err(error.into()),
                    Err(error) => journal.put_aside(it.number, &error.to_string())?,
                }
            }
        }
    }
}

fn cannot_be_told_now(error: &JobError) -> bool {
    matches!(error, JobError::Registry(error) if is_passing(error))
}

/// Whether the registry says nothing of what it was told, but only that it cannot be told now.
fn is_passing(error: &RegistryError) -> bool {
    match error {
        RegistryError::Away { .. }
        | RegistryError::Busy { .. }
        | RegistryError::Refused { .. }
        | RegistryError::Setting { .. }
        | RegistryError::Password(_)
        | RegistryError::Location(_)
        | RegistryError::Missing { .. }
        | RegistryError::NotARegistry { .. }
        | RegistryError::Newer { .. }
        | RegistryError::Damaged { .. }
        | RegistryError::Database { .. }
        | RegistryError::Clock => true,
        RegistryError::Inconsistent { .. }
        | RegistryError::UnknownDevice { .. }
        | RegistryError::Released { .. }
        | RegistryError::OtherKeys { .. }
        | RegistryError::KeyTaken { .. }
        | RegistryError::OtherSerial { .. }
        | RegistryError::SerialTaken { .. }
        | RegistryError::NotItsReceipt { .. }
        | RegistryError::Older { .. }
        | RegistryError::NotItsOrder { .. }
        | RegistryError::UnknownOrder { .. }
        | RegistryError::NotKept { .. }
        | RegistryError::CounterTaken { .. }
        | RegistryError::SlotHeld { .. }
        | RegistryError::UnknownSlot { .. }
        | RegistryError::CounterSpent { .. } => false,
    }
}

/// How devices wait while the registry's server is away.
#[derive(Clone)]
pub struct Patience {
    /// Longest wait.
    pub limit: Duration,
    /// Once it is set, nobody waits.
    pub stop: Arc<AtomicBool>,
    /// Is told that the server is away, and why; and with `None`, that it is back.
    pub told: Told,
}

/// See [`Patience::told`].
pub type Told = Arc<dyn Fn(Option<&str>) + Send + Sync>;

impl std::fmt::Debug for Patience {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Patience")
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

/// How often a waiting device looks for the server.
const LOOK: Duration = Duration::from_millis(200);

/// An error that may only say that the registry's server is away.
pub(super) trait MayBeAway: std::fmt::Display {
    /// Whether that is all.
    fn is_away(&self) -> bool;
}

impl MayBeAway for RegistryError {
    fn is_away(&self) -> bool {
        Self::is_away(self)
    }
}

impl MayBeAway for PolicyError {
    fn is_away(&self) -> bool {
        matches!(self, Self::Registry(error) if error.is_away())
    }
}

impl MayBeAway for JobError {
    fn is_away(&self) -> bool {
        matches!(self, Self::Registry(error) if error.is_away())
            || matches!(self, Self::Policy(error) if error.is_away())
    }
}

/// Does something with the books for which the registry is needed. Where its server is away and the registry is patient, it is done as
/// soon as the server is back; nobody else waits for the books meanwhile. It must be such that it may be done again.
pub(super) fn patiently<T, E: MayBeAway>(
    records: &Mutex<Records>,
    mut work: impl FnMut(&mut Records) -> Result<T, E>,
) -> Result<T, E> {
    let begun = Instant::now();
    let mut has_waited = false;
    loop {
        let mut held = lock(records);
        let result = work(&mut held);
        let patience = held.registry.as_ref().and_then(Registry::patience).cloned();
        drop(held);
        let Some(patience) = patience else {
            return result;
        };
        let error = match result {
            Err(error) if error.is_away() => error,
            result => {
                if has_waited {
                    (patience.told)(None);
                }
                return result;
            }
        };
        if patience.stop.load(Ordering::Relaxed) || begun.elapsed() >= patience.limit {
            return Err(error);
        }
        (patience.told)(Some(&error.to_string()));
        has_waited = true;
        thread::sleep(LOOK);
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
    /// What the registry has of a device, if there is a registry.
    ///
    /// # Errors
    /// Those of the registry.
    pub fn record(&self, device: DeviceId) -> Result<Option<DeviceRecord>, RegistryError> {
        patiently(&self.records, |records| match &records.registry {
            Some(registry) => registry.find(device),
            None => Ok(None),
        })
    }

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
        let enrolled = Enrolled {
            statement: device,
            trust,
            serial,
        };
        patiently(&self.records, |records| match &records.registry {
            Some(registry) => registry.enrolled(&enrolled).map(|_| ()),
            None => Ok(()),
        })?;
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
        let slots = slots.iter().map(|&(slot, version, _)| (slot, version));
        let finding = Finding::proved(&order, slots.collect());
        self.records().tell(device, &finding)
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
        let finding = Finding::wrong(&order, slots.to_vec());
        self.records().tell(device, &finding)
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
    pub fn wiped(&self, device: DeviceId, identity: Fingerprint) -> Result<(), JobError> {
        self.records()
            .tell(device, &Finding::released(&identity, "wiped"))
    }

    /// A device is not to be believed any more, before somebody enrols it again.
    ///
    /// # Errors
    /// As [`Scribe::trusted`].
    pub fn distrust(
        &self,
        device: DeviceId,
        identity: Fingerprint,
        reason: &str,
    ) -> Result<(), JobError> {
        let mut records = self.records();
        if let Some(log) = &mut records.audit {
            log.released(device, reason)?;
        }
        records.tell(device, &Finding::released(&identity, reason))
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
        self.records()
            .tell(device, &Finding::certified(certificate))
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
        drop(records);
        // It has not left yet. It is the same one, however often it is told.
        let made = patiently(&self.records, |records| match &records.registry {
            Some(registry) => registry.order_made(&order.bytes).map(|_| ()),
            None => Ok(()),
        });
        made.map_err(witness)?;
        Ok(order)
    }

    fn receipt(&mut self, order: &Digest, receipt: &SignedReceipt) -> Result<(), DeviceError> {
        let mut records = self.records();
        if let Some(log) = &mut records.audit {
            log.answered(order, receipt).map_err(unwitnessed)?;
        }
        match verify::receipt_device(receipt) {
            Some(device) => {
                let told = records.tell(device, &Finding::moved(receipt));
                told.map_err(unwitnessed)
            }
            None => Ok(()),
        }
    }
}
