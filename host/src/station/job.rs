//! One device's job: wrap, order, deliver, check proofs.

use heapless::String as Fixed;
use keyferry_protocol::identity::{Challenge, DeviceId, Fingerprint};
use keyferry_protocol::order::MAX_LABEL;
use keyferry_protocol::proof::{Level, Proof, proof_input};
use keyferry_protocol::receipt::Refusal;
use keyferry_protocol::suite::Suite;

use super::hsm::{Hsm, KeyCard, Recipient};
use super::journal::JournalError;
use super::policy::{PolicyError, Rules};
use super::registry::RegistryError;
use super::visit::Visit;
use crate::audit::AuditError;
use crate::broker::BrokerError;
use crate::certificate::{CertificateError, Document, MAXIMUM_DEVICE_CERTIFICATE};
use crate::device::DeviceError;
use crate::device::flow::{self, Demand, Parcel, Proofs, Shipment};
use crate::device::session::{OnProgress, Session};
use crate::device::verify::{SlotReport, Statement};
use crate::export::ExportError;
use crate::hsm::{Asked, HsmError, PublicKeyError, Question, random};

/// Why a job failed.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The HSM.
    #[error(transparent)]
    Hsm(#[from] HsmError),
    /// The device or the line.
    #[error(transparent)]
    Device(DeviceError),
    /// A policy forbids it.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The audit log.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A key that was to go to a backend as well.
    #[error(transparent)]
    Export(Box<ExportError>),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A blank device was to get keys.
    #[error("the device on '{port}' is not enrolled")]
    NotEnrolled {
        /// The port.
        port: String,
    },
    /// A device says that it is quarantined, and nobody has said that this one is to begin anew.
    #[error(
        "the device on this port says that it is {device}, and quarantined: nothing vouches for either"
    )]
    Quarantined {
        /// The device, as it says.
        device: DeviceId,
    },
    /// A device was named as quarantined, and the one on the port is not.
    #[error("device {device} is on this port, and is not quarantined: it was not wiped")]
    NotQuarantined {
        /// The device, as it says.
        device: DeviceId,
    },
    /// A quarantined device is to begin anew, and nothing says which counters it has had.
    #[error("device {device} is quarantined, and no registry knows which counters its orders had")]
    CounterUnknown {
        /// The device, as it says.
        device: DeviceId,
    },
    /// The policy asks for a certificate, and the device has none.
    #[error("device {device} has no certificate")]
    NoCertificate {
        /// The device, as it says.
        device: DeviceId,
    },
    /// The certificate that a device shows is of another key than its own.
    #[error("device {device} has the identity key {expected}, and shows a certificate of {found}")]
    OtherCertificate {
        /// The device, as it says.
        device: DeviceId,
        /// Its key, as it says.
        expected: Fingerprint,
        /// The key in the certificate.
        found: Fingerprint,
    },
    /// A certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The broker that holds the token's login.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The device's unwrap key is not fit to wrap to.
    #[error("the device's unwrap key cannot be used: {0}")]
    UnwrapKey(#[from] PublicKeyError),
    /// Token and device have no suite in common.
    #[error("token and device have no suite in common (the device allows: {})", names(.device))]
    NoCommonSuite {
        /// What the device allows.
        device: Vec<Suite>,
    },
    /// The token can do none of the suites that are allowed.
    #[error("the token can do none of the suites by which the plan lets keys travel ({})", names(.suites))]
    NoSuite {
        /// Those that were tried.
        suites: Vec<Suite>,
    },
    /// The device refused the keys for what is, or was, in a slot.
    #[error("device {device} refused version {version} of the keys for {}: {refusal}", slots_in_words(.slots))]
    SlotRefused {
        /// The device.
        device: DeviceId,
        /// The slots that it may mean: by its own word, which is not signed, or all that the order was for.
        slots: Vec<u16>,
        /// The keys' version.
        version: u32,
        /// Its reason, which is signed.
        refusal: Refusal,
    },
    /// The label does not fit into a slot.
    #[error("label '{0}' is longer than {MAX_LABEL} bytes")]
    LabelTooLong(String),
    /// The key in a slot is not the token's.
    #[error("the proof of slot {slot} is wrong: it does not hold the token's key '{label}'")]
    ProofWrong {
        /// The slot.
        slot: u16,
        /// The key that should be in it.
        label: String,
    },
    /// A slot holds another version of its key than it should.
    #[error("slot {slot} of device {device} holds version {found} of its key, and not {expected}")]
    OtherVersion {
        /// The device.
        device: DeviceId,
        /// The slot.
        slot: u16,
        /// The version that it holds, by the device's signed word.
        found: u32,
        /// The version that it should hold.
        expected: u32,
    },
    /// A key cannot show as much as is demanded.
    #[error("the best proof of key '{label}' is {}, of level {}, and {minimum} is demanded", .proof.name(), .proof.level())]
    ProofTooWeak {
        /// The key.
        label: String,
        /// The best proof it permits.
        proof: Proof,
        /// What is demanded.
        minimum: Level,
    },
}

