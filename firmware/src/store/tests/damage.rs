//! Foreign, rotten and failing flash.

use std::vec;

use super::*;
use crate::store::nor_fake::Cut;

type Fake = NorFake<4, 256>;

/// Bytes of commit block and records in what `stored` gives.
const PROTECTED: usize = 64 + 64 + 96;

/// A store with two keys and some ticks, closed.
fn stored() -> Fake {
    let mut store = Store::open(Fake::new(8), root_key(1));
    put_one(
        &mut store,
        slot(0),
        b"attributes of the first key",
        b"first secret key",
    )
    .unwrap();
    put_one(
        &mut store,
        slot(1),
        b"attributes of the second key",
        b"second secret key",
    )
    .unwrap();
    store.next_boot().unwrap();
    store.into_flash()
}

fn assert_quarantined(flash: Fake, root: u8, reason: Reason) {
    let before = flash.clone();
    let mut store = Store::open(flash, root_key(root));
    assert_eq!(store.condition(), Condition::Quarantined(reason));
    let refused = StoreError::Quarantined(reason);
    assert_eq!(store.next_boot(), Err(refused));
    assert_eq!(store.begin([]), Err(refused));
    assert_eq!(store.commit(), Err(refused));
    store.abort();
    assert_eq!(store.public(slot(0), &mut []), Err(refused));
    assert_eq!((store.ids().count(), store.used()), (0, 0));
    let after = store.into_flash();
    assert!(
        after.bytes() == before.bytes(),
        "a quarantined flash was changed"
    );
    assert_eq!(
        (after.erases(), after.programs()),
        (before.erases(), before.programs())
    );
}

#[test]
fn another_root_key_is_quarantined() {
    assert_quarantined(stored(), 2, Reason::OtherRootKey);
    let empty = Store::open(Fake::new(8), root_key(1)).into_flash();
    assert_quarantined(empty, 2, Reason::OtherRootKey);
}

#[test]
fn unknown_formats_areas_and_contents_are_quarantined() {
    let current = |flash: &Fake| {
        flash
            .bytes()
            .chunks(256)
            .position(|page| page.starts_with(b"KFST"))
            .unwrap()
            * 256
    };
    let mut flash = stored();
    let at = current(&flash);
    flash.corrupt(at + 4, 2);
    flash.corrupt(at + 5, !2);
    assert_quarantined(flash, 1, Reason::OtherFormat(2));

    assert_quarantined(Fake::new(3), 1, Reason::AreaTooSmall);
    let mut zeros = Fake::new(8);
    (0..2048).for_each(|at| zeros.corrupt(at, 0));
    assert_quarantined(zeros, 1, Reason::Damaged);

    // The same bytes in a larger area, and with larger pages.
    let mut small = stored();
    for length in (0..).step_by(100) {
        if current(&small) % 512 == 0 {
            break;
        }
        let mut store = Store::open(small, root_key(1));
        put_one(&mut store, slot(0), &vec![0; length], b"").unwrap();
        small = store.into_flash();
    }
    let mut larger = Fake::new(10);
    let mut wider = NorFake::<4, 512>::new(4);
    for (at, byte) in small.bytes().iter().enumerate() {
        larger.corrupt(at, *byte);
        wider.corrupt(at, *byte);
    }
    assert_quarantined(larger, 1, Reason::OtherGeometry);
    let store = Store::open(wider, root_key(1));
    assert_eq!(
        store.condition(),
        Condition::Quarantined(Reason::OtherGeometry)
    );
}

#[test]
fn a_newer_format_beside_a_known_one_is_not_erased() {
    let mut flash = stored();
    let free = flash
        .bytes()
        .chunks(256)
        .rposition(|page| page.iter().all(|byte| *byte == 0xff))
        .unwrap()
        * 256;
    for (at, byte) in LOOKS.into_iter().enumerate() {
        flash.corrupt(free + at, byte);
    }
    assert_quarantined(flash, 1, Reason::OtherFormat(9));
}

/// The beginning of a commit block in a format of the future.
const LOOKS: [u8; 6] = [b'K', b'F', b'S', b'T', 9, !9];

