//! What the store does while nothing goes wrong, and what it refuses.

use std::vec;

use super::*;

type Fake = NorFake<4, 256>;

fn open(flash: Fake) -> Store<Fake> {
    Store::open(flash, root_key(1))
}

fn fresh(pages: usize) -> Store<Fake> {
    open(Fake::new(pages))
}

#[test]
fn items_survive_a_restart() {
    let mut store = fresh(16);
    assert_eq!(store.condition(), Condition::Ready);
    assert_eq!(store.ids().count(), 0);
    put_one(
        &mut store,
        slot(3),
        b"attributes",
        b"a secret of 24 bytes ....",
    )
    .unwrap();
    put_one(&mut store, ItemId::META, b"no secret", b"").unwrap();
    let mut store = open(store.into_flash());
    assert_eq!(store.ids().collect::<Vec<_>>(), [ItemId::META, slot(3)]);
    assert_eq!(
        get(&mut store, slot(3)).unwrap().unwrap().1,
        b"a secret of 24 bytes ...."
    );
    let mut buf = [0; 40];
    assert_eq!(
        store.public(ItemId::META, &mut buf).unwrap().unwrap(),
        b"no secret"
    );
    assert!(store.secret(ItemId::META, &mut buf).unwrap().is_none());
    assert!(store.public(ItemId::RECEIPT, &mut buf).unwrap().is_none());
    assert_eq!(store.into_flash().misuses(), 0);
}

#[test]
fn largest_parts_of_all_lengths_fit() {
    let mut store = Store::open(NorFake::<32, 4096>::new(8), root_key(1));
    for (public, secret) in [
        (MAX_PUBLIC, MAX_SECRET),
        (0, 1),
        (0, 8),
        (1, 9),
        (20, 516),
        (21, 0),
        (0, 0),
    ] {
        let (public, secret) = (vec![0x5a; public], vec![0xc3; secret]);
        put_one(&mut store, slot(0), &public, &secret).unwrap();
        assert_eq!(get(&mut store, slot(0)).unwrap().unwrap(), (public, secret));
    }
    let too_long = |public, secret| Change::Put {
        id: slot(0),
        public,
        secret,
    };
    let error = StoreError::TooLong {
        length: MAX_PUBLIC + 1,
        limit: MAX_PUBLIC,
    };
    assert_eq!(store.begin([too_long(MAX_PUBLIC + 1, 0)]), Err(error));
    let error = StoreError::TooLong {
        length: MAX_SECRET + 1,
        limit: MAX_SECRET,
    };
    assert_eq!(store.begin([too_long(0, MAX_SECRET + 1)]), Err(error));
}

#[test]
fn staged_secrets_are_read_back_and_callers_buffers_wiped() {
    let mut store = fresh(16);
    put_one(&mut store, slot(0), b"old", b"old secret").unwrap();
    let mut secret = *b"new secret";
    store
        .begin([put(slot(0), b"new", &secret), Change::Remove(slot(1))])
        .unwrap();
    store.put(slot(0), b"new", Some(&mut secret)).unwrap();
    if !cfg!(feature = "sabotage-no-wipe") {
        assert_eq!(secret, [0; 10]);
    }
    let mut buf = [0; 16];
    assert_eq!(
        store.staged_secret(slot(0), &mut buf).unwrap().unwrap(),
        b"new secret"
    );
    assert_eq!(
        store.secret(slot(0), &mut buf).unwrap().unwrap(),
        b"old secret"
    );
    store.commit().unwrap();
    assert_eq!(
        store.secret(slot(0), &mut buf).unwrap().unwrap(),
        b"new secret"
    );
    assert_eq!(
        store.staged_secret(slot(0), &mut buf),
        Err(StoreError::NoTransaction)
    );
}

#[test]
fn boots_are_counted_on_over_restarts_and_snapshots() {
    let mut flash = Fake::new(8);
    let mut last = 0;
    for _ in 0..50 {
        let mut store = open(flash);
        let boot = store.next_boot().unwrap();
        assert!(boot > last);
        last = boot;
        flash = store.into_flash();
    }
    assert!(last < 100);
}

#[test]
fn boot_counter_ends_rather_than_wraps() {
    let mut store = fresh(8);
    store.current.as_mut().unwrap().snapshot.base = u32::MAX - 100;
    assert_eq!(store.next_boot(), Err(StoreError::Exhausted));
}

