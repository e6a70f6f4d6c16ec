//! `keyferry hsm probe` tells what each kind of token really does, and leaves it as it was.

use std::collections::BTreeMap;

use keyferry::hsm::{Fact, Finding, KeyType};
use keyferry_protocol::suite::Suite;
use keyferry_tests::command::Answer;
use keyferry_tests::tokens::{Kind, Scratch, in_own_process_with};
use serde_json::Value;

use crate::open;

const MECHANISM: &str = "CKR_MECHANISM_INVALID";
const PARAMETER: &str = "CKR_MECHANISM_PARAM_INVALID";
const ARGUMENTS: &str = "CKR_ARGUMENTS_BAD";
const KEY_TYPE: &str = "CKR_KEY_TYPE_INCONSISTENT";
const READ_ONLY: &str = "CKR_ATTRIBUTE_READ_ONLY";
const NOT_WRAPPABLE: &str = "CKR_KEY_NOT_WRAPPABLE";
const NOT_PERMITTED: &str = "CKR_KEY_FUNCTION_NOT_PERMITTED";

/// What is found with SoftHSM 2.6.1, NSS 3.87 and kryoptic 1.5.4: `yes`, `claimed`, how it differs, or why it is refused.
const EXPECTED: &[(&str, [&str; 3])] = &[
    ("oaep-sha256", [ARGUMENTS, "yes", "yes"]),
    ("oaep-sha1", ["yes", "yes", "yes"]),
    ("single-step-sha256", [MECHANISM, MECHANISM, MECHANISM]),
    ("single-step-sha1", [MECHANISM, MECHANISM, MECHANISM]),
    ("ecdh-x963-sha256", [PARAMETER, "yes", "yes"]),
    ("ecdh-null", ["yes", "yes", "yes"]),
    ("kwp-aes", [MECHANISM, "yes", "yes"]),
    ("kwp-secret", [MECHANISM, "yes", "yes"]),
    ("kwp-private", [MECHANISM, "yes", "yes"]),
    ("pad-aes", ["yes", "pkcs7", MECHANISM]),
    ("pad-secret", ["zero-tail", "pkcs7", MECHANISM]),
    ("pad-private", ["zero-tail", "pkcs7", MECHANISM]),
    (ZEROS, ["yes", "yes", "short-scalar"]),
    ("leading-zeros-unwrapped", ["yes", "yes", "yes"]),
    ("open-oaep-sha256", [ARGUMENTS, "yes", "yes"]),
    ("open-oaep-sha1", ["yes", "yes", "yes"]),
    ("unwrap-aes", ["yes", "yes", "yes"]),
    ("unwrap-secret", ["yes", "yes", "yes"]),
    ("unwrap-private", ["yes", "yes", "yes"]),
    ("unwrap-zero-tail", ["yes", "yes", "yes"]),
    ("unwrap-with-length", [READ_ONLY, "yes", "yes"]),
    ("unwrapped-length", ["not-told", "yes", "yes"]),
    ("ecdsa-p256", ["yes", "yes", "yes"]),
    ("ecdsa-p256-sha256", [MECHANISM, "yes", "yes"]),
    ("ecdsa-p384", ["yes", "yes", "yes"]),
    ("ed25519", ["yes", MECHANISM, MECHANISM]),
    ("rsa-pkcs1-sha256", ["yes", "yes", "yes"]),
    ("rsa-pss-sha256", ["yes", "yes", "yes"]),
    ("aes-cmac", ["yes", "yes", "yes"]),
    ("aes-cmac-verify", ["yes", MECHANISM, "yes"]),
    ("hmac-sha256", ["yes", "yes", "yes"]),
    ("hmac-sha256-verify", ["yes", "odd-refusal", "yes"]),
    ("hmac-sha256-aes", [KEY_TYPE, "yes", KEY_TYPE]),
    ("check-value", ["yes", "there is none", "there is none"]),
    ("keeps-secret", ["yes", "gave-it-away", "yes"]),
    ("keeps-private", ["yes", "gave-it-away", "yes"]),
    ("keeps-trusted", ["yes", "gave-it-away", "yes"]),
    ("sp800-108-counter", [MECHANISM, NOT_PERMITTED, "yes"]),
    ("aes-ecb-encrypt-data", ["yes", "yes", "yes"]),
    ("key-aes-128", ["yes", "yes", "yes"]),
    ("key-aes-192", ["yes", "yes", "yes"]),
    ("key-aes-256", ["yes", "yes", "yes"]),
    ("key-hmac-256", ["yes", "yes", "yes"]),
    ("key-rsa-2048", ["yes", "yes", "yes"]),
    ("key-rsa-3072", ["claimed", "claimed", "claimed"]),
    ("key-rsa-4096", ["claimed", "claimed", "claimed"]),
    ("key-p-256", ["yes", "yes", "yes"]),
    ("key-p-384", ["yes", "yes", "yes"]),
    ("key-ed25519", [NOT_WRAPPABLE, MECHANISM, MECHANISM]),
];

