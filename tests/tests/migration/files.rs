//! Keys by way of files: the six steps one by one, blobs that OpenSSL made, and everything that must not be taken in.

use std::fs;

use keyferry_protocol::suite::Suite;
use keyferry_tests::openssl::cut_at_der_length;
use keyferry_tests::openssl::{
    make_blob, make_key, make_p256, make_rsa, open_blob, openssl, pkcs8,
};
use keyferry_tests::tokens::{Kind, Scratch};
use serde_json::Value;

/// The six steps between two tokens, each a command of its own: for a secret key and for a pair, by way of RSA and of ECDH.
#[test]
fn the_six_steps() {
    let scratch = Scratch::with(&[(Kind::Kryoptic, "origin"), (Kind::Nss, "target")]);
    let (origin, target) = (scratch.uri_of("origin"), scratch.uri_of("target"));
    let run = |token: &str, arguments: &[&str]| {
        let at = ["--token", token];
        scratch.done(arguments.iter().chain(&at))
    };
    run(
        &origin,
        &[
            "key", "create", "--label", "signer", "--type", "p-256", "--usage", "sign",
        ],
    );
    run(
        &origin,
        &["key", "public", "--label", "signer", "--out", "signer.pem"],
    );
    for (kind, via) in [
        ("aes-256", "rsa-3072"),
        ("p-384", "p-256"),
        ("rsa-2048", "p-256"),
    ] {
        let (recipient, blob) = (format!("for {kind}"), format!("{kind}.blob"));
        let usage = if kind == "aes-256" {
            "sign,verify"
        } else {
            "sign"
        };
        let new = [
            "key",
            "create",
            "--label",
            kind,
            "--type",
            kind,
            "--extractable",
        ];
        let made = run(&origin, &[&new[..], &["--usage", usage]].concat());
        run(
            &target,
            &[
                "key", "create", "--label", &recipient, "--type", via, "--usage", "unwrap",
            ],
        );
        let public = run(
            &target,
            &["key", "public", "--label", &recipient, "--out", &recipient],
        );
        let there = run(
            &origin,
            &[
                "key",
                "import-public",
                "--label",
                "target",
                "--in",
                &recipient,
            ],
        );
        assert_eq!(there["fingerprint"], public["fingerprint"]);
        // Doing it again does no harm.
        let again = run(
            &origin,
            &[
                "key",
                "import-public",
                "--label",
                "target",
                "--in",
                &recipient,
            ],
        );
        assert_eq!(again["already_there"], true);
        let export = [
            "key",
            "export",
            "--label",
            kind,
            "--recipient",
            "target",
            "--out",
            &blob,
        ];
        run(&origin, &[&export[..], &["--sign-with", "signer"]].concat());
        let import = ["key", "import", "--unwrap-with", &recipient, "--in", &blob];
        let import = [&import[..], &["--signer", "signer.pem"]].concat();
        let done = run(&target, &import);
        assert_eq!(done["outcome"], "migrated", "{done}");
        assert_eq!(done["authenticated"], true);
        let proof = if kind == "aes-256" {
            "mac"
        } else {
            "signature"
        };
        assert_eq!(done["proof"], proof, "{done}");
        assert_eq!(done["id"], made["id"]);
        let again = run(&target, &import);
        assert_eq!(again["outcome"], "already-there", "{again}");
        let copy = key(&scratch, &target, kind);
        assert_eq!(copy["attributes"]["extractable"], false);
        assert_eq!(copy["fingerprint"], made["fingerprint"]);
        // The place at the origin for the next recipient.
        let delete = ["--delete-object", "--type", "pubkey", "--label", "target"];
        crate::tool(&scratch, Kind::Kryoptic, "origin", &delete);
    }
}

/// The entry of the list with this label.
fn key(scratch: &Scratch, token: &str, label: &str) -> Value {
    let answer = scratch.run(["--json", "key", "list", "--token", token]);
    let mut found = answer
        .json()
        .into_iter()
        .filter(|line| line["label"] == label);
    found
        .next()
        .unwrap_or_else(|| panic!("no '{label}': {answer:?}"))
}

