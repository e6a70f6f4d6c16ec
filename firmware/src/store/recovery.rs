//! What a start makes of the flash it finds.
//!
//! A power cut can leave: an uncommitted snapshot beside the one before it, two committed ones, or one and half-erased
//! pages. Whatever no power cut explains puts the store in quarantine, and there nothing is erased.
//!
//! What was being programmed or erased when power failed may read differently at every start, so nothing is decided by a
//! reading alone: before a start erases anything, it programs the mark of its decision completely, a tick into the
//! snapshot in force and a void mark into one that is not. The last complete mark decides at all later starts.

use embedded_storage::nor_flash::NorFlash;

use super::Reason;
use super::layout::{Commit, Directory, Entry, Format, RecordHead, Snapshot, TICK, VOID};
use super::ring::{Defect, ERASED, LINE, Ring};
use super::seal::Checks;
use super::staging::{Staging, commit_block};
use crate::platform::RootKey;

/// The number of the first snapshot.
const FIRST: u32 = 1;

/// Why there is no snapshot at a page.
pub(super) enum Rejected {
    /// Nothing complete is there.
    Nothing,
    /// It could not be read.
    Unreadable,
    /// Something complete is there, which no power cut explains.
    Objection(Reason),
}

/// Finds the snapshot in force. `None`: the flash was never formatted, or that was interrupted.
pub(super) fn find<F: NorFlash>(
    ring: &mut Ring<F>,
    root: &RootKey,
) -> Result<Option<Snapshot>, Reason> {
    if ring.pages() == 0 {
        return Err(Reason::AreaTooSmall);
    }
    let (mut best, mut other): (Option<Snapshot>, Option<Snapshot>) = (None, None);
    let mut unreadable = false;
    let mut objections = false;
    for page in 0..ring.pages() {
        match inspect(ring, root, page) {
            Ok(found) if ranks_above(&found, best.as_ref()) => other = best.replace(found),
            Ok(found) if ranks_above(&found, other.as_ref()) => other = Some(found),
            Ok(_) | Err(Rejected::Nothing) => {}
            Err(Rejected::Unreadable) => unreadable = true,
            Err(Rejected::Objection(_)) => objections = true,
        }
    }
    if objections {
        // A second look, because the inside of a good snapshot may hold anything, even what looks like a commit block.
        for page in 0..ring.pages() {
            let covered = |snapshot: &Option<Snapshot>| {
                snapshot.as_ref().is_some_and(|s| covers(ring, s, page))
            };
            if covered(&best) || covered(&other) {
                continue;
            }
            if let Err(Rejected::Objection(reason)) = inspect(ring, root, page) {
                return Err(reason);
            }
        }
    }
    match best {
        Some(best) if best.committed => Ok(Some(best)),
        Some(_) | None if is_unformatted(ring, root) => Ok(None),
        Some(_) | None => Err(if unreadable {
            Reason::Flash
        } else {
            Reason::Damaged
        }),
    }
}

/// Writes the first snapshot, without items, into the first erased page that takes it.
///
/// Nothing is erased for it: the torn remains of an erase could be told from nothing. An attempt that is cut off costs a
/// page until a later attempt succeeds.
pub(super) fn format<F: NorFlash>(ring: &mut Ring<F>, root: &RootKey) -> Result<Snapshot, Reason> {
    for page in 0..ring.pages() {
        if ring.is_blank(page)
            && let Ok(snapshot) = Staging::new(page, 0, root).finish(ring, FIRST, 0)
        {
            return Ok(snapshot);
        }
    }
    Err(Reason::Flash)
}

/// Whether every page is erased or holds a first snapshot, or a part of one, that was never used. That is what first
/// formats leave when power fails, and there is nothing in it to lose.
fn is_unformatted<F: NorFlash>(ring: &mut Ring<F>, root: &RootKey) -> bool {
    let first = Snapshot {
        start: 0,
        sequence: FIRST,
        body: 0,
        base: 0,
        ticks_used: 0,
        committed: false,
        directory: Directory::EMPTY,
    };
    let [fields, mac] = commit_block(ring, &first, Checks::new(root));
    let used = [fields, mac, TICK];
    (0..ring.pages()).all(|page| {
        (0..Ring::<F>::LINES).all(|number| {
            let complete = used.get(number as usize);
            match (ring.read_line(page, number * LINE as u32), complete) {
                // Programming clears bits: a part of it has cleared no others.
                (Ok(line), Some(complete)) => line
                    .iter()
                    .zip(complete)
                    .all(|(found, all)| found & all == *all),
                // Parts with error correction refuse to read a torn word.
                (Err(_), Some(_)) => true,
                (line, None) => line == Ok(ERASED),
            }
        })
    })
}

