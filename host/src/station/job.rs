//! One device's job: wrap, order, deliver, check proofs.

use heapless::String as Fixed;
use keyferry_protocol::identity::Challenge;
use keyferry_protocol::order::MAX_LABEL;
use keyferry_protocol::proof::{Proof, proof_input};
use keyferry_protocol::suite::Suite;

use crate::device::DeviceError;
use crate::device::flow::{self, Authority, Parcel, Proofs, Shipment};
use crate::device::session::{OnProgress, Session};
use crate::device::verify::Statement;
use crate::hsm::{HsmError, KeyInfo, PublicKey, PublicKeyError, Token, random};

/// Why a job failed.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The HSM.
    #[error(transparent)]
    Hsm(#[from] HsmError),
    /// The device or the line.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The device's unwrap key is not fit to wrap to.
    #[error("the device's unwrap key cannot be used: {0}")]
    UnwrapKey(#[from] PublicKeyError),
    /// Token and device have no suite in common.
    #[error("token and device have no suite in common (the device allows: {})", names(.device))]
    NoCommonSuite {
        /// What the device allows.
        device: Vec<Suite>,
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
    /// A key permits no proof.
    #[error("key '{label}' permits no proof, and every key must be proved")]
    NoProof {
        /// The key.
        label: String,
    },
}

impl JobError {
    /// The next move, for a person.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Hsm(error) => error.hint(),
            Self::Device(error) => Some(error.hint().to_owned()),
            Self::UnwrapKey(error) => error.hint(),
            Self::NoCommonSuite { .. } => {
                Some("enrol the device with another kind of unwrap key".to_owned())
            }
            Self::LabelTooLong(_) => Some("give the key a shorter label on the token".to_owned()),
            Self::ProofWrong { .. } => Some(
                "do not ship this device: inject the key again with a higher --version".to_owned(),
            ),
            Self::NoProof { .. } => {
                Some("use a key type that can make a MAC or a signature".to_owned())
            }
        }
    }
}

fn names(suites: &[Suite]) -> String {
    let names: Vec<_> = suites.iter().map(|suite| suite.name()).collect();
    names.join(", ")
}

/// An authority key on a token.
pub struct TokenAuthority<'a> {
    token: &'a Token,
    key: KeyInfo,
    public: Vec<u8>,
}

impl<'a> TokenAuthority<'a> {
    /// The key's pair must be on the token.
    ///
    /// # Errors
    /// [`HsmError::NoPublicKey`].
    pub fn new(token: &'a Token, key: KeyInfo) -> Result<Self, HsmError> {
        let public = key.public_key()?.spki_der().to_vec();
        Ok(Self { token, key, public })
    }
}

impl Authority for TokenAuthority<'_> {
    fn public_key(&self) -> &[u8] {
        &self.public
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], Box<dyn std::error::Error + Send + Sync>> {
        self.token
            .sign_p256(&self.key, message)
            .map_err(|error| Box::new(error).into())
    }
}

/// A key of the token and the slot it belongs in.
#[derive(Clone)]
pub struct Target {
    /// The key.
    pub key: KeyInfo,
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

/// The strongest suite that the device's statement allows and the token really does.
///
/// # Errors
/// [`JobError::NoCommonSuite`], [`JobError::Hsm`].
pub fn choose_suite(token: &Token, device: &Statement) -> Result<Suite, JobError> {
    let offered = token.supported_suites()?;
    device
        .suites
        .iter()
        .copied()
        .find(|suite| offered.contains(suite))
        .ok_or_else(|| JobError::NoCommonSuite {
            device: device.suites.clone(),
        })
}

/// The proof each key will give, known before anything is wrapped. Every key must have one.
fn proof_of(target: &Target) -> Result<Proof, JobError> {
    match target.key.device_attributes()? {
        (_, Proof::None) => Err(JobError::NoProof {
            label: target.key.name(),
        }),
        (_, proof) => Ok(proof),
    }
}

/// Wraps the targets toward the device's unwrap key under one KEK, sends one order, and has the token verify every proof.
///
/// # Errors
/// [`JobError`].
pub fn inject(
    session: &mut Session,
    token: &Token,
    authority: &dyn Authority,
    device: &Statement,
    shipping: &Shipping<'_>,
    on_progress: &mut OnProgress<'_>,
) -> Result<Vec<Proved>, JobError> {
    let &Shipping {
        suite,
        version,
        targets,
    } = shipping;
    let recipient = PublicKey::from_spki_der(&device.unwrap_key)?;
    let mut proofs = Vec::new();
    for target in targets {
        proofs.push(proof_of(target)?);
    }
    let keys: Vec<_> = targets.iter().map(|target| &target.key).collect();
    let wrapped = token.wrap_for(&recipient, suite, &keys)?;
    let mut parcels = Vec::new();
    for ((target, proof), blob) in targets.iter().zip(proofs).zip(wrapped.blobs) {
        let label = target.key.name();
        let (attributes, _) = target.key.device_attributes()?;
        parcels.push(Parcel {
            slot: target.slot,
            version,
            attributes,
            label: Fixed::try_from(label.as_str()).map_err(|_| JobError::LabelTooLong(label))?,
            proof,
            blob,
        });
    }
    let shipment = Shipment {
        suite,
        kek: wrapped.kek_blob,
        parcels,
    };
    let challenge = Challenge(random()?);
    let proofs = flow::inject(
        session,
        authority,
        device,
        &shipment,
        challenge,
        on_progress,
    )?;
    check(token, targets, &proofs)
}

/// Has the targets' slots proved, and the token verify every proof.
///
/// # Errors
/// [`JobError`].
pub fn prove(
    session: &mut Session,
    token: &Token,
    authority: &dyn Authority,
    device: &Statement,
    targets: &[Target],
    on_progress: &mut OnProgress<'_>,
) -> Result<Vec<Proved>, JobError> {
    let mut slots = Vec::new();
    for target in targets {
        slots.push((target.slot, proof_of(target)?));
    }
    let challenge = Challenge(random()?);
    let proofs = flow::prove(session, authority, device, &slots, challenge, on_progress)?;
    check(token, targets, &proofs)
}

fn check(token: &Token, targets: &[Target], proofs: &Proofs) -> Result<Vec<Proved>, JobError> {
    let mut proved = Vec::new();
    for (target, report) in targets.iter().zip(&proofs.reports) {
        let input = proof_input(&proofs.order, report.slot, &proofs.challenge);
        if !token.verify_proof(&target.key, report.proof, &input, &report.value)? {
            return Err(JobError::ProofWrong {
                slot: report.slot,
                label: target.key.name(),
            });
        }
        proved.push(Proved {
            slot: report.slot,
            label: target.key.name(),
            key_type: target.key.key_type.to_string(),
            proof: report.proof,
        });
    }
    Ok(proved)
}
