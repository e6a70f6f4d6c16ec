//! What became of each key: wrapped = proved + failed + open. (And those of which no proof was demanded.)

use keyferry_protocol::identity::{DeviceId, Digest, Fingerprint};
use keyferry_protocol::order::{Header, Inject};
use keyferry_protocol::proof::Proof;
use keyferry_protocol::receipt::SlotReport;
use keyferry_protocol::suite::Suite;
use keyferry_protocol::{MAX_ENTRIES, MAX_SLOTS};

use super::super::fault::Fault;
use super::super::record::{Failed, JobId, Ordered, Proved, Work, Wrapped};
use super::Checker;
use super::orders::{Answer, Orders};

/// Keys that were wrapped for one order, not all of them done.
pub(super) struct Job {
    device: DeviceId,
    unwrap: Fingerprint,
    suite: Suite,
    pub(super) order: Option<Digest>,
    keys: Vec<Key>,
}

struct Key {
    slot: u16,
    version: u32,
    label: String,
    proof: Proof,
    fate: Fate,
}

/// What became of a key.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Open,
    Proved,
    Unproved,
    /// It was given up; a proof may still come, of a key that had arrived after all.
    Failed,
}

/// A key that was wrapped, and of which nobody knows yet whether it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenKey {
    /// The device it was wrapped for.
    pub device: DeviceId,
    /// The slot.
    pub slot: u16,
    /// The version.
    pub version: u32,
    /// The slot's label.
    pub label: String,
    /// Its job.
    pub job: JobId,
    /// Its order, if there is one.
    pub order: Option<Digest>,
    /// How far it came.
    pub stage: Stage,
}

/// How far an open key came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It was wrapped, or was about to be; no order carries it.
    Wrapped,
    /// An order carries it, and no answer is in the log.
    Ordered,
    /// The device has refused the order.
    Refused,
    /// The device has applied the order; the proof is still to be verified.
    Applied,
}

impl Stage {
    /// The name used in output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Wrapped => "wrapped",
            Self::Ordered => "ordered",
            Self::Refused => "refused",
            Self::Applied => "applied, proof pending",
        }
    }
}

impl Job {
    /// Whether an order carries these keys, and no others, and none did before; but for one that the device has refused, signed, and
    /// that this one stands for.
    fn fits(&self, header: &Header, inject: &Inject, orders: &Orders) -> bool {
        let before = self.order.map(|order| orders.get(&order));
        let is_next = match before {
            None => true,
            Some(before) => before.is_some_and(|before| before.gives_way_to(header)),
        };
        let same_keys = self.keys.len() == inject.entries.len()
            && self.keys.iter().zip(&inject.entries).all(|(key, entry)| {
                (key.slot, key.version, key.label.as_str(), key.proof)
                    == (entry.slot, entry.version, entry.label.as_str(), entry.proof)
                    && key.fate == Fate::Open
            });
        is_next
            && same_keys
            && (self.device, self.unwrap) == (header.device, header.unwrap)
            && Some(self.suite) == header.suite
    }
}

impl Checker {
    /// All keys that are open, by device and slot.
    pub(in crate::audit) fn open_keys(&self) -> Vec<OpenKey> {
        let mut open = Vec::new();
        for (name, job) in &self.jobs {
            let answer = job.order.and_then(|order| self.orders.get(&order));
            let stage = match (job.order, answer.map(|order| order.answer)) {
                (None, _) => Stage::Wrapped,
                (Some(_), None | Some(Answer::None | Answer::GivenUp)) => Stage::Ordered,
                (Some(_), Some(Answer::Refused)) => Stage::Refused,
                (Some(_), Some(Answer::Applied)) => Stage::Applied,
            };
            let keys = job.keys.iter().filter(|key| key.fate == Fate::Open);
            open.extend(keys.map(|key| OpenKey {
                device: job.device,
                slot: key.slot,
                version: key.version,
                label: key.label.clone(),
                job: *name,
                order: job.order,
                stage,
            }));
        }
        open.sort_by_key(|key| (key.device, key.slot, key.version, key.job));
        open
    }

