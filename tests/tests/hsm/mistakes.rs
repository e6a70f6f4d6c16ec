//! Everything that can be wrong with a command about keys: each with its exit code and words, for people and for scripts.

use std::path::Path;

use keyferry::hsm::PublicKey;
use keyferry_tests::tokens::{Kind, PIN, Scratch, set_mode};

use keyferry_tests::openssl::{make_key, make_rsa};

/// A token with one key that may leave, one that may not, and an authority.
fn line() -> Scratch {
    let scratch = Scratch::new("line");
    let create = ["key", "create", "--label"];
    scratch.done([&create[..], &["open", "--type", "aes-128", "--extractable"]].concat());
    scratch.done([&create[..], &["kept", "--type", "aes-128"]].concat());
    scratch.done(
        [
            &create[..],
            &["authority", "--type", "p-256", "--usage", "sign"],
        ]
        .concat(),
    );
    scratch
}

fn file(scratch: &Scratch, name: &str, content: &[u8], mode: u32) -> String {
    let path = scratch.path(name);
    std::fs::write(&path, content).unwrap();
    set_mode(&path, mode);
    path.display().to_string()
}

#[test]
fn with_tokens() {
    let scratch = Scratch::new("line");
    let library = Kind::SoftHsm.module().display().to_string();
    let pin = format!("pin-source=file:{}", scratch.pin_file().display());
    let refused = |uri: &str, code: i32, error: &str, hint: &str| {
        scratch.refused(&["key", "list", "--token", uri], code, error, hint);
    };
    refused(
        &format!("pkcs11:token=line?module-path=/nowhere/lib.so&{pin}"),
        3,
        "there is no PKCS#11 module at /nowhere/lib.so",
        "--module",
    );
    let garbage = file(&scratch, "garbage.so", b"this is no library", 0o755);
    refused(
        &format!("pkcs11:token=line?module-path={garbage}&{pin}"),
        3,
        "garbage.so cannot be loaded as a PKCS#11 module",
        "must be a PKCS#11 library",
    );
    refused(
        &format!("pkcs11:token=other?module-path={library}&{pin}"),
        3,
        "no token with label 'other'; there are: 'line'",
        "keyferry hsm tokens",
    );
    for unnamed in ["pkcs11:token=line", "line"] {
        refused(unnamed, 2, "no PKCS#11 module is named", "--module");
    }
    refused(
        "pkcs11:token=a b",
        2,
        "this is not a PKCS#11 URI",
        "pkcs11:token=",
    );
    refused(
        &format!("pkcs11:token=line?module-path={library}&pin-value={PIN}"),
        2,
        "the PKCS#11 URI has a pin-value",
        "pin-source",
    );
    scratch.add(Kind::SoftHsm, "line");
    refused(
        &scratch.uri(),
        3,
        "2 tokens match with label 'line'; their serial numbers are ",
        "serial=",
    );
}

#[test]
fn with_pins() {
    let scratch = Scratch::new("line");
    let library = Kind::SoftHsm.module().display().to_string();
    let refused = |rest: &[&str], code: i32, error: &str, hint: &str| {
        scratch.refused(&[&["key", "list"], rest].concat(), code, error, hint);
    };
    let wrong = file(&scratch, "wrong-pin", b"000000\n", 0o600);
    refused(
        &["--pin-file", &wrong],
        3,
        "token 'line' refused the PIN",
        "check the PIN",
    );
    // And which one it was.
    let answer = scratch.run(["key", "list", "--pin-file", &wrong]);
    let told = format!("the PIN was the one in {wrong}");
    assert!(answer.stderr.contains(&told), "{answer:?}");
    refused(
        &["--pin-file", "no-such-file"],
        2,
        "the PIN file no-such-file cannot be read",
        "",
    );
    refused(
        &["--pin-env", "NO_SUCH_VARIABLE"],
        2,
        "the environment variable NO_SUCH_VARIABLE is not set",
        "--pin-file",
    );
    for content in [&b""[..], b"\n", b"two\nlines\n", b"\xff\xfe"] {
        let unusable = file(&scratch, "unusable-pin", content, 0o600);
        refused(
            &["--pin-file", &unusable],
            2,
            "there is no usable PIN in ",
            "on one line",
        );
    }
    let bare = format!("pkcs11:token=line?module-path={library}");
    refused(
        &["--token", &format!("{bare}&pin-source=|/bin/ask")],
        2,
        "this pin-source is not supported",
        "--pin-file",
    );
    refused(
        &["--token", &bare],
        2,
        "the token needs a PIN, and there is no terminal to ask at",
        "KEYFERRY_PIN",
    );
    #[cfg(unix)]
    for mode in [0o640, 0o604, 0o660, 0o622] {
        let loose = file(&scratch, "loose-pin", PIN.as_bytes(), mode);
        refused(
            &["--pin-file", &loose],
            2,
            &format!("is open to others (mode {mode:04o})"),
            "chmod 600",
        );
    }
}

