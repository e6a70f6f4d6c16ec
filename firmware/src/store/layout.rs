//! The bytes of a snapshot: commit block, records, boot ticks. `STORE.md` has the same as tables.

use keyferry_protocol::MAX_SLOTS;

use super::ring::LINE;

/// Longest public part of an item in bytes: a receipt of [`keyferry_protocol::MAX_MESSAGE`] bytes and something to say
/// about it.
pub const MAX_PUBLIC: usize = 2112;

/// Longest secret part of an item in bytes. An RSA-4096 private key as exponent and two primes takes 516.
pub const MAX_SECRET: usize = 1024;

/// Different items a store can hold.
pub const MAX_ITEMS: usize = FIRST_SLOT as usize + MAX_SLOTS;

/// Longest sealed secret in bytes.
pub(super) const MAX_SEALED: usize = MAX_SECRET + 8;

/// The number of slot 0's item.
const FIRST_SLOT: u8 = 16;

/// What an item is: numbers below 16 are the device's own, the rest are its slots. Numbers are part of the format:
/// append, never reuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemId(u8);

impl ItemId {
    /// Lifecycle, counter, version floors, and whatever else the device keeps about itself.
    pub const META: Self = Self(0);
    /// The authority that may sign orders.
    pub const AUTHORITY: Self = Self(1);
    /// The identity key, which signs receipts.
    pub const IDENTITY: Self = Self(2);
    /// The unwrap key.
    pub const UNWRAP: Self = Self(3);
    /// The receipt of the last order.
    pub const RECEIPT: Self = Self(4);
    /// The certificate of the identity key.
    pub const CERTIFICATE: Self = Self(5);

    /// The item of slot `slot`. `None` if there is no such slot: they run from 0 to [`MAX_SLOTS`] - 1.
    #[must_use]
    pub const fn slot(slot: u16) -> Option<Self> {
        if (slot as usize) < MAX_SLOTS {
            #[allow(clippy::cast_possible_truncation, reason = "checked on the line above")]
            let number = FIRST_SLOT + slot as u8;
            Some(Self(number))
        } else {
            None
        }
    }

    /// The slot this is the item of. `None` for the device's own items.
    #[must_use]
    pub const fn as_slot(self) -> Option<u16> {
        match self.0.checked_sub(FIRST_SLOT) {
            Some(slot) => Some(slot as u16),
            None => None,
        }
    }

    /// The number that stands for this item on flash, less than [`MAX_ITEMS`].
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }

    /// The item with this number on flash.
    const fn from_number(number: u8) -> Option<Self> {
        if (number as usize) < MAX_ITEMS {
            Some(Self(number))
        } else {
            None
        }
    }

    /// All items there can be.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        (0..MAX_ITEMS).filter_map(|number| u8::try_from(number).ok().and_then(Self::from_number))
    }
}

/// `bytes` rounded up to whole lines.
pub(super) const fn whole_lines(bytes: u32) -> u32 {
    bytes.div_ceil(LINE as u32) * LINE as u32
}

/// Bytes a secret of `length` bytes takes when sealed: AES-KWP pads to 8 and adds 8 (RFC 5649). No secret takes none.
pub(super) const fn sealed_length(length: usize) -> usize {
    if length == 0 {
        0
    } else {
        length.next_multiple_of(8) + 8
    }
}

/// The commit block: the first two lines of a snapshot, programmed after its records.
#[derive(Clone, Copy)]
pub(super) struct Commit {
    /// Records in the body.
    pub(super) items: u16,
    /// Number of this snapshot; the next one has the next number.
    pub(super) sequence: u32,
    /// Bytes of the body, which is all records.
    pub(super) body: u32,
    /// Boots counted before this snapshot.
    pub(super) base: u32,
    /// Bytes of an erase page.
    pub(super) page: u32,
    /// Bytes of the ring.
    pub(super) area: u32,
}

/// Which format a commit block is in.
pub(super) enum Format {
    /// Not a commit block: erased, torn or something else.
    None,
    /// One this firmware does not know.
    Other(u8),
    /// The one below.
    Known(Commit),
}

