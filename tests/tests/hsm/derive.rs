//! Keys of single devices: what a token derives from a master key is what Python computes, and what it makes is not for anything
//! but its purpose.

use keyferry::hsm::{
    DeviceContext, Diversification, Flag, Flags, HsmError, KeyClass, KeyInfo, KeySpec, KeyType,
    KeyUsage, NewKey, Token,
};
use keyferry::station::{Hsm as _, JobError, LocalHsm, Signers, TokenSigner};
use keyferry_protocol::identity::DeviceId;
use keyferry_protocol::suite::Suite;
use keyferry_tests::derivation::derive;
use keyferry_tests::openssl::{
    Private, cut_at_der_length, make_blob, make_rsa, open_blob, public_of,
};
use keyferry_tests::tokens::{Kind, Scratch, in_own_process_with};

use crate::{key, open, public_key};

const CONTEXT: DeviceContext = DeviceContext {
    device: DeviceId(*b"\0\x01\x02\x03device no. 1"),
    slot: 0x0102,
    version: 0x0304_0506,
};

const DERIVED: [KeyType; 4] = [
    KeyType::Aes { bits: 128 },
    KeyType::Aes { bits: 192 },
    KeyType::Aes { bits: 256 },
    KeyType::Secret { bits: 256 },
];

const SUITE: Suite = Suite::RsaOaepSha1;

/// The ways in which a kind of token derives a key of this type.
const fn offered(kind: Kind, key_type: KeyType) -> &'static [Diversification] {
    match (kind, key_type) {
        // SoftHSM 2.6.1 lacks the counter mode; NSS 3.87 has it, but then a key may only leave if its master may.
        (Kind::SoftHsm | Kind::Nss, _) => &[Diversification::EcbEncryptData],
        // kryoptic 1.5.4 cuts nothing off what AES gives: whole blocks only.
        (Kind::Kryoptic, KeyType::Aes { bits: 192 }) => &[Diversification::CounterKdf],
        (Kind::Kryoptic, _) => &Diversification::ALL,
    }
}

/// Brings a master key onto the token that OpenSSL has made; gives its clear bytes, which only a test may know.
pub(crate) fn import_master(scratch: &Scratch, label: &str, bits: usize) -> Vec<u8> {
    let clear: Vec<u8> = (0..bits / 8)
        .map(|i| u8::try_from(i * 7 + bits / 64).unwrap())
        .collect();
    if !scratch.path("receiver.pem").exists() {
        let create = ["key", "create", "--label", "receiver", "--usage", "unwrap"];
        scratch.done([&create[..], &["--type", "rsa-2048"]].concat());
        let public = [
            "key",
            "public",
            "--label",
            "receiver",
            "--out",
            "receiver.pem",
        ];
        scratch.done(public);
    }
    let receiver = scratch.path("receiver.pem").display().to_string();
    let blob = make_blob(scratch, SUITE, &receiver, &clear);
    std::fs::write(scratch.path("master.blob"), blob).unwrap();
    let (key_type, suite) = (format!("aes-{bits}"), SUITE.name());
    let import = ["key", "import", "--label", label, "--in", "master.blob"];
    let how = ["--unwrap-with", "receiver", "--unauthenticated"];
    let what = ["--type", &key_type, "--usage", "derive", "--suite", suite];
    scratch.done([&import[..], &how, &what].concat());
    clear
}

/// The clear bytes of a key that may leave, by way of OpenSSL.
fn opened(scratch: &Scratch, token: &Token, key: &KeyInfo, recipient: &str) -> Vec<u8> {
    let public = public_key(&recipient.replace(".key", ".pem"));
    let wrapped = token.wrap_for(&public, SUITE, &[key]).unwrap();
    open_blob(scratch, SUITE, recipient, &wrapped.joined())
}

