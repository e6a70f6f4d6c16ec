//! What a migration does where not all is well: interrupted, done already, something in its place, not allowed.

use keyferry_tests::tokens::{Kind, Scratch};
use serde_json::Value;

use crate::tool;

/// Two tokens, and some keys at the origin.
fn two(keys: &[&[&str]]) -> Scratch {
    let scratch = Scratch::with(&[(Kind::SoftHsm, "origin"), (Kind::Kryoptic, "target")]);
    for key in keys {
        scratch.done(["key", "create"].iter().chain(*key));
    }
    scratch
}

/// The command line of a migration from the origin to the target.
fn migration(scratch: &Scratch, rest: &[&str]) -> Vec<String> {
    let (from, to) = (scratch.uri_of("origin"), scratch.uri_of("target"));
    ["key", "migrate", "--from", &from, "--to", &to]
        .into_iter()
        .chain(rest.iter().copied())
        .map(str::to_owned)
        .collect()
}

/// Carries out a migration; gives every line.
fn migrate(scratch: &Scratch, rest: &[&str]) -> Vec<Value> {
    let mut arguments = migration(scratch, rest);
    arguments.insert(0, "--json".into());
    let answer = scratch.run(&arguments);
    assert_eq!(answer.code, 0, "{answer:?}");
    answer.json()
}

fn refused(scratch: &Scratch, rest: &[&str], code: i32, error: &str, hint: &str) {
    let arguments = migration(scratch, rest);
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    scratch.refused(&arguments, code, error, hint);
}

fn listed(scratch: &Scratch, token: &str) -> Vec<Value> {
    let uri = scratch.uri_of(token);
    let mut lines = scratch
        .run(["--json", "key", "list", "--token", &uri])
        .json();
    lines.pop();
    lines
}

fn at_origin(scratch: &Scratch, arguments: &[&str]) {
    tool(scratch, Kind::SoftHsm, "origin", arguments);
}

const PAIR: &[&str] = &[
    "--label",
    "pair",
    "--type",
    "p-256",
    "--extractable",
    "--usage",
    "sign",
];
const AES: &[&str] = &["--label", "aes", "--type", "aes-256", "--extractable"];

#[test]
fn a_dry_run_changes_nothing() {
    let scratch = two(&[AES, PAIR]);
    // One key of all is either.
    let one = scratch.uri_of("origin").replacen('?', ";object=aes?", 1);
    let to = scratch.uri_of("target");
    let both = ["key", "migrate", "--from", &one, "--to", &to, "--all"];
    scratch.refused(&both, 2, "--all is for every key", "leave one");
    let lines = migrate(&scratch, &["--all", "--dry-run"]);
    let would: Vec<_> = lines
        .iter()
        .filter(|line| line["would"] == "migrate")
        .collect();
    assert_eq!(would.len(), 2, "{lines:?}");
    assert!(would.iter().all(|line| line["extractable"] == false));
    assert_eq!(lines.last().unwrap()["dry_run"], true);
    assert!(listed(&scratch, "target").is_empty());
}

/// The private half is imported first. Without the public half, the next run must find out that it is the right one, and
/// complete it.
#[test]
fn an_interrupted_migration_is_completed() {
    let scratch = two(&[PAIR]);
    migrate(&scratch, &["--label", "pair"]);
    tool(
        &scratch,
        Kind::Kryoptic,
        "target",
        &["--delete-object", "--type", "pubkey", "--label", "pair"],
    );
    let left = listed(&scratch, "target");
    assert_eq!(
        (left.len(), &left[0]["class"]),
        (1, &Value::from("private"))
    );
    assert!(left[0].get("fingerprint").is_none());
    let lines = migrate(&scratch, &["--label", "pair"]);
    assert_eq!(lines[0]["outcome"], "completed", "{lines:?}");
    let whole = listed(&scratch, "target");
    let origin = listed(&scratch, "origin");
    assert_eq!(whole[0]["fingerprint"], origin[0]["fingerprint"]);
    let lines = migrate(&scratch, &["--label", "pair"]);
    assert_eq!(lines[0]["outcome"], "already-there", "{lines:?}");
}