#[test]
fn with_keys() {
    let scratch = line();
    let (_, public) = make_rsa(&scratch, "recipient", 2048);
    let export = |label: &str, code: i32, error: &str, hint: &str| {
        let arguments = ["key", "export", "--recipient", &public, "--out", "blob"];
        let all = [&arguments[..], &["--label", label]].concat();
        scratch.refused(&all, code, error, hint);
        assert!(!scratch.path("blob").exists(), "nothing is written");
    };
    export(
        "absent",
        3,
        "no key 'absent' on token 'line'; there are: 'authority', 'kept', 'open'",
        "keyferry key list",
    );
    export(
        "kept",
        3,
        "key 'kept' is not extractable (CKA_EXTRACTABLE is false)",
        "--extractable",
    );
    scratch.refused(
        &["key", "create", "--label", "open", "--type", "aes-128"],
        3,
        "token 'line' already has a key 'open'",
        "another label",
    );
    scratch.refused(
        &["key", "public", "--label", "open"],
        3,
        "the public key of 'open' is not on the token",
        "CKA_ID",
    );
    scratch.refused(&["key", "public"], 2, "no key is named", "--label");
    scratch.refused(
        &["key", "public", "--id", "xyz"],
        2,
        "'xyz' is not an id",
        "key list",
    );
}

#[test]
fn with_recipients() {
    let scratch = line();
    let (private, public) = make_rsa(&scratch, "recipient", 2048);
    let export = |recipient: &str, rest: &[&str], code: i32, error: &str, hint: &str| {
        let arguments = ["key", "export", "--label", "open", "--out", "blob"];
        let all = [&arguments[..], &["--recipient", recipient], rest].concat();
        scratch.refused(&all, code, error, hint);
        assert!(!scratch.path("blob").exists(), "nothing is written");
    };
    let whole = std::fs::read(&public).unwrap();
    let nonsense: [&[u8]; 4] = [b"", b"nonsense", &whole[..whole.len() / 2], &[0x30, 0x82]];
    for content in nonsense {
        let path = file(&scratch, "nonsense", content, 0o600);
        export(&path, &[], 2, "this is not a public key", "openssl pkey");
    }
    export(&private, &[], 2, "this is a private key", "openssl pkey");
    let (_, ed25519) = make_key(&scratch, "ed25519", &["-algorithm", "ED25519"]);
    export(
        &ed25519,
        &[],
        2,
        "algorithm (Ed25519) is not supported",
        "RSA",
    );
    export(
        "nobody",
        &[],
        2,
        "the recipient 'nobody' is neither a file nor a key on token 'line'",
        "public key file",
    );
    let (_, weak) = make_rsa(&scratch, "weak", 1024);
    export(
        &weak,
        &[],
        5,
        "this RSA key has 1024 bits; a recipient needs at least 2048",
        "2048 bits or more",
    );
    // Toward these two, a KEK would lie open or be lost.
    let mut modulus = [0xff; 256];
    let identity = PublicKey::from_rsa(&modulus, &[1]).unwrap();
    modulus[255] = 0xfe;
    let even = PublicKey::from_rsa(&modulus, &[1, 0, 1]).unwrap();
    for content in [identity.spki_der(), even.to_pem().as_bytes()] {
        let path = file(&scratch, "unsound", content, 0o600);
        export(&path, &[], 5, "is not a sound one", "new RSA key");
    }
    export(
        &public,
        &["--fingerprint", &"00".repeat(32)],
        5,
        "the recipient's fingerprint is ",
        "by another way",
    );
    export(
        &public,
        &["--suite", "rsa-oaep-sha256"],
        3,
        "token 'line' refuses suite rsa-oaep-sha256 (C_WrapKey: CKR_ARGUMENTS_BAD)",
        "rsa-oaep-sha1",
    );
    export(
        &public,
        &["--suite", "ecdh-p256-null"],
        2,
        "suite ecdh-p256-null does not work toward a recipient key of type rsa-2048",
        "rsa-oaep-sha256, rsa-oaep-sha1",
    );
    export(
        "authority",
        &["--suite", "ecdh-p256-x963-sha256"],
        3,
        "refuses suite ecdh-p256-x963-sha256 (C_DeriveKey: CKR_MECHANISM_PARAM_INVALID)",
        "ecdh-p256-null",
    );
}

