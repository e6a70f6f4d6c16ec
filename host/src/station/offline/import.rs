//! Bringing receipts back: each is verified against its order again, and the HSM verifies every proof. Whatever was brought back before
//! adds nothing.

use keyferry_protocol::identity::{Challenge, DeviceId, Digest};
use keyferry_protocol::order::{Body, Kind};
use keyferry_protocol::proof::{Proof, proof_input};

use super::answer::check_answer;
use super::batch::{BatchKey, BatchOrder};
use super::books::{self, Written};
use super::error::OfflineError;
use super::folder::BatchFolder;
use super::order_file::DetachedOrder;
use crate::device::verify::{SignedReceipt, SlotReport};
use crate::hsm::Asked;
use crate::station::registry::OrderState;
use crate::station::{Hsm, JobError, KeyCard, Scribe, Target, check_one};

/// What became of an order of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Its receipt is not in the folder.
    Open,
    /// The device has refused it; it may still be delivered.
    Refused,
    /// Its receipt was brought back now, and every proof is right.
    Imported,
    /// It was brought back before.
    Already,
    /// These slots do not hold the right keys.
    Wrong(Vec<u16>),
}

/// An order of a batch, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The device.
    pub device: DeviceId,
    /// What the order asked for.
    pub kind: Kind,
    /// What became of it.
    pub fate: Fate,
    /// How many proofs the HSM has found right now.
    pub proved: usize,
}

/// Brings one order's receipt back.
///
/// # Errors
/// [`OfflineError::NoRegistry`], [`OfflineError::NeedsLog`], [`OfflineError::NotInLog`]; those of [`BatchFolder::order`] and
/// [`BatchFolder::receipt`]; [`OfflineError::NotKept`]; [`OfflineError::Job`]. A proof that is wrong is no error but [`Fate::Wrong`].
pub fn import(
    hsm: &dyn Hsm,
    scribe: &Scribe,
    folder: &BatchFolder,
    entry: &BatchOrder,
) -> Result<Imported, OfflineError> {
    let order = folder.order(entry)?;
    let written = books::look_up(&mut scribe.records(), &order)?;
    let done = |fate, proved| Imported {
        device: entry.device,
        kind: entry.kind,
        fate,
        proved,
    };
    let Some(receipt) = folder.receipt(entry, &order)? else {
        let fate = without(scribe, folder, entry, &order, written)?;
        return Ok(done(fate, 0));
    };
    let answer = check_answer(&order, &receipt)?;
    if written.is_done() {
        let wrong = books::failed(&scribe.records(), entry.device, &answer.reports)?;
        let fate = if wrong.is_empty() {
            Fate::Already
        } else {
            Fate::Wrong(wrong)
        };
        return Ok(done(fate, 0));
    }
    let (right, wrong) = verify(hsm, scribe, entry, &order, &answer.reports)?;
    books::imported(&mut scribe.records(), &order, &receipt, &right, &wrong)?;
    let fate = if wrong.is_empty() {
        Fate::Imported
    } else {
        Fate::Wrong(wrong.iter().map(|report| report.slot).collect())
    };
    Ok(done(fate, right.len()))
}

/// What is known of an order without a receipt.
fn without(
    scribe: &Scribe,
    folder: &BatchFolder,
    entry: &BatchOrder,
    order: &DetachedOrder,
    written: Written,
) -> Result<Fate, OfflineError> {
    if written.is_done() {
        return Ok(Fate::Already);
    }
    let refusal: Option<SignedReceipt> = folder.refusal(entry, order)?;
    let Some(refusal) = refusal else {
        return Ok(Fate::Open);
    };
    match written.state {
        OrderState::Prepared | OrderState::Delivered => {
            books::refused(&mut scribe.records(), order, &refusal)?;
        }
        OrderState::Failed | OrderState::Applied => {}
    }
    Ok(Fate::Refused)
}

type Verdicts<'a> = (Vec<&'a SlotReport>, Vec<&'a SlotReport>);

/// Has the HSM verify every proof: gives the reports whose proofs are right, and those whose are not.
fn verify<'a>(
    hsm: &dyn Hsm,
    scribe: &Scribe,
    entry: &BatchOrder,
    order: &DetachedOrder,
    reports: &'a [SlotReport],
) -> Result<Verdicts<'a>, OfflineError> {
    let mut right = Vec::new();
    let mut wrong = Vec::new();
    let digest = order.digest();
    let (challenge, mut questions): (Challenge, Vec<u8>) = match order.body()? {
        Body::Inject(inject) => (inject.challenge, inject.questions.to_vec()),
        Body::Prove(prove) => (prove.challenge, prove.questions.to_vec()),
        Body::Enroll(_)
        | Body::Remove(_)
        | Body::Rotate(_)
        | Body::Lock
        | Body::Wipe
        | Body::Recover(_) => {
            return Ok((right, wrong));
        }
    };
    for (key, report) in entry.keys.iter().zip(reports) {
        let asked = asked(entry, key, &mut questions)?;
        // Nothing was demanded, nothing is known.
        if key.proof == Proof::None {
            continue;
        }
        let target = Target {
            key: card(scribe, entry, &digest, key)?,
            slot: key.slot,
        };
        let input = proof_input(&digest, report.slot, &challenge);
        match check_one(hsm, &target, &asked, &input, report) {
            Ok(()) => right.push(report),
            Err(JobError::ProofWrong { .. }) => wrong.push(report),
            Err(error) => return Err(error.into()),
        }
    }
    Ok((right, wrong))
}

/// The question that a key was asked: it stands in the order, behind those of the keys before.
fn asked(
    entry: &BatchOrder,
    key: &BatchKey,
    questions: &mut Vec<u8>,
) -> Result<Asked, OfflineError> {
    let bad = |reason| OfflineError::BadOrder {
        device: entry.device,
        reason,
    };
    let attributes = key.attributes.into();
    let kind = keyferry_protocol::attributes::Attributes::kind(&attributes)
        .map_err(|_| bad("it has a key of no known kind"))?;
    let length = key.proof.question_length(kind, &attributes);
    if questions.len() < length {
        return Err(bad("a question is missing in it"));
    }
    let rest = questions.split_off(length);
    let bytes = std::mem::replace(questions, rest);
    Ok(Asked {
        bytes,
        answer: key.answer,
    })
}

/// The card of a key: as the manifest has it, or as it was kept.
fn card(
    scribe: &Scribe,
    entry: &BatchOrder,
    order: &Digest,
    key: &BatchKey,
) -> Result<KeyCard, OfflineError> {
    let described = KeyCard {
        label: key.label.clone(),
        id: key.id.clone(),
        key_type: key.key_type.clone(),
        attributes: key.attributes.into(),
        proof: key.proof,
        kept: None,
        derived: None,
    };
    if !key.fresh {
        return Ok(described);
    }
    let records = scribe.records();
    let registry = records.registry.as_ref().ok_or(OfflineError::NoRegistry)?;
    let kept = registry.kept_key(order, key.slot)?;
    let not_kept = OfflineError::NotKept {
        device: entry.device,
        slot: key.slot,
    };
    match kept {
        // It must be the key that the manifest describes, wherever it is.
        Some(card)
            if (KeyCard {
                kept: None,
                ..card.clone()
            }) == described =>
        {
            Ok(card)
        }
        Some(_) | None => Err(not_kept),
    }
}
