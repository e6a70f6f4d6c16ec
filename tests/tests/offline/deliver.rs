//! Delivery: once, to the right device, and nothing is lost when a receipt is.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use keyferry::device::DeviceError;
use keyferry::device::flow::{self, Terms};
use keyferry::device::session::Session;
use keyferry::station::JobError;
use keyferry::station::offline::{How, OfflineError, check_answer, deliver};
use keyferry_protocol::identity::Digest;
use keyferry_protocol::receipt::Refusal;
use keyferry_tests::desk::Direction;

use crate::batch::{CHALLENGE, Room, quiet};

/// The device's counter, by its own word.
fn counter(room: &Room, index: usize) -> u32 {
    let session = Session::open(room.devices[index].port()).unwrap();
    session.greeting().counter
}

#[test]
fn an_order_is_delivered_once() {
    let room = Room::with(2);
    let batch = room.batch_for_all("batch");
    let delivered = room.deliver(&batch, 0).unwrap();
    assert_eq!((delivered.how, delivered.pending), (How::Delivered, 2));
    let flash = room.devices[0].flash();
    assert!(matches!(
        room.deliver(&batch, 0),
        Err(OfflineError::AlreadyDelivered { device }) if device == room.statements[0].device
    ));
    assert_eq!(room.devices[0].flash(), flash);
    // What was kept is the device's answer, all of it.
    let folder = room.open(&batch).unwrap();
    let entry = folder.batch().order_for(room.statements[0].device).unwrap();
    let order = folder.order(entry).unwrap();
    let receipt = folder.receipt(entry, &order).unwrap().unwrap();
    assert_eq!(check_answer(&order, &receipt).unwrap().reports.len(), 2);
    // The other device's order is still to be delivered.
    let other = folder.batch().order_for(room.statements[1].device).unwrap();
    let order = folder.order(other).unwrap();
    assert!(folder.receipt(other, &order).unwrap().is_none());
}

#[test]
fn a_lost_receipt_is_collected_and_nothing_is_done_twice() {
    let room = Room::with(1);
    let batch = room.batch_for_all("batch");
    room.deliver(&batch, 0).unwrap();
    let file = room.receipt_file(&batch, 0);
    let first = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    let (flash, unwraps) = (room.devices[0].flash(), room.devices[0].unwrap_operations());
    let collected = room.deliver(&batch, 0).unwrap();
    assert_eq!((collected.how, collected.pending), (How::Collected, 2));
    assert_eq!(fs::read(&file).unwrap(), first);
    assert_eq!(room.devices[0].flash(), flash);
    assert_eq!(room.devices[0].unwrap_operations(), unwraps);
}

#[test]
fn a_line_that_is_killed_in_mid_delivery_collects_the_receipt_later() {
    let room = Room::with(1);
    let batch = room.batch_for_all("batch");
    let folder = room.open(&batch).unwrap();
    // The process dies with the device's receipt on its way: bytes come no more once the device has stored the keys.
    let dead = Arc::new(AtomicBool::new(false));
    let before = counter(&room, 0);
    let device = room.devices[0].clone();
    let flash = device.flash();
    let seen = Arc::clone(&dead);
    let port = room.devices[0].port_through(move |direction, bytes| {
        if direction == Direction::Up && seen.load(Ordering::Relaxed) {
            bytes.clear();
        }
    });
    let mut blobs = 0;
    let killed = deliver(&folder, port, &mut |progress| {
        // The device works on the last key: what it says from now on is lost.
        blobs += 1;
        let _ = progress;
        dead.store(true, Ordering::Relaxed);
    });
    assert!(
        matches!(
            killed,
            Err(OfflineError::Device(DeviceError::Disappeared { .. }))
        ),
        "{killed:?}"
    );
    assert!(blobs > 0);
    assert!(!room.receipt_file(&batch, 0).exists());
    // The device has finished in the meantime.
    assert_eq!(counter(&room, 0), before + 1);
    assert_ne!(room.devices[0].flash(), flash);
    let collected = room.deliver(&batch, 0).unwrap();
    assert_eq!(collected.how, How::Collected);
    assert_eq!(counter(&room, 0), before + 1);
}

