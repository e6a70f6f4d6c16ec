//! Answers: receipts, signed by the identity key and stored with what they report; signed status; the table of slots.

use keyferry_protocol::identity::{Challenge, Digest, Signature};
use keyferry_protocol::message::Reply;
use keyferry_protocol::receipt::{
    self, MAX_RECEIPT, Outcome, Refusal, STATUS_TAG, State, TAG, Writer,
};
use keyferry_protocol::{MAX_CERTIFICATE, MAX_SLOTS, TooLong};

use super::memory::{self, Memory};
use super::orders::Accepted;
use super::{Device, send};
use crate::fmt::info;
use crate::keys;
use crate::platform::{Mark, Platform, Status, Stretch};
use crate::store::{Change, Condition, ItemId, StoreError};
use crate::wipe::Secret;

/// What the store's errors mean to the station.
pub(super) fn storage(error: StoreError) -> Refusal {
    match error {
        StoreError::Full { .. } => Refusal::StoreFull,
        _ => Refusal::Storage,
    }
}

/// The store's item of a slot.
pub(super) fn slot_item(slot: u16) -> Result<ItemId, Refusal> {
    ItemId::slot(slot).ok_or(Refusal::Malformed)
}

pub(super) fn too_long(_: TooLong) -> Refusal {
    Refusal::TooLong
}

impl<P: Platform, const RX: usize, const OUT: usize> Device<P, RX, OUT> {
    /// Opens the store's transaction for an order: its changes, and always memory and receipt.
    pub(super) fn begin(
        &mut self,
        changes: impl IntoIterator<Item = Change>,
    ) -> Result<(), Refusal> {
        let own = [
            Change::Put {
                id: ItemId::META,
                public: memory::LENGTH,
                secret: 0,
            },
            Change::Put {
                id: ItemId::RECEIPT,
                public: Signature::LENGTH + MAX_RECEIPT,
                secret: 0,
            },
        ];
        self.store
            .begin(changes.into_iter().chain(own))
            .map_err(storage)
    }

    /// The header of the receipt of an applied order.
    pub(super) fn receipt_header(&self, order: &Accepted, next: &Memory) -> receipt::Header {
        receipt::Header {
            tag: TAG,
            format: receipt::FORMAT,
            kind: order.header.kind,
            device: self.platform.device_id(),
            identity: next.identity,
            order: order.digest,
            outcome: Outcome::Applied,
            state: next.state,
            counter: next.counter,
            challenge: self.challenge,
        }
    }

    fn sign(&mut self, length: usize) -> Result<Signature, Refusal> {
        let mut identity = Secret::<32>::zeroed();
        match self
            .store
            .secret(ItemId::IDENTITY, identity.expose_mut())
            .map_err(storage)?
        {
            Some(_) => {}
            None => return Err(Refusal::Storage),
        }
        let random = self.random.as_mut().ok_or(self.unready)?;
        self.platform.measure(Mark::Begins(Stretch::Sign));
        let signature =
            keys::p256::sign(identity.expose(), &self.buffer.receipt()[..length], random);
        self.platform.measure(Mark::Ends(Stretch::Sign));
        signature.map_err(|_| Refusal::Storage)
    }

    /// Signs the receipt of an order.
    fn sign_receipt(&mut self, length: usize) -> Result<Signature, Refusal> {
        self.operations.receipt += 1;
        self.sign(length)
    }

    /// Signs the receipt that stands in the buffer, writes it with the new memory, makes all of it durable, and sends it.
    pub(super) fn conclude(
        &mut self,
        length: usize,
        signature: &Signature,
        next: Memory,
    ) -> Result<(), Refusal> {
        let stored = self.buffer.signed(length);
        stored[..Signature::LENGTH].copy_from_slice(&signature.to_bytes());
        self.platform.measure(Mark::Begins(Stretch::Store));
        let written = self
            .store
            .put(ItemId::RECEIPT, stored, None)
            .and_then(|()| self.store.put(ItemId::META, &next.encode(), None))
            .and_then(|()| self.store.commit());
        self.platform.measure(Mark::Ends(Stretch::Store));
        match written {
            // What is new is in force; the store erases what is old before anything else.
            Ok(()) => {}
            Err(error @ StoreError::Residue(_)) if next.state == State::Blank => {
                // Nobody shall read that the keys are gone before they are. The order sent again tries once more.
                self.memory = next;
                return Err(storage(error));
            }
            Err(StoreError::Residue(_)) => {}
            Err(error) => {
                if self.store.condition() != Condition::Ready {
                    self.memory = Memory::quarantined();
                }
                return Err(storage(error));
            }
        }
        self.memory = next;
        self.send_receipt(length, signature);
        self.drop_job();
        // The order is done, whatever the source says; the next one is refused if it failed.
        let _ = self.refresh_random();
        self.show_done();
        Ok(())
    }

    /// [`Self::conclude`] of a quarantined device, whose store begins anew with memory and receipt alone and counts starts on from
    /// `starts`.
    pub(super) fn conclude_anew(
        &mut self,
        length: usize,
        signature: &Signature,
        next: Memory,
        starts: u32,
    ) -> Result<(), Refusal> {
        let stored = self.buffer.signed(length);
        stored[..Signature::LENGTH].copy_from_slice(&signature.to_bytes());
        let items = [
            (ItemId::META, &next.encode()[..]),
            (ItemId::RECEIPT, &*stored),
        ];
        self.store.begin_anew(&items, starts).map_err(storage)?;
        self.memory = next;
        self.send_receipt(length, signature);
        self.drop_job();
        self.show_done();
        Ok(())
    }