#[test]
fn what_looks_like_a_commit_block_inside_a_record_is_no_matter() {
    let mut store = Store::open(Fake::new(16), root_key(1));
    let mut public = vec![0; 600];
    // A page begins at every eighth line, and lines of this public part at byte 20, 52, …: the head takes 12 bytes.
    for start in (20..590).step_by(32) {
        public[start..start + 6].copy_from_slice(&LOOKS);
    }
    for _ in 0..9 {
        put_one(&mut store, slot(0), &public, b"").unwrap();
        let flash = store.into_flash();
        let looks = flash
            .bytes()
            .chunks(256)
            .filter(|page| page.starts_with(&LOOKS))
            .count();
        assert!(looks >= 2, "the test does not test");
        store = Store::open(flash, root_key(1));
        assert_eq!(store.condition(), Condition::Ready);
    }
}

/// Whatever bit of the only snapshot flips, the store says so or still holds the right state.
#[test]
fn single_bit_flips_are_found() {
    let flash = stored();
    let mut right = Store::open(flash.clone(), root_key(1));
    let (first, second) = (get(&mut right, slot(0)), get(&mut right, slot(1)));
    let boots = right.next_boot().unwrap();
    let (mut quarantined, mut unharmed) = (0, 0);
    for bit in 0..flash.bytes().len() * 8 {
        let mut flipped = flash.clone();
        flipped.corrupt(bit / 8, flash.bytes()[bit / 8] ^ 1 << (bit % 8));
        let before = flipped.clone();
        let mut store = Store::open(flipped, root_key(1));
        if store.condition() == Condition::Ready {
            assert_eq!(
                (get(&mut store, slot(0)), get(&mut store, slot(1))),
                (first.clone(), second.clone())
            );
            assert_eq!(store.ids().count(), 2);
            assert!(store.next_boot().unwrap() >= boots);
            unharmed += 1;
        } else {
            assert!(store.into_flash().bytes() == before.bytes());
            quarantined += 1;
        }
    }
    assert_eq!(quarantined, PROTECTED * 8);
    assert_eq!(quarantined + unharmed, 2048 * 8);
}

/// Rot that comes while the store is open is found at the reading, and never gets under a new MAC.
#[test]
fn rot_after_the_start_is_found() {
    let flash = stored();
    let start = flash
        .bytes()
        .chunks(256)
        .position(|page| page.starts_with(b"KFST"))
        .unwrap()
        * 256;
    for at in start..start + PROTECTED {
        let mut store = Store::open(flash.clone(), root_key(1));
        let right = (get(&mut store, slot(0)), get(&mut store, slot(1)));
        let rotten = store.ring.flash_mut().bytes()[at] ^ 0x10;
        store.ring.flash_mut().corrupt(at, rotten);
        let read = (get(&mut store, slot(0)), get(&mut store, slot(1)));
        for (read, right) in [(read.0, right.0), (read.1, right.1)] {
            assert!(read == right || read == Err(StoreError::Damaged));
        }
        store.begin([Change::Remove(slot(1))]).unwrap();
        assert_eq!(store.commit(), Err(StoreError::Damaged));
        let store = Store::open(store.into_flash(), root_key(1));
        assert_eq!(store.condition(), Condition::Quarantined(Reason::Damaged));
    }
}

#[test]
fn removed_and_replaced_items_are_gone_from_flash() {
    let sealed_of = |store: &mut Store<Fake>, id| {
        let entry = store.entry(id).unwrap();
        let start = store.current.as_ref().unwrap().snapshot.start as usize * 256;
        let from = start + entry.offset as usize + 12 + usize::from(entry.public);
        let bytes: Vec<u8> = store
            .ring
            .flash()
            .bytes()
            .iter()
            .cycle()
            .skip(from)
            .take(24)
            .copied()
            .collect();
        bytes
    };
    let mut store = Store::open(Fake::new(8), root_key(1));
    put_one(&mut store, slot(0), b"public part one", b"clear-text uno").unwrap();
    put_one(&mut store, slot(1), b"public part two", b"clear-text due").unwrap();
    let (one, two) = (
        sealed_of(&mut store, slot(0)),
        sealed_of(&mut store, slot(1)),
    );
    let flash = store.ring.flash_mut().bytes();
    assert!(shows(flash, &one) && shows(flash, &two) && shows(flash, b"public part one"));
    assert_eq!(
        shows(flash, b"clear-text uno"),
        cfg!(feature = "sabotage-plain-storage")
    );

    put_one(&mut store, slot(0), b"public part new", b"clear-text nov").unwrap();
    assert!(
        !shows(store.ring.flash_mut().bytes(), &one) && shows(store.ring.flash_mut().bytes(), &two)
    );
    assert!(!shows(store.ring.flash_mut().bytes(), b"part one"));
    store.begin([Change::Remove(slot(1))]).unwrap();
    store.commit().unwrap();
    assert!(
        !shows(store.ring.flash_mut().bytes(), &two)
            && !shows(store.ring.flash_mut().bytes(), b"part two")
    );

    // Nor does an aborted transaction leave anything.
    store
        .begin([put(slot(2), b"public part bad", b"clear-text bad")])
        .unwrap();
    store
        .put(
            slot(2),
            b"public part bad",
            Some(&mut b"clear-text bad".to_vec()),
        )
        .unwrap();
    assert!(shows(store.ring.flash_mut().bytes(), b"part bad"));
    store.abort();
    assert!(!shows(store.ring.flash_mut().bytes(), b"part bad"));
}

