//! Keys as they are made and listed, and the tokens they are on.

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::Attribute;
use cryptoki::session::UserType;
use keyferry::hsm::{
    Asked, CheckAlgorithm, Flag, HsmError, KeyClass, KeySpec, KeyType, KeyUsage, NewKey,
};
use keyferry_protocol::attributes::{Attributes, KeyKind, algorithm};
use keyferry_protocol::proof::Proof;
use keyferry_protocol::suite::Suite;
use keyferry_tests::command::Answer;
use keyferry_tests::tokens::{Kind, PIN, Scratch, in_own_process};

use crate::{EXPORTED, MESSAGE, create_all, key, open, open_uri, public_key};
use keyferry_tests::openssl::{make_rsa, openssl};

/// DESIGN: every boolean attribute is set explicitly.
#[test]
fn every_attribute_is_as_asked() {
    in_own_process("keys::every_attribute_is_as_asked", "line", |scratch| {
        let token = open(scratch);
        let open_to_all = [Flag::Token, Flag::Destroyable];
        let guarded = [
            Flag::Token,
            Flag::Destroyable,
            Flag::Private,
            Flag::Sensitive,
        ];
        let expect = |label: &str, class: KeyClass, set: &[&[Flag]]| {
            let spec = KeySpec {
                class: Some(class),
                ..KeySpec::label(label)
            };
            let key = token.key(&spec).unwrap();
            let set = set.concat();
            for flag in class.flags() {
                let name = flag.attribute();
                let found = key.flags.get(*flag);
                assert_eq!(found, Some(set.contains(flag)), "{label} {class:?} {name}");
            }
            // Beside those that are set explicitly there is only one, which nobody here may set.
            for (flag, value) in key.flags.known() {
                assert!(class.flags().contains(&flag) || (flag == Flag::Trusted && !value));
            }
        };
        for key_type in KeyType::CREATABLE {
            let label = format!("target {key_type}");
            let created = token.create_key(&NewKey::target(&label, key_type)).unwrap();
            assert_eq!(created.key_type, key_type);
            if key_type.is_pair() {
                expect(&label, KeyClass::Private, &[&guarded, &[Flag::Extractable]]);
                expect(&label, KeyClass::Public, &[&open_to_all, &[Flag::Verify]]);
            } else {
                let usage = [Flag::Extractable, Flag::Verify];
                expect(&label, KeyClass::Secret, &[&guarded, &usage]);
            }
        }
        token.create_key(&NewKey::authority("authority")).unwrap();
        expect("authority", KeyClass::Private, &[&guarded, &[Flag::Sign]]);
        expect(
            "authority",
            KeyClass::Public,
            &[&open_to_all, &[Flag::Verify]],
        );
        let recipient = NewKey {
            label: "recipient".into(),
            key_type: KeyType::Rsa { bits: 2048 },
            extractable: false,
            usage: vec![KeyUsage::Unwrap],
            always_authenticate: false,
        };
        token.create_key(&recipient).unwrap();
        let halves = [
            (KeyClass::Private, &guarded[..], Flag::Unwrap),
            (KeyClass::Public, &open_to_all[..], Flag::Wrap),
        ];
        for (class, always, usage) in halves {
            expect("recipient", class, &[always, &[usage]]);
        }
        for usage in KeyUsage::ALL {
            let create = |key_type: KeyType| {
                let label = format!("{} {key_type}", usage.name());
                let new = NewKey {
                    label: label.clone(),
                    key_type,
                    extractable: false,
                    usage: vec![usage],
                    always_authenticate: false,
                };
                token.create_key(&new).unwrap();
                label
            };
            let (secret, private, public): (_, &[Flag], &[Flag]) = match usage {
                KeyUsage::Encrypt => (Some(Flag::Encrypt), &[], &[Flag::Encrypt]),
                KeyUsage::Decrypt => (Some(Flag::Decrypt), &[Flag::Decrypt], &[Flag::Encrypt]),
                KeyUsage::Sign => (Some(Flag::Sign), &[Flag::Sign], &[Flag::Verify]),
                KeyUsage::Verify => (Some(Flag::Verify), &[], &[Flag::Verify]),
                KeyUsage::Derive => (Some(Flag::Derive), &[Flag::Derive], &[]),
                // An elliptic-curve pair receives keys by deriving; a secret key cannot receive.
                KeyUsage::Unwrap => (None, &[Flag::Derive], &[]),
                // A secret key only.
                KeyUsage::Keep => {
                    let keeper = create(KeyType::Aes { bits: 256 });
                    let uses = [Flag::Wrap, Flag::Unwrap];
                    expect(&keeper, KeyClass::Secret, &[&guarded, &uses]);
                    continue;
                }
            };
            if let Some(flag) = secret {
                let secret = create(KeyType::Aes { bits: 256 });
                expect(&secret, KeyClass::Secret, &[&guarded, &[flag]]);
            }
            let pair = create(KeyType::P256);
            expect(&pair, KeyClass::Private, &[&guarded, private]);
            expect(&pair, KeyClass::Public, &[&open_to_all, public]);
        }
    });
}

