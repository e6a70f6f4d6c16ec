//! The documents beside exported keys: OpenSSL verifies them, and whatever is altered, exchanged or missing is refused in its
//! own words.

use keyferry::export::{
    CopyProof, ExportError, Sidecar, Signer, Tail, Trust, Wanted, narrow, sign,
};
use keyferry::hsm::{Flag, Flags, KeyClass, KeyType, KeyUsage, NewKey};
use keyferry_tests::tokens::{Kind, Scratch, in_own_process, in_own_process_with};
use serde_json::{Value, json};

use crate::{open, public_key};
use keyferry_tests::openssl::{make_p256, make_rsa, openssl};

/// A token with keys that may leave, a signer, a recipient, and a signed export "blob".
struct Exported {
    scratch: Scratch,
    signer: String,
    recipient: String,
}

fn exported() -> Exported {
    let scratch = Scratch::new("line");
    let create = ["key", "create", "--label"];
    for label in ["one", "two"] {
        scratch.done([&create[..], &[label, "--type", "aes-128", "--extractable"]].concat());
    }
    for label in ["signer", "rogue"] {
        scratch.done([&create[..], &[label, "--type", "p-256", "--usage", "sign"]].concat());
        let out = format!("{label}.pem");
        scratch.done(["key", "public", "--label", label, "--out", &out]);
    }
    let (_, recipient) = make_rsa(&scratch, "recipient", 2048);
    let it = Exported {
        signer: scratch.path("signer.pem").display().to_string(),
        scratch,
        recipient,
    };
    it.export("one", "blob", &["--sign-with", "signer"]);
    it
}

impl Exported {
    fn export(&self, label: &str, out: &str, rest: &[&str]) -> Value {
        let export = ["key", "export", "--label", label, "--out", out];
        let to = ["--recipient", &self.recipient];
        self.scratch.done([&export[..], &to, rest].concat())
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.scratch.path(name)).unwrap()
    }

    fn write(&self, name: &str, content: &[u8]) {
        std::fs::write(self.scratch.path(name), content).unwrap();
    }

    fn refused(&self, rest: &[&str], code: i32, error: &str, hint: &str) {
        let verify = ["key", "verify-export", "blob", "--signer", &self.signer];
        let all = [&verify[..], rest].concat();
        self.scratch.refused(&all, code, error, hint);
    }

    /// Expects a refusal after one of the three files was changed, and changes it back.
    fn refused_with(&self, name: &str, content: &[u8], code: i32, error: &str, hint: &str) {
        let before = self.read(name);
        assert_ne!(before, content, "{name} is to be another file");
        self.write(name, content);
        self.refused(&[], code, error, hint);
        self.write(name, &before);
    }
}

#[test]
fn openssl_verifies_an_export() {
    let it = exported();
    let path = |name: &str| it.scratch.path(name).display().to_string();
    let (document, signature) = (path("blob.json"), path("blob.json.sig"));
    let verify = ["dgst", "-sha256", "-verify", &it.signer, "-signature"];
    let said = openssl(&[&verify[..], &[&signature, &document]].concat(), b"");
    assert_eq!(said.trim_ascii(), b"Verified OK");

    let document: Value = serde_json::from_slice(&it.read("blob.json")).unwrap();
    assert_eq!(document["format"], "keyferry-export-1");
    assert_eq!(document["key"]["label"], "one");
    assert_eq!(document["key"]["type"], "aes-128");
    assert_eq!(document["key"]["class"], "secret");
    assert_eq!(document["attributes"]["extractable"], true);
    assert_eq!(document["attributes"]["decrypt"], false);
    assert_eq!(
        document["attributes"].as_object().unwrap().len(),
        KeyClass::Secret.flags().len() + 1,
        "every attribute of the class, and CKA_TRUSTED"
    );
    assert_eq!(document["blob"]["bytes"], 256 + 24);
    assert_eq!(document["blob"]["suite"], "rsa-oaep-sha1");
    // SoftHSM fills up with zeros, but there is nothing to fill in a key of 16 bytes.
    assert_eq!(document["blob"]["tail"], "none");
    let recipient = public_key(&it.recipient).fingerprint().to_string();
    assert_eq!(document["recipient"]["fingerprint"], recipient);

    let verify = ["key", "verify-export", "blob", "--signer", &it.signer];
    let mut command = it.scratch.command();
    // No token is needed, nor is there one.
    command.env_remove("KEYFERRY_TOKEN").args(verify);
    assert!(command.output().unwrap().status.success());
    it.scratch
        .done([&verify[..], &["--recipient", &recipient]].concat());

    it.scratch.done([
        "key",
        "create",
        "--label",
        "pair",
        "--type",
        "p-256",
        "--extractable",
    ]);
    it.export(
        "pair",
        "pair",
        &["--sign-with", "signer", "--allow-zero-tail"],
    );
    let document: Value = serde_json::from_slice(&it.read("pair.json")).unwrap();
    assert_eq!(document["blob"]["tail"], "zeros");
    assert_eq!(document["public_attributes"]["verify"], true);
    let pem = document["key"]["public_key"].as_str().unwrap();
    let last = it.scratch.done(["key", "public", "--label", "pair"]);
    assert_eq!(last["pem"], pem);
}

