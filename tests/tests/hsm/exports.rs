//! What leaves the token opens with OpenSSL, and is the key that stayed.

use keyferry::hsm::{Asked, Flag, HsmError, KeyType, NewKey, PublicKey};
use keyferry_protocol::proof::Proof;
use keyferry_protocol::suite::{Suite, kwp_length};
use keyferry_tests::tokens::{Scratch, in_own_process};

use crate::{EXPORTED, MESSAGE, create_all, key, open, public_key};
use keyferry_tests::openssl::{
    Private, cut_at_der_length, make_p256, make_rsa, open_blob, openssl, public_of,
};

/// The MAC that OpenSSL makes over [`MESSAGE`] with an opened secret key, and what kind of proof it is.
pub(crate) fn mac_by_openssl(key_type: KeyType, opened: &[u8]) -> (Proof, Vec<u8>) {
    let clear = |bits: u16| {
        assert_eq!(opened.len(), usize::from(bits / 8));
        format!("hexkey:{}", hex::encode(opened))
    };
    match key_type {
        KeyType::Aes { bits } => {
            let (cipher, clear) = (format!("cipher:AES-{bits}-CBC"), clear(bits));
            let options = ["mac", "-binary", "-macopt", &cipher, "-macopt", &clear];
            let arguments = [&options[..], &["CMAC"]].concat();
            (Proof::Cmac, openssl(&arguments, MESSAGE))
        }
        KeyType::Secret { bits } => {
            let clear = clear(bits);
            let options = ["mac", "-binary", "-digest", "SHA256", "-macopt", &clear];
            let arguments = [&options[..], &["HMAC"]].concat();
            (Proof::HmacSha256, openssl(&arguments, MESSAGE))
        }
        KeyType::P256 | KeyType::P384 | KeyType::Ed25519 | KeyType::Rsa { .. } | KeyType::Other => {
            panic!("{key_type} makes no MAC")
        }
    }
}

/// Checks that an opened key is the one on the token: the token verifies the MAC that OpenSSL makes with it, or its public key
/// is the one that the command gives out.
fn is_the_key_on_the_token(scratch: &Scratch, label: &str, opened: &[u8]) {
    let token = open(scratch);
    let key = key(&token, label);
    if key.key_type.is_pair() {
        let private = cut_at_der_length(opened);
        let public = public_of(Private::Pkcs8(private));
        let out = scratch.path("public.der").display().to_string();
        let arguments = ["key", "public", "--label", label, "--out", &out];
        let last = scratch.done(arguments.into_iter().chain(["--der", "--force"]));
        assert_eq!(std::fs::read(&out).unwrap(), public, "{label}");
        let fingerprint = PublicKey::from_spki_der(&public).unwrap().fingerprint();
        assert_eq!(last["fingerprint"], fingerprint.to_string());
        return;
    }
    let (proof, mac) = mac_by_openssl(key.key_type, opened);
    let verdict = |message: &[u8], mac: &[u8]| {
        token.verify_answer(&key, proof, &Asked::default(), message, mac)
    };
    assert!(verdict(MESSAGE, &mac).unwrap(), "{label}");
    let mut wrong = mac.clone();
    wrong[0] ^= 1;
    assert!(!verdict(MESSAGE, &wrong).unwrap());
    assert!(!verdict(b"another message", &mac).unwrap());
    assert!(!verdict(MESSAGE, &mac[1..]).unwrap());
    assert!(!verdict(MESSAGE, &[]).unwrap());
}

/// SoftHSM puts zeros behind private keys: their export is refused, unless this is allowed. Gives the arguments that work.
fn zero_tail_allowed<'a>(
    scratch: &Scratch,
    key_type: KeyType,
    mut export: Vec<&'a str>,
) -> Vec<&'a str> {
    if key_type.is_pair() {
        let error = format!("the token puts zeros behind key '{key_type}'");
        scratch.refused(&export, 5, &error, "--allow-zero-tail");
        export.push("--allow-zero-tail");
    }
    export
}

#[test]
fn toward_rsa() {
    in_own_process("exports::toward_rsa", "line", |scratch| {
        create_all(scratch);
        for (bits, suite) in [(2048, &["--suite", "rsa-oaep-sha1"][..]), (3072, &[])] {
            let (private, public) = make_rsa(scratch, "recipient", bits);
            for (label, key_type) in EXPORTED {
                let arguments = ["key", "export", "--label", label, "--recipient", &public];
                let out = ["--out", "blob", "--force"];
                let export = [&arguments[..], &out, suite].concat();
                let export = zero_tail_allowed(scratch, key_type, export);
                let last = scratch.done(export);
                assert_eq!(last["suite"], "rsa-oaep-sha1");
                assert_eq!(last["type"], key_type.to_string());
                assert_eq!(
                    last["recipient"],
                    public_key(&public).fingerprint().to_string()
                );
                let blob = std::fs::read(scratch.path("blob")).unwrap();
                assert_eq!(last["bytes"], blob.len());
                let opened = open_blob(scratch, Suite::RsaOaepSha1, &private, &blob);
                is_the_key_on_the_token(scratch, label, &opened);
            }
        }
    });
}

