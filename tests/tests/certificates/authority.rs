//! The command, with CA keys on real tokens.

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::Attribute;
use cryptoki::session::UserType;
use cryptoki::types::AuthPin;
use keyferry_tests::command::Answer;
use keyferry_tests::guide;
use keyferry_tests::openssl::{make_p256, make_rsa, openssl};
use keyferry_tests::tokens::{Kind, PIN, Scratch, in_own_process};

use crate::file;

const ID: &str = "d5d5d5d5d5d5d5d5d5d5d5d5d5d5d5d5";

/// The arguments that certify the key in `identity.pem`.
const ISSUE: [&str; 11] = [
    "ca",
    "issue",
    "--ca-key",
    "factory-ca",
    "--ca",
    "ca.pem",
    "--identity-key",
    "identity.pem",
    "--out",
    "device.pem",
    "--device",
];

fn init<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [
        &["ca", "init", "--label", "factory-ca", "--out", "ca.pem"],
        more,
    ]
    .concat()
}

fn issue<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&ISSUE[..], more].concat()
}

fn create(scratch: &Scratch, label: &str, more: &[&str]) {
    scratch.done([&["key", "create", "--label", label], more].concat());
}

#[test]
fn the_guide_works_as_it_stands() {
    let scratch = Scratch::new("factory");
    guide::run("host/CA.md", &scratch, &[("TOKEN", scratch.uri())]);
}

#[test]
fn every_token_certifies_devices() {
    for kind in Kind::ALL {
        let scratch = Scratch::of(kind, "factory");
        let first = scratch.done(init(&["--create"]));
        assert_eq!(first["created"], true, "{kind}");
        assert_eq!(first["subject"], "CN=factory-ca");
        assert_eq!(first["not_after"], "9999-12-31T23:59:59Z");
        let _ = make_p256(&scratch, "identity");
        let issued = scratch.done(issue(&[ID]));
        assert_eq!(issued["serial"], ID);
        assert_eq!(issued["issuer"], "CN=factory-ca");
        assert!(issued["bytes"].as_u64().unwrap() < 500, "{issued}");
        let (ca, device) = (scratch.path("ca.pem"), scratch.path("device.pem"));
        let (ca, device) = (ca.display().to_string(), device.display().to_string());
        openssl(&["verify", "-x509_strict", "-CAfile", &ca, &device], b"");

        // The key that is there is used again; the certificate is another one for the same key, and takes the same devices.
        let again = scratch.done(init(&["--create", "--force", "--days", "30"]));
        assert_eq!(again["created"], false, "{kind}");
        assert_eq!(again["fingerprint"], first["fingerprint"]);
        assert_ne!(again["sha256"], first["sha256"]);
        openssl(&["verify", "-x509_strict", "-CAfile", &ca, &device], b"");
        // A request for the same key.
        let request = scratch.done(init(&["--csr", "--force"]));
        assert_eq!(request["fingerprint"], first["fingerprint"]);
        openssl(&["req", "-in", &ca, "-noout", "-verify"], b"");
        // The key is what was promised, on the token itself.
        let keys = Answer::of(scratch.command().args(["key", "list", "--json"]));
        let listed = keys.json();
        let key = listed
            .iter()
            .find(|key| key["label"] == "factory-ca")
            .unwrap();
        let attributes = key["attributes"].as_object().unwrap();
        for (name, value) in [("sign", true), ("sensitive", true), ("extractable", false)] {
            assert_eq!(attributes[name], value, "{kind}: {key}");
        }
        for usage in ["decrypt", "derive", "unwrap", "sign-recover"] {
            assert_eq!(attributes[usage], false, "{kind}: {key}");
        }
    }
}

#[test]
fn a_ca_key_signs_and_does_nothing_else() {
    let scratch = Scratch::new("factory");
    scratch.refused(
        &init(&[]),
        3,
        "there is no key 'factory-ca' on token 'factory'",
        "--create",
    );
    assert!(!scratch.path("ca.pem").exists());
    create(
        &scratch,
        "factory-ca",
        &["--type", "p-256", "--usage", "sign", "--extractable"],
    );
    scratch.refused(
        &init(&[]),
        5,
        "key 'factory-ca' may do more than sign (CKA_EXTRACTABLE is true)",
        "--create",
    );
    let both = ["--type", "p-256", "--usage", "sign,derive"];
    create(&scratch, "both", &both);
    create(&scratch, "rsa", &["--type", "rsa-2048", "--usage", "sign"]);
    let other = |label: &'static str| ["ca", "init", "--label", label, "--out", "ca.pem"];
    scratch.refused(&other("both"), 5, "CKA_DERIVE is true", "--create");
    scratch.refused(&other("rsa"), 3, "rsa-2048", "");
    assert!(!scratch.path("ca.pem").exists());
}

