//! What the device knows of itself while it runs, and the store's item it comes from.

use embedded_storage::nor_flash::NorFlash;
use keyferry_protocol::MAX_SLOTS;
use keyferry_protocol::identity::{Digest, Fingerprint, p256_spki};
use keyferry_protocol::receipt::State;

use crate::keys::fingerprint;
use crate::store::{ItemId, Store, StoreError};

/// Length of the META item in bytes: state, counter, last order, epoch, version floors.
pub(super) const LENGTH: usize = 1 + 4 + 32 + 4 + 4 * MAX_SLOTS;

/// Longest public key kept, in bytes: an RSA-4096 `SubjectPublicKeyInfo` is 550.
pub(super) const MAX_SPKI: usize = if cfg!(feature = "rsa-keys") {
    560
} else {
    p256_spki::LENGTH
};

/// Lifecycle states as the META item holds them: bytes that differ in at least four bits, so that no single fault turns
/// one into another.
const STATES: [(State, u8); 4] = [
    (State::Blank, 0x17),
    (State::Enrolled, 0x2b),
    (State::Provisioned, 0x4d),
    (State::Locked, 0x8e),
];

/// The device's memory of itself.
#[derive(Clone)]
pub(super) struct Memory {
    pub(super) state: State,
    pub(super) counter: u32,
    /// Digest of the last order that was applied.
    pub(super) last_order: Digest,
    /// How often the authority was handed over.
    pub(super) epoch: u32,
    /// The highest version each slot has ever held.
    pub(super) floors: [u32; MAX_SLOTS],
    pub(super) authority: Fingerprint,
    pub(super) identity: Fingerprint,
    pub(super) unwrap: Fingerprint,
}

impl Memory {
    const BLANK: Self = Self {
        state: State::Blank,
        counter: 0,
        last_order: Digest::ZERO,
        epoch: 0,
        floors: [0; MAX_SLOTS],
        authority: Fingerprint::ZERO,
        identity: Fingerprint::ZERO,
        unwrap: Fingerprint::ZERO,
    };

    pub(super) const fn quarantined() -> Self {
        Self {
            state: State::Quarantined,
            ..Self::BLANK
        }
    }

    /// Reads it from the store. Anything that does not fit together is quarantined, never a default.
    pub(super) fn load<F: NorFlash>(store: &mut Store<F>) -> Self {
        Self::try_load(store).unwrap_or(Self::quarantined())
    }

    fn try_load<F: NorFlash>(store: &mut Store<F>) -> Option<Self> {
        let mut bytes = [0; LENGTH];
        let mut memory = match store.public(ItemId::META, &mut bytes).ok()? {
            None => return Some(Self::BLANK),
            Some(bytes) => Self::decode(bytes)?,
        };
        memory.authority = key_fingerprint(store, ItemId::AUTHORITY).ok()?;
        memory.identity = key_fingerprint(store, ItemId::IDENTITY).ok()?;
        memory.unwrap = key_fingerprint(store, ItemId::UNWRAP).ok()?;
        let present = |key: Fingerprint| key != Fingerprint::ZERO;
        let expected = memory.state != State::Blank;
        // A production image that was wiped still knows its authority.
        let fits = present(memory.identity) == expected
            && present(memory.unwrap) == expected
            && (present(memory.authority) || !expected);
        fits.then_some(memory)
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; LENGTH] = bytes.try_into().ok()?;
        let (state, _) = *STATES.iter().find(|(_, code)| *code == bytes[0])?;
        let mut memory = Self {
            state,
            counter: u32::from_le_bytes(*bytes[1..].first_chunk()?),
            ..Self::BLANK
        };
        memory.last_order.0.copy_from_slice(&bytes[5..37]);
        memory.epoch = u32::from_le_bytes(*bytes[37..].first_chunk()?);
        let (floors, _) = bytes[41..].as_chunks::<4>();
        for (floor, bytes) in memory.floors.iter_mut().zip(floors) {
            *floor = u32::from_le_bytes(*bytes);
        }
        Some(memory)
    }

    /// The META item's bytes. A quarantined memory is never written: its code decodes to nothing.
    pub(super) fn encode(&self) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        bytes[0] = STATES
            .iter()
            .find(|(state, _)| *state == self.state)
            .map_or(0, |(_, code)| *code);
        bytes[1..5].copy_from_slice(&self.counter.to_le_bytes());
        bytes[5..37].copy_from_slice(&self.last_order.0);
        bytes[37..41].copy_from_slice(&self.epoch.to_le_bytes());
        for (place, floor) in bytes[41..].chunks_exact_mut(4).zip(self.floors) {
            place.copy_from_slice(&floor.to_le_bytes());
        }
        bytes
    }
}

fn key_fingerprint<F: NorFlash>(
    store: &mut Store<F>,
    id: ItemId,
) -> Result<Fingerprint, StoreError> {
    let mut spki = [0; MAX_SPKI];
    Ok(store
        .public(id, &mut spki)?
        .map_or(Fingerprint::ZERO, fingerprint))
}