impl Commit {
    /// What every commit block starts with, in all formats.
    const MAGIC: [u8; 4] = *b"KFST";
    /// The format written by this firmware.
    const FORMAT: u8 = 1;
    /// Bytes of the commit block.
    pub(super) const LENGTH: u32 = 2 * LINE as u32;
    /// Bytes of its fields, before checksum and MAC.
    pub(super) const FIELDS: usize = 28;

    /// The fields as bytes.
    pub(super) fn encode(&self) -> [u8; Self::FIELDS] {
        let mut out = [0; Self::FIELDS];
        out[0..4].copy_from_slice(&Self::MAGIC);
        // The format and its complement: a torn word leaves bits at one in both and cannot pass for another format.
        out[4] = Self::FORMAT;
        out[5] = !Self::FORMAT;
        out[6..8].copy_from_slice(&self.items.to_le_bytes());
        out[8..12].copy_from_slice(&self.sequence.to_le_bytes());
        out[12..16].copy_from_slice(&self.body.to_le_bytes());
        out[16..20].copy_from_slice(&self.base.to_le_bytes());
        out[20..24].copy_from_slice(&self.page.to_le_bytes());
        out[24..28].copy_from_slice(&self.area.to_le_bytes());
        out
    }

    /// Reads the first line of a commit block. The values are not to be trusted before checksum and MAC fit.
    pub(super) fn decode(line: &[u8; LINE]) -> Format {
        if line[0..4] != Self::MAGIC || line[4] != !line[5] {
            return Format::None;
        }
        if line[4] != Self::FORMAT {
            return Format::Other(line[4]);
        }
        let word =
            |at: usize| u32::from_le_bytes([line[at], line[at + 1], line[at + 2], line[at + 3]]);
        Format::Known(Self {
            items: u16::from_le_bytes([line[6], line[7]]),
            sequence: word(8),
            body: word(12),
            base: word(16),
            page: word(20),
            area: word(24),
        })
    }
}

/// The head of a record: the record's item and the lengths of its parts.
pub(super) struct RecordHead {
    /// Which item.
    pub(super) id: ItemId,
    /// Bytes of the public part.
    pub(super) public: u16,
    /// Bytes of the sealed secret, 0 if the item has none.
    pub(super) sealed: u16,
}

impl RecordHead {
    /// Bytes of the head, checksum included.
    pub(super) const LENGTH: usize = 12;
    /// Bytes of the head that the checksum covers, before the public part.
    pub(super) const CHECKED: usize = 8;

    /// The bytes that the checksum covers.
    pub(super) fn encode(&self) -> [u8; Self::CHECKED] {
        let mut out = [0; Self::CHECKED];
        out[0] = self.id.number();
        out[2..4].copy_from_slice(&self.public.to_le_bytes());
        out[4..6].copy_from_slice(&self.sealed.to_le_bytes());
        out
    }

    /// Reads a head. `None` if it names no item or gives lengths no item can have.
    pub(super) fn decode(line: &[u8; LINE]) -> Option<Self> {
        let head = Self {
            id: ItemId::from_number(line[0])?,
            public: u16::from_le_bytes([line[2], line[3]]),
            sealed: u16::from_le_bytes([line[4], line[5]]),
        };
        let fits = usize::from(head.public) <= MAX_PUBLIC
            && usize::from(head.sealed) <= MAX_SEALED
            && head.sealed.is_multiple_of(8)
            && head.sealed != 8
            && line[1] == 0
            && line[6..8] == [0, 0];
        fits.then_some(head)
    }

    /// The checksum a head's line carries.
    pub(super) fn stored_crc(line: &[u8; LINE]) -> [u8; 4] {
        [line[8], line[9], line[10], line[11]]
    }

    /// Bytes of the whole record on flash, in whole lines.
    pub(super) const fn record_length(public: u16, sealed: u16) -> u32 {
        whole_lines(Self::LENGTH as u32 + public as u32 + sealed as u32)
    }
}

/// Where an item's record is in a snapshot.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    /// Bytes from the snapshot's start to the record, a multiple of 32. Never 0: the commit block is there.
    pub(super) offset: u32,
    /// Bytes of the public part.
    pub(super) public: u16,
    /// Bytes of the sealed secret, 0 if the item has none.
    pub(super) sealed: u16,
}

