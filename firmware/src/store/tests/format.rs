//! The format as `STORE.md` has it: read by code that shares nothing with the store, and frozen.

#![cfg(not(feature = "sabotage-plain-storage"))]

use std::vec;

use aes_kw::{KeyInit, KwpAes256};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

use super::*;

const PAGE: usize = 256;

fn word(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

fn half(bytes: &[u8], at: usize) -> usize {
    u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap()).into()
}

fn derive(root: &[u8; 32], info: &[u8]) -> [u8; 32] {
    let mut key = [0; 32];
    Hkdf::<Sha256>::new(None, root)
        .expand(info, &mut key)
        .unwrap();
    key
}

fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

/// Number, public part and secret part of an item.
type Item = (u8, Vec<u8>, Vec<u8>);

/// Items, boots, and where the snapshot is.
fn read(area: &[u8], root: &[u8; 32]) -> (Vec<Item>, usize, usize) {
    let start = area
        .chunks(PAGE)
        .position(|page| page.starts_with(b"KFST"))
        .unwrap()
        * PAGE;
    let snapshot: Vec<u8> = area
        .iter()
        .cycle()
        .skip(start)
        .take(area.len() / 2)
        .copied()
        .collect();
    assert_eq!(snapshot[4..6], [1, 0xfe]);
    assert_eq!(
        (word(&snapshot, 20), word(&snapshot, 24)),
        (PAGE, area.len())
    );
    let body = &snapshot[64..64 + word(&snapshot, 12)];
    let (fields, mac) = (&snapshot[..28], &snapshot[32..64]);
    let sealed = [body, fields, mac].concat();
    assert_eq!(word(&snapshot, 28), crc(&sealed) as usize);
    let mac_key = derive(root, b"keyferry store 1 snapshot mac");
    let computed = <Hmac<Sha256> as KeyInit>::new_from_slice(&mac_key)
        .unwrap()
        .chain_update(body)
        .chain_update(fields);
    assert_eq!(computed.finalize().into_bytes().as_slice(), mac);

    let (mut items, mut at) = (vec![], 0);
    while at < body.len() {
        let (public, sealed) = (half(body, at + 2), half(body, at + 4));
        let (from, to) = (at + 12, at + 12 + public);
        let public = body[from..to].to_vec();
        assert_eq!(
            word(body, at + 8),
            crc(&[&body[at..at + 8], &public].concat()) as usize
        );
        let mut secret = vec![];
        if sealed > 0 {
            let digest = Sha256::digest(&public);
            let kek = derive(
                root,
                &[b"keyferry store 1 item kek", &body[at..=at], &digest].concat(),
            );
            let mut out = vec![0; sealed - 8];
            let kwp = KwpAes256::new_from_slice(&kek).unwrap();
            secret = kwp
                .unwrap_key(&body[to..to + sealed], &mut out)
                .unwrap()
                .to_vec();
        }
        items.push((body[at], public, secret));
        at = (to + sealed).next_multiple_of(32);
    }
    assert_eq!(items.len(), half(&snapshot, 6));

    let end = (64 + body.len() + 6 * 32).next_multiple_of(PAGE);
    let ticks: Vec<&[u8]> = snapshot[64 + body.len()..end].chunks(32).take(64).collect();
    assert!(ticks.contains(&[0; 32].as_slice()));
    let used = ticks
        .iter()
        .rposition(|tick| *tick != [0xff; 32])
        .map_or(0, |last| last + 1);
    (items, word(&snapshot, 16) + used, start)
}

#[test]
fn the_documented_format_is_enough_to_read_a_store() {
    let root = [7; 32];
    let mut store = Store::open(NorFake::<4, PAGE>::new(8), root_key(7));
    put_one(
        &mut store,
        slot(2),
        b"attributes",
        b"a secret of 24 bytes ....",
    )
    .unwrap();
    for round in 0..9_u8 {
        put_one(&mut store, ItemId::RECEIPT, &[round; 150], b"").unwrap();
        store.next_boot().unwrap();
        let boots = store.current.as_ref().unwrap().snapshot.boots();
        let area = store.ring.flash().bytes().to_vec();
        let (items, counted, _) = read(&area, &root);
        assert_eq!(counted, boots as usize);
        let key = (
            18,
            b"attributes".to_vec(),
            b"a secret of 24 bytes ....".to_vec(),
        );
        assert_eq!(items, [(4, vec![round; 150], vec![]), key]);
    }
}

/// Version 1 is final: a store written by one firmware is read by all later ones.
#[test]
fn format_1_is_frozen() {
    let mut store = Store::open(NorFake::<4, PAGE>::new(8), root_key(7));
    put_one(&mut store, slot(2), b"attributes", b"0123456789abcdef").unwrap();
    let area = store.into_flash().bytes().to_vec();
    let (_, _, start) = read(&area, &[7; 32]);
    let written = hex::encode(&area[start..start + 160]);
    assert_eq!(written, FROZEN.concat());
}

/// Commit block, record and first tick of the snapshot above.
const FROZEN: [&str; 5] = [
    "4b46535401fe01000200000040000000020000000001000000080000afb45b88",
    "2e245930242401b71463c34301f1f4b888c7c1f1e500cbe0d1ed2ab98be9e9ac",
    "12000a0018000000a696253f61747472696275746573039471e7d1766e8f6798",
    "abbba10bd56c8425e18ad60deebeffffffffffffffffffffffffffffffffffff",
    "0000000000000000000000000000000000000000000000000000000000000000",
];
