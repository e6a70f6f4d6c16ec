//! The end of a flash's life: from some operation on, nothing can be programmed or erased any more, or only seemingly.

use std::println;

use super::*;
use crate::store::nor_fake::Wear;

type Fake = NorFake<4, 256>;

const OLD: (&[u8], &[u8]) = (b"attributes", b"an old secret key");
const NEW: (&[u8], &[u8]) = (b"other attributes", b"a new secret key");
const KEPT: (&[u8], &[u8]) = (b"stays", b"a key that stays");

fn parts((public, secret): (&[u8], &[u8])) -> Option<Parts> {
    Some((public.to_vec(), secret.to_vec()))
}

/// The store holds both keys, completely.
fn assert_holds(store: &mut Store<Fake>, expected: (&[u8], &[u8]), told: &dyn core::fmt::Debug) {
    assert_eq!(store.condition(), Condition::Ready, "{told:?}");
    assert_eq!(get(store, slot(0)).unwrap(), parts(expected), "{told:?}");
    assert_eq!(get(store, slot(1)).unwrap(), parts(KEPT), "{told:?}");
}

/// However the part wears out, and at whatever operation, the store refuses with an error that says so, holds what was committed, and
/// reads it, in this session and in all later ones.
#[test]
fn a_worn_out_flash_refuses_changes_and_is_read_for_ever() {
    let mut store = Store::open(Fake::new(8), root_key(1));
    put_one(&mut store, slot(0), OLD.0, OLD.1).unwrap();
    put_one(&mut store, slot(1), KEPT.0, KEPT.1).unwrap();
    let flash = store.into_flash();
    let (mut refused, mut undecided) = (0, 0);
    for wear in Wear::ALL {
        for n in 0.. {
            let told = (wear, n);
            let mut flash = flash.clone();
            flash.power_on(1);
            flash.wear_out_after(n, wear);
            let mut store = Store::open(flash, root_key(1));
            assert_holds(&mut store, OLD, &told);
            let boot = store.next_boot();
            let result = put_one(&mut store, slot(0), NEW.0, NEW.1);
            let expected = match result {
                Ok(()) | Err(StoreError::Residue(_)) => NEW,
                Err(StoreError::Flash(_) | StoreError::Quarantined(Reason::Unsettled)) => OLD,
                Err(error) => panic!("{told:?}: {error}"),
            };
            refused += u32::from(result.is_err());
            // A commit that was undone by half: the next start alone can tell, and until then nothing is read rather than the wrong.
            if store.condition() == Condition::Quarantined(Reason::Unsettled) {
                undecided += 1;
                // Nobody gives it up before that.
                let refused = Err(StoreError::Quarantined(Reason::Unsettled));
                assert_eq!(store.begin_anew(&[], 0), refused, "{told:?}");
            } else {
                assert_holds(&mut store, expected, &told);
            }
            let mut flash = store.into_flash();
            if result.is_ok() && !flash.is_worn() {
                break;
            }
            let mut last = boot.unwrap_or_default();
            for start in 0..3 {
                flash.power_on(start);
                let mut store = Store::open(flash, root_key(1));
                assert_holds(&mut store, expected, &told);
                match store.next_boot() {
                    Ok(boot) => {
                        assert!(boot > last, "{told:?}");
                        last = boot;
                    }
                    Err(StoreError::Flash(_)) => {}
                    Err(error) => panic!("{told:?}: {error}"),
                }
                flash = store.into_flash();
            }
            assert_eq!(flash.misuses(), 0, "{told:?}");
        }
    }
    println!("worn out: {refused} refusals, {undecided} left to the next start");
    assert!(refused > 100 && undecided < refused / 4);
}

/// An erase that only seems to be done is no erase: what was removed may still be there, and the store says so.
#[test]
fn an_erase_that_leaves_bits_is_residue() {
    let mut residues = 0;
    for n in 0.. {
        let mut store = Store::open(Fake::new(8), root_key(1));
        put_one(&mut store, slot(0), OLD.0, OLD.1).unwrap();
        put_one(&mut store, slot(1), KEPT.0, KEPT.1).unwrap();
        store.ring.flash_mut().wear_out_after(n, Wear::StuckZeros);
        match put_one(&mut store, slot(0), NEW.0, NEW.1) {
            Ok(()) => break,
            // A page was to be erased before its use.
            Err(StoreError::Flash(_)) => assert_holds(&mut store, OLD, &n),
            Err(StoreError::Residue(_)) => {
                residues += 1;
                assert!(store.has_residue());
                assert_holds(&mut store, NEW, &n);
            }
            Err(error) => panic!("{n}: {error}"),
        }
    }
    assert!(residues > 0);
}

/// The estimate of how often pages were erased is close to what the part has counted.
#[test]
fn erase_cycles_are_estimated() {
    let mut store = Store::open(Fake::new(16), root_key(1));
    assert_eq!(store.erase_cycles(), 0);
    for round in 0..600_u32 {
        put_one(&mut store, slot(0), &round.to_le_bytes(), &[0x11; 300]).unwrap();
    }
    let estimate = store.erase_cycles();
    let flash = store.into_flash();
    let (least, most) = (flash.erases().iter().min(), flash.erases().iter().max());
    let (least, most) = (*least.unwrap(), *most.unwrap());
    println!("erase cycles: {estimate} estimated, {least} to {most} counted");
    assert!(
        estimate.abs_diff(most) <= most / 4,
        "{estimate} {least} {most}"
    );
}
