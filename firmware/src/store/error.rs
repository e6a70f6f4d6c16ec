//! What can be wrong with a store.

use core::fmt;

use embedded_storage::nor_flash::NorFlashErrorKind;

use super::ItemId;

/// Whether a store is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It is.
    Ready,
    /// It is not, and nothing in it is ever changed.
    Quarantined(Reason),
}

/// Why a store is quarantined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// An intact snapshot was made under another root key: the flash or the fuses are another device's.
    OtherRootKey,
    /// A snapshot is in a format this firmware does not know; its number.
    OtherFormat(u8),
    /// An intact snapshot was made for another page size or another size of the flash area.
    OtherGeometry,
    /// There is something, but no intact snapshot.
    Damaged,
    /// The flash reports errors.
    Flash,
    /// The root key could not be read, so that nothing in it can be vouched for.
    NoRootKey,
    /// The flash area has fewer than four erase pages.
    AreaTooSmall,
    /// A change could be neither finished nor undone. The next start alone can tell which state holds.
    Unsettled,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherRootKey => f.write_str("made under another root key"),
            Self::OtherFormat(number) => write!(f, "in unknown format {number}"),
            Self::OtherGeometry => f.write_str("made for another flash geometry"),
            Self::Damaged => f.write_str("damaged"),
            Self::Flash => f.write_str("flash errors"),
            Self::NoRootKey => f.write_str("no root key"),
            Self::AreaTooSmall => f.write_str("flash area too small"),
            Self::Unsettled => f.write_str("unsettled until the next start"),
        }
    }
}

/// Why a store refused or failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// The store is quarantined.
    Quarantined(Reason),
    /// The planned state does not fit; nothing was touched.
    Full {
        /// Bytes the planned state takes.
        needed: u32,
        /// Bytes there are, see [`Store::capacity`](super::Store::capacity).
        capacity: u32,
    },
    /// A public or secret part is longer than [`MAX_PUBLIC`](super::MAX_PUBLIC) or [`MAX_SECRET`](super::MAX_SECRET).
    TooLong {
        /// Its length in bytes.
        length: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The caller's buffer is too short.
    BufferTooSmall {
        /// Bytes it must have.
        needed: usize,
    },
    /// No transaction is open.
    NoTransaction,
    /// The item was not planned at [`Store::begin`](super::Store::begin), or not that long, or was put already.
    NotPlanned(ItemId),
    /// The item was planned but not put.
    NotPut(ItemId),
    /// What is on flash is not what was written: it fails its checksum, its MAC or its seal.
    Damaged,
    /// The flash reports an error, or did not keep what was programmed.
    Flash(NorFlashErrorKind),
    /// The new state is in force and durable, but what it replaced could not be erased from flash. The next
    /// [`Store::begin`](super::Store::begin) and the next start try again.
    Residue(NorFlashErrorKind),
    /// A counter has reached its end.
    Exhausted,
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quarantined(reason) => write!(f, "key store quarantined: {reason}"),
            Self::Full { needed, capacity } => {
                write!(f, "key store full: {needed} bytes needed of {capacity}")
            }
            Self::TooLong { length, limit } => {
                write!(f, "item part of {length} bytes, at most {limit} fit")
            }
            Self::BufferTooSmall { needed } => write!(f, "buffer too small: {needed} bytes needed"),
            Self::NoTransaction => f.write_str("no transaction open"),
            Self::NotPlanned(id) => write!(f, "item {} was not planned so", id.number()),
            Self::NotPut(id) => write!(f, "item {} was planned but not put", id.number()),
            Self::Damaged => f.write_str("stored data damaged"),
            Self::Flash(kind) => write!(f, "flash: {kind}"),
            Self::Residue(kind) => write!(f, "stored, but old data could not be erased: {kind}"),
            Self::Exhausted => f.write_str("counter exhausted"),
        }
    }
}

impl core::error::Error for StoreError {}
