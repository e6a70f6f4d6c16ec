//! Making detached orders, where the HSM is. Nothing is wrapped before it is written down, and the folder appears when all of it is
//! there.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use der::DateTime;
use keyferry_protocol::identity::{Challenge, DeviceId, Digest};
use keyferry_protocol::order::{Freshness, MAX_COUNTER_STEP};
use keyferry_protocol::proof::proof_input;
use keyferry_protocol::receipt::State;

use super::batch::{Batch, BatchKey, BatchOrder, MAXIMUM_ORDERS};
use super::books;
use super::error::OfflineError;
use super::folder::BatchFolder;
use super::order_file::DetachedOrder;
use super::work::{Injection, Work};
use crate::device::flow::{
    Authority, SignedOrder, Terms, address, inject_order, lock_order, prove_order, remove_order,
    wipe_order,
};
use crate::device::verify::{Statement, digest, fingerprint};
use crate::device::{DeviceError, Witness as _};
use crate::export::ExportError;
use crate::hsm::{HsmError, PublicKey, Question, random};
use crate::station::job::{demand, serial_in};
use crate::station::policy::Rules;
use crate::station::registry::RegistryError;
use crate::station::{
    Hsm, JobError, KeyCard, Recipient, Records, Scribe, Shipping, Target, check_proofs,
    check_targets, choose_suite, pack,
};

/// Makes the orders of a batch.
pub struct Preparation<'a> {
    /// The HSM.
    pub hsm: &'a dyn Hsm,
    /// Which devices are believed.
    pub rules: &'a Rules,
    /// Where all of it is written down; there must be a registry.
    pub records: &'a Arc<Mutex<Records>>,
    /// What the orders are to do.
    pub work: &'a Work,
}

/// An order that is ready.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// What the manifest says of it.
    pub entry: BatchOrder,
    /// The file.
    pub file: Vec<u8>,
    /// Whether the device gets a certificate with its keys.
    pub certified: bool,
}