#[test]
fn all_keys_that_may_leave_in_one_go() {
    let scratch = two(&[AES, PAIR, &["--label", "stays", "--type", "aes-128"]]);
    let lines = migrate(&scratch, &["--all"]);
    let last = lines.last().unwrap();
    assert_eq!(
        (&last["migrated"], &last["keys"]),
        (&2.into(), &2.into()),
        "{lines:?}"
    );
    assert_eq!(listed(&scratch, "target").len(), 2);
    let again = migrate(&scratch, &["--all"]);
    let last = again.last().unwrap();
    assert_eq!(last["already_there"], 2, "{again:?}");
}

/// A copy keeps less, never more; what is asked for beyond the default is given.
#[test]
fn the_copy_leaves_again_only_if_asked() {
    let scratch = two(&[AES]);
    migrate(&scratch, &["--label", "aes", "--extractable"]);
    let copy = &listed(&scratch, "target")[0];
    assert_eq!(copy["attributes"]["extractable"], true);
    // Already there, but with more rights than a copy would get now: said, not hidden.
    let lines = migrate(&scratch, &["--label", "aes"]);
    assert_eq!(lines[0]["outcome"], "already-there");
    assert_eq!(lines[0]["wider"], "extractable", "{lines:?}");
}

/// The key pair of the target may be one that stays, of either kind.
#[test]
fn by_way_of_a_lasting_pair() {
    let scratch = two(&[AES, PAIR]);
    let target = scratch.uri_of("target");
    for key_type in ["rsa-2048", "p-256"] {
        let create = ["key", "create", "--token", &target, "--usage", "unwrap"];
        scratch.done(
            create
                .iter()
                .chain(&["--label", key_type, "--type", key_type]),
        );
    }
    let lines = migrate(&scratch, &["--label", "aes", "--via", "rsa-2048"]);
    assert_eq!(lines[0]["suite"], "rsa-oaep-sha1", "{lines:?}");
    let lines = migrate(&scratch, &["--label", "pair", "--via", "p-256"]);
    assert_eq!(lines[0]["suite"], "ecdh-p256-null", "{lines:?}");
    refused(
        &scratch,
        &["--label", "aes", "--via", "nobody"],
        3,
        "no key 'nobody' on token 'target'",
        "keyferry key list",
    );
    for (usage, key_type) in [
        ("unwrap", "aes-256"),
        ("unwrap", "p-384"),
        ("unwrap,sign", "rsa-2048"),
    ] {
        let create = [
            "key", "create", "--label", "x", "--usage", usage, "--type", key_type,
        ];
        scratch.refused(
            &create,
            2,
            "cannot be created to receive wrapped keys",
            "--usage unwrap alone",
        );
    }
}

#[test]
fn what_may_not_leave_stays() {
    let stays: &[&str] = &["--label", "stays", "--type", "aes-128"];
    let scratch = two(&[stays, PAIR]);
    refused(
        &scratch,
        &["--label", "stays"],
        3,
        "key 'stays' is not extractable (CKA_EXTRACTABLE is false)",
        "--extractable",
    );
    refused(
        &scratch,
        &["--label", "none"],
        3,
        "no key 'none' on token 'origin'",
        "keyferry key list",
    );
    refused(&scratch, &[], 2, "no key is named", "--label");
    assert!(listed(&scratch, "target").is_empty());
}