/// The one fact that depends on chance and time: keys are made until one begins with a zero byte, or patience ends.
const ZEROS: &str = "leading-zeros";

/// What is warned of.
const fn warnings(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::SoftHsm => &["zero-tail"],
        Kind::Nss => &[
            "exports-secret-keys",
            "exports-private-keys",
            "ignores-wrap-with-trusted",
        ],
        Kind::Kryoptic => &["drops-leading-zeros"],
    }
}

const fn suites(kind: Kind) -> &'static [Suite] {
    match kind {
        Kind::SoftHsm => &[Suite::RsaOaepSha1, Suite::EcdhP256Null],
        Kind::Nss | Kind::Kryoptic => &Suite::ALL,
    }
}

const fn column(kind: Kind) -> usize {
    match kind {
        Kind::SoftHsm => 0,
        Kind::Nss => 1,
        Kind::Kryoptic => 2,
    }
}

/// What a fact's line says, in the words of the table above.
fn found(line: &Value) -> &str {
    let text = |field: &str| line[field].as_str().unwrap_or_default();
    match text("found") {
        "differs" => text("difference"),
        "no" | "failed" => text("code"),
        other => other,
    }
}

/// The lines that have this field, by its value.
fn by<'l>(lines: &'l [Value], field: &str) -> BTreeMap<&'l str, &'l Value> {
    let named = lines
        .iter()
        .filter_map(|line| Some((line[field].as_str()?, line)));
    named.collect()
}