#[test]
fn the_signer_may_be_on_another_token() {
    let scratch = Scratch::new("line");
    scratch.add(Kind::SoftHsm, "office");
    let office = scratch.uri_of("office");
    let create = ["key", "create", "--label"];
    scratch.done([&create[..], &["k", "--type", "aes-128", "--extractable"]].concat());
    let elsewhere = [
        "signer", "--type", "p-256", "--usage", "sign", "--token", &office,
    ];
    scratch.done([&create[..], &elsewhere].concat());
    let signer = office.replace('?', ";object=signer?");
    let out = ["key", "public", "--token", &signer, "--out", "signer.pem"];
    scratch.done(out);
    let (_, recipient) = make_rsa(&scratch, "recipient", 2048);
    let export = ["key", "export", "--label", "k", "--recipient", &recipient];
    let sign = |with: &'static str| [&export[..], &["--out", "blob", "--sign-with", with]].concat();
    scratch.done([&export[..], &["--out", "blob", "--sign-with", &signer]].concat());
    scratch.done(["key", "verify-export", "blob", "--signer", "signer.pem"]);
    scratch.refused(
        &[&sign("signer")[..], &["--force"]].concat(),
        3,
        "no key 'signer' on token 'line'",
        "key list",
    );
}

#[test]
fn what_is_altered_or_exchanged_is_refused() {
    let it = exported();
    it.export("two", "other", &["--sign-with", "signer"]);
    let altered = "the document's signature is wrong: it was altered after it was signed";
    let again = "ask the sender for a new export";
    let text = String::from_utf8(it.read("blob.json")).unwrap();
    for (from, to) in [
        ("\"decrypt\": false", "\"decrypt\": true"),
        ("\"extractable\": true", "\"extractable\": false"),
        ("\"label\": \"one\"", "\"label\": \"two\""),
        ("\"tail\": \"none\"", "\"tail\": \"zeros\""),
        ("\"type\": \"aes-128\"", "\"type\": \"aes-192\""),
        ("}\n", "}\n\n"),
    ] {
        assert_eq!(text.matches(from).count(), 1, "{from}");
        let edited = text.replace(from, to);
        it.refused_with("blob.json", edited.as_bytes(), 5, altered, again);
    }
    for length in [0, 1, text.len() / 2, text.len() - 1] {
        it.refused_with("blob.json", &text.as_bytes()[..length], 5, altered, again);
    }
    // Another genuine document with this signature, and with its own.
    it.refused_with("blob.json", &it.read("other.json"), 5, altered, again);
    it.refused_with(
        "blob.json.sig",
        &it.read("other.json.sig"),
        5,
        altered,
        again,
    );
    let genuine = ["blob.json", "blob.json.sig"].map(|name| (name, it.read(name)));
    for (name, _) in &genuine {
        it.write(name, &it.read(&name.replace("blob", "other")));
    }
    it.refused(
        &[],
        5,
        "the blob of 'two' is not the one that was signed for",
        "damaged or exchanged",
    );
    for (name, content) in &genuine {
        it.write(name, content);
    }
    // The blob.
    let blob = it.read("blob");
    let exchanged = "the blob of 'one' is not the one that was signed for";
    it.refused_with("blob", &it.read("other"), 5, exchanged, "exchanged");
    for position in [0, 255, 256, blob.len() - 1] {
        let mut flipped = blob.clone();
        flipped[position] ^= 1;
        it.refused_with("blob", &flipped, 5, exchanged, "exchanged");
    }
    it.refused_with(
        "blob",
        &blob[..blob.len() - 1],
        5,
        "the blob of 'one' has 279 bytes where 280 were signed for",
        "damaged",
    );
    // The recipient.
    let (_, someone) = make_rsa(&it.scratch, "someone", 2048);
    let someone = public_key(&someone).fingerprint().to_string();
    let recipient = public_key(&it.recipient).fingerprint().to_string();
    it.refused(
        &["--recipient", &someone],
        5,
        &format!("this was wrapped for the key {recipient}, not for {someone}"),
        "wrap for this key",
    );
    let edited = text.replace(&recipient, &someone);
    it.refused_with("blob.json", edited.as_bytes(), 5, altered, again);
    // And nothing of all this was left behind.
    it.scratch
        .done(["key", "verify-export", "blob", "--signer", &it.signer]);
}