#[test]
fn device_attributes_and_the_proof_they_permit() {
    let name = "keys::device_attributes_and_the_proof_they_permit";
    in_own_process(name, "line", |scratch| {
        let token = open(scratch);
        let of = |key_type: KeyType| {
            let label = key_type.to_string();
            let key = token.create_key(&NewKey::target(&label, key_type)).unwrap();
            key.device_attributes()
        };
        let kind = |attributes: &Attributes| attributes.kind().unwrap();
        for (key_type, expected_kind, expected_algorithm, expected_proof) in [
            (
                KeyType::Aes { bits: 192 },
                KeyKind::Aes(24),
                algorithm::CMAC,
                Proof::Cmac,
            ),
            (
                KeyType::Secret { bits: 256 },
                KeyKind::Secret(32),
                algorithm::HMAC_SHA256,
                Proof::HmacSha256,
            ),
            (
                KeyType::P256,
                KeyKind::P256,
                algorithm::ECDSA_SHA256,
                Proof::EcdsaP256Sha256,
            ),
            (
                KeyType::Rsa { bits: 2048 },
                KeyKind::Rsa(256),
                algorithm::RSA_PKCS1V15_SHA256,
                Proof::RsaPkcs1Sha256,
            ),
        ] {
            let (attributes, proof) = of(key_type).unwrap();
            assert_eq!(kind(&attributes), expected_kind);
            assert_eq!(
                (attributes.algorithm, proof),
                (expected_algorithm, expected_proof)
            );
        }
        assert!(matches!(
            of(KeyType::P384),
            Err(HsmError::WrongKeyType { .. })
        ));
    });
}

#[test]
fn the_list_shows_keys_and_never_values() {
    let scratch = Scratch::new("line");
    create_all(&scratch);
    let lines = scratch.run(["--json", "key", "list"]).json();
    let (last, keys) = lines.split_last().unwrap();
    assert_eq!(last["keys"], EXPORTED.len());
    assert_eq!(keys.len(), EXPORTED.len());
    for (line, (label, key_type)) in keys.iter().zip(EXPORTED) {
        assert_eq!(line["label"], label);
        assert_eq!(line["type"], key_type.to_string());
        assert_eq!(line["attributes"]["extractable"], true);
        assert_eq!(line["attributes"]["wrap-with-trusted"], false);
        assert_eq!(line["id"].as_str().unwrap().len(), 32);
        // A check value is three bytes; nothing else here comes from a secret.
        if key_type.is_pair() {
            assert_eq!(line["fingerprint"].as_str().unwrap().len(), 64);
        } else {
            assert_eq!(line["check_value"].as_str().unwrap().len(), 6);
        }
    }
    let people = scratch.run(["key", "list"]);
    assert_eq!(people.code, 0);
    assert!(people.stdout.starts_with("LABEL"), "{people:?}");
    assert_eq!(people.stdout.lines().count(), 1 + EXPORTED.len());

    let tokens = scratch.run(["--json", "hsm", "tokens"]).json();
    assert_eq!(tokens[0]["token"], "line");
    assert_eq!(tokens[0]["pin"], "ready");
    assert_eq!(tokens[1]["tokens"], 1);
}

