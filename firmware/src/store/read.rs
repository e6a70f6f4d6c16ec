//! Reading an item back from flash, checked.

use embedded_storage::nor_flash::NorFlash;
use sha2::{Digest, Sha256};

use super::StoreError;
use super::layout::{Entry, ItemId, MAX_SEALED, RecordHead};
use super::ring::{LINE, Ring};
use super::seal::{self, CRC};
use crate::platform::RootKey;

/// A record being read from its beginning.
struct Record<'a, F> {
    ring: &'a mut Ring<F>,
    start: u32,
    /// Where the next line is.
    offset: u32,
    line: [u8; LINE],
    /// Bytes of the line that are used up.
    used: usize,
}

impl<F: NorFlash> Record<'_, F> {
    /// Fills `out` with the next bytes.
    fn fill(&mut self, out: &mut [u8]) -> Result<(), StoreError> {
        for byte in out {
            if self.used == LINE {
                self.line = self
                    .ring
                    .read_line(self.start, self.offset)
                    .map_err(StoreError::Flash)?;
                self.offset += LINE as u32;
                self.used = 0;
            }
            *byte = self.line[self.used];
            self.used += 1;
        }
        Ok(())
    }
}

/// Opens the record of `id` and checks that its head is the one that was there at the start. Gives the record, placed
/// before the public part, and the checksum of head and public part.
fn open<F: NorFlash>(
    ring: &mut Ring<F>,
    start: u32,
    id: ItemId,
    entry: Entry,
) -> Result<(Record<'_, F>, [u8; 4]), StoreError> {
    let line = ring
        .read_line(start, entry.offset)
        .map_err(StoreError::Flash)?;
    let head = RecordHead::decode(&line).ok_or(StoreError::Damaged)?;
    if head.id != id || head.public != entry.public || head.sealed != entry.sealed {
        return Err(StoreError::Damaged);
    }
    let offset = entry.offset + LINE as u32;
    Ok((
        Record {
            ring,
            start,
            offset,
            line,
            used: RecordHead::LENGTH,
        },
        RecordHead::stored_crc(&line),
    ))
}

fn head_digest(id: ItemId, entry: Entry) -> crc::Digest<'static, u32, crc::NoTable> {
    let mut crc = CRC.digest();
    crc.update(
        &RecordHead {
            id,
            public: entry.public,
            sealed: entry.sealed,
        }
        .encode(),
    );
    crc
}

/// Reads the public part of an item of the snapshot that starts with page `start`.
pub(super) fn public<'b, F: NorFlash>(
    ring: &mut Ring<F>,
    start: u32,
    id: ItemId,
    entry: Entry,
    buf: &'b mut [u8],
) -> Result<&'b [u8], StoreError> {
    let length = usize::from(entry.public);
    let out = buf
        .get_mut(..length)
        .ok_or(StoreError::BufferTooSmall { needed: length })?;
    let (mut record, stored) = open(ring, start, id, entry)?;
    record.fill(out)?;
    let mut crc = head_digest(id, entry);
    crc.update(out);
    if crc.finalize().to_le_bytes() == stored {
        Ok(out)
    } else {
        Err(StoreError::Damaged)
    }
}

/// Reads and opens the secret part of an item of the snapshot that starts with page `start`. It must have one. `buf` is
/// wiped if anything fails.
pub(super) fn secret<'b, F: NorFlash>(
    ring: &mut Ring<F>,
    root: &RootKey,
    start: u32,
    id: ItemId,
    entry: Entry,
    buf: &'b mut [u8],
) -> Result<&'b mut [u8], StoreError> {
    let needed = usize::from(entry.sealed).saturating_sub(8);
    if buf.len() < needed {
        return Err(StoreError::BufferTooSmall { needed });
    }
    let (mut record, stored) = open(ring, start, id, entry)?;
    let mut crc = head_digest(id, entry);
    let mut digest = Sha256::new();
    let mut left = usize::from(entry.public);
    while left > 0 {
        let mut chunk = [0; LINE];
        let chunk = &mut chunk[..left.min(LINE)];
        record.fill(chunk)?;
        crc.update(chunk);
        digest.update(&chunk);
        left -= chunk.len();
    }
    let mut sealed = [0; MAX_SEALED];
    let sealed = sealed
        .get_mut(..usize::from(entry.sealed))
        .ok_or(StoreError::Damaged)?;
    record.fill(sealed)?;
    if crc.finalize().to_le_bytes() != stored {
        return Err(StoreError::Damaged);
    }
    seal::open(root, id, &digest.finalize().into(), sealed, buf).map_err(|_| StoreError::Damaged)
}