#[test]
fn signatures_that_are_missing_or_not_the_signers() {
    let it = exported();
    let document = it.read("blob.json");
    let signature = it.read("blob.json.sig");
    // What is no signature: nothing, noise, one too long, one cut short.
    let longer = [&signature[..], &[0]].concat();
    for content in [
        &b""[..],
        b"noise",
        &longer,
        &signature[..signature.len() - 1],
    ] {
        it.refused_with(
            "blob.json.sig",
            content,
            2,
            "the signature is not an ECDSA P-256 signature in DER",
            "new export",
        );
    }
    let endless = [&signature[..], &[0; 100]].concat();
    let error = "blob.json.sig is longer than 73 bytes";
    it.refused_with("blob.json.sig", &endless, 2, error, "");
    std::fs::remove_file(it.scratch.path("blob.json.sig")).unwrap();
    it.refused(&[], 5, "the document is not signed", "--unauthenticated");
    it.write("blob.json.sig", &signature);

    // Signed by another key of the same token.
    it.export("one", "rogue", &["--sign-with", "rogue"]);
    let by_rogue = ["blob.json", "blob.json.sig"].map(|name| name.replace("blob", "rogue"));
    let fingerprint = |name: &str| {
        let path = it.scratch.path(name).display().to_string();
        public_key(&path).fingerprint().to_string()
    };
    let [signer, rogue] = ["signer.pem", "rogue.pem"].map(fingerprint);
    it.scratch.refused(
        &["key", "verify-export", "rogue", "--signer", &it.signer],
        5,
        &format!("the document is signed by {rogue}, not by {signer}"),
        "signer's public key",
    );
    // The rogue says that it is the signer.
    let forged = String::from_utf8(it.read(&by_rogue[0])).unwrap();
    let forged = forged.replace(&rogue, &signer);
    it.refused_with(
        "blob.json",
        forged.as_bytes(),
        5,
        "the document's signature is wrong",
        "new export",
    );
    let (private, _) = make_p256(&it.scratch, "outside");
    let outside = openssl(&["dgst", "-sha256", "-sign", &private], &document);
    it.refused_with(
        "blob.json.sig",
        &outside,
        5,
        "the document's signature is wrong",
        "new export",
    );
    it.scratch.refused(
        &["key", "verify-export", "blob", "--signer", &it.recipient],
        2,
        "documents are signed with p-256 keys; this key is of type rsa-2048",
        "public key",
    );

    // An unsigned export says so, and leaves no signature of an earlier one.
    let last = it.export("two", "blob", &["--force"]);
    assert_eq!(last["signer"], Value::Null);
    it.refused(&[], 5, "the document is not signed", "--unauthenticated");
}

#[test]
fn who_signs_may_do_nothing_else() {
    let name = "sidecars::who_signs_may_do_nothing_else";
    in_own_process(name, "line", |scratch| {
        let token = open(scratch);
        let signer = |label: &str, extractable, usage: &[KeyUsage]| {
            let key = token
                .create_key(&NewKey {
                    label: label.into(),
                    key_type: KeyType::P256,
                    extractable,
                    usage: usage.to_vec(),
                    always_authenticate: false,
                })
                .unwrap();
            sign(&token, &key, b"{}")
        };
        assert!(signer("good", false, &[KeyUsage::Sign]).is_ok());
        for (label, extractable, usage, expected) in [
            ("leaves", true, &[KeyUsage::Sign][..], Flag::Extractable),
            (
                "derives",
                false,
                &[KeyUsage::Sign, KeyUsage::Derive],
                Flag::Derive,
            ),
            (
                "decrypts",
                false,
                &[KeyUsage::Sign, KeyUsage::Decrypt],
                Flag::Decrypt,
            ),
        ] {
            assert!(
                matches!(
                    signer(label, extractable, usage),
                    Err(ExportError::NotSignOnly { flag, .. }) if flag == expected
                ),
                "{label}"
            );
        }

        // A proof that one copy makes is checked with another; here with itself.
        let key = token
            .create_key(&NewKey {
                label: "proved".into(),
                key_type: KeyType::Aes { bits: 256 },
                extractable: true,
                usage: vec![KeyUsage::Sign, KeyUsage::Verify],
                always_authenticate: false,
            })
            .unwrap();
        let proof = CopyProof::make(&token, &key).unwrap().unwrap();
        assert!(proof.input.starts_with(b"keyferry export\0"));
        proof.check(&token, &key).unwrap();
        let mut wrong = proof.clone();
        wrong.value[0] ^= 1;
        assert!(matches!(
            wrong.check(&token, &key),
            Err(ExportError::ProofWrong)
        ));
        let silent = NewKey::target("silent", KeyType::Aes { bits: 256 });
        let silent = token.create_key(&silent).unwrap();
        assert_eq!(CopyProof::make(&token, &silent).unwrap(), None);
    });
}