    pub(super) fn wrapped(&mut self, line: &Wrapped) -> Result<(), Fault> {
        let device = self.trusted(&line.device)?;
        if device.unwrap != line.unwrap {
            return Err(Fault::NotTrusted(line.device));
        }
        if self.jobs.contains_key(&line.job) {
            return Err(Fault::JobTwice);
        }
        let mut taken = [false; MAX_SLOTS];
        for key in &line.keys {
            match taken.get_mut(usize::from(key.slot)) {
                Some(taken) if !*taken => *taken = true,
                Some(_) | None => return Err(Fault::BadKeys),
            }
        }
        if line.keys.is_empty() || line.keys.len() > MAX_ENTRIES {
            return Err(Fault::BadKeys);
        }
        let keys = line.keys.iter().map(|key| Key {
            slot: key.slot,
            version: key.version,
            label: key.label.clone(),
            proof: key.proof,
            fate: Fate::Open,
        });
        let job = Job {
            device: line.device,
            unwrap: line.unwrap,
            suite: line.suite,
            order: None,
            keys: keys.collect(),
        };
        self.tally.wrapped += line.keys.len() as u64;
        self.jobs.insert(line.job, job);
        if let Some(device) = self.devices.get_mut(&line.device) {
            device.jobs.push(line.job);
        }
        Ok(())
    }

    /// An `Inject` carries the keys of its job, and no others.
    pub(super) fn check_job(
        &self,
        line: &Ordered,
        header: &Header,
        inject: &Inject,
    ) -> Result<(), Fault> {
        let Some(job) = line.job else {
            // It may carry a certificate alone.
            return if inject.entries.is_empty() {
                Ok(())
            } else {
                Err(Fault::NoSuchJob)
            };
        };
        let job = self.jobs.get(&job).ok_or(Fault::NoSuchJob)?;
        if job.fits(header, inject, &self.orders) {
            Ok(())
        } else {
            Err(Fault::OtherKeys)
        }
    }

    /// The job whose keys this order carries, the newest of those that fit: an older one may have been left in the middle.
    pub(in crate::audit) fn job_of(&self, header: &Header, inject: &Inject) -> Option<JobId> {
        let jobs = &self.devices.get(&header.device)?.jobs;
        jobs.iter().rev().copied().find(|name| {
            self.jobs
                .get(name)
                .is_some_and(|job| job.fits(header, inject, &self.orders))
        })
    }