#[test]
fn with_files() {
    let scratch = line();
    let (_, public) = make_rsa(&scratch, "recipient", 2048);
    let dear = b"something dear";
    let occupied = file(&scratch, "occupied", dear, 0o600);
    let export = ["key", "export", "--label", "open", "--recipient", &public];
    let to = |out: &[&'static str]| [&export[..], out].concat();
    scratch.refused(
        &to(&["--out", "occupied"]),
        2,
        "occupied exists already",
        "--force",
    );
    let public_out = ["key", "public", "--label", "authority", "--out", "occupied"];
    scratch.refused(&public_out, 2, "occupied exists already", "--force");
    assert_eq!(std::fs::read(&occupied).unwrap(), dear);
    scratch.refused(
        &to(&["--out", "no/such/folder/blob"]),
        1,
        "no/such/folder/blob cannot be written",
        "",
    );
    scratch.done(to(&["--out", "occupied", "--force"]));
    assert_eq!(std::fs::read(&occupied).unwrap().len(), 256 + 24);
    let left: Vec<_> = std::fs::read_dir(Path::new(&occupied).parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with(".tmp"))
        .collect();
    assert_eq!(left, [""; 0], "no temporary file is left");
}

/// There is no way to give a PIN as an argument, nor to ask for a key that wraps.
#[test]
fn with_the_command_line() {
    let scratch = Scratch::new("line");
    let create = ["key", "create", "--label", "x"];
    let export = [
        "key",
        "export",
        "--label",
        "x",
        "--recipient",
        "y",
        "--out",
        "z",
    ];
    let wrong: [Vec<&str>; 9] = [
        vec!["key", "list", "--pin", "1234"],
        [&create[..], &["--type", "des-56"]].concat(),
        create.to_vec(),
        [&create[..], &["--type", "aes-128", "--usage", "wrap"]].concat(),
        [
            &create[..],
            &["--type", "aes-128", "--usage", "verify,unwrap"],
        ]
        .concat(),
        [&export[..], &["--suite", "rot-13"]].concat(),
        [&export[..], &["--fingerprint", "00"]].concat(),
        vec!["key"],
        vec!["nonsense"],
    ];
    for arguments in wrong {
        let text = scratch.run(&arguments);
        let said = (text.code, text.stdout.as_str());
        assert_eq!(said, (2, ""), "{arguments:?}: {text:?}");
        assert!(!text.stderr.is_empty());
        let json = scratch.run(arguments.iter().chain(&["--json"]));
        let said = (json.code, json.stderr.as_str());
        assert_eq!(said, (2, ""), "{arguments:?}: {json:?}");
        let last = json.json().pop().unwrap();
        assert_eq!(last["ok"], false, "{json:?}");
        assert_eq!(last["exit"], 2, "{json:?}");
    }
    for help in [
        &["--help"][..],
        &["--version"],
        &["key", "export", "--help"],
    ] {
        assert_eq!(scratch.run(help).code, 0);
    }
}