/// Another key of the same label at the target: never overwritten, never taken for the same.
#[test]
fn another_key_of_the_same_name_is_noticed() {
    let scratch = two(&[AES, PAIR]);
    let target = scratch.uri_of("target");
    let other = |label: &str, key_type: &str, usage: &str| {
        let create = ["key", "create", "--token", &target, "--label", label];
        scratch.done(create.iter().chain(&["--type", key_type, "--usage", usage]));
    };
    other("aes", "aes-256", "verify");
    other("pair", "p-256", "sign");
    let before = listed(&scratch, "target");
    for label in ["aes", "pair"] {
        refused(
            &scratch,
            &["--label", label],
            1,
            &format!("token 'target' has another key '{label}'"),
            "rename",
        );
    }
    assert_eq!(listed(&scratch, "target"), before);
}

/// A key at the target that may do nothing at all: whether it is the same cannot be known, and that is what is said.
#[test]
fn what_cannot_be_known_is_not_claimed() {
    let scratch = Scratch::with(&[(Kind::SoftHsm, "origin"), (Kind::Nss, "target")]);
    scratch.done(["key", "create"].iter().chain(AES));
    // NSS makes CMACs, but verifies none: a copy that may only verify can tell nothing there.
    migrate(&scratch, &["--label", "aes"]);
    refused(
        &scratch,
        &["--label", "aes"],
        1,
        "whether it is the same cannot be known",
        "delete",
    );
}

/// The other way round nothing can be proved, and it takes a word to go on without.
#[test]
fn without_a_proof_only_if_asked() {
    let scratch = Scratch::with(&[(Kind::Nss, "origin"), (Kind::SoftHsm, "target")]);
    scratch.done(["key", "create"].iter().chain(AES));
    refused(
        &scratch,
        &["--label", "aes"],
        1,
        "the copy of key 'aes' cannot be proved",
        "--unproved",
    );
    assert!(listed(&scratch, "target").is_empty());
    let lines = migrate(&scratch, &["--label", "aes", "--unproved"]);
    assert_eq!(lines[0]["proof"], Value::Null, "{lines:?}");
    assert_eq!(lines.last().unwrap()["unproved"], 1);
    assert_eq!(listed(&scratch, "target").len(), 1);
}

/// A public key of another pair, with the id and label of this one: found out by a trial signature. Where the right one is on the
/// token under another name, it is found.
#[test]
fn a_pair_is_what_signs_and_verifies() {
    let other: &[&str] = &["--label", "other", "--type", "p-256", "--usage", "sign"];
    let scratch = two(&[PAIR, other]);
    let id = listed(&scratch, "origin")
        .iter()
        .find(|key| key["label"] == "pair")
        .map(|key| key["id"].as_str().unwrap().to_owned())
        .unwrap();
    for name in ["pair", "other"] {
        scratch.done(["key", "public", "--label", name, "--out", name, "--der"]);
    }
    at_origin(
        &scratch,
        &["--delete-object", "--type", "pubkey", "--label", "pair"],
    );
    refused(
        &scratch,
        &["--label", "pair"],
        3,
        "the public key of 'pair' is not on the token",
        "put the public key on the token beside it",
    );
    let write = |file: &str, label: &str, id: &str| {
        let path = scratch.path(file).display().to_string();
        let object = [
            "--write-object",
            &path,
            "--type",
            "pubkey",
            "--label",
            label,
        ];
        at_origin(&scratch, &[&object[..], &["--id", id]].concat());
    };
    write("other", "pair", &id);
    refused(
        &scratch,
        &["--label", "pair"],
        3,
        "the public key beside 'pair' is not its own",
        "put the public key on the token beside it",
    );
    write("pair", "lost and found", "00");
    let lines = migrate(&scratch, &["--label", "pair"]);
    assert_eq!(lines[0]["proof"], "signature", "{lines:?}");
    let fingerprint = scratch.done(["key", "public", "--label", "lost and found"]);
    let copy = &listed(&scratch, "target")[0];
    assert_eq!(copy["fingerprint"], fingerprint["fingerprint"]);
}