#[test]
fn what_is_derived_is_what_python_computes() {
    for kind in Kind::ALL {
        in_own_process_with(
            "derive::what_is_derived_is_what_python_computes",
            &[(kind, "line")],
            |scratch| {
                let masters = [128, 192, 256].map(|bits| {
                    let label = format!("master-{bits}");
                    let clear = import_master(scratch, &label, bits);
                    (bits, label, clear)
                });
                let (recipient, _) = make_rsa(scratch, "recipient", 2048);
                let token = open(scratch);
                let before = token.session_objects().unwrap();
                for (bits, label, clear) in masters {
                    let master = key(&token, &label);
                    for key_type in DERIVED {
                        let length = match key_type {
                            KeyType::Aes { bits } | KeyType::Secret { bits } => usize::from(bits),
                            _ => unreachable!(),
                        };
                        for way in Diversification::ALL {
                            let result =
                                token.diversified_key(&master, &CONTEXT, key_type, Some(way));
                            // SoftHSM does not tell how long an unwrapped key is.
                            if length > bits && kind != Kind::SoftHsm {
                                assert!(
                                    matches!(result, Err(HsmError::WrongKeyType { .. })),
                                    "{kind} {way} {key_type}"
                                );
                                continue;
                            }
                            if !offered(kind, key_type).contains(&way) {
                                assert!(
                                    matches!(result, Err(HsmError::CannotDerive { .. })),
                                    "{kind} {way} {key_type}"
                                );
                                continue;
                            }
                            let derived = result
                                .unwrap_or_else(|error| panic!("{kind} {way} {key_type}: {error}"));
                            assert_eq!(derived.by, way);
                            let info = derived.key.info();
                            assert_eq!(info.key_type, key_type);
                            only_for_proofs(kind, info);
                            let found = opened(scratch, &token, info, &recipient);
                            let expected = derive(way, &clear, &CONTEXT, key_type);
                            assert_eq!(found, expected, "{kind} {way} {key_type} {bits}");
                        }
                        // Nothing demanded: the preferred way.
                        if length <= bits {
                            let derived = token
                                .diversified_key(&master, &CONTEXT, key_type, None)
                                .unwrap();
                            assert_eq!(Some(&derived.by), offered(kind, key_type).first());
                        }
                    }
                }
                assert_eq!(token.session_objects().unwrap(), before);
            },
        );
    }
}

/// A key of a device is sensitive and extractable, and may do nothing but show that it is the one.
fn only_for_proofs(kind: Kind, key: &KeyInfo) {
    let mut expected = vec![
        Flag::Private,
        Flag::Destroyable,
        Flag::Sensitive,
        Flag::Extractable,
        Flag::Verify,
    ];
    // NSS 3.87 makes CMACs but checks none.
    if kind == Kind::Nss && matches!(key.key_type, KeyType::Aes { .. }) {
        expected.push(Flag::Sign);
    }
    let expected = Flags::of(KeyClass::Secret, &expected);
    for (flag, value) in expected.known() {
        // NSS does not know these two of session objects.
        let found = key.flags.get(flag);
        let unknown = matches!(flag, Flag::Copyable | Flag::Destroyable) && found != Some(value);
        assert!(
            found == Some(value) || unknown && kind != Kind::Kryoptic,
            "{kind} {flag:?} {found:?}"
        );
    }
}

/// One bit of the context changes the key.
#[test]
fn each_context_has_its_own_key() {
    for kind in Kind::ALL {
        let name = "derive::each_context_has_its_own_key";
        in_own_process_with(name, &[(kind, "line")], |scratch| {
            let (recipient, _) = make_rsa(scratch, "recipient", 2048);
            let token = open(scratch);
            let master = token.create_key(&master_key("master")).unwrap();
            let mut other_device = CONTEXT;
            other_device.device.0[15] ^= 1;
            let others = [
                (other_device, DERIVED[2]),
                (
                    DeviceContext {
                        slot: CONTEXT.slot ^ 1,
                        ..CONTEXT
                    },
                    DERIVED[2],
                ),
                (
                    DeviceContext {
                        version: CONTEXT.version ^ 1,
                        ..CONTEXT
                    },
                    DERIVED[2],
                ),
                (CONTEXT, DERIVED[0]),
                (CONTEXT, DERIVED[3]),
            ];
            for way in offered(kind, DERIVED[2]) {
                let key = |context: &DeviceContext, key_type| {
                    let derived = token
                        .diversified_key(&master, context, key_type, Some(*way))
                        .unwrap();
                    opened(scratch, &token, derived.key.info(), &recipient)
                };
                let first = key(&CONTEXT, DERIVED[2]);
                assert_eq!(first, key(&CONTEXT, DERIVED[2]), "{kind} {way}");
                for (context, key_type) in &others {
                    let other = key(context, *key_type);
                    assert_ne!(first[..16], other[..16], "{kind} {way} {context:?}");
                }
            }
        });
    }
}

fn master_key(label: &str) -> NewKey {
    NewKey {
        label: label.into(),
        key_type: KeyType::Aes { bits: 256 },
        extractable: false,
        usage: vec![KeyUsage::Derive],
        always_authenticate: false,
    }
}

