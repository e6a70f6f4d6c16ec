//! What leaves a token of any kind opens with OpenSSL and with a strict importer, toward every suite that the token does.

use keyferry::hsm::{CheckAlgorithm, KeyType, PublicKey};
use keyferry_protocol::suite::Suite;
use keyferry_tests::openssl::{
    Private, cut_at_der_length, make_p256, make_rsa, open_blob, public_of,
};
use keyferry_tests::strict::{PrivateKey, Tail, open_private, open_secret};
use keyferry_tests::tokens::{Kind, Scratch, in_own_process_with};

use crate::exports::mac_by_openssl;
use crate::{MESSAGE, key, open, public_key};

const TYPES: [KeyType; 8] = [
    KeyType::Aes { bits: 128 },
    KeyType::Aes { bits: 192 },
    KeyType::Aes { bits: 256 },
    KeyType::Secret { bits: 256 },
    KeyType::P256,
    KeyType::P384,
    KeyType::Rsa { bits: 2048 },
    KeyType::Rsa { bits: 3072 },
];

/// The suites of a kind of token.
const fn suites(kind: Kind) -> &'static [Suite] {
    match kind {
        Kind::SoftHsm => &[Suite::RsaOaepSha1, Suite::EcdhP256Null],
        Kind::Nss | Kind::Kryoptic => &Suite::ALL,
    }
}

/// Opens one blob both ways, and compares what comes out with each other and with the key on the token.
fn check(scratch: &Scratch, kind: Kind, suite: Suite, private: &str, key_type: KeyType) {
    let label = key_type.to_string();
    let token = open(scratch);
    let key = key(&token, &label);
    let recipient = public_key(&private.replace(".key", ".pem"));
    let wrapped = token
        .wrap_for(&recipient, suite, &[&key])
        .unwrap_or_else(|error| panic!("{kind} {suite} {label}: {error}"));
    let blob = [&wrapped.kek_blob[..], &wrapped.blobs[0]].concat();
    let opened = open_blob(scratch, suite, private, &blob);
    if !key_type.is_pair() {
        assert_eq!(open_secret(suite, private, &blob).as_ref(), Ok(&opened));
        // Made by the token and not verified there: NSS makes a CMAC but verifies none (C_VerifyInit: CKR_MECHANISM_INVALID).
        let algorithm = CheckAlgorithm::of(key_type).unwrap();
        let mac = token.make_check(&key, algorithm, MESSAGE).unwrap();
        assert_eq!(mac, mac_by_openssl(key_type, &opened).1, "{kind} {label}");
        return;
    }
    let clear = cut_at_der_length(&opened);
    let spki = public_of(Private::Pkcs8(clear));
    let fingerprint = PublicKey::from_spki_der(&spki).unwrap().fingerprint();
    let on_token = scratch.done(["key", "public", "--label", &label]);
    assert_eq!(on_token["fingerprint"], fingerprint.to_string(), "{kind}");
    let expected = Ok(PrivateKey { key_type, spki });
    assert_eq!(open_private(suite, private, &blob, Tail::Cut), expected);
    // SoftHSM 2.6.1 fills the key up to eight bytes before it wraps it; the others wrap it as it is.
    let tail = opened.len() - clear.len();
    let filled = clear.len().next_multiple_of(8) - clear.len();
    assert_eq!(tail, if kind == Kind::SoftHsm { filled } else { 0 });
    let strict = open_private(suite, private, &blob, Tail::Refuse);
    if tail == 0 {
        assert_eq!(strict, expected);
    } else {
        let refusal = format!("{tail} bytes follow the DER SEQUENCE");
        assert_eq!(strict, Err(refusal));
    }
}

fn every_blob_opens(test: &str, kind: Kind) {
    in_own_process_with(test, &[(kind, "line")], |scratch| {
        let (rsa, _) = make_rsa(scratch, "rsa-recipient", 2048);
        let (ec, _) = make_p256(scratch, "ec-recipient");
        let token = open(scratch);
        // The suites are all that the token does, not only those that are tried here.
        for suite in Suite::ALL {
            let supported = token.supports(suite).unwrap();
            assert_eq!(supported, suites(kind).contains(&suite), "{kind} {suite}");
        }
        for key_type in TYPES {
            let label = key_type.to_string();
            scratch.done([
                "key",
                "create",
                "--extractable",
                "--label",
                &label,
                "--type",
                &label,
                "--usage",
                "sign,verify",
            ]);
            for suite in suites(kind) {
                let private = match suite {
                    Suite::RsaOaepSha1 | Suite::RsaOaepSha256 => &rsa,
                    Suite::EcdhP256Null | Suite::EcdhP256X963Sha256 => &ec,
                };
                check(scratch, kind, *suite, private, key_type);
            }
        }
    });
}

#[test]
fn from_softhsm() {
    every_blob_opens("opened::from_softhsm", Kind::SoftHsm);
}

#[test]
fn from_nss() {
    every_blob_opens("opened::from_nss", Kind::Nss);
}

#[test]
fn from_kryoptic() {
    every_blob_opens("opened::from_kryoptic", Kind::Kryoptic);
}