impl From<ExportError> for JobError {
    fn from(error: ExportError) -> Self {
        Self::Export(Box::new(error))
    }
}

impl From<DeviceError> for JobError {
    /// What a witness says is said as what it is.
    fn from(error: DeviceError) -> Self {
        let DeviceError::Witness(source) = error else {
            return Self::Device(error);
        };
        match source.downcast::<AuditError>() {
            Ok(error) => Self::Audit(*error),
            Err(source) => match source.downcast::<RegistryError>() {
                Ok(error) => Self::Registry(*error),
                Err(source) => match source.downcast::<JournalError>() {
                    Ok(error) => Self::Journal(*error),
                    Err(source) => Self::Device(DeviceError::Witness(source)),
                },
            },
        }
    }
}

impl JobError {
    /// The next move, for a person.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Hsm(error) => error.hint(),
            Self::Device(error) => Some(error.hint().to_owned()),
            Self::Policy(error) => error.hint(),
            Self::Audit(error) => error.hint(),
            Self::Registry(error) => error.hint(),
            Self::Journal(error) => Some(error.hint().to_owned()),
            Self::Export(error) => error.hint(),
            Self::NotEnrolled { .. } => Some("run `keyferry device enroll` first".to_owned()),
            Self::Quarantined { device } => Some(format!(
                "compare it with the label; if it is this one, and it may lose all its keys: `keyferry device wipe --quarantined {device} --yes`, with the port, the token, the authority, the policy, the registry and the audit log that it is worked with"
            )),
            Self::NotQuarantined { .. } => Some(
                "check which device is plugged in; one that is blank now may have been wiped just before, with its answer lost: `keyferry registry release --registry REGISTRY --audit LOG --reason WHY DEVICE-ID` lets go of it; without --quarantined, the command wipes whichever device the policy accepts".to_owned(),
            ),
            Self::CounterUnknown { .. } => Some(
                "give the registry that it was enrolled with, or --counter with a number above those of all orders that were ever made for it"
                    .to_owned(),
            ),
            Self::NoCertificate { .. } => Some(
                "inject with --ca-key and --ca-certificate once, at the station that enrolled it".to_owned(),
            ),
            Self::OtherCertificate { .. } => {
                Some("take this device off the line: it shows somebody else's certificate".to_owned())
            }
            Self::Certificate(error) => error.hint(),
            Self::Broker(error) => error.hint(),
            Self::UnwrapKey(error) => error.hint(),
            Self::NoCommonSuite { .. } => Some(
                "`keyferry hsm probe` tells which suites the token can do: allow one of them, or enrol the device with another kind of unwrap key".to_owned(),
            ),
            Self::NoSuite { .. } => Some(
                "`keyferry hsm probe` tells which it can do: name one of them in the plan, or another token".to_owned(),
            ),
            Self::SlotRefused { refusal, .. } => {
                let (refusal, signed) = (*refusal, true);
                Some(DeviceError::Refused { refusal, signed }.hint().to_owned())
            }
            Self::LabelTooLong(_) => Some("give the key a shorter label on the token".to_owned()),
            Self::ProofWrong { .. } => Some(
                "do not ship this device: inject the key again with a higher --version".to_owned(),
            ),
            Self::OtherVersion { .. } => Some(
                "find out what was done with it since: `keyferry registry show` tells what the registry knows".to_owned(),
            ),
            Self::ProofTooWeak { .. } => Some(
                "give the key another use on the device, let the token check it (CKA_VERIFY, CKA_SIGN, CKA_DERIVE, CKA_ENCRYPT), or lower --minimum-proof (minimum-proof in a plan)".to_owned(),
            ),
        }
    }
}

/// `slot 3`, `slots 1, 2`.
pub(crate) fn slots_in_words(slots: &[u16]) -> String {
    let numbers: Vec<_> = slots.iter().map(u16::to_string).collect();
    let word = if slots.len() == 1 { "slot" } else { "slots" };
    format!("{word} {}", numbers.join(", "))
}