#[test]
fn a_master_derives_and_does_nothing_else() {
    for kind in Kind::ALL {
        let name = "derive::a_master_derives_and_does_nothing_else";
        in_own_process_with(name, &[(kind, "line")], |scratch| {
            let token = open(scratch);
            let refused = |key: &NewKey| {
                let master = token.create_key(key).unwrap();
                match token.diversified_key(&master, &CONTEXT, DERIVED[0], None) {
                    Err(HsmError::NotDeriveOnly { label, flag, .. }) => {
                        assert_eq!(label, key.label);
                        Some(flag)
                    }
                    Err(error) => panic!("{kind} {}: {error}", key.label),
                    Ok(_) => None,
                }
            };
            assert_eq!(refused(&master_key("good")), None);
            for (usage, flag) in [
                (KeyUsage::Sign, Flag::Sign),
                (KeyUsage::Verify, Flag::Verify),
                (KeyUsage::Encrypt, Flag::Encrypt),
                (KeyUsage::Decrypt, Flag::Decrypt),
            ] {
                let mut key = master_key(usage.name());
                key.usage.push(usage);
                assert_eq!(refused(&key), Some(flag), "{kind}");
            }
            let mut key = master_key("leaves");
            key.extractable = true;
            assert_eq!(refused(&key), Some(Flag::Extractable), "{kind}");
            let mut key = master_key("idle");
            key.usage.clear();
            assert_eq!(refused(&key), Some(Flag::Derive), "{kind}");
            let mut key = master_key("hmac");
            key.key_type = KeyType::Secret { bits: 256 };
            let hmac = token.create_key(&key).unwrap();
            assert!(matches!(
                token.diversified_key(&hmac, &CONTEXT, DERIVED[0], None),
                Err(HsmError::WrongKeyType { .. })
            ));
            assert_eq!(token.session_objects().unwrap(), 0);
        });
    }
}

#[test]
fn fresh_keys_are_for_one_purpose() {
    for kind in Kind::ALL {
        let name = "derive::fresh_keys_are_for_one_purpose";
        in_own_process_with(name, &[(kind, "line")], |scratch| {
            let (recipient, _) = make_rsa(scratch, "recipient", 2048);
            let token = open(scratch);
            let before = token.session_objects().unwrap();
            for key_type in DERIVED {
                let [one, other] = [(); 2].map(|()| {
                    let key = token.fresh_device_key(key_type).unwrap();
                    only_for_proofs(kind, key.info());
                    opened(scratch, &token, key.info(), &recipient)
                });
                assert_ne!(one, other, "{kind} {key_type}");
            }
            for key_type in [KeyType::P256, KeyType::Rsa { bits: 2048 }] {
                let key = token.fresh_device_key(key_type).unwrap();
                let info = key.info();
                let usable = info.flags.known().find(|(flag, on)| *on && flag.is_usage());
                assert_eq!(usable, None, "{kind} {key_type}");
                assert!(info.flags.has(Flag::Sensitive) && info.flags.has(Flag::Extractable));
                let opened = opened(scratch, &token, info, &recipient);
                let public = public_of(Private::Pkcs8(cut_at_der_length(&opened)));
                assert_eq!(public, info.public_key().unwrap().spki_der(), "{kind}");
            }
            assert!(matches!(
                token.fresh_device_key(KeyType::Secret { bits: 8 }),
                Err(HsmError::WrongKeyType { .. })
            ));
            assert_eq!(token.session_objects().unwrap(), before);
        });
    }
}

/// A card is of one master key: another one that has got its label since, and its place on the token, gives other keys.
#[test]
fn a_derived_key_is_of_the_very_master_that_its_card_names() {
    for kind in Kind::ALL {
        let name = "derive::a_derived_key_is_of_the_very_master_that_its_card_names";
        in_own_process_with(name, &[(kind, "line")], |scratch| {
            let token = open(scratch);
            let signer = NewKey {
                key_type: KeyType::P256,
                usage: vec![KeyUsage::Sign],
                ..master_key("authority")
            };
            token.create_key(&signer).unwrap();
            let master = token.create_key(&master_key("master")).unwrap();
            let authority = TokenSigner::named(&token, &KeySpec::label("authority")).unwrap();
            let signers = Signers {
                authority,
                auditor: None,
                ca: None,
            };
            let hsm = LocalHsm::new(open(scratch), signers);
            let card = hsm
                .diversified("cloud", DERIVED[0], None, "master", &CONTEXT)
                .unwrap();
            assert_eq!(card.derived.as_ref().unwrap().master_id, master.id);
            hsm.ask(&card).unwrap();
            token.destroy(&master).unwrap();
            let other = token.create_key(&master_key("master")).unwrap();
            assert_ne!(other.id, master.id, "{kind}");
            let error = hsm.ask(&card).unwrap_err();
            assert!(
                matches!(&error, JobError::Hsm(HsmError::NoSuchKey { .. })),
                "{kind}: {error}"
            );
        });
    }
}
