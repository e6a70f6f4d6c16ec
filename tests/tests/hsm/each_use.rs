//! Keys that ask for their PIN at each use (`CKA_ALWAYS_AUTHENTICATE`).

use keyferry_tests::openssl::{make_rsa, openssl};
use keyferry_tests::tokens::{Kind, Scratch, set_mode};

/// The tokens that keep the attribute and obey it. NSS 3.87 keeps it and asks for nothing.
const OBEY: [Kind; 2] = [Kind::SoftHsm, Kind::Kryoptic];

fn with_signer(kind: Kind) -> (Scratch, String) {
    let scratch = Scratch::with(&[(kind, "line")]);
    let create = ["key", "create", "--label", "signer", "--type", "p-256"];
    let made = scratch.done(
        create
            .iter()
            .chain(&["--usage", "sign", "--always-authenticate"]),
    );
    assert_eq!(made["attributes"]["always-authenticate"], true, "{kind}");
    scratch.done(["key", "public", "--label", "signer", "--out", "signer.pem"]);
    let create = ["key", "create", "--label", "aes", "--type", "aes-128"];
    scratch.done(create.iter().chain(&["--extractable"]));
    let (_, recipient) = make_rsa(&scratch, "recipient", 2048);
    (scratch, recipient)
}

fn export<'a>(recipient: &'a str, rest: &[&'a str]) -> Vec<&'a str> {
    let export = ["key", "export", "--label", "aes", "--recipient", recipient];
    let out = ["--out", "blob", "--sign-with", "signer"];
    [&export[..], &out, rest].concat()
}

/// The PIN of the login is given again, for each signature.
#[test]
fn such_a_key_signs() {
    for kind in Kind::ALL {
        let (scratch, recipient) = with_signer(kind);
        scratch.done(export(&recipient, &[]));
        let path = |name: &str| scratch.path(name).display().to_string();
        let (signer, document) = (path("signer.pem"), path("blob.json"));
        let signature = path("blob.json.sig");
        let verify = [
            "dgst",
            "-sha256",
            "-verify",
            &signer,
            "-signature",
            &signature,
        ];
        openssl(&[&verify[..], &[&document]].concat(), b"");
    }
}

/// A PIN of the key's own that is wrong: said of the key and not of the token, and nothing is written.
#[test]
fn a_wrong_pin_for_the_key_is_said_of_the_key() {
    for kind in OBEY {
        let (scratch, recipient) = with_signer(kind);
        let wrong = scratch.path("wrong-pin");
        std::fs::write(&wrong, "not-the-pin\n").unwrap();
        set_mode(&wrong, 0o600);
        let pin = wrong.display().to_string();
        scratch.refused(
            &export(&recipient, &["--key-pin-file", &pin]),
            3,
            "the PIN for key 'signer' was refused",
            "--key-pin-file",
        );
        assert!(!scratch.path("blob").exists());
        let right = scratch.pin_file().display().to_string();
        scratch.done(export(&recipient, &["--key-pin-file", &right]));
    }
}

/// The attribute goes with the key, and the copy is proved all the same.
#[test]
fn such_a_key_migrates() {
    let scratch = Scratch::with(&[(Kind::SoftHsm, "from"), (Kind::Kryoptic, "to")]);
    let create = ["key", "create", "--label", "dear", "--type", "p-256"];
    let rest = ["--usage", "sign", "--extractable", "--always-authenticate"];
    scratch.done(create.iter().chain(&rest));
    let (from, to) = (scratch.uri_of("from"), scratch.uri_of("to"));
    for outcome in ["migrated", "already_there"] {
        let last = scratch.done([
            "key", "migrate", "--from", &from, "--to", &to, "--label", "dear",
        ]);
        assert_eq!(
            (&last[outcome], &last["unproved"]),
            (&1.into(), &0.into()),
            "{last}"
        );
    }
    let answer = scratch.run(["--json", "key", "list", "--token", &to]);
    assert_eq!(answer.json()[0]["attributes"]["always-authenticate"], true);
}

#[test]
fn only_where_it_means_something() {
    let scratch = Scratch::new("line");
    let create = ["key", "create", "--label", "x", "--type"];
    scratch.refused(
        &[&create[..], &["aes-128", "--always-authenticate"]].concat(),
        2,
        "only private keys ask for a PIN at each use",
        "leave out",
    );
    let pair = ["rsa-2048", "--always-authenticate", "--usage", "unwrap"];
    scratch.done([&create[..], &pair].concat());
    std::fs::write(scratch.path("blob"), [0; 256 + 24]).unwrap();
    let import = [
        "key",
        "import",
        "--unwrap-with",
        "x",
        "--in",
        "blob",
        "--unauthenticated",
    ];
    let described = ["--type", "aes-128", "--label", "y", "--usage", "verify"];
    scratch.refused(
        &[&import[..], &described].concat(),
        3,
        "key 'x' asks for its PIN at each use",
        "--usage unwrap",
    );
}
