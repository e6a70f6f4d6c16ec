//! The way out of quarantine, over whatever anybody has written into the flash, with power cut at each of its operations.

use std::vec;

use super::model::Random;
use super::*;
use crate::store::nor_fake::Cut;

type Fake = NorFake<4, 256>;

const PAGES: usize = 8;
const OWN: u8 = 1;
/// What the lost store held.
const LOST: &[u8] = b"what the lost store held, in clear";
/// Far above the starts that any of these stores has counted.
const BOOTS: u32 = 1 << 20;

/// What the store begins with: more than a page.
fn items() -> [(ItemId, Vec<u8>); 2] {
    [
        (ItemId::META, vec![0x17; 106]),
        (ItemId::RECEIPT, vec![0x2b; 300]),
    ]
}

fn begin(store: &mut Store<Fake>) -> Result<(), StoreError> {
    let items = items();
    store.begin_anew(
        &[(items[0].0, &items[0].1), (items[1].0, &items[1].1)],
        BOOTS,
    )
}

/// The flash of a store under this root key, after so many commits.
fn of(root: u8, commits: u8) -> Fake {
    let mut store = Store::open(Fake::new(PAGES), root_key(root));
    for _ in 0..commits {
        put_one(&mut store, slot(0), LOST, b"and one of its secret keys").unwrap();
    }
    store.into_flash()
}

/// Flashes that put a store into quarantine, each with its name.
fn crafted() -> Vec<(&'static str, Fake)> {
    let random = &mut Random(0x5eed);
    let page = |number: usize| number * 256..(number + 1) * 256;
    let mut all = vec![
        ("of another board", of(2, 1)),
        ("of another board, further on", of(2, 4)),
    ];
    // Two boards' snapshots beside each other, ours the older one.
    let (mut mixed, foreign) = (of(OWN, 1), of(2, 4));
    for at in 0..foreign.bytes().len() {
        if mixed.bytes()[at] == 0xff {
            mixed.corrupt(at, foreign.bytes()[at]);
        }
    }
    all.push(("of two boards", mixed));
    let mut zeros = Fake::new(PAGES);
    (0..PAGES * 256).for_each(|at| zeros.corrupt(at, 0));
    all.push(("nothing but zeros", zeros));
    let mut noise = Fake::new(PAGES);
    for (at, byte) in random.bytes(PAGES as u64 * 256).into_iter().enumerate() {
        noise.corrupt(at, byte);
    }
    all.push(("noise", noise));
    // One page that is not blank, wherever it is.
    for number in 0..PAGES {
        let mut one = Fake::new(PAGES);
        one.corrupt(page(number).start + 100, 0);
        all.push(("a single bit", one));
    }
    // A format of the future in each page, and our own with all lengths that there are.
    for format in [1, 9] {
        let mut heads = Fake::new(PAGES);
        for number in 0..PAGES {
            let head = [b'K', b'F', b'S', b'T', format, !format];
            for (at, byte) in page(number).zip(head.into_iter().chain(random.bytes(58))) {
                heads.corrupt(at, byte);
            }
        }
        all.push(("a commit block in each page", heads));
    }
    // Our own store, and in each of its pages one byte that has rotted.
    let mut rotten = of(OWN, 3);
    for number in 0..PAGES {
        let at = page(number).start + 70;
        rotten.corrupt(at, rotten.bytes()[at] ^ 0x10);
    }
    all.push(("rotten", rotten));
    all
}

/// Opens the store after a power cut. It is in quarantine, or has begun anew: gives which.
fn has_begun(flash: &Fake, told: &str) -> bool {
    let mut store = Store::open(flash.clone(), root_key(OWN));
    match store.condition() {
        Condition::Quarantined(_) => false,
        Condition::Ready => {
            assert_begun(&mut store, told);
            true
        }
    }
}

fn assert_begun(store: &mut Store<Fake>, told: &str) {
    let ids: Vec<_> = store.ids().collect();
    assert_eq!(
        ids,
        items().map(|(id, _)| id),
        "{told}: blank, or something else"
    );
    for (id, public) in items() {
        assert_eq!(get(store, id), Ok(Some((public, vec![]))), "{told}");
    }
}