#[test]
fn a_full_store_refuses_up_front_and_can_be_emptied() {
    let mut store = fresh(16);
    let secret = [7; 80];
    let mut count = 0;
    let full = loop {
        let programs = store.ring.flash_mut().programs();
        match store.begin([put(slot(count), b"attributes", &secret)]) {
            Ok(()) => {
                store
                    .put(slot(count), b"attributes", Some(&mut secret.clone()))
                    .unwrap();
                store.commit().unwrap();
            }
            Err(error) => {
                assert_eq!(
                    store.ring.flash_mut().programs(),
                    programs,
                    "a refused transaction touched the flash"
                );
                break error;
            }
        }
        count += 1;
    };
    // (16 / 2) pages of 256 bytes, less 256: fourteen records of 128 bytes.
    assert_eq!(store.capacity(), 1792);
    assert_eq!(store.used(), 128 * u32::from(count));
    assert_eq!(
        full,
        StoreError::Full {
            needed: store.used() + 128,
            capacity: 1792
        }
    );
    // A full store still counts boots, replaces, and is emptied.
    for _ in 0..20 {
        store.next_boot().unwrap();
    }
    store.begin([put(slot(0), b"attributes", &secret)]).unwrap();
    store
        .put(slot(0), b"attributes", Some(&mut secret.clone()))
        .unwrap();
    store.commit().unwrap();
    store
        .begin((0..16).map(|number| Change::Remove(slot(number))))
        .unwrap();
    store.commit().unwrap();
    assert_eq!((store.used(), store.ids().count()), (0, 0));
}

#[test]
fn a_transaction_must_keep_to_its_plan() {
    let mut store = fresh(16);
    assert_eq!(store.commit(), Err(StoreError::NoTransaction));
    assert_eq!(
        store.put(slot(0), b"", None),
        Err(StoreError::NoTransaction)
    );
    let plan = [put(slot(0), b"1234", b"12345678")];
    store.begin(plan).unwrap();
    assert_eq!(
        store.put(slot(1), b"", None),
        Err(StoreError::NotPlanned(slot(1)))
    );
    assert_eq!(
        store.commit(),
        Err(StoreError::NoTransaction),
        "an error aborts"
    );
    store.begin(plan).unwrap();
    assert_eq!(
        store.put(slot(0), b"12345", None),
        Err(StoreError::NotPlanned(slot(0)))
    );
    store.begin(plan).unwrap();
    assert_eq!(
        store.put(slot(0), b"", Some(&mut [0; 9])),
        Err(StoreError::NotPlanned(slot(0)))
    );
    store.begin(plan).unwrap();
    store.put(slot(0), b"1", None).unwrap();
    assert_eq!(
        store.put(slot(0), b"1", None),
        Err(StoreError::NotPlanned(slot(0)))
    );
    store.begin(plan).unwrap();
    assert_eq!(store.commit(), Err(StoreError::NotPut(slot(0))));
    assert_eq!(store.ids().count(), 0);
}

#[test]
fn small_buffers_are_refused() {
    let mut store = fresh(16);
    put_one(&mut store, slot(0), b"12345", b"123456789").unwrap();
    assert_eq!(
        store.public(slot(0), &mut [0; 4]),
        Err(StoreError::BufferTooSmall { needed: 5 })
    );
    assert_eq!(
        store.secret(slot(0), &mut [0; 15]),
        Err(StoreError::BufferTooSmall { needed: 16 })
    );
}

#[test]
fn wear_is_spread_over_the_ring() {
    let mut store = fresh(16);
    for round in 0..400_u32 {
        put_one(&mut store, slot(0), &round.to_le_bytes(), &[0x11; 100]).unwrap();
        if round % 7 == 0 {
            put_one(&mut store, slot(1), &[0x22; 300], b"").unwrap();
            store.begin([Change::Remove(slot(1))]).unwrap();
            store.commit().unwrap();
        }
    }
    let flash = store.into_flash();
    let (least, most) = (
        flash.erases().iter().min().unwrap(),
        flash.erases().iter().max().unwrap(),
    );
    assert!(most - least <= 3, "erase counts from {least} to {most}");
    assert!(*least > 20);
}

#[test]
fn slots_and_items_have_their_numbers() {
    assert_eq!(slot(0).number(), 16);
    assert_eq!(slot(15).as_slot(), Some(15));
    assert_eq!(ItemId::slot(16), None);
    assert_eq!(ItemId::slot(u16::MAX), None);
    assert_eq!(ItemId::RECEIPT.as_slot(), None);
    assert_eq!(MAX_ITEMS, 32);
}

#[test]
fn memory_is_as_documented() {
    let flash = core::mem::size_of::<Fake>();
    assert!(core::mem::size_of::<Store<Fake>>() - flash < 2048);
}