#[test]
fn a_device_that_moved_on_does_not_take_an_older_order() {
    let room = Room::with(1);
    let first = room.batch("first", &[room.order(0, 1, 1)]);
    let second = room.batch("second", &[room.order(0, 2, 2)]);
    // The later one first: it may skip a counter.
    room.deliver(&second, 0).unwrap();
    let flash = room.devices[0].flash();
    let stale = room.deliver(&first, 0);
    assert!(
        matches!(stale, Err(OfflineError::MovedOn { counter, below, .. }) if counter == below + 1),
        "{stale:?}"
    );
    assert_eq!(room.devices[0].flash(), flash);
    assert!(!room.receipt_file(&first, 0).exists());

    // In their order both are taken.
    let room = Room::with(1);
    let first = room.batch("first", &[room.order(0, 1, 1)]);
    let second = room.batch("second", &[room.order(0, 2, 2)]);
    room.deliver(&first, 0).unwrap();
    room.deliver(&second, 0).unwrap();
    // And when the first is delivered from a copy that has no receipt, the device says no.
    fs::remove_file(room.receipt_file(&first, 0)).unwrap();
    assert!(matches!(
        room.deliver(&first, 0),
        Err(OfflineError::MovedOn { .. })
    ));
}

#[test]
fn a_device_without_an_order_is_named() {
    let room = Room::with(2);
    let batch = room.batch("batch", &[room.order(0, 1, 1)]);
    let unknown = room.deliver(&batch, 1);
    assert!(matches!(
        unknown,
        Err(OfflineError::UnknownDevice { device, .. }) if device == room.statements[1].device
    ));
}

#[test]
fn a_device_that_was_wiped_does_not_get_what_was_wrapped_for_its_old_keys() {
    let room = Room::with(1);
    let batch = room.batch_for_all("batch");
    let mut session = Session::open(room.devices[0].port()).unwrap();
    flow::wipe(
        &mut session,
        &room.authority,
        &room.statements[0],
        &mut quiet,
    )
    .unwrap();
    drop(session);
    let refused = room.deliver(&batch, 0);
    assert!(
        matches!(refused, Err(OfflineError::OtherKeys { .. })),
        "{refused:?}"
    );
}

#[test]
fn every_kind_of_order_goes_the_same_way() {
    let room = Room::with(1);
    let statement = &room.statements[0];
    let terms = |step| {
        let address = flow::address(statement);
        Terms::detached(address, &statement.standing, step, Digest::ZERO).unwrap()
    };
    let authority = &room.authority;
    let prove = flow::prove_order(authority, terms(2), &[], CHALLENGE).unwrap();
    let remove = flow::remove_order(authority, terms(3), &[0]).unwrap();
    let lock = flow::lock_order(authority, terms(4)).unwrap();
    let wipe = flow::wipe_order(authority, terms(5)).unwrap();
    let batch = room.batch("inject", &[room.order(0, 1, 1)]);
    assert_eq!(room.deliver(&batch, 0).unwrap().pending, 2);
    for (name, order) in [
        ("prove", prove),
        ("remove", remove),
        ("lock", lock),
        ("wipe", wipe),
    ] {
        let batch = room.batch(name, &[room.detached(0, order)]);
        let delivered = room.deliver(&batch, 0).unwrap();
        assert_eq!((delivered.kind.name(), delivered.pending), (name, 0));
    }
}

#[test]
fn a_signed_refusal_is_kept_and_the_order_stays_open() {
    let room = Room::with(1);
    let first = room.batch("first", &[room.order(0, 1, 1)]);
    room.deliver(&first, 0).unwrap();
    // The same version again: the slots are taken.
    let second = room.batch("second", &[room.order(0, 2, 1)]);
    let refused = room.deliver(&second, 0);
    let Err(OfflineError::Job(JobError::SlotRefused {
        device,
        slots,
        version: 1,
        refusal: Refusal::SlotTaken,
    })) = refused
    else {
        panic!("{refused:?}");
    };
    assert_eq!(device, room.statements[0].device);
    assert_eq!(slots, [0, 1]);
    let folder = room.open(&second).unwrap();
    let entry = &folder.batch().orders[0];
    let order = folder.order(entry).unwrap();
    assert!(folder.receipt(entry, &order).unwrap().is_none());
    assert!(folder.refusal(entry, &order).unwrap().is_some());
}