impl Preparation<'_> {
    /// Makes an order for each of these devices, and the folder `path` with all of them. If one cannot be made, none is: those before
    /// it are given up, and there is no folder. `on_order` is told of each.
    ///
    /// # Errors
    /// [`OfflineError`].
    pub fn batch(
        &self,
        devices: &[DeviceId],
        path: &Path,
        on_order: &mut dyn FnMut(&Prepared),
    ) -> Result<Batch, OfflineError> {
        if path.symlink_metadata().is_ok() {
            return Err(ExportError::FolderExists(path.into()).into());
        }
        if devices.len() > MAXIMUM_ORDERS {
            return Err(OfflineError::TooMany(devices.len()));
        }
        let mut orders = Vec::new();
        let result = devices
            .iter()
            .try_for_each(|device| {
                let prepared = self.order(*device)?;
                on_order(&prepared);
                orders.push(prepared);
                Ok(())
            })
            .and_then(|()| finish(self.hsm.authority(), path, &orders));
        if let Err(error) = &result {
            let reason = format!("the batch was not made: {error}");
            for prepared in &orders {
                let scribe = Scribe::new(Arc::clone(self.records));
                books::given_up(&mut scribe.records(), &prepared.entry.order, &reason)?;
            }
        }
        result
    }

    /// Makes the order for one device. It is written down; it is not in any folder yet.
    ///
    /// # Errors
    /// [`OfflineError::OtherAuthority`], [`OfflineError::TooFar`], [`OfflineError::KeepUnder`], [`OfflineError::Job`].
    pub fn order(&self, device: DeviceId) -> Result<Prepared, OfflineError> {
        let scribe = Scribe::new(Arc::clone(self.records));
        let Known {
            statement,
            certificate,
            serial,
            counter,
        } = look_up(&scribe, device)?;
        let ours = fingerprint(self.hsm.authority().public_key());
        if statement.authority != ours {
            return Err(OfflineError::OtherAuthority {
                device,
                expected: ours,
                found: statement.authority,
            });
        }
        let own = statement.standing.counter;
        if counter <= own || counter - own > MAX_COUNTER_STEP {
            return Err(OfflineError::TooFar {
                device,
                own,
                counter,
            });
        }
        let trust = self.rules.visit(
            &statement,
            certificate.as_deref(),
            &*scribe.records(),
            SystemTime::now(),
        );
        let trust = trust.map_err(JobError::from)?;
        books::known(&scribe, &statement, &trust)?;
        let to = Addressee {
            statement: &statement,
            counter,
            certificate: certificate.as_deref(),
            serial: serial.as_deref(),
        };
        let made = match self.make(&mut scribe.clone(), to) {
            Err(error) => {
                scribe.failed(&error.to_string())?;
                return Err(error);
            }
            Ok(made) => made,
        };
        let order = made.order.digest();
        let result = describe(&scribe, to, made);
        if let Err(error) = &result {
            books::given_up(&mut scribe.records(), &order, &error.to_string())?;
        }
        result
    }

    fn make(&self, scribe: &mut Scribe, to: Addressee<'_>) -> Result<Made, OfflineError> {
        let authority = self.hsm.authority();
        let terms = |head| to.terms(head);
        let order = match self.work {
            Work::Inject(injection) => return self.inject(scribe, to, injection),
            Work::Prove { targets } => return self.prove(scribe, to, targets),
            Work::Remove(slots) => {
                scribe.order(&mut |head| remove_order(authority, terms(head), slots))?
            }
            Work::Lock => scribe.order(&mut |head| lock_order(authority, terms(head)))?,
            Work::Wipe => scribe.order(&mut |head| wipe_order(authority, terms(head)))?,
        };
        Ok(Made::alone(order))
    }

    fn inject(
        &self,
        scribe: &mut Scribe,
        to: Addressee<'_>,
        injection: &Injection,
    ) -> Result<Made, OfflineError> {
        let hsm = self.hsm;
        let statement = to.statement;
        let suite = match injection.suite {
            Some(suite) => suite,
            None => choose_suite(hsm, self.rules, statement)?,
        };
        let fresh = fresh_targets(hsm, injection)?;
        let targets = [injection.targets.as_slice(), &fresh].concat();
        let minimum = self.rules.minimum_proof;
        check_targets(&targets, minimum)?;
        let recipient = Recipient {
            statement,
            certificate: to.certificate,
        };
        // Whether the device has got the one that the registry knows of, nobody can say before it has its first keys: its order may never have left.
        let first = statement.standing.state == State::Enrolled;
        let held = to
            .certificate
            .map(|certificate| serial_in(certificate, fingerprint(&statement.identity_key)));
        let is_anothers =
            held.is_some_and(|held| to.serial.is_some() && held.as_deref() != to.serial);
        let certificate = if first || is_anothers || injection.recertify {
            hsm.certify(recipient, to.serial)?
        } else {
            None
        };
        if let Some(certificate) = &certificate {
            scribe.certified(statement.device, certificate)?;
        }
        let certified = certificate.is_some();
        let shipping = Shipping {
            suite,
            version: injection.version,
            targets: &targets,
            minimum,
            certificate,
        };
        scribe.wrapping(&hsm.name(), statement, &shipping)?;
        let (shipment, questions) = pack(hsm, recipient, &shipping)?;
        let challenge = Challenge(random()?);
        let authority = hsm.authority();
        let order = scribe
            .order(&mut |head| inject_order(authority, to.terms(head), &shipment, challenge))?;
        let version = Some(injection.version);
        let keys = batch_keys(&targets, questions, &order.digest(), challenge, version);
        Ok(Made {
            order,
            blobs: shipment.blobs().cloned().collect(),
            keys,
            fresh,
            certified,
        })
    }

    fn prove(
        &self,
        scribe: &mut Scribe,
        to: Addressee<'_>,
        targets: &[Target],
    ) -> Result<Made, OfflineError> {
        check_proofs(targets, self.rules.minimum_proof)?;
        let (demands, questions) = demand(self.hsm, targets)?;
        let challenge = Challenge(random()?);
        let authority = self.hsm.authority();
        let order = scribe
            .order(&mut |head| prove_order(authority, to.terms(head), &demands, challenge))?;
        let keys = batch_keys(targets, questions, &order.digest(), challenge, None);
        Ok(Made {
            keys,
            ..Made::alone(order)
        })
    }
}

/// A device that an order is prepared for.
#[derive(Clone, Copy)]
struct Addressee<'a> {
    /// Its statement, verified, with the standing of its newest receipt.
    statement: &'a Statement,
    /// The device's counter once the order is applied: one above its own, and above those of orders that are on their way to it.
    counter: u32,
    /// The certificate that it has, X.509 in DER.
    certificate: Option<&'a [u8]>,
    /// The serial number on its label.
    serial: Option<&'a str>,
}

impl Addressee<'_> {
    fn terms(&self, audit_head: Digest) -> Terms {
        Terms {
            address: address(self.statement),
            // Good for one use: the device's counter then reaches the bound.
            freshness: Freshness::Detached {
                below: self.counter,
            },
            counter: self.counter,
            audit_head,
        }
    }
}