    /// A receipt reports slots. What it reports otherwise than asked is not provable, and stays open until it is given up.
    pub(super) fn reported(&mut self, digest: &Digest, reports: &[SlotReport<'_>]) {
        let Some(order) = self.orders.get_mut(digest) else {
            return;
        };
        let mut arrived = Vec::new();
        for asked in &mut order.slots {
            let report = reports.iter().find(|report| asked.is_met_by(report));
            asked.reported = report.map(|report| report.version);
            if asked.reported.is_some() && asked.proof == Proof::None {
                asked.proved = true;
                arrived.push(asked.slot);
            }
        }
        if let Some(job) = order.job {
            for slot in arrived {
                self.settle(job, slot, Fate::Unproved);
            }
        }
        self.finish_order(digest);
    }

    pub(super) fn proved(&mut self, line: &Proved) -> Result<(), Fault> {
        let order = self.order(&line.order)?;
        if order.device != line.device {
            return Err(Fault::OtherDevice);
        }
        if order.answer != Answer::Applied {
            return Err(Fault::NotApplied);
        }
        let mut proved = Vec::new();
        for slot in &line.slots {
            let asked = order.slots.iter().find(|asked| asked.slot == slot.slot);
            let asked = asked.ok_or(Fault::NotReported(slot.slot))?;
            let Some(version) = asked.reported.filter(|_| asked.proof == slot.proof) else {
                return Err(Fault::NotReported(slot.slot));
            };
            if asked.proved || slot.proof == Proof::None || proved.contains(&(slot.slot, version)) {
                return Err(Fault::NotOpen(slot.slot));
            }
            proved.push((slot.slot, version));
        }
        let job = order.job;
        for (slot, version) in proved {
            let arrived = match job {
                Some(job) => Some(job),
                None => self.arrived_before(&line.device, slot, version),
            };
            match arrived {
                Some(job) => self.settle(job, slot, Fate::Proved),
                None => self.tally.proofs_again += 1,
            }
            let order = self.orders.get_mut(&line.order);
            for asked in order.into_iter().flat_map(|order| &mut order.slots) {
                asked.proved |= asked.slot == slot;
            }
        }
        self.finish_order(&line.order);
        Ok(())
    }

    /// The job whose key a later `Prove` has shown to be in its slot: its own receipt or proof was lost. A job whose order the
    /// device has refused brought no key, and one for other device keys none to this device. Of several that may have, the one whose order is known
    /// to be applied did; then one that nobody has given up; then the newest, since a device takes no version twice.
    fn arrived_before(&self, device: &DeviceId, slot: u16, version: u32) -> Option<JobId> {
        let device = self.devices.get(device)?;
        let may_have = |name: &JobId| {
            let job = self.jobs.get(name)?;
            let answer = self.orders.get(&job.order?).map(|order| order.answer);
            let key = job.keys.iter().find(|key| {
                (key.slot, key.version) == (slot, version)
                    && matches!(key.fate, Fate::Open | Fate::Failed)
            })?;
            let brings = job.unwrap == device.unwrap && answer != Some(Answer::Refused);
            brings.then_some((answer == Some(Answer::Applied), key.fate == Fate::Open))
        };
        let jobs = device.jobs.iter().enumerate();
        let likely = jobs.filter_map(|(age, name)| Some((may_have(name)?, age, *name)));
        likely
            .max_by_key(|(likelihood, age, _)| (*likelihood, *age))
            .map(|(_, _, name)| name)
    }

    pub(super) fn failed(&mut self, line: &Failed) -> Result<(), Fault> {
        let job = match line.work {
            Work::Job(job) => Some(job),
            Work::Order(order) => self.order(&order)?.job,
        };
        if let Some(name) = job {
            let job = self.jobs.get(&name).ok_or(Fault::NoSuchJob)?;
            let is_open = |slot: u16| {
                job.keys
                    .iter()
                    .any(|key| key.slot == slot && key.fate == Fate::Open)
            };
            let slots: Vec<u16> = if line.slots.is_empty() {
                let open = job.keys.iter().filter(|key| key.fate == Fate::Open);
                open.map(|key| key.slot).collect()
            } else {
                line.slots.clone()
            };
            let mut seen = [false; MAX_SLOTS];
            for &slot in &slots {
                match seen.get_mut(usize::from(slot)) {
                    Some(seen) if is_open(slot) && !*seen => *seen = true,
                    Some(_) | None => return Err(Fault::NotOpen(slot)),
                }
            }
            if slots.is_empty() {
                return Err(Fault::NoSuchJob);
            }
            for slot in slots {
                self.settle(name, slot, Fate::Failed);
            }
        } else if let Work::Order(order) = line.work {
            if !line.slots.is_empty() {
                return Err(Fault::BadKeys);
            }
            if let Some(order) = self.orders.get_mut(&order) {
                order.answer = match order.answer {
                    // Its proofs are given up: nothing more can come.
                    Answer::Applied => Answer::Applied,
                    Answer::None | Answer::Refused | Answer::GivenUp => Answer::GivenUp,
                };
            }
            if self.order(&order)?.answer == Answer::Applied {
                self.orders.remove(&order);
            }
        }
        Ok(())
    }

    /// Writes down what became of a key, and forgets its job once no key of it can change any more.
    fn settle(&mut self, name: JobId, slot: u16, fate: Fate) {
        let Some(job) = self.jobs.get_mut(&name) else {
            return;
        };
        let tally = &mut self.tally;
        for key in job.keys.iter_mut().filter(|key| key.slot == slot) {
            if key.fate == Fate::Failed {
                tally.failed -= 1;
            }
            key.fate = fate;
            match fate {
                Fate::Open => {}
                Fate::Proved => tally.proved += 1,
                Fate::Unproved => tally.unproved += 1,
                Fate::Failed => tally.failed += 1,
            }
        }
        let done = |key: &Key| matches!(key.fate, Fate::Proved | Fate::Unproved);
        if job.keys.iter().all(done) {
            let (device, order) = (job.device, job.order);
            self.jobs.remove(&name);
            if let Some(order) = order {
                self.orders.remove(&order);
            }
            if let Some(device) = self.devices.get_mut(&device) {
                device.jobs.retain(|job| *job != name);
            }
        }
    }

    /// Forgets an order without keys of its own once all it asked for is proved.
    fn finish_order(&mut self, digest: &Digest) {
        let done = self.orders.get(digest).is_some_and(|order| {
            order.job.is_none() && order.slots.iter().all(|asked| asked.proved)
        });
        if done {
            self.orders.remove(digest);
        }
    }
}