/// Which tokens leave zeros behind a private key, found out by trial: SoftHSM 2.6.1 alone.
#[test]
fn the_tail_is_the_tokens() {
    for kind in Kind::ALL {
        in_own_process_with(
            "sidecars::the_tail_is_the_tokens",
            &[(kind, "line")],
            |scratch| {
                let token = open(scratch);
                let before = token.session_objects().unwrap();
                let zeros = kind == Kind::SoftHsm;
                assert_eq!(token.fills_with_zeros().unwrap(), zeros, "{kind}");
                let tail = |key_type| Tail::find_out(&token, key_type).unwrap() == Tail::Zeros;
                assert_eq!(tail(KeyType::P256), zeros, "{kind}");
                assert_eq!(tail(KeyType::Secret { bits: 136 }), zeros, "{kind}");
                assert!(!tail(KeyType::Aes { bits: 192 }), "{kind}");
                assert_eq!(token.session_objects().unwrap(), before);
            },
        );
    }
}

/// A document as an export writes it.
fn document() -> Value {
    let fingerprint = "ab".repeat(32);
    json!({
        "format": "keyferry-export-1",
        "key": { "label": "k", "id": "0a", "type": "hmac-136", "class": "secret" },
        "attributes": { "sensitive": true, "extractable": true },
        "blob": { "bytes": 288, "sha256": fingerprint, "suite": "rsa-oaep-sha256", "tail": "zeros" },
        "recipient": { "type": "rsa-2048", "fingerprint": fingerprint },
        "proof": {
            "algorithm": "hmac-sha256",
            "input": hex::encode([&b"keyferry export\0"[..], &[7; 32]].concat()),
            "value": "00",
        },
    })
}

fn take(document: &[u8]) -> Result<Sidecar, ExportError> {
    Sidecar::read(document, None, Trust::Unauthenticated)
}

