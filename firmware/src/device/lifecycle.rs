//! Orders that change what the device is, and carry no key: `Remove`, `Rotate`, `Lock`, `Wipe`. Each is one transaction of the
//! store, with its receipt in it.

use heapless::Vec;
use keyferry_protocol::identity::{Fingerprint, p256_spki};
use keyferry_protocol::receipt::{Refusal, State, Writer};
use keyferry_protocol::{MAX_ENTRIES, MAX_SLOTS};

use super::answer::{slot_item, storage, too_long};
use super::memory::Memory;
use super::orders::Accepted;
use super::{Device, keys};
use crate::platform::Platform;
use crate::store::{Change, ItemId};

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
        let header = keyferry_protocol::receipt::Header {
            identity: self.memory.identity,
            ..self.receipt_header(order, &next)
        };
        let writer = Writer::new(&header, self.buffer.receipt()).map_err(too_long)?;
        self.sign_and_conclude(writer.length(), next)
    }
}
