//! What the token is really asked, seen by OpenSC's spy module between the command and SoftHSM: the attributes of objects that
//! live only for the time of one wrapping, and how often each function is called.

use std::path::Path;

use keyferry_tests::command::Answer;
use keyferry_tests::tokens::{Kind, Scratch};

use keyferry_tests::openssl::{make_p256, make_rsa};

/// Where systems put OpenSC's spy.
const SPIES: [&str; 5] = [
    "/usr/lib/x86_64-linux-gnu/pkcs11-spy.so",
    "/usr/lib/aarch64-linux-gnu/pkcs11-spy.so",
    "/usr/lib64/pkcs11/pkcs11-spy.so",
    "/usr/local/lib/pkcs11-spy.so",
    "/opt/homebrew/lib/pkcs11-spy.so",
];

/// One call: the function's name and what the spy wrote about it.
struct Call {
    function: String,
    text: String,
}

impl Call {
    /// The attributes that are true in the template of this name, `pTemplate` for most calls.
    fn set(&self, template: &str) -> Vec<String> {
        self.text
            .lines()
            .skip_while(|line| !line.starts_with(&format!("[in] {template}[")))
            .skip(1)
            .take_while(|line| line.starts_with(' '))
            .filter_map(|line| line.trim().strip_suffix("True"))
            .map(|name| name.trim().to_owned())
            .collect()
    }

    fn mentions(&self, text: &str) -> bool {
        self.text.contains(text)
    }
}

/// Exports a key toward a recipient with the spy in between; gives the calls.
fn spied(scratch: &Scratch, recipient: &str, suite: &str) -> Vec<Call> {
    let spy = SPIES
        .iter()
        .find(|path| Path::new(path).exists())
        .expect("OpenSC's PKCS#11 spy is not installed: the package is opensc-pkcs11 (apt), opensc (dnf, brew)");
    let log = scratch.path(&format!("{suite}.log"));
    let arguments = ["key", "export", "--label", "aes", "--recipient", recipient];
    let mut command = scratch.command();
    command
        .args(arguments)
        .args(["--suite", suite, "--out", "blob", "--force"])
        .args(["--module", spy])
        .env("PKCS11SPY", Kind::SoftHsm.module())
        .env("PKCS11SPY_OUTPUT", &log);
    let answer = Answer::of(&mut command);
    assert_eq!(answer.code, 0, "{answer:?}");
    let mut calls: Vec<Call> = Vec::new();
    for line in std::fs::read_to_string(log).unwrap().lines() {
        let number_and_name = line.split_once(": ");
        match number_and_name.filter(|(number, _)| number.parse::<u32>().is_ok()) {
            Some((_, name)) if name.starts_with("C_") => calls.push(Call {
                function: name.trim().to_owned(),
                text: String::new(),
            }),
            Some(_) | None => {
                if let Some(call) = calls.last_mut() {
                    call.text += line;
                    call.text.push('\n');
                }
            }
        }
    }
    calls
}

fn named<'c>(calls: &'c [Call], function: &str) -> Vec<&'c Call> {
    calls
        .iter()
        .filter(|call| call.function == function)
        .collect()
}

/// The label of all that is made for trials, as the spy writes it.
const TRIAL_LABEL: &str = "6B657966 65727279 20747269 616C";

/// The calls with a template of this function that are no trial's.
fn real<'c>(calls: &'c [Call], function: &str) -> Vec<&'c Call> {
    let mut found = named(calls, function);
    found.retain(|call| !call.mentions(TRIAL_LABEL));
    found
}

/// One call a wrapping, into a buffer that is there; and everything that was made lived in the session and is destroyed.
fn check_wraps_and_leftovers(calls: &[Call], real_wraps: usize) {
    let mut wraps = named(calls, "C_WrapKey");
    // The trials come first, and find out what the token refuses.
    for wrap in wraps.split_off(wraps.len() - real_wraps) {
        assert!(wrap.mentions("[out] pWrappedKey[*pulWrappedKeyLen] "));
        assert!(!wrap.mentions("pWrappedKey[*pulWrappedKeyLen] NULL"));
        assert!(wrap.mentions("CKR_OK"));
    }
    let mut made = 0;
    for (function, objects) in [
        ("C_CreateObject", 1),
        ("C_GenerateKey", 1),
        ("C_GenerateKeyPair", 2),
        ("C_DeriveKey", 1),
        ("C_UnwrapKey", 1),
    ] {
        for call in named(calls, function) {
            assert!(call.mentions("CKA_TOKEN             False"));
            assert!(!call.mentions("CKA_TOKEN             True"));
            if call.mentions("CKR_OK") {
                made += objects;
            }
        }
    }
    let destroyed = named(calls, "C_DestroyObject");
    assert_eq!(destroyed.len(), made);
    assert!(destroyed.iter().all(|call| call.mentions("CKR_OK")));
}

#[test]
fn objects_of_one_wrapping_may_do_nothing_else() {
    let scratch = Scratch::new("line");
    let create = ["key", "create", "--label", "aes", "--type", "aes-128"];
    scratch.done([&create[..], &["--extractable"]].concat());
    let (_, rsa) = make_rsa(&scratch, "rsa", 2048);
    let (_, ec) = make_p256(&scratch, "ec");
    let calls = spied(&scratch, &rsa, "rsa-oaep-sha1");
    let recipients = real(&calls, "C_CreateObject");
    assert_eq!(recipients.len(), 1);
    assert_eq!(recipients[0].set("pTemplate"), ["CKA_WRAP"]);
    let generated = real(&calls, "C_GenerateKey");
    assert_eq!(generated.len(), 1);
    let kek = [
        "CKA_PRIVATE",
        "CKA_SENSITIVE",
        "CKA_EXTRACTABLE",
        "CKA_WRAP",
    ];
    assert_eq!(generated[0].set("pTemplate"), kek);
    check_wraps_and_leftovers(&calls, 2);

    let calls = spied(&scratch, &ec, "ecdh-p256-null");
    let pairs = real(&calls, "C_GenerateKeyPair");
    assert_eq!(pairs.len(), 1);
    assert_eq!(pairs[0].set("pPublicKeyTemplate"), [""; 0]);
    let private = ["CKA_PRIVATE", "CKA_SENSITIVE", "CKA_DERIVE"];
    assert_eq!(pairs[0].set("pPrivateKeyTemplate"), private);
    let derived = real(&calls, "C_DeriveKey");
    assert_eq!(derived.len(), 1);
    let kek = ["CKA_PRIVATE", "CKA_SENSITIVE", "CKA_WRAP"];
    assert_eq!(derived[0].set("pTemplate"), kek);
    check_wraps_and_leftovers(&calls, 1);
}