#[test]
fn mistakes_are_answered_before_a_key_is_made_or_a_file_written() {
    let scratch = Scratch::new("factory");
    for (more, code, error, hint) in [
        (
            &["--subject", "Factory"][..],
            2,
            "'Factory' is no subject",
            "CN=",
        ),
        (&["--subject", "CN=a, O=b"], 2, "is no subject", "blanks"),
        (
            &["--days", "4294967295"],
            2,
            "past the year 9999",
            "fewer days",
        ),
    ] {
        scratch.refused(&init(&[&["--create"], more].concat()), code, error, hint);
    }
    assert_eq!(
        Answer::of(scratch.command().args(init(&["--csr", "--days", "3"]))).code,
        2
    );
    let keys = scratch.done(["key", "list"]);
    assert_eq!(keys["keys"], 0, "{keys}");
    scratch.done(init(&["--create"]));
    let before = std::fs::read(scratch.path("ca.pem")).unwrap();
    scratch.refused(&init(&[]), 2, "exists already", "--force");
    assert_eq!(std::fs::read(scratch.path("ca.pem")).unwrap(), before);
}

#[test]
fn a_device_is_certified_only_with_what_belongs_together() {
    let scratch = Scratch::new("factory");
    scratch.done(init(&["--create"]));
    let _ = make_p256(&scratch, "identity");
    let (private, _) = make_rsa(&scratch, "rsa", 2048);

    // The certificate of another key; one that is no CA's; things that are no certificates.
    let other = ["ca", "init", "--label", "other", "--create"];
    scratch.done([&other[..], &["--out", "other.pem"]].concat());
    scratch.done(issue(&[ID]));
    let with = |ca: &'static str| {
        let mut arguments = issue(&[ID, "--force"]);
        arguments[5] = ca;
        arguments
    };
    let before = std::fs::read(scratch.path("device.pem")).unwrap();
    scratch.refused(
        &with("other.pem"),
        2,
        "the CA's certificate is for key",
        "made for this key",
    );
    scratch.refused(
        &with("device.pem"),
        5,
        "device.pem: ",
        "basicConstraints CA:TRUE",
    );
    scratch.refused(&with("identity.pem"), 2, "identity.pem: ", "openssl x509");
    scratch.refused(&with("missing.pem"), 2, "missing.pem cannot be read", "");
    file(&scratch, "rubbish", "rubbish");
    scratch.refused(&with("rubbish"), 2, "no X.509 certificate", "openssl x509");
    std::fs::copy(&private, scratch.path("private.pem")).unwrap();
    scratch.refused(&with("private.pem"), 2, "a private key", "take it out");
    let key = |file: &'static str| {
        let mut arguments = issue(&[ID, "--force"]);
        arguments[7] = file;
        arguments
    };
    scratch.refused(
        &key("rsa.pem"),
        2,
        "is a key of type rsa-2048, not p-256",
        "",
    );
    assert_eq!(std::fs::read(scratch.path("device.pem")).unwrap(), before);

    // A device has to be named, in one way.
    let unnamed = &ISSUE[..10];
    scratch.refused(
        &[unnamed, &["--force"]].concat(),
        2,
        "--device or --serial is missing",
        "--device",
    );
    let named_as = |serial| [unnamed, &["--force", "--serial", serial]].concat();
    scratch.refused(&named_as("a_b"), 2, "'a_b' is no product serial", "its id");
    scratch.refused(&named_as(ID), 2, "is no product serial number", "its id");
    let both = [&issue(&[ID])[..], &["--serial", "SN-1"]].concat();
    assert_eq!(Answer::of(scratch.command().args(both)).code, 2);
}