impl Entry {
    /// Bytes of the whole record on flash.
    pub(super) const fn length(&self) -> u32 {
        RecordHead::record_length(self.public, self.sealed)
    }
}

/// The records of a snapshot by item.
#[derive(Clone)]
pub(super) struct Directory([Option<Entry>; MAX_ITEMS]);

impl Directory {
    /// No records.
    pub(super) const EMPTY: Self = Self([None; MAX_ITEMS]);

    /// An item's record.
    pub(super) fn get(&self, id: ItemId) -> Option<Entry> {
        self.0.get(usize::from(id.number())).copied().flatten()
    }

    /// Sets an item's record.
    pub(super) fn set(&mut self, id: ItemId, entry: Entry) {
        if let Some(place) = self.0.get_mut(usize::from(id.number())) {
            *place = Some(entry);
        }
    }

    /// Records there are, at most 32.
    pub(super) fn count(&self) -> u16 {
        self.0.iter().flatten().map(|_| 1_u16).sum()
    }

    /// The record that the line at byte `offset` of the snapshot belongs to.
    pub(super) fn owner(&self, offset: u32) -> Option<(ItemId, Entry)> {
        ItemId::all().find_map(|id| {
            let entry = self.get(id)?;
            let inside = entry.offset <= offset && offset < entry.offset + entry.length();
            inside.then_some((id, entry))
        })
    }
}

/// A complete snapshot.
pub(super) struct Snapshot {
    /// Its first page.
    pub(super) start: u32,
    /// Its number.
    pub(super) sequence: u32,
    /// Bytes of its body.
    pub(super) body: u32,
    /// Boots counted before it.
    pub(super) base: u32,
    /// Tick lines used up: the last one that is not erased, and all before it.
    pub(super) ticks_used: u32,
    /// Whether the last complete mark in its tick lines is a tick. Only then was it ever in force.
    pub(super) committed: bool,
    /// Its records.
    pub(super) directory: Directory,
}

/// A boot tick: the mark in a tick line that counts a boot. The first one commits the snapshot.
pub(super) const TICK: [u8; LINE] = [0; LINE];

/// The mark in a tick line that takes the commitment back, before a snapshot that may have been committed is erased.
pub(super) const VOID: [u8; LINE] = *b"keyferry: this snapshot is void.";

/// Fewest boot ticks of a snapshot. With them and the commit block an empty snapshot takes 256 bytes: one page.
const MIN_TICKS: u32 = 6;

/// Most boot ticks of a snapshot; what is left of its last page beyond them stays unused.
pub(super) const MAX_TICKS: u32 = 64;

impl Snapshot {
    /// Pages that a snapshot with a body of `body` bytes takes, `page` bytes each.
    pub(super) const fn pages_for(body: u32, page: u32) -> u32 {
        (Commit::LENGTH + body + MIN_TICKS * LINE as u32).div_ceil(page)
    }

    /// Largest body in bytes that fits into `pages` pages of `page` bytes each.
    pub(super) const fn body_for(pages: u32, page: u32) -> u32 {
        (pages * page).saturating_sub(Commit::LENGTH + MIN_TICKS * LINE as u32)
    }

    /// Pages this snapshot takes.
    pub(super) const fn pages(&self, page: u32) -> u32 {
        Self::pages_for(self.body, page)
    }

    /// Bytes from the snapshot's start to tick line `tick`.
    pub(super) const fn tick_offset(&self, tick: u32) -> u32 {
        Commit::LENGTH + self.body + tick * LINE as u32
    }

    /// Tick lines it has: those up to the end of its last page, at least 6 and at most 64.
    pub(super) const fn ticks(&self, page: u32) -> u32 {
        let ticks = (self.pages(page) * page - self.tick_offset(0)) / LINE as u32;
        if ticks < MAX_TICKS { ticks } else { MAX_TICKS }
    }

    /// Boots counted so far.
    pub(super) const fn boots(&self) -> u32 {
        self.base.saturating_add(self.ticks_used)
    }
}
