//! Orders that change what the device is, and carry no key: `Remove`, `Rotate`, `Lock`, `Wipe`. Each is one transaction of the
//! store, with its receipt in it.

use heapless::Vec;
use keyferry_protocol::identity::{Fingerprint, p256_spki};
use keyferry_protocol::receipt::{self, Recovered, Refusal, State, Writer};
use keyferry_protocol::{MAX_ENTRIES, MAX_SLOTS};

use super::answer::{slot_item, storage, too_long};
use super::memory::Memory;
use super::orders::Accepted;
use super::{Device, early_key, keys};
use crate::platform::Platform;
use crate::store::{Change, Condition, ItemId, Reason, StoreError};
use crate::wipe::Secret;

/// What a `Wipe` removes beside the slots, and besides the authority on a development image.
const WIPED: [ItemId; 3] = [ItemId::IDENTITY, ItemId::UNWRAP, ItemId::CERTIFICATE];

impl<P: Platform, const RX: usize, const OUT: usize> Device<P, RX, OUT> {
    #[inline(never)]
    pub(super) fn remove(&mut self, order: &Accepted, slots: &[u8]) -> Result<(), Refusal> {
        let mut changes: Vec<Change, MAX_ENTRIES> = Vec::new();
        for slot in slots {
            let id = ItemId::slot(u16::from(*slot)).ok_or(Refusal::SlotEmpty)?;
            if !self.store.contains(id) {
                return Err(Refusal::SlotEmpty);
            }
            changes
                .push(Change::Remove(id))
                .map_err(|_| Refusal::Malformed)?;
        }
        self.begin(changes)?;
        let next = self.after(order);
        self.answer_empty(order, next)
    }

    #[inline(never)]
    pub(super) fn lock(&mut self, order: &Accepted) -> Result<(), Refusal> {
        self.begin([])?;
        let next = Memory {
            state: State::Locked,
            ..self.after(order)
        };
        self.answer_empty(order, next)
    }

    /// Hands the device over. That both authorities signed is known by now, and with it that the new key is one.
    #[inline(never)]
    pub(super) fn rotate(
        &mut self,
        order: &Accepted,
        key: &[u8; p256_spki::LENGTH],
    ) -> Result<(), Refusal> {
        let authority = keys::fingerprint(key);
        if authority == self.memory.authority {
            return Err(Refusal::Malformed);
        }
        let next = Memory {
            authority,
            epoch: self.memory.epoch.checked_add(1).ok_or(Refusal::Counter)?,
            ..self.after(order)
        };
        self.begin([Change::Put {
            id: ItemId::AUTHORITY,
            public: p256_spki::LENGTH,
            secret: 0,
        }])?;
        self.store
            .put(ItemId::AUTHORITY, key, None)
            .map_err(storage)?;
        self.answer_empty(order, next)
    }

    /// Whether what quarantined the device is so still. A reading that fails once is no loss, nor is a change that the next start settles.
    ///
    /// Parts with error correction never read again what power or age has spoilt. Whether that is given up is for the image's authority
    /// to say; where there is none, anybody could say so of a flash that fails for an hour.
    fn is_lost(&mut self) -> bool {
        match (self.store.condition(), self.store.look_again()) {
            (Condition::Ready, _) => match Memory::try_load(&mut self.store) {
                Ok(_) | Err(StoreError::Flash(_)) => false,
                Err(_) => true,
            },
            (Condition::Quarantined(_), Condition::Ready) => false,
            (Condition::Quarantined(_), Condition::Quarantined(Reason::Flash)) => {
                self.platform.pinned_authority().is_some()
            }
            (Condition::Quarantined(_), Condition::Quarantined(_)) => true,
        }
    }

    /// Gives up a store that is quarantined, and begins with a blank one. The keys that anybody knows the device by are gone, so
    /// its receipt is signed by a key that is made for it and forgotten at once, and bears that key.
    ///
    /// The counter is the order's. The count of starts goes on from a number that the order determines, and the generator takes the order
    /// in, so that neither challenges nor keys of before come again, even from a source that is stuck.
    #[inline(never)]
    pub(super) fn recover(&mut self, order: &Accepted) -> Result<(), Refusal> {
        if !self.platform.allows_wipe() {
            return Err(Refusal::Unsupported);
        }
        if !self.is_lost() {
            return Err(Refusal::Storage);
        }
        self.feed_again();
        let random = self.random.as_mut().ok_or(Refusal::Entropy)?;
        random.reseed(&order.digest.0);
        self.refresh_random()?;
        self.renew_challenge();
        let next = Memory {
            state: State::Blank,
            ..self.after(order)
        };
        let random = self.random.as_mut().ok_or(Refusal::Entropy)?;
        let mut secret = Secret::<32>::zeroed();
        keys::p256::generate(random, &mut secret);
        let key = keys::p256::public_spki(secret.expose()).map_err(|_| Refusal::Entropy)?;
        let header = receipt::Header {
            identity: keys::fingerprint(&key),
            ..self.receipt_header(order, &next)
        };
        let out = self.buffer.receipt();
        let mut writer = Writer::new(&header, out).map_err(too_long)?;
        writer
            .recovered(&Recovered { key: &key }, out)
            .map_err(too_long)?;
        let length = writer.length();
        self.operations.receipt += 1;
        let random = self.random.as_mut().ok_or(Refusal::Entropy)?;
        let signature = keys::p256::sign(secret.expose(), &out[..length], random)
            .map_err(|_| Refusal::Storage)?;
        let (first, _) = order.digest.0.split_first_chunk().ok_or(Refusal::Storage)?;
        // Far from the end of the count, and another number for each order.
        let starts = u32::from_le_bytes(*first) >> 2;
        self.conclude_anew(length, &signature, next, starts)
    }

    /// Destroys unwrap key, identity key, certificate and all slots. The receipt is the last word of the identity key.
    ///
    /// The counter stays, so that no recorded order for a blank device passes again. On a production image the authority and
    /// its epoch stay too: whoever may wipe the device may not give it away.
    #[inline(never)]
    pub(super) fn wipe_device(&mut self, order: &Accepted) -> Result<(), Refusal> {
        if !self.platform.allows_wipe() {
            return Err(Refusal::Unsupported);
        }
        let development = self.platform.description().development;
        let after = self.after(order);
        let next = Memory {
            state: State::Blank,
            epoch: if development { 0 } else { after.epoch },
            floors: [0; MAX_SLOTS],
            authority: if development {
                Fingerprint::ZERO
            } else {
                after.authority
            },
            identity: Fingerprint::ZERO,
            unwrap: Fingerprint::ZERO,
            ..after
        };
        let mut changes: Vec<Change, { MAX_SLOTS + WIPED.len() + 1 }> = Vec::new();
        let forgotten = development.then_some(ItemId::AUTHORITY);
        for id in WIPED.into_iter().chain(forgotten) {
            changes
                .push(Change::Remove(id))
                .map_err(|_| Refusal::Storage)?;
        }
        for slot in 0..MAX_SLOTS as u16 {
            changes
                .push(Change::Remove(slot_item(slot)?))
                .map_err(|_| Refusal::Storage)?;
        }
        self.begin(changes)?;
        let header = receipt::Header {
            identity: self.memory.identity,
            ..self.receipt_header(order, &next)
        };
        let writer = Writer::new(&header, self.buffer.receipt()).map_err(too_long)?;
        self.sign_and_conclude(writer.length(), next)?;
        self.early = early_key(&self.platform, &self.memory);
        Ok(())
    }
}