/// SoftHSM fills 25 bytes up to 32 before it wraps them. No HMAC would show it, so it is refused, not found out afterwards.
#[test]
fn a_key_that_would_grow_on_the_way_is_refused() {
    let odd: &[&str] = &["--label", "odd", "--type", "hmac-264", "--extractable"];
    let scratch = two(&[odd]);
    let grows = "key 'odd' of 264 bits would arrive with zeros at its end";
    refused(&scratch, &["--label", "odd"], 3, grows, "hsm probe");
    let target = scratch.uri_of("target");
    let create = ["key", "create", "--token", &target, "--label", "in"];
    scratch.done(
        create
            .iter()
            .chain(&["--type", "rsa-2048", "--usage", "unwrap"]),
    );
    scratch.done([
        "key", "public", "--token", &target, "--label", "in", "--out", "in.pem",
    ]);
    scratch.done([
        "key",
        "export",
        "--label",
        "odd",
        "--recipient",
        "in.pem",
        "--allow-zero-tail",
        "--out",
        "blob",
    ]);
    let import = [
        "key",
        "import",
        "--token",
        &target,
        "--unwrap-with",
        "in",
        "--in",
        "blob",
    ];
    scratch.refused(
        &[&import[..], &["--unauthenticated"]].concat(),
        3,
        grows,
        "hsm probe",
    );
}

/// Another key's public half under the name and the id of the pair: it is found before the private half is kept.
#[test]
fn another_public_half_at_the_target_keeps_nothing_there() {
    let other: &[&str] = &["--label", "other", "--type", "p-256", "--usage", "sign"];
    let scratch = two(&[PAIR, other]);
    let public = [
        "key", "public", "--label", "other", "--out", "other", "--der",
    ];
    scratch.done(public);
    let keys = listed(&scratch, "origin");
    let pair = keys.iter().find(|key| key["label"] == "pair").unwrap();
    let id = pair["id"].as_str().unwrap().to_owned();
    let path = scratch.path("other").display().to_string();
    let write = [
        "--write-object",
        &path,
        "--type",
        "pubkey",
        "--label",
        "pair",
    ];
    let write = [&write[..], &["--id", &id]].concat();
    tool(&scratch, Kind::Kryoptic, "target", &write);
    let another = "token 'target' has another key 'pair'";
    refused(&scratch, &["--label", "pair"], 1, another, "rename");
    let target = scratch.uri_of("target");
    let private = ["key", "show", "--token", &target, "--label", "pair"];
    assert_ne!(scratch.run(private).code, 0);
    let kept = listed(&scratch, "target");
    assert!(kept.iter().all(|key| key["class"] != "private"), "{kept:?}");
}

/// Somebody put the origin's public key beside another private key of that name, which takes no PIN: the private key must show
/// itself, not the object beside it.
#[test]
fn a_planted_public_key_proves_nothing() {
    for key_type in ["p-256", "rsa-2048"] {
        let pair: &[&str] = &[
            "--label",
            "pair",
            "--type",
            key_type,
            "--usage",
            "sign",
            "--extractable",
        ];
        let scratch = two(&[pair]);
        let target = scratch.uri_of("target");
        let create = ["key", "create", "--token", &target, "--label", "pair"];
        scratch.done(
            create
                .iter()
                .chain(&["--type", key_type, "--usage", "sign"]),
        );
        let id = listed(&scratch, "target")[0]["id"]
            .as_str()
            .unwrap()
            .to_owned();
        scratch.done([
            "key", "public", "--label", "pair", "--out", "planted", "--der",
        ]);
        let path = scratch.path("planted").display().to_string();
        let change = |arguments: &[&str]| tool(&scratch, Kind::Kryoptic, "target", arguments);
        change(&["--delete-object", "--type", "pubkey", "--label", "pair"]);
        let write = [
            "--write-object",
            &path,
            "--type",
            "pubkey",
            "--label",
            "pair",
        ];
        change(&[&write[..], &["--id", &id]].concat());
        let another = "token 'target' has another key 'pair'";
        refused(&scratch, &["--label", "pair"], 1, another, "rename");
    }
}