#[test]
fn toward_p256() {
    in_own_process("exports::toward_p256", "line", |scratch| {
        create_all(scratch);
        let (private, public) = make_p256(scratch, "recipient");
        let mut points = Vec::new();
        for (label, key_type) in EXPORTED {
            let arguments = ["key", "export", "--label", label, "--recipient", &public];
            let out = ["--out", "blob", "--force"];
            let export = [&arguments[..], &out].concat();
            let export = zero_tail_allowed(scratch, key_type, export);
            let last = scratch.done(export);
            assert_eq!(last["suite"], "ecdh-p256-null");
            let blob = std::fs::read(scratch.path("blob")).unwrap();
            points.push(blob[..65].to_vec());
            let opened = open_blob(scratch, Suite::EcdhP256Null, &private, &blob);
            is_the_key_on_the_token(scratch, label, &opened);
        }
        points.sort();
        points.dedup();
        // Each export has an ephemeral key of its own.
        assert_eq!(points.len(), EXPORTED.len());
    });
}

/// A recipient may be named by the label of a public key on the token, and must be the one whose fingerprint is given.
#[test]
fn toward_a_key_on_the_token() {
    let scratch = Scratch::new("line");
    scratch.done([
        "key",
        "create",
        "--label",
        "aes",
        "--type",
        "aes-256",
        "--extractable",
    ]);
    let kek = scratch.done(["key", "create", "--label", "kek", "--type", "rsa-2048"]);
    let fingerprint = kek["fingerprint"].as_str().unwrap();
    let arguments = ["key", "export", "--label", "aes", "--recipient", "kek"];
    let last = scratch.done(
        [
            &arguments[..],
            &["--fingerprint", fingerprint, "--out", "blob"],
        ]
        .concat(),
    );
    assert_eq!(last["recipient"], fingerprint);
    assert_eq!(
        std::fs::metadata(scratch.path("blob")).unwrap().len(),
        256 + 40
    );
}

#[test]
fn several_keys_under_one_kek() {
    in_own_process("exports::several_keys_under_one_kek", "line", |scratch| {
        create_all(scratch);
        let (rsa_private, rsa_public) = make_rsa(scratch, "rsa", 2048);
        let (ec_private, ec_public) = make_p256(scratch, "ec");
        let token = open(scratch);
        let keys = EXPORTED.map(|(label, _)| key(&token, label));
        let keys: Vec<_> = keys.iter().collect();
        for public in [&rsa_public, &ec_public] {
            let recipient = public_key(public);
            let toward_rsa = public == &rsa_public;
            let suite = if toward_rsa {
                Suite::RsaOaepSha1
            } else {
                Suite::EcdhP256Null
            };
            let wrapped = token.wrap_for(&recipient, suite, &keys).unwrap();
            assert_eq!(
                (wrapped.suite, wrapped.recipient),
                (suite, recipient.fingerprint())
            );
            assert_eq!(
                wrapped.kek_blob.len(),
                recipient.unwrap_algorithm().unwrap().kek_blob_length()
            );
            assert_eq!(wrapped.blobs.len(), keys.len());
            for (blob, (label, key_type)) in wrapped.blobs.iter().zip(EXPORTED) {
                if let KeyType::Aes { bits } | KeyType::Secret { bits } = key_type {
                    assert_eq!(blob.len(), kwp_length(usize::from(bits / 8)));
                }
                let whole = [&wrapped.kek_blob[..], blob].concat();
                let private = if toward_rsa {
                    &rsa_private
                } else {
                    &ec_private
                };
                let opened = open_blob(scratch, suite, private, &whole);
                is_the_key_on_the_token(scratch, label, &opened);
            }
        }
    });
}