#[test]
fn tells_the_facts_of_each_kind() {
    // The table has each fact once.
    let mut names: Vec<_> = Fact::all()
        .iter()
        .map(|fact| fact.name().into_owned())
        .collect();
    let mut table: Vec<_> = EXPECTED
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .collect();
    names.sort();
    table.sort();
    assert_eq!(names, table);

    for kind in Kind::ALL {
        let scratch = Scratch::with(&[(kind, "line")]);
        let answer = scratch.run(["hsm", "probe", "--json"]);
        assert_eq!(answer.code, 0, "{kind}: {answer:?}");
        let lines = answer.json();
        let (last, lines) = lines.split_last().unwrap();

        let facts: Vec<_> = lines
            .iter()
            .filter(|line| line["found"].is_string())
            .collect();
        assert_eq!(facts.len(), EXPECTED.len());
        assert_eq!(last["facts"], EXPECTED.len());
        let mut short = true;
        for (line, (name, expected)) in facts.iter().zip(EXPECTED) {
            assert_eq!(line["fact"], *name);
            if *name == ZEROS && found(line) == "not-tried" {
                short = false;
                continue;
            }
            assert_eq!(found(line), expected[column(kind)], "{kind}: {line}");
        }

        let verdicts = by(lines, "suite");
        for suite in Suite::ALL {
            let verdict = verdicts[suite.name()];
            let usable = suites(kind).contains(&suite);
            assert_eq!(verdict["usable"], usable, "{kind}: {verdict}");
            assert_ne!(verdict["reason"], "", "{kind}: {verdict}");
        }
        let names: Vec<_> = suites(kind).iter().map(|suite| suite.name()).collect();
        assert_eq!(last["suites"], serde_json::json!(names), "{kind}");
        assert_eq!(last["suite"], names[0], "{kind}");

        let verdicts = by(lines, "key_type");
        for key_type in KeyType::CREATABLE {
            let verdict = verdicts[key_type.to_string().as_str()];
            let usable = key_type != KeyType::Ed25519;
            assert_eq!(verdict["usable"], usable, "{kind}: {verdict}");
            if usable {
                let reason = verdict["reason"].as_str().unwrap();
                let tail = reason.contains("RFC 5649, but with a zero tail");
                let expected = kind == Kind::SoftHsm && key_type.is_pair();
                assert_eq!(tail, expected, "{kind}: {verdict}");
            }
        }

        let told: Vec<_> = lines
            .iter()
            .filter_map(|line| line["warning"].as_str())
            .collect();
        if short || kind != Kind::Kryoptic {
            assert_eq!(told, warnings(kind), "{kind}");
        }
        assert_eq!(last["warnings"], told.len());

        // Known behaviour is cited where its symptom is, and nowhere else.
        let cited: Vec<_> = facts
            .iter()
            .filter(|line| line["known"].is_object())
            .map(|line| line["fact"].as_str().unwrap())
            .collect();
        let known: &[&str] = match kind {
            Kind::SoftHsm => &[
                "oaep-sha256",
                "pad-aes",
                "pad-secret",
                "pad-private",
                "open-oaep-sha256",
                "unwrap-with-length",
                "unwrapped-length",
            ],
            Kind::Nss | Kind::Kryoptic => &[],
        };
        assert_eq!(cited, known, "{kind}");
    }
}

#[test]
fn people_read_a_table_and_warnings() {
    let scratch = Scratch::with(&[(Kind::Nss, "line")]);
    let Answer { code, stdout, .. } = scratch.run(["hsm", "probe"]);
    assert_eq!(code, 0);
    for line in [
        "module NSS Internal Crypto Services 3.",
        "PKCS#7 padding and RFC 3394, not RFC 5649",
        "rsa-oaep-sha256        yes     keys with AES_KEY_WRAP_KWP",
        "WARNING: the token wraps private keys that are not extractable: whoever is logged in can take them.",
        "Suite toward an RSA key: rsa-oaep-sha256; toward a P-256 key: ecdh-p256-x963-sha256.",
    ] {
        assert!(stdout.contains(line), "{line:?} is missing in {stdout}");
    }
    let scratch = Scratch::new("line");
    let Answer { stdout, .. } = scratch.run(["hsm", "probe"]);
    let cited = "[3] zero bytes are appended before the key is wrapped (SoftHSM up to 2.6.1): \
        https://github.com/softhsm/SoftHSMv2/pull/307";
    assert!(stdout.contains(cited), "{stdout}");
    assert!(stdout.contains("RFC 5649, but with a zero tail [3]"));
}

/// Trials use session objects only, destroy them, and leave the objects of the token alone.
#[test]
fn leaves_nothing_behind() {
    for kind in Kind::ALL {
        let test = "probe::leaves_nothing_behind";
        in_own_process_with(test, &[(kind, "line")], |scratch| {
            for key_type in ["aes-256", "p-256"] {
                let create = ["key", "create", "--label", key_type, "--type", key_type];
                scratch.done([&create[..], &["--extractable"]].concat());
            }
            let token = open(scratch);
            let listed = || scratch.run(["key", "list", "--json"]).stdout;
            let (objects, keys) = (token.session_objects().unwrap(), listed());
            for fact in Fact::all() {
                token.find_out(fact).unwrap();
                let left = token.session_objects().unwrap();
                assert_eq!(left, objects, "{kind} {}", fact.name());
            }
            assert_eq!(listed(), keys, "{kind}");
            // What was found is kept; a session of its own for another thread knows it as well.
            let another = token.another_session().unwrap();
            let found = another.find_out(Fact::OaepSha1).unwrap();
            assert_eq!(found, Finding::Works, "{kind}");
        });
    }
}
