//! Proofs: each key is read back from its slot and asked what the order asks, one in a step of work; then the receipt.

use core::ops::Range;

use heapless::Vec;
use keyferry_protocol::MAX_SLOTS;
use keyferry_protocol::attributes::KeyKind;
use keyferry_protocol::message::{SlotInfo, Task};
use keyferry_protocol::order::Prove;
use keyferry_protocol::proof::{Proof, proof_input};
use keyferry_protocol::receipt::{
    MAX_HEADER, MAX_RECEIPT, Refusal, SlotReport, Writer, slot_report_length,
};

use super::answer::{slot_item, storage, too_long};
use super::inject::{Asked, Injecting};
use super::orders::Accepted;
use super::{Device, Job};
use crate::keys::Key;
use crate::platform::{Mark, Platform, Stretch};
use crate::prove::{self, prove};
use crate::wipe::Secret;

/// Longest stored key in bytes, filled up to a multiple of eight, and longer than any proof: RSA-4096's.
const MAX_KEY: usize = (4_usize + 512).next_multiple_of(8);

/// A proof that is to be made.
pub(super) struct ProofDue {
    pub(super) info: SlotInfo,
    pub(super) kind: KeyKind,
    proof: Proof,
    /// Where its question stands among all.
    question: Range<usize>,
}

impl ProofDue {
    /// The proof of this slot, whose question follows what earlier ones have taken of the questions.
    pub(super) fn new(info: SlotInfo, kind: KeyKind, proof: Proof, taken: &mut usize) -> Self {
        let begin = *taken;
        *taken += proof.question_length(kind, &info.attributes);
        Self {
            info,
            kind,
            proof,
            question: begin..*taken,
        }
    }
}

impl<P: Platform, const RX: usize, const OUT: usize> Device<P, RX, OUT> {
    #[inline(never)]
    pub(super) fn begin_prove(&mut self, order: &Accepted, prove: &Prove) -> Result<(), Refusal> {
        let (mut proofs, mut questions) = (Vec::new(), 0);
        for request in &prove.slots {
            if usize::from(request.slot) >= MAX_SLOTS {
                return Err(Refusal::SlotEmpty);
            }
            let info = self.slot_info(request.slot)?.ok_or(Refusal::SlotEmpty)?;
            let kind = info.attributes.kind().map_err(|_| Refusal::Storage)?;
            if !request.proof.permitted(kind, &info.attributes) {
                return Err(Refusal::Attributes);
            }
            let due = ProofDue::new(info, kind, request.proof, &mut questions);
            proofs.push(due).map_err(|_| Refusal::Malformed)?;
        }
        // What the proofs ask depends on the attributes in the slots, so this is not known before.
        if questions != prove.questions.len() {
            return Err(Refusal::Malformed);
        }
        check_receipt_fits(&proofs)?;
        self.begin([])?;
        self.job = Job::Inject(Injecting {
            order: *order,
            asked: Asked::Prove(prove.questions.clone()),
            blobs: 0,
            kek_ready: false,
            failed: false,
            challenge: prove.challenge,
            proofs,
            proved: 0,
            writer: None,
            next: self.after(order),
        });
        Ok(())
    }

    pub(super) fn prove_next(&mut self) -> Result<(), Refusal> {
        let mut writer = self.proof_writer()?;
        let (Job::Inject(injecting), Some(random)) = (&mut self.job, &mut self.random) else {
            return Err(Refusal::Entropy);
        };
        let due = injecting
            .proofs
            .get(injecting.proved)
            .ok_or(Refusal::Sequence)?;
        let slot = due.info.slot;
        let input = proof_input(&injecting.order.digest, slot, &injecting.challenge);
        let mut secret = Secret::<MAX_KEY>::zeroed();
        let mut value = [0; MAX_KEY];
        let mut value_length = 0;
        if due.proof != Proof::None {
            // From flash, not from RAM: what is proved is what the slot holds.
            let read = if injecting.asked.inject().is_some() {
                self.store
                    .staged_secret(slot_item(slot)?, secret.expose_mut())
            } else {
                self.store.secret(slot_item(slot)?, secret.expose_mut())
            };
            let key = read.map_err(storage)?.ok_or(Refusal::Storage)?;
            let key = Key {
                kind: due.kind,
                algorithm: due.info.attributes.algorithm,
                secret: key,
            };
            let asked = prove::Asked {
                proof: due.proof,
                input: &input,
                question: injecting
                    .asked
                    .questions()
                    .get(due.question.clone())
                    .ok_or(Refusal::Malformed)?,
            };
            self.operations.proof += 1;
            self.platform.measure(Mark::Begins(Stretch::Proof));
            let made = prove(asked, key, random, &mut value);
            self.platform.measure(Mark::Ends(Stretch::Proof));
            value_length = made.map_err(|_| Refusal::Attributes)?;
        }
        let report = SlotReport {
            slot,
            version: due.info.version,
            attributes: due.info.attributes,
            proof: due.proof,
            value: &value[..value_length],
        };
        writer.slot(&report, &mut self.receipt).map_err(too_long)?;
        injecting.writer = Some(writer);
        injecting.proved += 1;
        let (done, total) = (injecting.proved as u16, injecting.proofs.len() as u16);
        self.progress(Task::Prove, done, total);
        Ok(())
    }

    /// The receipt so far; begun if it is not.
    fn proof_writer(&mut self) -> Result<Writer, Refusal> {
        let Job::Inject(injecting) = &self.job else {
            return Err(Refusal::Sequence);
        };
        if let Some(writer) = injecting.writer {
            return Ok(writer);
        }
        let header = self.receipt_header(&injecting.order, &injecting.next);
        let mut writer = Writer::new(&header, &mut self.receipt).map_err(too_long)?;
        writer
            .slot_count(injecting.proofs.len(), &mut self.receipt)
            .map_err(too_long)?;
        Ok(writer)
    }

    pub(super) fn conclude_proofs(&mut self) -> Result<(), Refusal> {
        let writer = self.proof_writer()?;
        let Job::Inject(injecting) = &self.job else {
            return Err(Refusal::Sequence);
        };
        let next = injecting.next.clone();
        self.sign_and_conclude(writer.length(), next)
    }
}

/// Said before any work is done, not after.
pub(super) fn check_receipt_fits(proofs: &[ProofDue]) -> Result<(), Refusal> {
    let reports: usize = proofs
        .iter()
        .map(|due| slot_report_length(due.proof.length(due.kind)))
        .sum();
    if MAX_HEADER + 1 + reports > MAX_RECEIPT {
        return Err(Refusal::TooLong);
    }
    Ok(())
}
