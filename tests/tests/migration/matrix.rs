//! Key type × origin × target. Each combination migrates and is proved, or stands in [`CANNOT`] with the reason.

use keyferry_tests::tokens::{Kind, Scratch};
use serde_json::Value;

/// Every type, and the usage it has at the origin.
const TYPES: [(&str, &str); 13] = [
    ("aes-128", "sign,verify"),
    ("aes-192", "encrypt,decrypt"),
    ("aes-256", "sign,verify"),
    ("hmac-128", "sign,verify"),
    ("hmac-256", "sign,verify"),
    ("hmac-512", "sign"),
    ("p-256", "sign"),
    ("p-384", "sign"),
    ("rsa-2048", "sign,decrypt"),
    ("rsa-3072", "decrypt"),
    ("rsa-4096", "sign"),
    // A key that at the origin may do nothing but leave.
    ("p-256", "derive"),
    ("ed25519", "sign"),
];

/// What cannot be: key type, origin, target, and what the command says. `None` is any.
const CANNOT: &[(&str, Kind, Option<Kind>, &str)] = &[
    // SoftHSM 2.6.1 makes such keys but does not wrap them.
    ("ed25519", Kind::SoftHsm, None, "CKR_KEY_NOT_WRAPPABLE"),
    // It makes no HMAC with a key shorter than the hash, so nobody can prove a copy of one there.
    ("hmac-128", Kind::SoftHsm, None, "cannot be proved"),
    (
        "hmac-128",
        Kind::Nss,
        Some(Kind::SoftHsm),
        "cannot be proved",
    ),
    (
        "hmac-128",
        Kind::Kryoptic,
        Some(Kind::SoftHsm),
        "cannot be proved",
    ),
    // These two do not make them.
    ("ed25519", Kind::Nss, None, "CKR_MECHANISM_INVALID"),
    ("ed25519", Kind::Kryoptic, None, "CKR_MECHANISM_INVALID"),
];

/// The reason why a combination is not expected to work.
fn expected(key_type: &str, from: Kind, to: Kind) -> Option<&'static str> {
    CANNOT
        .iter()
        .find(|(of, origin, target, _)| {
            *of == key_type && *origin == from && target.is_none_or(|target| target == to)
        })
        .map(|(_, _, _, reason)| *reason)
}

fn target(kind: Kind) -> String {
    format!("to-{}", kind.name())
}

/// The entries of `keyferry key list` with this label, by class.
fn listed(scratch: &Scratch, token: &str, label: &str) -> Vec<Value> {
    let answer = scratch.run(["--json", "key", "list", "--token", &scratch.uri_of(token)]);
    assert_eq!(answer.code, 0, "{answer:?}");
    answer
        .json()
        .into_iter()
        .filter(|line| line["label"] == label)
        .collect()
}

/// The usages that are true.
fn usages(key: &Value) -> Vec<String> {
    const PROTECTIONS_AND_SUCH: [&str; 9] = [
        "token",
        "private",
        "sensitive",
        "extractable",
        "modifiable",
        "copyable",
        "destroyable",
        "local",
        "trusted",
    ];
    let attributes = key["attributes"].as_object().unwrap();
    attributes
        .iter()
        .filter(|(name, value)| **value == true && !PROTECTIONS_AND_SUCH.contains(&name.as_str()))
        .map(|(name, _)| name.clone())
        .collect()
}

/// Everything from one kind of token.
fn from(kind: Kind) {
    let mut tokens = vec![(kind, "origin")];
    let targets: Vec<_> = Kind::ALL.iter().map(|kind| target(*kind)).collect();
    tokens.extend(
        Kind::ALL
            .into_iter()
            .zip(targets.iter().map(String::as_str)),
    );
    let scratch = Scratch::with(&tokens);
    let origin = scratch.uri_of("origin");
    let mut wrong = Vec::new();
    for (key_type, usage) in TYPES {
        let label = format!("{key_type} {usage}");
        let made = scratch.run(
            [
                "key",
                "create",
                "--token",
                &origin,
                "--extractable",
                "--label",
                &label,
            ]
            .into_iter()
            .chain(["--type", key_type, "--usage", usage]),
        );
        for to in Kind::ALL {
            let name = format!("{label}: {kind} to {to}");
            let reason = expected(key_type, kind, to);
            let outcome = if made.code == 0 {
                migrate(&scratch, &label, to)
            } else {
                Err(made.stderr.clone())
            };
            match (outcome, reason) {
                (Ok(proof), None) => println!("{name}: proved by {proof}"),
                (Err(said), Some(reason)) if said.contains(reason) => {
                    println!("{name}: cannot, {reason}");
                }
                (Ok(_), Some(reason)) => {
                    wrong.push(format!("{name}: works, but expected {reason}"))
                }
                (Err(said), _) => wrong.push(format!("{name}: {said}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Migrates one key and looks at what came of it; gives how it was proved, or what the command said.
fn migrate(scratch: &Scratch, label: &str, to: Kind) -> Result<String, String> {
    let (origin, to) = (scratch.uri_of("origin"), target(to));
    let arguments = [
        "--json", "key", "migrate", "--from", &origin, "--label", label,
    ];
    let target = scratch.uri_of(&to);
    let command = || scratch.run(arguments.into_iter().chain(["--to", &target]));
    let answer = command();
    let lines = answer.json();
    if answer.code != 0 {
        assert!(
            listed(scratch, &to, label).is_empty(),
            "{label}: half a key is left"
        );
        return Err(lines.last().unwrap()["error"].to_string());
    }
    let key = &lines[lines.len() - 2];
    assert_eq!(key["outcome"], "migrated", "{answer:?}");
    let (before, after) = (
        listed(scratch, "origin", label),
        listed(scratch, &to, label),
    );
    assert_eq!(
        (before.len(), after.len()),
        (1, 1),
        "{label} on {to}: {after:?}"
    );
    let (before, after) = (&before[0], &after[0]);
    for same in ["label", "id", "class", "fingerprint"] {
        assert_eq!(before[same], after[same], "{label} on {to}");
    }
    let kind = |key: &Value| key["type"].as_str().unwrap().to_owned();
    assert!(
        kind(before).starts_with(&kind(after)),
        "{label} on {to}: {after}"
    );
    assert_eq!(usages(before), usages(after), "{label} on {to}");
    assert_eq!(after["attributes"]["sensitive"], true);
    assert_eq!(after["attributes"]["extractable"], false);

    // Once more: it is there already, and that is known and not believed.
    let again = command();
    assert_eq!(again.code, 0, "{label} on {to}: {again:?}");
    let lines = again.json();
    let key_again = &lines[lines.len() - 2];
    assert_eq!(key_again["outcome"], "already-there", "{again:?}");
    assert!(key_again["proof"].is_string(), "{again:?}");
    Ok(key["proof"].as_str().unwrap().to_owned())
}

#[test]
fn from_softhsm() {
    from(Kind::SoftHsm);
}

#[test]
fn from_nss() {
    from(Kind::Nss);
}

#[test]
fn from_kryoptic() {
    from(Kind::Kryoptic);
}
