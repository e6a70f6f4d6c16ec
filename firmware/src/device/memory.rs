//! What the device knows of itself while it runs, and the store's item it comes from.

use embedded_storage::nor_flash::NorFlash;
use keyferry_protocol::MAX_SLOTS;
use keyferry_protocol::identity::{Digest, Fingerprint, p256_spki};
use keyferry_protocol::receipt::State;

use crate::keys::fingerprint;
use crate::store::{Change, ItemId, Store, StoreError};

/// How the META item is laid out. It is the item's first byte, and no state's code, by which older layouts begin.
const LAYOUT: u8 = 1;

/// Length of the META item in bytes: layout, state, counter, last order, epoch, version floors.
pub(super) const LENGTH: usize = 1 + STATE_AND_COUNTER + 32 + EPOCH + FLOORS;

const STATE_AND_COUNTER: usize = 1 + 4;
const EPOCH: usize = 4;
const FLOORS: usize = 4 * MAX_SLOTS;

/// Length of the item before it said how it is laid out: without that byte.
const WITHOUT_LAYOUT: usize = LENGTH - 1;

/// Length of the item before devices were handed over: without the epoch too.
const WITHOUT_EPOCH: usize = WITHOUT_LAYOUT - EPOCH;

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

    /// Reads it from the store. Anything that does not fit together is quarantined, never a default. What an older firmware has laid
    /// out is laid out anew, in one transaction.
    pub(super) fn load<F: NorFlash>(store: &mut Store<F>) -> Self {
        let Ok((memory, older)) = Self::try_load(store) else {
            return Self::quarantined();
        };
        // Not before: what cannot be vouched for stays as it is, and so does what a power cut has left beside it.
        store.tidy();
        if older {
            // Where that fails the item stays as it is, which can be read all the same; the next order replaces it.
            let _ = memory.lay_out(store);
        }
        memory
    }

    fn lay_out<F: NorFlash>(&self, store: &mut Store<F>) -> Result<(), StoreError> {
        store.begin([Change::Put {
            id: ItemId::META,
            public: LENGTH,
            secret: 0,
        }])?;
        store.put(ItemId::META, &self.encode(), None)?;
        store.commit()
    }

    /// The memory, and whether it was laid out by an older firmware. Changes nothing.
    ///
    /// # Errors
    /// Those of reading; [`StoreError::Damaged`] also for what does not fit together.
    pub(super) fn try_load<F: NorFlash>(store: &mut Store<F>) -> Result<(Self, bool), StoreError> {
        let mut bytes = [0; LENGTH];
        let (mut memory, older) = match store.public(ItemId::META, &mut bytes)? {
            None => return Ok((Self::BLANK, false)),
            Some(bytes) => Self::decode(bytes).ok_or(StoreError::Damaged)?,
        };
        memory.authority = key_fingerprint(store, ItemId::AUTHORITY)?;
        memory.identity = key_fingerprint(store, ItemId::IDENTITY)?;
        memory.unwrap = key_fingerprint(store, ItemId::UNWRAP)?;
        let present = |key: Fingerprint| key != Fingerprint::ZERO;
        let expected = memory.state != State::Blank;
        // A production image that was wiped still knows its authority.
        let fits = present(memory.identity) == expected
            && present(memory.unwrap) == expected
            && (present(memory.authority) || !expected);
        if fits {
            Ok((memory, older))
        } else {
            Err(StoreError::Damaged)
        }
    }

    /// Reads the item's bytes: this layout's or an older one's, and says whether it is older.
    fn decode(bytes: &[u8]) -> Option<(Self, bool)> {
        let (front, rest, older) = match (bytes.len(), bytes.first()?) {
            (LENGTH, &LAYOUT) => (&bytes[1..], &bytes[1 + STATE_AND_COUNTER..], false),
            (WITHOUT_LAYOUT | WITHOUT_EPOCH, _) => (bytes, &bytes[STATE_AND_COUNTER..], true),
            (_, _) => return None,
        };
        let (state, _) = *STATES.iter().find(|(_, code)| *code == front[0])?;
        let (last_order, mut rest) = rest.split_first_chunk::<32>()?;
        let mut memory = Self {
            state,
            counter: u32::from_le_bytes(*front[1..].first_chunk()?),
            last_order: Digest(*last_order),
            ..Self::BLANK
        };
        if rest.len() > FLOORS {
            let (epoch, floors) = rest.split_first_chunk::<EPOCH>()?;
            memory.epoch = u32::from_le_bytes(*epoch);
            rest = floors;
        }
        let (floors, _) = rest.as_chunks::<4>();
        for (floor, bytes) in memory.floors.iter_mut().zip(floors) {
            *floor = u32::from_le_bytes(*bytes);
        }
        Some((memory, older))
    }

    /// The META item's bytes. A quarantined memory is never written: its code decodes to nothing.
    pub(super) fn encode(&self) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        bytes[0] = LAYOUT;
        bytes[1] = STATES
            .iter()
            .find(|(state, _)| *state == self.state)
            .map_or(0, |(_, code)| *code);
        bytes[2..6].copy_from_slice(&self.counter.to_le_bytes());
        bytes[6..38].copy_from_slice(&self.last_order.0);
        bytes[38..42].copy_from_slice(&self.epoch.to_le_bytes());
        for (place, floor) in bytes[42..].chunks_exact_mut(4).zip(self.floors) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> Memory {
        let mut floors = [0; MAX_SLOTS];
        floors[3] = 0x0102_0304;
        floors[15] = 7;
        Memory {
            state: State::Locked,
            counter: 0x0a0b_0c0d,
            last_order: Digest([0x5c; 32]),
            epoch: 9,
            floors,
            ..Memory::BLANK
        }
    }

    /// What a layout holds, whatever it is.
    fn content(memory: &Memory) -> (State, u32, Digest, u32, [u32; MAX_SLOTS]) {
        let Memory {
            state,
            counter,
            last_order,
            epoch,
            floors,
            ..
        } = memory;
        (*state, *counter, *last_order, *epoch, *floors)
    }

    /// `STORE.md` has these layouts; what one firmware has written, all later ones read.
    #[test]
    fn all_layouts_are_read_and_unknown_ones_are_not() {
        let bytes = memory().encode();
        let front = "018e0d0c0b0a";
        let floors = [
            "000000000000000000000000",
            "04030201",
            &"00".repeat(44),
            "07000000",
        ]
        .concat();
        let order = "5c".repeat(32);
        assert_eq!(
            hex::encode(bytes),
            [front, &order, "09000000", &floors].concat()
        );
        let (read, older) = Memory::decode(&bytes).unwrap();
        assert_eq!((content(&read), older), (content(&memory()), false));

        let without_layout = &bytes[1..];
        let (read, older) = Memory::decode(without_layout).unwrap();
        assert_eq!((content(&read), older), (content(&memory()), true));

        let without_epoch = [&bytes[1..38], &bytes[42..]].concat();
        let (read, older) = Memory::decode(&without_epoch).unwrap();
        let expected = Memory {
            epoch: 0,
            ..memory()
        };
        assert_eq!((content(&read), older), (content(&expected), true));

        for length in 0..LENGTH {
            // Of the lengths of older layouts too: its first byte is no state.
            assert!(Memory::decode(&bytes[..length]).is_none(), "{length}");
        }
        for layout in (0..=255).filter(|layout| *layout != LAYOUT) {
            let mut other = bytes;
            other[0] = layout;
            assert!(Memory::decode(&other).is_none(), "{layout}");
        }
        assert!(Memory::decode(&Memory::quarantined().encode()).is_none());
    }
}
