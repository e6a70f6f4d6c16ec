//! Proofs: each key is read back from its slot and asked what the order asks, one in a step of work; then the receipt.

use embedded_storage::nor_flash::NorFlash;
use keyferry_protocol::MAX_SLOTS;
use keyferry_protocol::attributes::{Attributes, MAX_SECRET as MAX_GENERIC};
use keyferry_protocol::message::{SlotInfo, Task};
use keyferry_protocol::order::{Kind, ProveView, View};
use keyferry_protocol::proof::{Proof, proof_input};
use keyferry_protocol::receipt::{
    MAX_HEADER, MAX_RECEIPT, Refusal, SlotReport, Writer, slot_report_length,
};

use super::answer::{slot_item, storage, too_long};
use super::inject::{Injecting, view_inject};
use super::orders::{self, Accepted};
use super::{Device, Job};
use crate::keys::Key;
use crate::platform::{Mark, Platform, Stretch};
use crate::prove::{self, prove};
use crate::store::Store;
use crate::wipe::Secret;

/// Longest stored key in bytes, filled up to a multiple of eight, and longer than any proof: RSA-4096's, or a generic secret.
const MAX_KEY: usize = if cfg!(feature = "rsa-keys") {
    (4_usize + 512).next_multiple_of(8)
} else {
    MAX_GENERIC
};

/// A proof that is due.
struct Due {
    slot: u16,
    version: u32,
    attributes: Attributes,
    proof: Proof,
}

impl<P: Platform, const RX: usize, const OUT: usize> Device<P, RX, OUT> {
    #[inline(never)]
    pub(super) fn begin_prove(&mut self, order: &Accepted) -> Result<(), Refusal> {
        let (mut reports, mut questions) = (0, 0);
        let prove = view_prove(&self.order[..self.order_length])?;
        for request in prove.slots.iter() {
            let info = occupied(&mut self.store, request.slot)?;
            let kind = info.attributes.kind().map_err(|_| Refusal::Storage)?;
            if !request.proof.permitted(kind, &info.attributes) {
                return Err(Refusal::Attributes);
            }
            questions += request.proof.question_length(kind, &info.attributes);
            reports += slot_report_length(request.proof.length(kind));
        }
        // What the proofs ask depends on the attributes in the slots, so this is not known before.
        if questions != prove.questions.len() {
            return Err(Refusal::Malformed);
        }
        check_receipt_fits(reports)?;
        let proofs = prove.slots.len();
        self.begin([])?;
        self.job = Job::Inject(Injecting::new(*order, proofs, self.after(order)));
        Ok(())
    }

    pub(super) fn prove_next(&mut self) -> Result<(), Refusal> {
        let mut writer = self.proof_writer()?;
        let (Job::Inject(injecting), Some(random)) = (&mut self.job, &mut self.random) else {
            return Err(Refusal::Entropy);
        };
        let order = &self.order[..self.order_length];
        let fresh = injecting.order.header.kind == Kind::Inject;
        let (due, challenge, questions) = if fresh {
            let inject = view_inject(order)?;
            let entry = inject.entries.get(injecting.proved);
            let entry = entry.ok_or(Refusal::Sequence)?;
            let due = Due {
                slot: entry.slot,
                version: entry.version,
                attributes: entry.attributes,
                proof: entry.proof,
            };
            (due, inject.challenge, inject.questions)
        } else {
            let prove = view_prove(order)?;
            let request = prove.slots.get(injecting.proved);
            let request = request.ok_or(Refusal::Sequence)?;
            let info = occupied(&mut self.store, request.slot)?;
            let due = Due {
                slot: request.slot,
                version: info.version,
                attributes: info.attributes,
                proof: request.proof,
            };
            (due, prove.challenge, prove.questions)
        };
        let kind = due.attributes.kind().map_err(|_| Refusal::Storage)?;
        let question = due.proof.question_length(kind, &due.attributes);
        let question = questions
            .get(injecting.asked..injecting.asked + question)
            .ok_or(Refusal::Malformed)?;
        let input = proof_input(&injecting.order.digest, due.slot, &challenge);
        let mut secret = Secret::<MAX_KEY>::zeroed();
        let mut value = [0; MAX_KEY];
        let mut value_length = 0;
        if due.proof != Proof::None {
            // From flash, not from RAM: what is proved is what the slot holds.
            let slot = slot_item(due.slot)?;
            let read = if fresh {
                self.store.staged_secret(slot, secret.expose_mut())
            } else {
                self.store.secret(slot, secret.expose_mut())
            };
            let key = read.map_err(storage)?.ok_or(Refusal::Storage)?;
            let key = Key {
                kind,
                algorithm: due.attributes.algorithm,
                secret: key,
            };
            let asked = prove::Asked {
                proof: due.proof,
                input: &input,
                question,
            };
            self.operations.proof += 1;
            self.platform.measure(Mark::Begins(Stretch::Proof));
            let made = prove(asked, key, random, &mut value);
            self.platform.measure(Mark::Ends(Stretch::Proof));
            value_length = made.map_err(|_| Refusal::Attributes)?;
        }
        let report = SlotReport {
            slot: due.slot,
            version: due.version,
            attributes: due.attributes,
            proof: due.proof,
            value: &value[..value_length],
        };
        writer
            .slot(&report, self.buffer.receipt())
            .map_err(too_long)?;
        injecting.writer = Some(writer);
        injecting.asked += question.len();
        injecting.proved += 1;
        let (done, total) = (injecting.proved as u16, injecting.proofs as u16);
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
        let proofs = injecting.proofs;
        let mut writer = Writer::new(&header, self.buffer.receipt()).map_err(too_long)?;
        writer
            .slot_count(proofs, self.buffer.receipt())
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

/// Looks at the `Prove` under way.
fn view_prove(order: &[u8]) -> Result<ProveView<'_>, Refusal> {
    match orders::view(order, Kind::Prove)? {
        View::Prove(prove) => Ok(prove),
        View::Enroll(_)
        | View::Inject(_)
        | View::Remove(_)
        | View::Rotate(_)
        | View::Lock
        | View::Wipe
        | View::Recover(_) => Err(Refusal::Malformed),
    }
}

/// What a slot that must not be empty says.
fn occupied<F: NorFlash>(store: &mut Store<F>, slot: u16) -> Result<SlotInfo, Refusal> {
    if usize::from(slot) >= MAX_SLOTS {
        return Err(Refusal::SlotEmpty);
    }
    store.slot(slot).map_err(storage)?.ok_or(Refusal::SlotEmpty)
}

/// Said before any work is done, not after: whether slot reports of this length in all fit.
pub(super) const fn check_receipt_fits(reports: usize) -> Result<(), Refusal> {
    if MAX_HEADER + 1 + reports > MAX_RECEIPT {
        return Err(Refusal::TooLong);
    }
    Ok(())
}