fn names(suites: &[Suite]) -> String {
    let names: Vec<_> = suites.iter().map(|suite| suite.name()).collect();
    names.join(", ")
}

/// A key and the slot it belongs in.
#[derive(Clone, Debug)]
pub struct Target {
    /// The key.
    pub key: KeyCard,
    /// The slot.
    pub slot: u16,
}

/// What goes to a device, and how.
pub struct Shipping<'a> {
    /// How the KEK travels.
    pub suite: Suite,
    /// The version of every key.
    pub version: u32,
    /// The keys and their slots.
    pub targets: &'a [Target],
    /// The least that every key must show.
    pub minimum: Level,
    /// A certificate for the device's identity key, X.509 in DER.
    pub certificate: Option<Vec<u8>>,
}

/// A slot whose key was proved.
#[derive(Clone, Debug)]
pub struct Proved {
    /// The slot.
    pub slot: u16,
    /// The key's label on the token.
    pub label: String,
    /// Its type, in words.
    pub key_type: String,
    /// How it was proved.
    pub proof: Proof,
}

/// The strongest suite that the device's statement offers, the rules allow and the HSM really does.
///
/// # Errors
/// [`JobError::NoCommonSuite`], and those of the HSM.
pub fn choose_suite(hsm: &dyn Hsm, rules: &Rules, device: &Statement) -> Result<Suite, JobError> {
    for suite in rules.permitted_suites(device) {
        if hsm.supports(suite)? {
            return Ok(suite);
        }
    }
    Err(JobError::NoCommonSuite {
        device: device.suites.clone(),
    })
}

/// Checks that slots take the keys' labels and that every key will show as much as is demanded, before anything is wrapped.
///
/// # Errors
/// [`JobError::LabelTooLong`], [`JobError::ProofTooWeak`].
pub fn check_targets(targets: &[Target], minimum: Level) -> Result<(), JobError> {
    let too_long = |target: &&Target| target.key.name().len() > MAX_LABEL;
    if let Some(target) = targets.iter().find(too_long) {
        return Err(JobError::LabelTooLong(target.key.name()));
    }
    check_proofs(targets, minimum)
}

/// Checks that every key will show as much as is demanded.
///
/// # Errors
/// [`JobError::ProofTooWeak`].
pub fn check_proofs(targets: &[Target], minimum: Level) -> Result<(), JobError> {
    match targets
        .iter()
        .find(|target| target.key.proof.level() < minimum)
    {
        None => Ok(()),
        Some(target) => Err(JobError::ProofTooWeak {
            label: target.key.name(),
            proof: target.key.proof,
            minimum,
        }),
    }
}

/// The serial number in the certificate that the device holds for its identity key, if it holds one. All of that is its own word.
///
/// # Errors
/// Those of the device.
pub(super) fn certified_as(session: &mut Session) -> Result<Option<String>, JobError> {
    let identity = session.greeting().identity;
    if !session.greeting().certified {
        return Ok(None);
    }
    let certificate = match flow::certificate(session) {
        // It cannot be read any more: the device needs another one.
        Err(DeviceError::Refused { .. }) => None,
        certificate => certificate?,
    };
    Ok(certificate.and_then(|certificate| serial_in(&certificate, identity)))
}

/// The serial number in a device's certificate, if it can be read and is for this identity key.
pub(super) fn serial_in(certificate: &[u8], identity: Fingerprint) -> Option<String> {
    let document = Document::read(certificate, MAXIMUM_DEVICE_CERTIFICATE).ok()?;
    let key = document.key().ok()?.fingerprint();
    let serial = document.device_serial().ok()?;
    (key == identity).then(|| serial.to_owned())
}

/// A certificate for a device that holds none, or one that says something else than its label, or when it is asked for anew. What it holds is the device's
/// own word: a lie costs a certificate. The label is the one that the registry has; without a registry, `serial`.
///
/// # Errors
/// [`JobError`].
pub fn certify(
    visit: &mut Visit,
    hsm: &dyn Hsm,
    serial: Option<&str>,
    anew: bool,
) -> Result<Option<Vec<u8>>, JobError> {
    if !hsm.certifies() {
        return Ok(None);
    }
    let record = visit.scribe.record(visit.statement.device)?;
    let label = record.as_ref().map_or(serial, |it| it.serial.as_deref());
    // Without a label the device's word is enough: it is not asked for more.
    let fits = match label {
        None => visit.session.greeting().certified,
        Some(label) => certified_as(&mut visit.session)?.is_some_and(|held| held == label),
    };
    if fits && !anew {
        return Ok(None);
    }
    let certificate = hsm.certify(visit.recipient(), label)?;
    if let Some(certificate) = &certificate {
        visit
            .scribe
            .certified(visit.statement.device, certificate)?;
    }
    Ok(certificate)
}