#[test]
fn whatever_is_on_flash_a_power_cut_leaves_a_quarantine_or_the_new_beginning() {
    let (mut cuts, mut seen) = (0, [0; 2]);
    let step = match std::env::var_os("KEYFERRY_LONG") {
        Some(_) => 1,
        None => 11,
    };
    for (name, flash) in crafted() {
        let mut whole = flash.clone();
        whole.power_on(0);
        let mut store = Store::open(whole, root_key(OWN));
        let before = store.flash().bytes().to_vec();
        assert!(
            matches!(store.condition(), Condition::Quarantined(_)),
            "{name}"
        );
        assert!(
            matches!(store.look_again(), Condition::Quarantined(_)),
            "{name}"
        );
        assert!(
            store.flash().bytes() == before,
            "{name}: looking has written"
        );
        begin(&mut store).unwrap();
        let operations = store.flash().operations();
        for n in (0..operations).step_by(step).chain([operations - 1]) {
            for cut in Cut::ALL {
                for error_correction in [false, true] {
                    let told = std::format!("{name}: operation {n}, {cut:?}, {error_correction}");
                    let mut flash = flash.clone();
                    flash.set_error_correction(error_correction);
                    flash.power_on(n);
                    flash.cut_after(n, cut);
                    let mut store = Store::open(flash, root_key(OWN));
                    assert!(begin(&mut store).is_err(), "{told}");
                    assert_ne!(store.condition(), Condition::Ready, "{told}");
                    let mut flash = store.into_flash();
                    assert!(flash.is_off(), "{told}");
                    flash.power_on(n + 1);
                    let begun = has_begun(&flash, &told);
                    seen[usize::from(begun)] += 1;
                    cuts += 1;

                    let mut store = Store::open(flash, root_key(OWN));
                    if store.condition() != Condition::Ready {
                        begin(&mut store).unwrap();
                    }
                    // Over one more power cut, and on from there.
                    let mut flash = store.into_flash();
                    flash.power_on(n + 2);
                    assert!(has_begun(&flash, &told), "{told}");
                    let mut store = Store::open(flash, root_key(OWN));
                    assert!(store.next_boot().unwrap() > BOOTS, "{told}");
                    put_one(&mut store, slot(3), b"of the new life", b"").unwrap();
                    let flash = store.into_flash();
                    assert!(!shows(flash.bytes(), LOST), "{told}");
                    assert_eq!(flash.misuses(), 0, "{told}");
                }
            }
        }
    }
    std::println!(
        "cuts {cuts}, quarantined {}, begun anew {}",
        seen[0],
        seen[1]
    );
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
}

/// With power on, too: the operation fails, and the same order can be given again, if need be after the next start.
#[test]
fn whatever_is_on_flash_an_operation_that_fails_loses_nothing_of_the_way_back() {
    for (name, flash) in crafted() {
        for n in 0.. {
            let mut flash = flash.clone();
            flash.power_on(n);
            flash.fail_after(n);
            let mut store = Store::open(flash, root_key(OWN));
            let begun = begin(&mut store);
            let mut flash = store.into_flash();
            if !flash.has_failed() {
                assert_eq!(begun, Ok(()), "{name}");
                break;
            }
            let told = std::format!("{name}: operation {n}");
            flash.power_on(n + 1);
            let mut store = Store::open(flash, root_key(OWN));
            if store.condition() != Condition::Ready {
                begin(&mut store).unwrap();
            }
            assert_begun(&mut store, &told);
        }
    }
}

/// A reading that fails once is no loss: a second look finds the store, and says so.
#[test]
fn a_second_look_finds_what_could_not_be_read_once() {
    let flash = of(OWN, 3);
    let (before, _) = flash.reads();
    let (after, _) = Store::look(flash.clone(), root_key(OWN))
        .into_flash()
        .reads();
    let mut missed = 0;
    for n in 0..after - before {
        let mut failing = flash.clone();
        failing.fail_reads(n, 1);
        let mut store = Store::look(failing, root_key(OWN));
        missed += u32::from(store.condition() != Condition::Ready);
        assert_eq!(store.look_again(), Condition::Ready, "reading {n}");
        assert!(store.into_flash().bytes() == flash.bytes(), "reading {n}");

        let mut failing = flash.clone();
        failing.fail_reads(n, u64::MAX);
        let mut store = Store::look(failing, root_key(OWN));
        if store.condition() != Condition::Ready {
            let again = store.look_again();
            assert_eq!(again, Condition::Quarantined(Reason::Flash), "reading {n}");
        }
    }
    assert!(missed > 5, "{missed}");
}