/// A sender who has nothing but OpenSSL, toward every kind of token. That what comes in is what was sent is seen by letting it out
/// again: toward a recipient whose private key OpenSSL has.
fn what_openssl_made(kind: Kind) {
    let scratch = Scratch::of(kind, "line");
    let (rsa, rsa_public) = make_rsa(&scratch, "back-rsa", 2048);
    let suites: &[Suite] = match kind {
        Kind::SoftHsm => &[Suite::RsaOaepSha1, Suite::EcdhP256Null],
        Kind::Nss | Kind::Kryoptic => &Suite::ALL,
    };
    let (p256, _) = make_p256(&scratch, "p-256");
    let curve = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"];
    let (p384, _) = make_key(&scratch, "p-384", &curve);
    let (rsa_2048, _) = make_rsa(&scratch, "rsa-2048", 2048);
    let keys = [
        ("aes-128", openssl(&["rand", "16"], b"")),
        ("aes-256", openssl(&["rand", "32"], b"")),
        ("hmac-256", openssl(&["rand", "32"], b"")),
        ("p-256", pkcs8(&p256)),
        ("p-384", pkcs8(&p384)),
        ("rsa-2048", pkcs8(&rsa_2048)),
    ];
    for pair in ["rsa-2048", "p-256"] {
        let label = format!("in {pair}");
        let create = ["key", "create", "--usage", "unwrap", "--type", pair];
        scratch.done(create.iter().chain(&["--label", &label]));
        scratch.done([
            "key",
            "public",
            "--label",
            &label,
            "--out",
            &format!("{label}.pem"),
        ]);
    }
    for suite in suites {
        let pair = match suite {
            Suite::RsaOaepSha256 | Suite::RsaOaepSha1 => "in rsa-2048",
            Suite::EcdhP256X963Sha256 | Suite::EcdhP256Null => "in p-256",
        };
        let public = scratch.path(&format!("{pair}.pem")).display().to_string();
        for (key_type, clear) in &keys {
            let label = format!("{key_type} {suite}");
            let blob = make_blob(&scratch, *suite, &public, clear);
            fs::write(scratch.path("foreign.blob"), &blob).unwrap();
            let public_file = format!("{key_type}.pem");
            let mut import = vec![
                "key",
                "import",
                "--unauthenticated",
                "--in",
                "foreign.blob",
                "--extractable",
            ];
            import.extend(["--label", &label, "--type", key_type, "--unwrap-with", pair]);
            if key_type.starts_with('p') || key_type.starts_with("rsa") {
                import.extend(["--usage", "sign", "--public-key", &public_file]);
            } else {
                import.extend(["--usage", "sign,verify"]);
            }
            // The suite may be said, or is found out by trying.
            if *suite == Suite::RsaOaepSha1 {
                import.extend(["--suite", suite.name()]);
            }
            let done = scratch.done(&import);
            assert_eq!(done["suite"], suite.name(), "{kind} {label}: {done}");
            assert_eq!(done["authenticated"], false);

            let mut export = vec!["key", "export", "--label", &label, "--out", "back.blob"];
            export.extend([
                "--force",
                "--suite",
                "rsa-oaep-sha1",
                "--recipient",
                &rsa_public,
            ]);
            if key_type.starts_with('p') || key_type.starts_with("rsa") {
                export.extend(LEAVE);
            }
            scratch.done(&export);
            let back = fs::read(scratch.path("back.blob")).unwrap();
            let opened = open_blob(&scratch, Suite::RsaOaepSha1, &rsa, &back);
            if key_type.starts_with("aes") || key_type.starts_with("hmac") {
                assert_eq!(&opened, clear, "{kind} {label}");
            } else {
                // Tokens write the same key in more than one way; what it is shows in its public half.
                let private = keyferry_tests::openssl::Private::Pkcs8(cut_at_der_length(&opened));
                let public = keyferry_tests::openssl::public_of(private);
                let pem = scratch.path(&public_file).display().to_string();
                let expected = openssl(&["pkey", "-pubin", "-in", &pem, "-outform", "DER"], b"");
                assert_eq!(public, expected, "{kind} {label}");
            }
        }
    }
}

/// What lets a private key with a zero tail leave.
const LEAVE: [&str; 1] = ["--allow-zero-tail"];

#[test]
fn what_openssl_made_for_softhsm() {
    what_openssl_made(Kind::SoftHsm);
}

#[test]
fn what_openssl_made_for_nss() {
    what_openssl_made(Kind::Nss);
}

#[test]
fn what_openssl_made_for_kryoptic() {
    what_openssl_made(Kind::Kryoptic);
}

/// A target with two recipient pairs, and a signed export for the first of them.
struct Export {
    scratch: Scratch,
}

impl Export {
    fn new() -> Self {
        let scratch = Scratch::with(&[(Kind::SoftHsm, "origin"), (Kind::Kryoptic, "target")]);
        let target = scratch.uri_of("target");
        for label in ["mine", "other"] {
            let create = ["key", "create", "--token", &target, "--label", label];
            scratch.done(
                create
                    .iter()
                    .chain(&["--type", "rsa-2048", "--usage", "unwrap"]),
            );
            let public = ["key", "public", "--token", &target, "--label", label];
            scratch.done(public.iter().chain(&["--out", &format!("{label}.pem")]));
        }
        for label in ["signer", "stranger"] {
            let create = ["key", "create", "--label", label, "--type", "p-256"];
            scratch.done(create.iter().chain(&["--usage", "sign"]));
            scratch.done([
                "key",
                "public",
                "--label",
                label,
                "--out",
                &format!("{label}.pem"),
            ]);
        }
        let it = Self { scratch };
        it.export("key", "mine.pem", "blob");
        it
    }