/// Wraps the targets toward the device's unwrap key under one KEK, sends one order, and has the HSM verify every proof.
///
/// # Errors
/// [`JobError`].
pub fn inject(
    visit: &mut Visit,
    hsm: &dyn Hsm,
    shipping: &Shipping<'_>,
    on_progress: &mut OnProgress<'_>,
) -> Result<Vec<Proved>, JobError> {
    check_targets(shipping.targets, shipping.minimum)?;
    let scribe = visit.scribe.clone();
    scribe.wrapping(&hsm.name(), &visit.statement, shipping)?;
    let given_up = |error: JobError| match scribe.failed(&error.to_string()) {
        Ok(()) => error,
        Err(unwritten) => unwritten,
    };
    let (shipment, questions) = pack(hsm, visit.recipient(), shipping).map_err(given_up)?;
    let challenge = Challenge(random()?);
    let proofs = flow::inject(
        &mut visit.session,
        hsm.authority(),
        &visit.statement,
        &shipment,
        challenge,
        on_progress,
    )
    .map_err(|error| {
        let slots: Vec<_> = shipping.targets.iter().map(|target| target.slot).collect();
        let device = visit.statement.device;
        let error = name_slots(&mut visit.session, device, &slots, shipping.version, error);
        // Where nobody knows whether the device has the keys, the log says `open` until somebody does.
        if matches!(&error, JobError::Device(error) if error.leaves_order_open()) {
            error
        } else {
            given_up(error)
        }
    })?;
    visit.statement.standing = proofs.standing;
    // Where the proofs cannot be checked, the keys stay open: the device has them, and a later `prove` settles it.
    check(visit, hsm, shipping.targets, questions, &proofs)
}

/// A device says only that a slot is taken. Which one it is, a person learns here.
pub(super) fn name_slots(
    session: &mut Session,
    device: DeviceId,
    wanted: &[u16],
    version: u32,
    error: DeviceError,
) -> JobError {
    let DeviceError::Refused {
        refusal: refusal @ (Refusal::SlotTaken | Refusal::VersionRollback),
        signed: true,
    } = error
    else {
        return error.into();
    };
    // Where it is in doubt, all of them. A removed key's version still counts, and is in no list.
    let full = flow::list(session).unwrap_or_default();
    let is_full = |slot: &u16| {
        full.iter()
            .any(|one| one.slot == *slot && one.version >= version)
    };
    let mut slots: Vec<_> = wanted.iter().copied().filter(is_full).collect();
    if slots.is_empty() {
        slots = wanted.to_vec();
    }
    JobError::SlotRefused {
        device,
        slots,
        version,
        refusal,
    }
}

/// Wraps the targets: what an order for them needs, and the questions that stand in it.
///
/// # Errors
/// [`JobError`].
pub fn pack(
    hsm: &dyn Hsm,
    recipient: Recipient<'_>,
    shipping: &Shipping<'_>,
) -> Result<(Shipment, Vec<Question>), JobError> {
    check_targets(shipping.targets, shipping.minimum)?;
    let keys: Vec<_> = shipping.targets.iter().map(|target| &target.key).collect();
    let wrapped = hsm.wrap(recipient, shipping.suite, &keys)?;
    let mut parcels = Vec::new();
    let mut questions = Vec::new();
    for (target, blob) in shipping.targets.iter().zip(wrapped.blobs) {
        let label = target.key.name();
        let question = question(hsm, &target.key)?;
        parcels.push(Parcel {
            slot: target.slot,
            version: shipping.version,
            attributes: target.key.attributes,
            label: Fixed::try_from(label.as_str()).map_err(|_| JobError::LabelTooLong(label))?,
            proof: target.key.proof,
            question: question.bytes.clone(),
            blob,
        });
        questions.push(question);
    }
    let shipment = Shipment {
        suite: shipping.suite,
        certificate: shipping.certificate.clone(),
        kek: wrapped.kek_blob,
        parcels,
    };
    Ok((shipment, questions))
}