    /// An order was applied. A device without keys is not done, whatever it has done.
    fn show_done(&mut self) {
        let status = match self.memory.state {
            State::Provisioned | State::Locked => Status::Done,
            State::Blank | State::Enrolled | State::Quarantined => self.resting_status(),
        };
        self.show(status);
    }

    /// Signs with the identity key in the store, then concludes.
    pub(super) fn sign_and_conclude(&mut self, length: usize, next: Memory) -> Result<(), Refusal> {
        let signature = self.sign_receipt(length)?;
        self.conclude(length, &signature, next)
    }

    pub(super) fn answer_empty(&mut self, order: &Accepted, next: Memory) -> Result<(), Refusal> {
        let header = self.receipt_header(order, &next);
        let writer = Writer::new(&header, self.buffer.receipt()).map_err(too_long)?;
        self.sign_and_conclude(writer.length(), next)
    }

    /// Answers an authentic order that was not done. Signed where there is an identity key; never stored.
    pub(super) fn answer_refusal(&mut self, order: &Accepted, refusal: Refusal) {
        self.drops_blobs = true;
        self.drop_job();
        if self.no_keys() {
            self.refuse(refusal);
            return;
        }
        let header = receipt::Header {
            outcome: Outcome::Refused(refusal),
            ..self.receipt_header(order, &self.memory)
        };
        let length = Writer::new(&header, self.buffer.receipt()).map(|writer| writer.length());
        match length.map(|length| (length, self.sign_receipt(length))) {
            Ok((length, Ok(signature))) => {
                info!("refused: {=u8}", refusal as u8);
                self.show(Status::Failed);
                self.send_receipt(length, &signature);
            }
            Ok((_, Err(_))) | Err(TooLong) => self.refuse(refusal),
        }
    }

    fn send_receipt(&mut self, length: usize, signature: &Signature) {
        let reply = Reply::Receipt {
            signature: *signature,
            receipt: &self.buffer.receipt()[..length],
        };
        if send(&mut self.link, &reply).is_err() {
            self.refuse(Refusal::TooLong);
        }
    }

    /// Answers an order that was applied before. Like every authentic order it ends the one under way.
    pub(super) fn answer_stored_receipt(&mut self) {
        self.drop_job();
        // An erase that failed is made up for before anything is said.
        if self.store.has_residue() {
            let erased = self.store.begin([]);
            self.store.abort();
            if let Err(error) = erased {
                self.refuse(storage(error));
                return;
            }
        }
        let stored = self.buffer.signed(MAX_RECEIPT);
        let read = match self.store.public(ItemId::RECEIPT, stored) {
            Ok(Some(bytes)) => bytes.split_first_chunk::<{ Signature::LENGTH }>(),
            Ok(None) | Err(_) => None,
        };
        let sent = read.map(|(signature, receipt)| {
            let signature = Signature::from_bytes(signature);
            send(&mut self.link, &Reply::Receipt { signature, receipt })
        });
        if sent != Some(Ok(())) {
            self.refuse(Refusal::Storage);
        }
    }

    // Not part of its caller's frame, which the scrubbing afterwards does not reach.
    #[inline(never)]
    pub(super) fn answer_status(&mut self, order: Digest, nonce: Challenge) {
        if self.no_keys() || self.memory.state == State::Quarantined {
            self.refuse(Refusal::State);
            return;
        }
        let status = receipt::Status {
            tag: STATUS_TAG,
            format: receipt::FORMAT,
            device: self.platform.device_id(),
            identity: self.memory.identity,
            order,
            nonce,
            applied: self.is_last_order(&order),
            state: self.memory.state,
            counter: self.memory.counter,
        };
        let length = status.encode(self.buffer.receipt()).map_or(0, <[u8]>::len);
        self.operations.status += 1;
        match self.sign(length) {
            Err(refusal) => self.refuse(refusal),
            Ok(signature) => {
                let reply = Reply::Status {
                    signature,
                    status: &self.buffer.receipt()[..length],
                };
                if send(&mut self.link, &reply).is_err() {
                    self.refuse(Refusal::TooLong);
                }
            }
        }
    }

    pub(super) fn answer_certificate(&mut self) {
        let room = &mut self.buffer.blob()[..MAX_CERTIFICATE];
        let refusal = match self.store.public(ItemId::CERTIFICATE, room) {
            Ok(Some(bytes)) => match send(&mut self.link, &Reply::Certificate { bytes }) {
                Ok(()) => return,
                Err(TooLong) => Refusal::TooLong,
            },
            Ok(None) => Refusal::SlotEmpty,
            Err(error) => storage(error),
        };
        self.refuse(refusal);
    }

    pub(super) fn list(&mut self) {
        let mut length = 0;
        for slot in 0..MAX_SLOTS as u16 {
            let written = match self.store.slot(slot) {
                Ok(None) => continue,
                Ok(Some(info)) => info
                    .encode(&mut self.buffer.blob()[length..])
                    .map(|bytes| bytes.len())
                    .map_err(too_long),
                Err(error) => Err(storage(error)),
            };
            match written {
                Ok(written) => length += written,
                Err(refusal) => {
                    self.refuse(refusal);
                    return;
                }
            }
        }
        let table = &self.buffer.blob()[..length];
        if send(&mut self.link, &Reply::Slots { table }).is_err() {
            self.refuse(Refusal::TooLong);
        }
    }
}
