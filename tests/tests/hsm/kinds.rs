//! The same on every kind of token.

use std::collections::BTreeMap;

use keyferry::hsm::{Flag, KeyClass, KeyType, NewKey, Token};
use keyferry_tests::tokens::{Kind, Scratch, in_own_process_with};
use serde_json::Value;

use crate::open_uri;

/// The attributes that a kind of token does not know; both came with PKCS#11 v2.40.
fn unknown(kind: Kind) -> &'static [Flag] {
    match kind {
        Kind::SoftHsm | Kind::Kryoptic => &[],
        Kind::Nss => &[Flag::Copyable, Flag::Destroyable],
    }
}

/// DESIGN: every boolean attribute is set explicitly, and read back as it was set.
#[test]
fn keys_are_created_as_asked_and_listed_as_created() {
    let guarded = [
        Flag::Token,
        Flag::Private,
        Flag::Destroyable,
        Flag::Sensitive,
    ];
    let target = [Flag::Extractable, Flag::Verify];
    let keys: [(&str, &[&str], KeyClass, &[Flag]); 3] = [
        ("aes-256", &["--extractable"], KeyClass::Secret, &target),
        (
            "p-256",
            &["--usage", "sign"],
            KeyClass::Private,
            &[Flag::Sign],
        ),
        (
            "rsa-2048",
            &["--usage", "decrypt", "--extractable"],
            KeyClass::Private,
            &[Flag::Extractable, Flag::Decrypt],
        ),
    ];
    for kind in Kind::ALL {
        let scratch = Scratch::of(kind, "line");
        let mut created = Vec::new();
        for (name, rest, ..) in keys {
            let create = ["key", "create", "--label", name, "--type", name];
            created.push(scratch.done([&create[..], rest].concat()));
        }
        let lines = scratch.run(["--json", "key", "list"]).json();
        let (last, listed) = lines.split_last().unwrap();
        assert_eq!((&last["ok"], &last["keys"]), (&true.into(), &3.into()));
        for (name, _, class, usage) in keys {
            let find = |lines: &[Value]| {
                let found = lines.iter().find(|line| line["label"] == name);
                found
                    .unwrap_or_else(|| panic!("{kind}: no {name}: {lines:?}"))
                    .clone()
            };
            let (created, listed) = (find(&created), find(listed));
            for field in ["type", "class", "id", "attributes", "fingerprint"] {
                assert_eq!(created[field], listed[field], "{kind} {name} {field}");
            }
            assert_eq!(listed["type"], name);
            assert_eq!(listed["class"], class.name());
            let set = [&guarded[..], usage].concat();
            let mut expected: BTreeMap<_, _> = class
                .flags()
                .iter()
                .filter(|flag| !unknown(kind).contains(flag))
                .map(|flag| (flag.name().to_owned(), set.contains(flag)))
                .collect();
            let mut found: BTreeMap<String, bool> =
                serde_json::from_value(listed["attributes"].clone()).unwrap();
            // Nobody here may set it; a token may say that it is false.
            expected.remove(Flag::Trusted.name());
            assert_ne!(found.remove(Flag::Trusted.name()), Some(true));
            assert_eq!(found, expected, "{kind} {name}");
        }
        let people = scratch.run(["key", "list"]);
        assert_eq!(people.code, 0, "{kind}: {people:?}");
        assert_eq!(people.stdout.lines().count(), 1 + keys.len(), "{kind}");
    }
}

/// Two tokens of each kind, all six in one process, each with keys of its own.
#[test]
fn several_tokens_of_every_kind_in_one_process() {
    let labels = ["one", "two"].map(|name| Kind::ALL.map(|kind| (kind, format!("{kind}-{name}"))));
    let labels = labels.concat();
    let tokens: Vec<_> = labels
        .iter()
        .map(|(kind, label)| (*kind, label.as_str()))
        .collect();
    let test = "kinds::several_tokens_of_every_kind_in_one_process";
    in_own_process_with(test, &tokens, |scratch| {
        let open = |label: &str| -> Token { open_uri(&scratch.uri_of(label)).unwrap() };
        let opened: Vec<_> = labels
            .iter()
            .map(|(_, label)| (label, open(label)))
            .collect();
        for (label, token) in &opened {
            token
                .create_key(&NewKey::target(label, KeyType::Aes { bits: 256 }))
                .unwrap();
        }
        for (label, token) in &opened {
            let keys = token.keys().unwrap();
            let found: Vec<_> = keys.iter().map(|key| &key.label).collect();
            assert_eq!(found, [*label]);
        }
    });
}