    fn export(&self, label: &str, recipient: &str, out: &str) {
        let create = ["key", "create", "--label", label, "--type", "aes-256"];
        let usage = ["--usage", "sign,verify", "--extractable"];
        self.scratch.done(create.iter().chain(&usage));
        let export = ["key", "export", "--label", label, "--recipient", recipient];
        self.scratch.done(
            export
                .iter()
                .chain(&["--sign-with", "signer", "--out", out]),
        );
    }

    fn import<'a>(&self, target: &'a str, rest: &[&'a str]) -> Vec<&'a str> {
        let import = [
            "key",
            "import",
            "--token",
            target,
            "--in",
            "blob",
            "--unwrap-with",
            "mine",
        ];
        [&import[..], rest].concat()
    }

    /// Nothing may be on the target afterwards but the two pairs.
    fn refused(&self, rest: &[&str], code: i32, error: &str, hint: &str) {
        let target = self.scratch.uri_of("target");
        self.scratch
            .refused(&self.import(&target, rest), code, error, hint);
        let answer = self
            .scratch
            .run(["--json", "key", "list", "--token", &target]);
        assert_eq!(answer.json().len(), 3, "{answer:?}");
    }

    /// Changes a file, sees what comes of it, and puts it back.
    fn with(&self, name: &str, change: impl FnOnce(Vec<u8>) -> Vec<u8>, check: impl FnOnce(&Self)) {
        let path = self.scratch.path(name);
        let before = fs::read(&path).unwrap();
        fs::write(&path, change(before.clone())).unwrap();
        check(self);
        fs::write(&path, before).unwrap();
    }
}

const SIGNED: &[&str] = &["--signer", "signer.pem"];

#[test]
fn what_was_exchanged_or_edited_is_not_taken_in() {
    let export = Export::new();
    export.export("second", "mine.pem", "second.blob");
    let other = |name: &'static str| {
        let path = export.scratch.path(name);
        move |_| fs::read(path).unwrap()
    };
    let edited = |from: &'static str, to: &'static str| {
        move |bytes: Vec<u8>| {
            let text = String::from_utf8(bytes).unwrap();
            assert!(text.contains(from), "{text}");
            text.replacen(from, to, 1).into_bytes()
        }
    };
    export.with("blob", other("second.blob"), |it| {
        it.refused(
            SIGNED,
            5,
            "is not the one that was signed for",
            "ask the sender",
        );
    });
    export.with(
        "blob",
        |bytes| bytes[..bytes.len() - 8].to_vec(),
        |it| {
            it.refused(SIGNED, 5, "bytes where", "ask the sender");
        },
    );
    // Whoever edits the document must also sign it.
    let edits = [
        ("\"extractable\": true", "\"extractable\": false"),
        ("\"encrypt\": false", "\"encrypt\": true"),
        ("\"label\": \"key\"", "\"label\": \"kez\""),
    ];
    for (from, to) in edits {
        export.with("blob.json", edited(from, to), |it| {
            it.refused(
                SIGNED,
                5,
                "it was altered after it was signed",
                "do not use it",
            );
        });
    }
    export.with("blob.json.sig", other("second.blob.json.sig"), |it| {
        it.refused(
            SIGNED,
            5,
            "it was altered after it was signed",
            "do not use it",
        );
    });
    export.refused(
        &["--signer", "stranger.pem"],
        5,
        "is signed by",
        "by another way",
    );
    export.with("blob.json", other("second.blob.json"), |it| {
        it.with("blob.json.sig", other("second.blob.json.sig"), |it| {
            // A whole other export, but for the blob.
            it.refused(
                SIGNED,
                5,
                "is not the one that was signed for",
                "ask the sender",
            );
        });
    });
}

#[test]
fn what_is_missing_is_not_made_up() {
    let export = Export::new();
    export.refused(
        &[],
        2,
        "is not to be believed without its signature",
        "--signer",
    );
    let signature = fs::read(export.scratch.path("blob.json.sig")).unwrap();
    fs::remove_file(export.scratch.path("blob.json.sig")).unwrap();
    export.refused(SIGNED, 5, "the document is not signed", "--unauthenticated");
    fs::write(export.scratch.path("blob.json.sig"), signature).unwrap();
    fs::remove_file(export.scratch.path("blob.json")).unwrap();
    export.refused(
        SIGNED,
        2,
        "blob.json is not there",
        "describe the key yourself",
    );
    let trust = ["--unauthenticated"];
    export.refused(&trust, 2, "--type is missing", "give --type");
    let typed = ["--unauthenticated", "--type", "aes-256", "--label", "x"];
    export.refused(&typed, 2, "--usage is missing", "give --usage");
    let pair = [
        "--unauthenticated",
        "--type",
        "p-256",
        "--label",
        "x",
        "--usage",
        "sign",
    ];
    export.refused(&pair, 2, "--public-key is missing", "give --public-key");
}