fn ranks_above(snapshot: &Snapshot, other: Option<&Snapshot>) -> bool {
    let rank = |snapshot: &Snapshot| (snapshot.committed, snapshot.sequence, snapshot.ticks_used);
    other.is_none_or(|other| rank(snapshot) > rank(other))
}

/// Whether `page` belongs to `snapshot`.
fn covers<F: NorFlash>(ring: &Ring<F>, snapshot: &Snapshot, page: u32) -> bool {
    let steps = (page + ring.pages() - snapshot.start) % ring.pages();
    steps < snapshot.pages(Ring::<F>::PAGE)
}

/// Reads and checks the snapshot that starts with `page`, completely: checksum first, then MAC, then records.
pub(super) fn inspect<F: NorFlash>(
    ring: &mut Ring<F>,
    root: &RootKey,
    page: u32,
) -> Result<Snapshot, Rejected> {
    let read = |ring: &mut Ring<F>, offset| {
        ring.read_line(page, offset)
            .map_err(|_| Rejected::Unreadable)
    };
    let first = read(ring, 0)?;
    let commit = match Commit::decode(&first) {
        Format::None => return Err(Rejected::Nothing),
        Format::Other(number) => return Err(Rejected::Objection(Reason::OtherFormat(number))),
        Format::Known(commit) => commit,
    };
    let largest = Snapshot::body_for(ring.pages() / 2, Ring::<F>::PAGE);
    if commit.body > largest || !commit.body.is_multiple_of(LINE as u32) {
        return Err(Rejected::Nothing);
    }
    let mac = read(ring, LINE as u32)?;
    let mut checks = Checks::new(root);
    for offset in (Commit::LENGTH..Commit::LENGTH + commit.body).step_by(LINE) {
        checks.body(&read(ring, offset)?);
    }
    let (fields, crc) = first.split_first_chunk().ok_or(Rejected::Nothing)?;
    let crc = crc.first_chunk().ok_or(Rejected::Nothing)?;
    let (crc_fits, mac_fits) = checks.fits(fields, crc, &mac);
    let trusted = ring.has(Defect::CommitFirst) && commit.sequence != FIRST;
    if !trusted {
        if !crc_fits {
            return Err(Rejected::Nothing);
        }
        if commit.page != Ring::<F>::PAGE || commit.area != ring.bytes() {
            return Err(Rejected::Objection(Reason::OtherGeometry));
        }
        if !mac_fits {
            return Err(Rejected::Objection(Reason::OtherRootKey));
        }
    }
    let mut snapshot = Snapshot {
        start: page,
        sequence: commit.sequence,
        body: commit.body,
        base: commit.base,
        ticks_used: 0,
        committed: trusted || ring.has(Defect::CommitUnsettled),
        directory: directory(ring, page, &commit)?,
    };
    for tick in 0..snapshot.ticks(Ring::<F>::PAGE) {
        let line = ring.read_line(page, snapshot.tick_offset(tick));
        match line {
            Ok(ERASED) => continue,
            Ok(TICK) => snapshot.committed = true,
            Ok(VOID) => snapshot.committed = false,
            // Torn: it was begun, but decides nothing.
            Ok(_) | Err(_) => {}
        }
        snapshot.ticks_used = tick + 1;
    }
    Ok(snapshot)
}

/// Walks the records of a snapshot.
fn directory<F: NorFlash>(
    ring: &mut Ring<F>,
    start: u32,
    commit: &Commit,
) -> Result<Directory, Rejected> {
    let mut directory = Directory::EMPTY;
    let end = Commit::LENGTH + commit.body;
    let mut offset = Commit::LENGTH;
    while offset < end {
        let line = ring
            .read_line(start, offset)
            .map_err(|_| Rejected::Unreadable)?;
        let head = RecordHead::decode(&line).ok_or(Rejected::Nothing)?;
        if directory.get(head.id).is_some() {
            return Err(Rejected::Nothing);
        }
        let entry = Entry {
            offset,
            public: head.public,
            sealed: head.sealed,
        };
        directory.set(head.id, entry);
        offset += entry.length();
    }
    if offset == end && directory.count() == commit.items {
        Ok(directory)
    } else {
        Err(Rejected::Nothing)
    }
}