/// An order, and what goes with it.
struct Made {
    order: SignedOrder,
    blobs: Vec<Vec<u8>>,
    keys: Vec<BatchKey>,
    fresh: Vec<Target>,
    certified: bool,
}

impl Made {
    /// An order that no keys go with.
    const fn alone(order: SignedOrder) -> Self {
        Self {
            order,
            blobs: Vec::new(),
            keys: Vec::new(),
            fresh: Vec::new(),
            certified: false,
        }
    }
}

/// Keeps what has to be kept of an order that was made, and describes it.
fn describe(scribe: &Scribe, to: Addressee<'_>, made: Made) -> Result<Prepared, OfflineError> {
    books::keep(scribe, &made.order.digest(), &made.fresh)?;
    let order = DetachedOrder::new(made.order, made.blobs, to.statement.clone())?;
    let file = order.to_json()?;
    let entry = BatchOrder {
        device: to.statement.device,
        identity: order.header.identity,
        unwrap: order.header.unwrap,
        kind: order.header.kind,
        order: order.digest(),
        file: digest(&file),
        counter: order.header.counter,
        below: order.below,
        suite: order.header.suite,
        keys: made.keys,
    };
    Ok(Prepared {
        entry,
        file,
        certified: made.certified,
    })
}

/// What the registry knows of a device.
struct Known {
    statement: Statement,
    certificate: Option<Vec<u8>>,
    serial: Option<String>,
    counter: u32,
}

fn look_up(scribe: &Scribe, device: DeviceId) -> Result<Known, OfflineError> {
    let records = scribe.records();
    let registry = records.registry.as_ref().ok_or(OfflineError::NoRegistry)?;
    let unknown = || RegistryError::UnknownDevice { device };
    let record = registry.find(device)?.ok_or_else(unknown)?;
    Ok(Known {
        statement: record.statement()?,
        counter: registry.next_counter(device)?,
        certificate: record.certificate,
        serial: record.serial,
    })
}

fn fresh_targets(hsm: &dyn Hsm, injection: &Injection) -> Result<Vec<Target>, OfflineError> {
    let mut targets = Vec::new();
    for fresh in &injection.fresh {
        let under = injection
            .keep_under
            .as_deref()
            .ok_or(OfflineError::KeepUnder)?;
        let key = hsm.fresh(&fresh.label(), fresh.key_type, fresh.device_use, under)?;
        targets.push(Target {
            key,
            slot: fresh.slot,
        });
    }
    Ok(targets)
}

/// What the manifest says of the keys. The questions stand in the order; of their answers, only the digest is kept.
fn batch_keys(
    targets: &[Target],
    questions: Vec<Question>,
    order: &Digest,
    challenge: Challenge,
    version: Option<u32>,
) -> Vec<BatchKey> {
    let described = |(target, question): (&Target, Question)| {
        let KeyCard {
            label,
            id,
            key_type,
            attributes,
            proof,
            kept,
            // Orders on files are made without such keys.
            derived: _,
        } = &target.key;
        let asked = question.sealed(&proof_input(order, target.slot, &challenge));
        BatchKey {
            slot: target.slot,
            version,
            label: label.clone(),
            id: id.clone(),
            key_type: key_type.clone(),
            attributes: (*attributes).into(),
            proof: *proof,
            answer: asked.answer,
            fresh: kept.is_some(),
        }
    };
    targets.iter().zip(questions).map(described).collect()
}

/// Has the authority sign the manifest, and writes the folder.
///
/// # Errors
/// [`OfflineError::Document`]; [`OfflineError::Device`] if the authority does not sign.
pub fn finish(
    authority: &dyn Authority,
    path: &Path,
    orders: &[Prepared],
) -> Result<Batch, OfflineError> {
    let key = PublicKey::from_spki_der(authority.public_key()).map_err(JobError::from)?;
    let made = DateTime::from_system_time(SystemTime::now()).map_err(|_| OfflineError::Clock)?;
    let entries = orders.iter().map(|order| order.entry.clone()).collect();
    let batch = Batch::new(random()?, made, key, entries)?;
    let manifest = batch.to_json()?;
    let signature = authority.sign(&manifest).map_err(DeviceError::Authority)?;
    let signature = p256::ecdsa::Signature::from_slice(&signature).map_err(|_| {
        JobError::from(HsmError::UnexpectedLength {
            what: "a P-256 signature".into(),
            expected: "two numbers below the order".into(),
            actual: signature.len(),
        })
    })?;
    let files: Vec<_> = orders
        .iter()
        .map(|order| (order.entry.file_name(), order.file.as_slice()))
        .collect();
    BatchFolder::write(path, &files, &manifest, signature.to_der().as_bytes())?;
    Ok(batch)
}