/// A sealed secret opens only as the item it was sealed as, with the public part it was sealed with.
#[cfg(not(feature = "sabotage-plain-storage"))]
#[test]
fn seals_are_bound_to_item_public_part_and_root_key() {
    use crate::store::seal;
    let mut sealed = [0; 24];
    assert!(
        seal::seal(
            &root_key(1),
            slot(0),
            &[5; 32],
            b"clear-text uno",
            &mut sealed
        )
        .is_ok()
    );
    let open = |root, id, digest: [u8; 32], sealed: [u8; 24]| {
        let mut out = [0xee; 16];
        let opened = seal::open(&root_key(root), id, &digest, &sealed, &mut out).is_ok();
        assert!(opened || cfg!(feature = "sabotage-no-wipe") || out == [0; 16]);
        opened
    };
    assert!(open(1, slot(0), [5; 32], sealed));
    assert!(!open(2, slot(0), [5; 32], sealed));
    assert!(!open(1, slot(1), [5; 32], sealed));
    assert!(!open(1, slot(0), [6; 32], sealed));
    for at in 0..24 {
        let mut altered = sealed;
        altered[at] ^= 1;
        assert!(!open(1, slot(0), [5; 32], altered));
    }
}

/// A flash operation that fails while power stays on ends the transaction: the old state stays, in this session and the
/// next one, or the new one is in force and only its remains are left.
#[test]
fn failing_operations_leave_old_or_new_state() {
    let flash = stored();
    let mut store = Store::open(flash.clone(), root_key(1));
    let old = get(&mut store, slot(0)).unwrap();
    let new = Some((b"new attributes".to_vec(), b"new secret key".to_vec()));
    let (mut failed, mut residues) = (0, 0);
    for n in 0.. {
        let mut store = Store::open(flash.clone(), root_key(1));
        let boots = store.next_boot().unwrap();
        store.ring.flash_mut().fail_after(n);
        let result = put_one(&mut store, slot(0), b"new attributes", b"new secret key");
        let expected = match result {
            Ok(()) | Err(StoreError::Residue(_)) => &new,
            Err(_) => &old,
        };
        if store.condition() == Condition::Ready {
            assert_eq!(get(&mut store, slot(0)).unwrap(), *expected);
            assert!(store.next_boot().unwrap() > boots);
        }
        residues += u32::from(store.has_residue());
        let mut store = Store::open(store.into_flash(), root_key(1));
        assert_eq!(get(&mut store, slot(0)).unwrap(), *expected);
        assert!(!store.has_residue());
        if result.is_ok() && !store.ring.flash_mut().has_failed() {
            break;
        }
        failed += 1;
        put_one(&mut store, slot(0), b"one more", b"one more").unwrap();
        assert_eq!(store.into_flash().misuses(), 0);
    }
    // All words of a snapshot of two records and a commit block, a tick, and the erases of the old two pages.
    assert!(
        failed > (64 + 2 * 64) / 4 && residues == 2,
        "{failed} failures, {residues} residues"
    );
}

#[test]
fn a_flash_that_cannot_be_read_is_quarantined() {
    let mut flash = stored();
    flash.cut_after(0, Cut::Before);
    let mut store = Store::open(flash, root_key(1));
    assert!(store.next_boot().is_err());
    let store = Store::open(store.into_flash(), root_key(1));
    assert_eq!(store.condition(), Condition::Quarantined(Reason::Flash));
    let mut flash = store.into_flash();
    flash.power_on(0);
    assert_eq!(
        Store::open(flash, root_key(1)).condition(),
        Condition::Ready
    );
}
