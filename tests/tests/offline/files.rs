//! Files that somebody has changed. None is believed, and none makes the program fall over.

use std::fs;
use std::path::Path;

use keyferry::device::flow::{Authority, SignedOrder};
use keyferry::export::{ExportError, Trust};
use keyferry::station::offline::{
    Batch, BatchFolder, DetachedOrder, MAXIMUM_ORDER_FILE, OfflineError,
};
use keyferry_tests::command::{self, Answer, done, refused};
use keyferry_tests::software::SoftAuthority;
use serde_json::Value;

use crate::batch::{Room, prepared, signer};

fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut value: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    change(&mut value);
    let mut bytes = serde_json::to_vec_pretty(&value).unwrap();
    bytes.push(b'\n');
    fs::write(path, bytes).unwrap();
}

#[test]
fn an_order_file_that_was_changed_is_not_delivered() {
    let room = Room::with(2);
    let batch = room.batch_for_all("batch");
    let file = room.order_file(&batch, 0);
    let whole = fs::read(&file).unwrap();
    let flash = room.devices[0].flash();
    for position in (0..whole.len()).step_by(whole.len() / 40) {
        let mut altered = whole.clone();
        altered[position] ^= 0x04;
        fs::write(&file, altered).unwrap();
        let refused = room.deliver(&batch, 0);
        assert!(
            matches!(refused, Err(OfflineError::OtherFile { .. })),
            "byte {position}: {refused:?}"
        );
    }
    assert_eq!(room.devices[0].flash(), flash);

    // The orders of two devices, exchanged.
    let other = room.order_file(&batch, 1);
    fs::write(&file, fs::read(&other).unwrap()).unwrap();
    assert!(matches!(
        room.deliver(&batch, 0),
        Err(OfflineError::OtherFile { .. })
    ));
    fs::remove_file(&file).unwrap();
    assert!(matches!(
        room.deliver(&batch, 0),
        Err(OfflineError::Document(ExportError::Incomplete(_)))
    ));
    fs::write(&file, whole).unwrap();
    fs::write(batch.join("ffffffffffffffffffffffffffffffff.order"), b"{}").unwrap();
    assert!(matches!(
        room.deliver(&batch, 0),
        Err(OfflineError::Document(ExportError::Stray(_)))
    ));
    fs::remove_file(batch.join("ffffffffffffffffffffffffffffffff.order")).unwrap();
    room.deliver(&batch, 0).unwrap();
}

#[test]
fn blobs_of_another_device_fit_no_order() {
    let room = Room::with(2);
    let (one, other) = (room.order(0, 1, 1), room.order(1, 1, 1));
    let swapped = DetachedOrder::new(
        one.order.clone(),
        other.blobs.clone(),
        one.statement.clone(),
    );
    assert!(matches!(swapped, Err(OfflineError::BadOrder { .. })));
    let mut fewer = one.blobs.clone();
    fewer.pop();
    let fewer = DetachedOrder::new(one.order.clone(), fewer, one.statement.clone());
    assert!(matches!(fewer, Err(OfflineError::BadOrder { .. })));
    let elsewhere = DetachedOrder::new(one.order.clone(), one.blobs.clone(), other.statement);
    assert!(matches!(elsewhere, Err(OfflineError::BadOrder { .. })));
    let second = SignedOrder {
        second: Some(one.order.signature),
        ..one.order.clone()
    };
    let second = DetachedOrder::new(second, one.blobs, one.statement);
    assert!(matches!(second, Err(OfflineError::BadOrder { .. })));
}

#[test]
fn a_manifest_that_was_edited_is_not_believed() {
    let room = Room::with(1);
    let batch = room.batch_for_all("batch");
    let manifest = batch.join("batch.json");
    let whole = fs::read(&manifest).unwrap();
    let refused = |what: &str| {
        let refused = room.deliver(&batch, 0);
        assert!(
            matches!(
                refused,
                Err(OfflineError::Document(
                    ExportError::Altered | ExportError::OtherSigner { .. }
                ))
            ),
            "{what}: {refused:?}"
        );
        fs::write(&manifest, &whole).unwrap();
    };
    edit(&manifest, |batch| batch["orders"][0]["counter"] = 9.into());
    refused("counter");
    edit(&manifest, |batch| {
        batch["orders"][0]["keys"][0]["label"] = "other".into();
    });
    refused("label");
    edit(&manifest, |batch| {
        batch["signer"] = "00".repeat(32).into();
    });
    refused("signer");

    let signature = batch.join("batch.json.sig");
    let signed = fs::read(&signature).unwrap();
    fs::remove_file(&signature).unwrap();
    assert!(matches!(
        room.deliver(&batch, 0),
        Err(OfflineError::Document(ExportError::Unsigned))
    ));
    fs::write(&signature, [&signed[..], b"x"].concat()).unwrap();
    assert!(matches!(
        room.deliver(&batch, 0),
        Err(OfflineError::Document(ExportError::SignatureMalformed))
    ));
    fs::write(&signature, signed).unwrap();
    room.deliver(&batch, 0).unwrap();
}