#[test]
fn nothing_is_left_behind() {
    in_own_process("exports::nothing_is_left_behind", "line", |scratch| {
        let token = open(scratch);
        let aes = NewKey::target("aes", KeyType::Aes { bits: 256 });
        let aes = token.create_key(&aes).unwrap();
        let kept = token.create_key(&NewKey::authority("kept")).unwrap();
        let rsa = public_key(&make_rsa(scratch, "rsa", 2048).1);
        let ec = public_key(&make_p256(scratch, "ec").1);
        assert_eq!(token.session_objects().unwrap(), 0);
        for _ in 0..100 {
            token.wrap_for(&rsa, Suite::RsaOaepSha1, &[&aes]).unwrap();
            token.wrap_for(&ec, Suite::EcdhP256Null, &[&aes]).unwrap();
        }
        assert_eq!(token.session_objects().unwrap(), 0);

        // Failures leave nothing behind either, wherever they happen.
        for _ in 0..10 {
            assert!(matches!(
                token.wrap_for(&rsa, Suite::RsaOaepSha256, &[&aes]),
                Err(HsmError::SuiteRefused {
                    suite: Suite::RsaOaepSha256,
                    ..
                })
            ));
            assert!(matches!(
                token.wrap_for(&ec, Suite::RsaOaepSha1, &[&aes]),
                Err(HsmError::SuiteMismatch { .. })
            ));
            assert!(matches!(
                token.wrap_for(&rsa, Suite::RsaOaepSha1, &[&aes, &kept]),
                Err(HsmError::NotExtractable { .. })
            ));
        }
        assert_eq!(
            token.supported_suites().unwrap(),
            [Suite::RsaOaepSha1, Suite::EcdhP256Null]
        );
        assert_eq!(token.session_objects().unwrap(), 0);
        assert_eq!(token.keys().unwrap().len(), 2);
    });
}

#[test]
fn signatures_and_their_verdicts() {
    in_own_process(
        "exports::signatures_and_their_verdicts",
        "line",
        |scratch| {
            let token = open(scratch);
            let authority = token.create_key(&NewKey::authority("authority")).unwrap();
            let signature = token.sign_p256(&authority, MESSAGE).unwrap();
            let spki = authority.public_key().unwrap().spki_der();
            let verifying =
                <p256::ecdsa::VerifyingKey as p256::pkcs8::DecodePublicKey>::from_public_key_der(
                    spki,
                )
                .unwrap();
            let parsed = p256::ecdsa::Signature::from_slice(&signature).unwrap();
            p256::ecdsa::signature::Verifier::verify(&verifying, MESSAGE, &parsed).unwrap();

            let verdict = |message: &[u8], signature: &[u8]| {
                token
                    .verify_answer(
                        &authority,
                        Proof::EcdsaP256Sha256,
                        &Asked::default(),
                        message,
                        signature,
                    )
                    .unwrap()
            };
            assert!(verdict(MESSAGE, &signature));
            assert!(!verdict(b"another message", &signature));
            assert!(!verdict(MESSAGE, &[0; 64]));
            assert!(!verdict(MESSAGE, &signature[..63]));
            assert!(!verdict(MESSAGE, &[]));
            assert!(
                !token
                    .verify_answer(&authority, Proof::None, &Asked::default(), MESSAGE, &[])
                    .unwrap()
            );
            assert!(matches!(
                token.verify_answer(
                    &authority,
                    Proof::Cmac,
                    &Asked::default(),
                    MESSAGE,
                    &[0; 16]
                ),
                Err(HsmError::WrongKeyType { .. })
            ));

            // An RSA key that left the token signs outside; the token's public key checks it.
            let rsa = NewKey::target("rsa", KeyType::Rsa { bits: 2048 });
            let rsa = token.create_key(&rsa).unwrap();
            let (private, public) = make_rsa(scratch, "recipient", 2048);
            let wrapped = token
                .wrap_for(&public_key(&public), Suite::RsaOaepSha1, &[&rsa])
                .unwrap();
            let whole = [&wrapped.kek_blob[..], &wrapped.blobs[0]].concat();
            let opened = open_blob(scratch, Suite::RsaOaepSha1, &private, &whole);
            let file = scratch.path("opened.der").display().to_string();
            std::fs::write(&file, cut_at_der_length(&opened)).unwrap();
            let arguments = ["dgst", "-sha256", "-sign", &file, "-keyform", "DER"];
            let signature = openssl(&arguments, MESSAGE);
            let proof = Proof::RsaPkcs1Sha256;
            assert!(
                token
                    .verify_answer(&rsa, proof, &Asked::default(), MESSAGE, &signature)
                    .unwrap()
            );
            assert!(
                !token
                    .verify_answer(&rsa, proof, &Asked::default(), b"another", &signature)
                    .unwrap()
            );

            // What an attribute forbids is refused before the token is asked.
            assert!(matches!(
                token.sign_p256(&rsa, MESSAGE),
                Err(HsmError::WrongKeyType { .. })
            ));
            let target = token
                .create_key(&NewKey::target("ec", KeyType::P256))
                .unwrap();
            assert!(matches!(
                token.sign_p256(&target, MESSAGE),
                Err(HsmError::NotPermitted {
                    flag: Flag::Sign,
                    ..
                })
            ));
            let mut silent = NewKey::target("silent", KeyType::Aes { bits: 128 });
            silent.usage.clear();
            let silent = token.create_key(&silent).unwrap();
            assert!(matches!(
                token.verify_answer(&silent, Proof::Cmac, &Asked::default(), MESSAGE, &[0; 16]),
                Err(HsmError::NotPermitted {
                    flag: Flag::Verify,
                    ..
                })
            ));
        },
    );
}