#[test]
fn verify_says_what_is_wrong() {
    let scratch = Scratch::new("factory");
    scratch.done(init(&["--create"]));
    let _ = make_p256(&scratch, "identity");
    let _ = make_p256(&scratch, "another");
    scratch.done(issue(&[ID]));
    let other = ["ca", "init", "--label", "other", "--create"];
    scratch.done([&other[..], &["--out", "other.pem"]].concat());

    let verify =
        |ca, more: &[&'static str]| [&["ca", "verify", "device.pem", "--ca", ca], more].concat();
    let named = ["--identity-key", "identity.pem", "--device", ID];
    let accepted = scratch.done(verify("ca.pem", &named));
    assert_eq!(accepted["serial"], ID);
    // Several files with CAs: one of them is enough.
    scratch.done(verify("other.pem", &["--ca", "ca.pem"]));

    let refused = |ca, more: &[&'static str], error: &str, hint: &str| {
        scratch.refused(&verify(ca, more), 5, error, hint);
    };
    refused("other.pem", &[], "not among the trusted CAs", "of the CA");
    let key = ["--identity-key", "another.pem"];
    refused("ca.pem", &key, "is for another key", "off the line");
    let device = ["--device", "00000000000000000000000000000001"];
    refused("ca.pem", &device, "is for device", "off the line");
    refused("device.pem", &[], "basicConstraints", "CA:TRUE");

    let pem = std::fs::read_to_string(scratch.path("device.pem")).unwrap();
    let mut der = openssl(&["x509", "-outform", "DER"], pem.as_bytes());
    let last = der.len() - 1;
    der[last] ^= 1;
    file(&scratch, "device.pem", der);
    refused("ca.pem", &[], "the signature is wrong", "altered");
}

#[test]
fn show_says_what_is_in_a_file() {
    let scratch = Scratch::new("factory");
    let made = scratch.done(init(&["--create", "--subject", "CN=Factory 1,O=Example"]));
    let _ = make_p256(&scratch, "identity");
    let issued = scratch.done(issue(&[ID, "--common-name", "Sensor"]));
    let show = |file: &str| Answer::of(scratch.command().args(["ca", "show", file, "--json"]));

    let ca = show("ca.pem").json().remove(0);
    assert_eq!(ca["subject"], "CN=Factory 1,O=Example");
    assert_eq!(ca["key"], made["fingerprint"]);
    assert_eq!(ca["sha256"], made["sha256"]);
    assert_eq!(ca["path_length"], 0);
    assert_eq!(ca["usage"], "keyCertSign, cRLSign");
    assert_eq!(ca["signature"], "by the key in it");
    let device = show("device.pem").json().remove(0);
    assert_eq!(device["subject"], issued["subject"]);
    assert_eq!(device["ca"], false);
    assert_eq!(device["bytes"], issued["bytes"]);
    assert_eq!(device["issuer_key_id"], ca["key_id"]);

    scratch.done(init(&["--csr", "--force"]));
    let request = show("ca.pem").json().remove(0);
    assert_eq!(request["kind"], "request");
    assert_eq!(request["key"], made["fingerprint"]);

    let text = scratch.run(["ca", "show", "device.pem"]);
    assert_eq!(text.code, 0);
    assert!(
        text.stdout
            .contains("not after       9999-12-31T23:59:59Z\n"),
        "{text:?}"
    );
    file(&scratch, "rubbish", [0x30; 5000]);
    scratch.refused(&["ca", "show", "rubbish"], 2, "rubbish: ", "openssl x509");
}

/// A key that the token would give out in the clear, though it is not extractable: made past the command, which makes none.
#[test]
fn a_ca_key_that_can_be_read_out_is_refused() {
    let name = "authority::a_ca_key_that_can_be_read_out_is_refused";
    in_own_process(name, "factory", |scratch| {
        let module = Pkcs11::new(Kind::SoftHsm.module()).unwrap();
        let arguments = CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK);
        module.initialize(arguments).unwrap();
        let slot = module.get_slots_with_initialized_token().unwrap()[0];
        let session = module.open_rw_session(slot).unwrap();
        let pin = AuthPin::new(PIN.into());
        session.login(UserType::User, Some(&pin)).unwrap();
        // The object identifier of P-256 (RFC 5480 §2.1.1.1).
        let curve = hex::decode("06082a8648ce3d030107").unwrap();
        let both = [
            Attribute::Token(true),
            Attribute::Label(b"factory-ca".to_vec()),
            Attribute::Id(vec![1]),
        ];
        let public = [
            &both[..],
            &[Attribute::EcParams(curve), Attribute::Verify(true)],
        ]
        .concat();
        let private = [
            Attribute::Private(true),
            Attribute::Sensitive(false),
            Attribute::Extractable(false),
            Attribute::Sign(true),
            Attribute::Derive(false),
            Attribute::Decrypt(false),
            Attribute::Unwrap(false),
            Attribute::SignRecover(false),
        ];
        let private = [&both[..], &private].concat();
        session
            .generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private)
            .unwrap();
        session.logout().unwrap();
        scratch.refused(
            &init(&[]),
            5,
            "key 'factory-ca' can be read out of the token in the clear",
            "--create",
        );
        assert!(!scratch.path("ca.pem").exists());
    });
}