#[test]
fn a_batch_of_somebody_else_is_not_believed() {
    let room = Room::with(1);
    let stranger = SoftAuthority::new(9);
    let prepared = [prepared(&room.order(0, 1, 1))];
    let path = room.path("strange");
    keyferry::station::offline::finish(&stranger, &path, &prepared).unwrap();
    assert!(matches!(
        room.open(&path),
        Err(ExportError::OtherSigner { .. })
    ));
    // Who believes the stranger finds orders in it that are not the stranger's.
    let folder = BatchFolder::open(&path, Trust::Signer(&signer(&stranger))).unwrap();
    let refused = folder.order(&folder.batch().orders[0]);
    assert!(matches!(refused, Err(OfflineError::BadOrder { .. })));
}

#[test]
fn a_manifest_and_its_orders_must_agree() {
    let room = Room::with(1);
    let order = room.order(0, 1, 1);
    let path = room.path("lies");
    let mut lie = prepared(&order);
    lie.entry.keys[0].slot = 7;
    keyferry::station::offline::finish(&room.authority, &path, &[lie]).unwrap();
    let folder = room.open(&path).unwrap();
    let refused = folder.order(&folder.batch().orders[0]);
    assert!(
        matches!(refused, Err(OfflineError::BadOrder { reason, .. }) if reason.contains("keys")),
        "{refused:?}"
    );
    // Two orders for one device.
    let twice = [prepared(&order), prepared(&room.order(0, 2, 2))];
    let refused = keyferry::station::offline::finish(&room.authority, &room.path("twice"), &twice);
    assert!(matches!(
        refused,
        Err(OfflineError::Document(ExportError::Inconsistent(_)))
    ));
    assert!(!room.path("twice").exists());
}

#[test]
fn a_receipt_that_was_changed_or_is_anothers_is_found_out() {
    let room = Room::with(2);
    let batch = room.batch_for_all("batch");
    room.deliver(&batch, 0).unwrap();
    room.deliver(&batch, 1).unwrap();
    let file = room.receipt_file(&batch, 0);
    let whole = fs::read(&file).unwrap();
    let damaged = |what: &str| {
        let refused = room.deliver(&batch, 0);
        assert!(
            matches!(refused, Err(OfflineError::BadReceipt { .. })),
            "{what}: {refused:?}"
        );
        fs::write(&file, &whole).unwrap();
    };
    fs::write(&file, fs::read(room.receipt_file(&batch, 1)).unwrap()).unwrap();
    damaged("another device's");
    fs::write(&file, b"").unwrap();
    damaged("empty");
    let receipt: Value = serde_json::from_slice(&whole).unwrap();
    let digits = receipt["receipt"].as_str().unwrap().to_owned();
    for position in (0..digits.len()).step_by(digits.len() / 16) {
        let mut bytes = digits.clone().into_bytes();
        bytes[position] = if bytes[position] == b'0' { b'1' } else { b'0' };
        edit(&file, |receipt| {
            receipt["receipt"] = String::from_utf8(bytes).unwrap().into();
        });
        damaged("altered");
    }
    // With the damaged file put aside, the device gives its receipt again.
    fs::remove_file(&file).unwrap();
    room.deliver(&batch, 0).unwrap();
    assert_eq!(fs::read(&file).unwrap(), whole);
}

