//! What a start costs: reading accesses and bytes, for flash as it may be found. `STORE.md` states the bounds.

use std::{println, vec};

use super::*;
use crate::store::nor_fake::Cut;

const PAGE: usize = 256;
const PAGES: usize = 16;
type Fake = NorFake<4, PAGE>;

/// Lines of the whole area.
const AREA: u64 = (PAGES * PAGE / 32) as u64;

/// Reading accesses of a start. Each is one line.
fn cost(flash: &Fake, case: &str) -> u64 {
    let mut flash = flash.clone();
    flash.power_on(1);
    let (before, bytes_before) = flash.reads();
    let (reads, bytes) = Store::open(flash, root_key(1)).into_flash().reads();
    assert_eq!(bytes - bytes_before, 32 * (reads - before));
    println!("start, {case}: {} lines of {AREA}", reads - before);
    reads - before
}

/// A store that is as full as it gets, in one item after the other.
fn full() -> Store<Fake> {
    let mut store = Store::open(Fake::new(PAGES), root_key(1));
    for number in 0..14 {
        put_one(&mut store, slot(number), &[7; 24], &[7; 64]).unwrap();
    }
    assert_eq!(store.used(), store.capacity());
    store
}

/// Whatever the store did itself, and wherever power failed on it, a start reads as many lines as the area has, twice at
/// most, and three times after a power cut or in place of a format.
#[test]
fn a_start_reads_what_the_store_left_a_few_times_at_most() {
    let empty = Store::open(Fake::new(PAGES), root_key(1)).into_flash();
    let ordinary = [
        (cost(&Fake::new(PAGES), "never formatted"), 3),
        (cost(&empty, "empty"), 2),
        (cost(&full().into_flash(), "full"), 2),
    ];
    for (reads, areas) in ordinary {
        assert!(reads <= areas * AREA, "{reads}");
    }
    // Replacing an item of a full store, cut everywhere: at the worst two whole snapshots lie side by side, or one beside a torn one.
    let before = full().into_flash();
    let mut worst = 0;
    for n in 0.. {
        let mut cut = before.clone();
        cut.power_on(1);
        cut.cut_after(n, Cut::ALL[usize::try_from(n % 4).unwrap()]);
        let mut store = Store::open(cut, root_key(1));
        let done = put_one(&mut store, slot(3), &[8; 24], &[8; 64]);
        let flash = store.into_flash();
        if done.is_ok() {
            break;
        }
        let (reads, _) = flash.reads();
        let mut flash = flash;
        flash.power_on(n);
        worst = worst.max(Store::open(flash, root_key(1)).into_flash().reads().0 - reads);
    }
    println!("start, after a power cut: at most {worst} lines of {AREA}");
    assert!(worst > AREA && worst <= 3 * AREA, "{worst}");
}

/// Whoever writes the flash can make each page look like the beginning of the largest snapshot. That is the dearest there is, and it is
/// bounded as well: by the pages times the half of the area, three times.
#[test]
fn a_start_ends_whatever_the_flash_holds() {
    // Foreign snapshots, whole or not, in a commit block in each page that names the largest body.
    let largest = u32::try_from(PAGES / 2 * PAGE - 256).unwrap();
    let mut block = vec![];
    block.extend(*b"KFST");
    block.extend([1, 0xfe, 1, 0]);
    for field in [1, largest, 0, 256, u32::try_from(PAGES * PAGE).unwrap()] {
        block.extend(field.to_le_bytes());
    }
    // One good snapshot among them, so that all of them are looked at as what is left over.
    let good = Store::open(Fake::new(PAGES), root_key(1)).into_flash();
    let mut hostile = Fake::new(PAGES);
    for page in 0..PAGES {
        for (at, byte) in block.iter().enumerate() {
            hostile.corrupt(page * PAGE + at, *byte);
        }
    }
    let mut beside = hostile.clone();
    for (at, byte) in good.bytes()[..PAGE].iter().enumerate() {
        beside.corrupt(at, *byte);
    }
    let bound = 3 * PAGES as u64 * (AREA / 2 + 98) + 3 * AREA;
    for (flash, case) in [
        (&hostile, "hostile"),
        (&beside, "hostile beside a good one"),
    ] {
        let reads = cost(flash, case);
        assert!(
            reads > 4 * AREA,
            "{reads} of {bound}: it is not the dearest"
        );
        assert!(reads <= bound, "{reads} of {bound}");
    }
}