/// The question for a key's proof. Most have none, and then the HSM is not asked: the key may be nowhere but in the device.
fn question(hsm: &dyn Hsm, key: &KeyCard) -> Result<Question, JobError> {
    match key.attributes.kind() {
        Ok(kind) if key.proof.question_length(kind, &key.attributes) == 0 => {
            Ok(Question::default())
        }
        Ok(_) | Err(_) => hsm.ask(key),
    }
}

/// What an order for proofs of the targets asks for, and the questions that stand in it.
pub(super) fn demand(
    hsm: &dyn Hsm,
    targets: &[Target],
) -> Result<(Vec<Demand>, Vec<Question>), JobError> {
    let mut demands = Vec::new();
    let mut questions = Vec::new();
    for target in targets {
        let question = question(hsm, &target.key)?;
        demands.push(Demand {
            slot: target.slot,
            proof: target.key.proof,
            question: question.bytes.clone(),
        });
        questions.push(question);
    }
    Ok((demands, questions))
}

/// Has the targets' slots proved, and the HSM verify every proof. `versions` says which version a slot is to hold, where that is known: a
/// key of another version is another key, and nobody is asked to verify that one's proof.
///
/// # Errors
/// [`JobError::OtherVersion`]; [`JobError`].
pub fn prove(
    visit: &mut Visit,
    hsm: &dyn Hsm,
    targets: &[Target],
    versions: &dyn Fn(u16) -> Option<u32>,
    minimum: Level,
    on_progress: &mut OnProgress<'_>,
) -> Result<Vec<Proved>, JobError> {
    check_proofs(targets, minimum)?;
    let (demands, questions) = demand(hsm, targets)?;
    let challenge = Challenge(random()?);
    let proofs = flow::prove(
        &mut visit.session,
        hsm.authority(),
        &visit.statement,
        &demands,
        challenge,
        on_progress,
    )?;
    visit.statement.standing = proofs.standing;
    let other = proofs.reports.iter().find_map(|report| {
        let expected = versions(report.slot).filter(|expected| *expected != report.version)?;
        Some(JobError::OtherVersion {
            device: visit.statement.device,
            slot: report.slot,
            found: report.version,
            expected,
        })
    });
    if let Some(error) = other {
        let (device, order) = (visit.statement.device, proofs.order);
        visit.scribe.wrong(device, order, &[], &error.to_string())?;
        return Err(error);
    }
    check(visit, hsm, targets, questions, &proofs)
}

fn check(
    visit: &Visit,
    hsm: &dyn Hsm,
    targets: &[Target],
    questions: Vec<Question>,
    proofs: &Proofs,
) -> Result<Vec<Proved>, JobError> {
    let mut proved = Vec::new();
    let (device, order) = (visit.statement.device, proofs.order);
    let mut slots = Vec::new();
    for ((target, question), report) in targets.iter().zip(questions).zip(&proofs.reports) {
        let input = proof_input(&order, report.slot, &proofs.challenge);
        let asked = question.sealed(&input);
        match check_one(hsm, target, &asked, &input, report) {
            Ok(()) => {}
            // One wrong proof fails all of the order: whatever gave it is not what it should be.
            Err(error @ JobError::ProofWrong { .. }) => {
                let all = proofs.reports.iter();
                let all: Vec<_> = all.map(|report| (report.slot, report.version)).collect();
                visit
                    .scribe
                    .wrong(device, order, &all, &error.to_string())?;
                return Err(error);
            }
            Err(error) => return Err(error),
        }
        slots.push((report.slot, report.version, report.proof));
        proved.push(Proved {
            slot: report.slot,
            label: target.key.name(),
            key_type: target.key.key_type.clone(),
            proof: report.proof,
        });
    }
    visit.scribe.proved(device, order, &slots)?;
    Ok(proved)
}

/// Has the HSM verify one proof, which must be the one that was demanded.
///
/// # Errors
/// [`JobError::ProofWrong`].
pub fn check_one(
    hsm: &dyn Hsm,
    target: &Target,
    asked: &Asked,
    input: &[u8],
    report: &SlotReport,
) -> Result<(), JobError> {
    // That there is none was asked for by whoever lowered the minimum.
    let right = report.proof == target.key.proof
        && (report.proof == Proof::None || hsm.verify(&target.key, asked, input, &report.value)?);
    if right {
        Ok(())
    } else {
        Err(JobError::ProofWrong {
            slot: report.slot,
            label: target.key.name(),
        })
    }
}