#[test]
fn several_tokens_and_threads_under_one_login_each() {
    let name = "keys::several_tokens_and_threads_under_one_login_each";
    in_own_process(name, "first", |scratch| {
        // Before the library reads the folder, which it does once.
        scratch.add(Kind::SoftHsm, "second");
        let first = open(scratch);
        let second = open_uri(&scratch.uri_of("second")).unwrap();
        let wanted = NewKey::target("aes", KeyType::Aes { bits: 128 });
        first.create_key(&wanted).unwrap();
        second.create_key(&wanted).unwrap();
        assert_eq!(first.keys().unwrap().len(), 1);
        let authority = first.create_key(&NewKey::authority("authority")).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let token = first.another_session().unwrap();
                let authority = &authority;
                scope.spawn(move || {
                    for _ in 0..20 {
                        let signature = token.sign_p256(authority, MESSAGE).unwrap();
                        let proof = Proof::EcdsaP256Sha256;
                        assert!(
                            token
                                .verify_answer(
                                    authority,
                                    proof,
                                    &Asked::default(),
                                    MESSAGE,
                                    &signature
                                )
                                .unwrap()
                        );
                    }
                });
            }
        });
        // The login ends with the last session, and a new one works.
        drop(first);
        assert_eq!(open(scratch).keys().unwrap().len(), 2);
        assert_eq!(second.keys().unwrap().len(), 1);
    });
}

/// Keys that this product would not make: for a trusted wrapping key only; twice the same label; a short secret.
#[test]
fn foreign_keys_are_understood() {
    in_own_process("keys::foreign_keys_are_understood", "line", |scratch| {
        let token = open(scratch);
        let other = Pkcs11::new(Kind::SoftHsm.module()).unwrap();
        // The library has done both already in this process.
        let _ = other.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK));
        let slot = other.get_slots_with_initialized_token().unwrap()[0];
        let session = other.open_rw_session(slot).unwrap();
        let _ = session.login(UserType::User, Some(&PIN.into()));
        let make = |label: &str, id: u8, length: usize, trusted_only: bool| {
            let template = [
                Attribute::Token(true),
                Attribute::Private(true),
                Attribute::Sensitive(true),
                Attribute::Extractable(true),
                Attribute::WrapWithTrusted(trusted_only),
                Attribute::Label(label.into()),
                Attribute::Id(vec![id]),
                Attribute::ValueLen(length.try_into().unwrap()),
            ];
            session
                .generate_key(&Mechanism::GenericSecretKeyGen, &template)
                .unwrap();
        };
        make("trusted", 1, 32, true);
        make("twin", 2, 32, false);
        make("twin", 3, 20, false);

        let (_, public) = make_rsa(scratch, "recipient", 2048);
        let trusted = key(&token, "trusted");
        assert!(matches!(
            token.wrap_for(&public_key(&public), Suite::RsaOaepSha1, &[&trusted]),
            Err(HsmError::TrustedOnly { .. })
        ));
        let export = ["key", "export", "--recipient", &public, "--out", "blob"];
        scratch.refused(
            &[&export[..], &["--label", "trusted"]].concat(),
            3,
            "key 'trusted' may only leave under a trusted wrapping key (CKA_WRAP_WITH_TRUSTED is true)",
            "use a key without this attribute",
        );
        scratch.refused(
            &[&export[..], &["--label", "twin"]].concat(),
            3,
            "2 keys match 'twin' on token 'line'; their ids are ",
            "--id HEX",
        );
        let one = ["--label", "twin", "--id", "03", "--allow-zero-tail"];
        let one = scratch.done([&export[..], &one].concat());
        assert_eq!(one["type"], "hmac-160");
        // 20 bytes are 32 under KWP.
        assert_eq!(one["bytes"], 256 + 32);
    });
}