/// Whoever takes a document on trust still gets only what the format allows.
#[test]
fn what_is_no_document() {
    let good = serde_json::to_vec(&document()).unwrap();
    let sidecar = take(&good).unwrap();
    assert_eq!(take(&sidecar.to_json().unwrap()).unwrap(), sidecar);

    type Edit = fn(&mut Value);
    let malformed: [(&str, Edit); 12] = [
        ("unknown field", |it| it["more"] = json!(1)),
        ("unknown field", |it| it["key"]["value"] = json!("00")),
        ("'fly' is not an attribute", |it| {
            it["attributes"]["fly"] = json!(true)
        }),
        ("invalid type", |it| it["attributes"]["sign"] = json!(1)),
        ("missing field", |it| {
            it.as_object_mut().unwrap().remove("recipient");
        }),
        ("is not a key type", |it| {
            it["key"]["type"] = json!("hmac-0136")
        }),
        ("is not a key type", |it| it["key"]["type"] = json!("other")),
        ("is not a key class", |it| {
            it["key"]["class"] = json!("open")
        }),
        ("is not lower-case", |it| it["key"]["id"] = json!("0A")),
        ("is not 64 lower-case", |it| {
            it["blob"]["sha256"] = json!("00")
        }),
        ("invalid value", |it| it["blob"]["bytes"] = json!(-1)),
        ("is not a suite", |it| it["blob"]["suite"] = json!("rot13")),
    ];
    for (wanted, edit) in malformed {
        let mut it = document();
        edit(&mut it);
        match take(&serde_json::to_vec(&it).unwrap()) {
            Err(ExportError::Malformed { reason, .. }) => {
                assert!(reason.contains(wanted), "{wanted}: {reason}");
            }
            other => panic!("{wanted}: {other:?}"),
        }
    }
    let inconsistent: [(&str, Edit); 9] = [
        ("class and type", |it| it["key"]["class"] = json!("private")),
        ("class and type", |it| it["key"]["class"] = json!("public")),
        ("class and type", |it| it["key"]["type"] = json!("p-256")),
        ("no such attribute", |it| {
            it["attributes"]["verify-recover"] = json!(true)
        }),
        ("no public attributes", |it| {
            it["public_attributes"] = json!({})
        }),
        ("no blob has", |it| it["blob"]["bytes"] = json!(1_000_000)),
        ("suite and recipient", |it| {
            it["recipient"]["type"] = json!("p-256")
        }),
        ("no tail", |it| it["key"]["type"] = json!("hmac-256")),
        ("the proof", |it| {
            it["proof"]["input"] = json!("00".repeat(48))
        }),
    ];
    for (wanted, edit) in inconsistent {
        let mut it = document();
        edit(&mut it);
        match take(&serde_json::to_vec(&it).unwrap()) {
            Err(ExportError::Inconsistent(what)) => assert!(what.contains(wanted), "{what}"),
            other => panic!("{wanted}: {other:?}"),
        }
    }
    let twice = String::from_utf8(good.clone()).unwrap().replace(
        "\"sensitive\":true",
        "\"sensitive\":true,\"sensitive\":false",
    );
    for text in [twice.as_str(), "", "[]", "{", "null", "{}{}"] {
        assert!(
            matches!(take(text.as_bytes()), Err(ExportError::Malformed { .. })),
            "{text}"
        );
    }
    let mut next = document();
    next["format"] = json!("keyferry-export-2");
    next["news"] = json!(true);
    assert!(matches!(
        take(&serde_json::to_vec(&next).unwrap()),
        Err(ExportError::OtherFormat { found, .. }) if found == "keyferry-export-2"
    ));
    let long = [&good[..], &[b' '; 70_000]].concat();
    assert!(matches!(take(&long), Err(ExportError::TooLong { .. })));
    // And a signer is needed where trust is asked for.
    let scratch = Scratch::new("line");
    let (_, public) = make_p256(&scratch, "signer");
    let signer = Signer::new(&public_key(&public)).unwrap();
    assert!(matches!(
        Sidecar::read(&good, None, Trust::Signer(&signer)),
        Err(ExportError::Unsigned)
    ));
}

#[test]
fn attributes_narrow_and_never_widen() {
    let secret = KeyClass::Secret;
    let origin = |set: &[Flag]| Flags::of(secret, set);
    let usual = [
        Flag::Sensitive,
        Flag::Private,
        Flag::Extractable,
        Flag::Sign,
        Flag::Verify,
    ];
    let stays = [
        Flag::Token,
        Flag::Destroyable,
        Flag::Private,
        Flag::Sensitive,
    ];
    let is = |result: Result<Flags, ExportError>, more: &[Flag]| {
        let expected = Flags::of(secret, &[&stays, more].concat());
        assert_eq!(result.unwrap(), expected);
    };
    let default = Wanted::default();
    is(
        narrow(secret, &origin(&usual), &default),
        &[Flag::Sign, Flag::Verify],
    );
    let verify = Wanted {
        usage: Some(&[Flag::Verify]),
        extractable: true,
    };
    is(
        narrow(secret, &origin(&usual), &verify),
        &[Flag::Extractable, Flag::Verify],
    );
    let nothing = Wanted {
        usage: Some(&[]),
        extractable: false,
    };
    is(narrow(secret, &origin(&usual), &nothing), &[]);
    // Protections stay, and a key that was not sensitive becomes so.
    is(
        narrow(
            secret,
            &origin(&[Flag::Extractable, Flag::WrapWithTrusted]),
            &default,
        ),
        &[Flag::WrapWithTrusted],
    );
    // What an origin does not say, it does not allow.
    is(narrow(secret, &Flags::default(), &default), &[]);
    for (origin_has, wanted, expected) in [
        (
            &usual[..],
            Wanted {
                usage: Some(&[Flag::Decrypt]),
                extractable: false,
            },
            Flag::Decrypt,
        ),
        (&usual[..3], verify, Flag::Verify),
        (
            &[Flag::Sensitive][..],
            Wanted {
                usage: None,
                extractable: true,
            },
            Flag::Extractable,
        ),
        (
            &usual[..],
            Wanted {
                usage: Some(&[Flag::SignRecover]),
                extractable: false,
            },
            Flag::SignRecover,
        ),
    ] {
        assert!(
            matches!(
                narrow(secret, &origin(origin_has), &wanted),
                Err(ExportError::Widened { flag }) if flag == expected
            ),
            "{expected:?}"
        );
    }
    let unknown = Flags::default();
    assert!(narrow(secret, &unknown, &verify).is_err());
}