/// Wrapped for another key, damaged, or not what it is said to be: the token says no, and nothing stays.
#[test]
fn what_does_not_open_stays_out() {
    let export = Export::new();
    export.export("misled", "other.pem", "misled.blob");
    for name in ["blob", "blob.json", "blob.json.sig"] {
        fs::copy(
            export
                .scratch
                .path(&name.replacen("blob", "misled.blob", 1)),
            export.scratch.path(name),
        )
        .unwrap();
    }
    export.refused(
        SIGNED,
        5,
        "this was wrapped for the key",
        "ask the sender to wrap",
    );
    for name in ["blob.json", "blob.json.sig"] {
        fs::remove_file(export.scratch.path(name)).unwrap();
    }
    let described = [
        "--unauthenticated",
        "--type",
        "aes-256",
        "--label",
        "x",
        "--usage",
        "sign",
    ];
    let why = "the blob is damaged or was wrapped for another key";
    export.refused(&described, 3, "does not open the blob", why);
    fs::copy(
        export.scratch.path("misled.blob"),
        export.scratch.path("blob"),
    )
    .unwrap();
    export.with(
        "blob",
        |bytes| bytes[..100].to_vec(),
        |it| {
            it.refused(&described, 3, "the blob has 100 bytes", "damaged");
        },
    );
}

/// Rights are never added on the way, whoever asks.
#[test]
fn a_copy_may_do_less_but_not_more() {
    let export = Export::new();
    let more = ["--signer", "signer.pem", "--usage", "sign,encrypt"];
    export.refused(
        &more,
        5,
        "CKA_ENCRYPT was not so at the origin",
        "leave it out",
    );
    let target = export.scratch.uri_of("target");
    let less = [
        "--signer",
        "signer.pem",
        "--usage",
        "verify",
        "--label",
        "less",
    ];
    let done = export.scratch.done(export.import(&target, &less));
    assert_eq!(done["label"], "less");
    let copy = key(&export.scratch, &target, "less");
    assert_eq!(copy["attributes"]["sign"], false);
    assert_eq!(copy["attributes"]["verify"], true);
    assert_eq!(copy["attributes"]["extractable"], false);
}

/// A key that is found by its id must stay the one that is found.
#[test]
fn an_id_that_is_taken_is_not_shared() {
    let export = Export::new();
    let target = export.scratch.uri_of("target");
    let id = key(&export.scratch, &target, "other")["id"].clone();
    let theirs = key(&export.scratch, &export.scratch.uri_of("origin"), "key")["id"].clone();
    let exchange = |bytes: Vec<u8>| {
        let text = String::from_utf8(bytes).unwrap();
        text.replace(theirs.as_str().unwrap(), id.as_str().unwrap())
            .into_bytes()
    };
    export.with("blob.json", exchange, |it| {
        it.refused(
            &["--unauthenticated"],
            1,
            "has another key of id",
            "another id",
        );
    });
}

/// Nothing in a wrapped secret says how long it is, so more than the key must not pass for one.
#[test]
fn a_blob_of_another_length_is_no_key() {
    let scratch = Scratch::new("line");
    let (_, _) = make_rsa(&scratch, "long", 2048);
    let create = ["key", "create", "--label", "in", "--type", "rsa-2048"];
    scratch.done(create.iter().chain(&["--usage", "unwrap"]));
    scratch.done(["key", "public", "--label", "in", "--out", "in.pem"]);
    let public = scratch.path("in.pem").display().to_string();
    let long = pkcs8(&scratch.path("long.key").display().to_string());
    let blob = make_blob(&scratch, Suite::RsaOaepSha1, &public, &long);
    fs::write(scratch.path("blob"), blob).unwrap();
    let import = [
        "key",
        "import",
        "--unwrap-with",
        "in",
        "--in",
        "blob",
        "--unauthenticated",
    ];
    // What an imported key cannot be for is not left out in silence.
    for usage in ["keep", "unwrap"] {
        let described = ["--label", "x", "--type", "aes-256", "--usage", usage];
        scratch.refused(
            &[&import[..], &described].concat(),
            2,
            &format!("is not imported for '{usage}'"),
            "key create",
        );
    }
    let described = ["--label", "x", "--type", "aes-256", "--usage", "sign"];
    scratch.refused(
        &[&import[..], &described].concat(),
        3,
        "40 were expected",
        "damaged",
    );
}