#[test]
fn names_and_pins_come_from_where_they_may() {
    let scratch = Scratch::new("line");
    let library = Kind::SoftHsm.module().display().to_string();
    let bare = format!("pkcs11:token=line?module-path={library}");
    let pin_file = scratch.pin_file().display().to_string();
    let list = ["key", "list", "--token", &bare];
    scratch.done([&list[..], &["--pin-file", &pin_file]].concat());
    for (name, rest) in [
        ("KEYFERRY_PIN", &[][..]),
        ("LINE_PIN", &["--pin-env", "LINE_PIN"]),
    ] {
        let mut command = scratch.command();
        command.args(list).args(rest).env(name, PIN);
        let answer = Answer::of(&mut command);
        assert_eq!(answer.code, 0, "{answer:?}");
    }
    // By labels instead of a URI.
    let by_label = ["key", "list", "--token", "line", "--module", &library];
    scratch.done([&by_label[..], &["--pin-file", &pin_file]].concat());
    // A key named in the URI.
    scratch.done(["key", "create", "--label", "a key", "--type", "p-256"]);
    let uri = scratch.uri().replace('?', ";object=a%20key?");
    let last = scratch.done(["key", "public", "--token", &uri]);
    let pem = last["pem"].as_str().unwrap();
    assert!(pem.starts_with("-----BEGIN PUBLIC KEY-----"));
    let people = scratch.run(["key", "public", "--token", &uri]);
    assert_eq!(people.stdout, pem);
}

/// Each kind of key makes a check value that itself confirms, over this message only; OpenSSL confirms the signatures.
#[test]
fn checks_are_made_by_one_copy_and_confirmed_by_another() {
    let name = "keys::checks_are_made_by_one_copy_and_confirmed_by_another";
    in_own_process(name, "line", |scratch| {
        let token = open(scratch);
        for (key_type, algorithm) in [
            (KeyType::Aes { bits: 192 }, CheckAlgorithm::Cmac),
            // SoftHSM takes no shorter key than the hash is long.
            (KeyType::Secret { bits: 264 }, CheckAlgorithm::HmacSha256),
            (KeyType::P256, CheckAlgorithm::EcdsaP256Sha256),
            (KeyType::P384, CheckAlgorithm::EcdsaP384Sha384),
            (KeyType::Ed25519, CheckAlgorithm::Ed25519),
            (KeyType::Rsa { bits: 2048 }, CheckAlgorithm::RsaPkcs1Sha256),
        ] {
            assert_eq!(CheckAlgorithm::of(key_type), Some(algorithm));
            assert_eq!(algorithm.name().parse(), Ok(algorithm));
            let key = token
                .create_key(&NewKey {
                    label: key_type.to_string(),
                    key_type,
                    extractable: false,
                    usage: vec![KeyUsage::Sign, KeyUsage::Verify],
                    always_authenticate: false,
                })
                .unwrap();
            assert_eq!(key.key_type, key_type);
            let value = token.make_check(&key, algorithm, MESSAGE).unwrap();
            let confirmed = |message: &[u8], value: &[u8]| {
                token.verify_check(&key, algorithm, message, value).unwrap()
            };
            assert!(confirmed(MESSAGE, &value), "{key_type}");
            assert!(!confirmed(b"another", &value), "{key_type}");
            assert!(!confirmed(MESSAGE, &value[1..]), "{key_type}");
            for other in CheckAlgorithm::ALL {
                if other != algorithm {
                    assert!(matches!(
                        token.make_check(&key, other, MESSAGE),
                        Err(HsmError::WrongKeyType { .. })
                    ));
                }
            }
            if key_type == KeyType::Ed25519 {
                let pem = key.public_key().unwrap().to_pem();
                let path = |name: &str, content: &[u8]| {
                    let path = scratch.path(name);
                    std::fs::write(&path, content).unwrap();
                    path.display().to_string()
                };
                let public = path("ed25519.pem", pem.as_bytes());
                let (message, signature) = (path("message", MESSAGE), path("signature", &value));
                let verify = ["pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", &public];
                openssl(
                    &[&verify[..], &["-in", &message, "-sigfile", &signature]].concat(),
                    b"",
                );
            }
        }
    });
}

#[test]
fn names_of_key_types() {
    for key_type in KeyType::CREATABLE {
        assert_eq!(key_type.to_string().parse(), Ok(key_type));
    }
    for bits in [128, 136, 512] {
        let key_type = KeyType::Secret { bits };
        assert_eq!(key_type.to_string().parse(), Ok(key_type));
    }
    for wrong in [
        "hmac-120",
        "hmac-129",
        "hmac-520",
        "hmac-0256",
        "hmac-+256",
        "hmac-",
        "aes-136",
        "other",
    ] {
        assert!(wrong.parse::<KeyType>().is_err(), "{wrong}");
    }
}