/// Bytes of a file changed by a fixed rule: bits, bytes, pieces cut out and doubled.
fn mutations(whole: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut next = move |limit: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % u64::try_from(limit.max(1)).unwrap()).unwrap()
    };
    let whole = whole.to_vec();
    (0..3000).map(move |_| {
        let mut bytes = whole.clone();
        for _ in 0..=next(3) {
            let at = next(bytes.len());
            match next(5) {
                0 => bytes[at] ^= 1 << next(8),
                1 => bytes[at] = b"0123456789abcdef\"{}[],:- \n\xff"[next(26)],
                2 => bytes.truncate(at),
                3 => {
                    let end = (at + next(64)).min(bytes.len());
                    bytes.drain(at..end);
                }
                _ => {
                    let end = (at + next(64)).min(bytes.len());
                    let piece = bytes[at..end].to_vec();
                    bytes.splice(at..at, piece);
                }
            }
            if bytes.is_empty() {
                break;
            }
        }
        bytes
    })
}

#[test]
fn no_file_makes_the_program_fall_over() {
    let room = Room::with(1);
    let order = room.order(0, 1, 1);
    let file = order.to_json().unwrap();
    let authority = room.authority.public_key();
    for bytes in mutations(&file) {
        // What still reads is an order that somebody has signed, or it is known not to be.
        if let Ok(read) = DetachedOrder::read(&bytes) {
            let same = read.order == order.order && read.blobs == order.blobs;
            assert!(same || !read.is_signed_by(authority));
        }
    }
    let batch = room.batch("batch", &[order]);
    let manifest = fs::read(batch.join("batch.json")).unwrap();
    let signature = fs::read(batch.join("batch.json.sig")).unwrap();
    let signer = signer(&room.authority);
    for bytes in mutations(&manifest) {
        let _ = Batch::read(&bytes, None, Trust::Unauthenticated);
        let believed = Batch::read(&bytes, Some(&signature), Trust::Signer(&signer));
        assert!(believed.is_err() || bytes == manifest);
    }
    room.deliver(&batch, 0).unwrap();
    let path = room.receipt_file(&batch, 0);
    let receipt = fs::read(&path).unwrap();
    let folder = room.open(&batch).unwrap();
    let entry = &folder.batch().orders[0];
    let order = folder.order(entry).unwrap();
    let good = folder.receipt(entry, &order).unwrap().unwrap();
    for bytes in mutations(&receipt).take(600) {
        fs::write(&path, bytes).unwrap();
        match folder.receipt(entry, &order) {
            Ok(read) => assert_eq!(read.as_ref(), Some(&good)),
            Err(error) => assert!(matches!(error, OfflineError::BadReceipt { .. }), "{error}"),
        }
    }
}

#[test]
fn a_file_without_end_is_not_read_to_its_end() {
    let room = Room::with(1);
    let batch = room.batch_for_all("batch");
    let huge = vec![b' '; MAXIMUM_ORDER_FILE + 1];
    assert!(matches!(
        DetachedOrder::read(&huge),
        Err(OfflineError::Document(ExportError::TooLong { .. }))
    ));
    let file = room.order_file(&batch, 0);
    fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &file).unwrap();
    assert!(matches!(
        room.deliver(&batch, 0),
        Err(OfflineError::OtherFile { .. })
    ));
}

#[test]
fn what_is_shown_says_whether_it_was_checked() {
    let room = Room::with(1);
    let batch = room.batch_for_all("batch");
    let pem = |authority: &SoftAuthority, name: &str| {
        let key = keyferry::hsm::PublicKey::from_spki_der(authority.public_key()).unwrap();
        fs::write(room.path(name), key.to_pem()).unwrap();
    };
    pem(&room.authority, "authority.pem");
    pem(&SoftAuthority::new(9), "stranger.pem");
    let order = room.order_file(&batch, 0);
    let show = |what: &Path, more: &[&str]| {
        let mut command = command::keyferry();
        command.current_dir(room.path(".")).args(["order", "show"]);
        command.arg(what).args(more);
        command
    };
    for what in [&batch, &order] {
        let genuine = done(&mut show(what, &["--authority", "authority.pem"]));
        assert_eq!(genuine["verified"], true);
        let unchecked = Answer::of(&mut show(what, &[]));
        assert_eq!(unchecked.code, 0, "{unchecked:?}");
        let warned = unchecked.stderr.contains("the signature was not checked");
        assert!(warned, "{unchecked:?}");
        for word in [
            "inject",
            "key 0",
            "cmac",
            "hmac-sha256",
            "ecdh-p256-x963-sha256",
        ] {
            assert!(unchecked.stdout.contains(word), "{word}: {unchecked:?}");
        }
        let stranger = || show(what, &["--authority", "stranger.pem"]);
        refused(stranger, 5, "signed by", "ask");
    }
}
