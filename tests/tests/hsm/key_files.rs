//! Public key files in every form that tools write, and what is not one.

use keyferry::hsm::{KeyType, MAXIMUM_KEY_FILE, PublicKey, PublicKeyError};
use keyferry_tests::tokens::Scratch;

use keyferry_tests::openssl::{make_key, make_p256, make_rsa, openssl};

fn read(content: &[u8]) -> Result<PublicKey, PublicKeyError> {
    PublicKey::from_file_content(content)
}

/// A certificate for a private key, in PEM, signed by that key itself.
fn certificate(private: &str) -> Vec<u8> {
    let make = ["req", "-x509", "-key", private, "-days", "1"];
    openssl(&[&make[..], &["-subj", "/CN=recipient"]].concat(), b"")
}

fn keys(scratch: &Scratch) -> [(KeyType, String, String); 4] {
    let p384 = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"];
    let with = |key_type, (private, public)| (key_type, private, public);
    [
        with(KeyType::Rsa { bits: 2048 }, make_rsa(scratch, "rsa", 2048)),
        with(KeyType::P256, make_p256(scratch, "p256")),
        with(KeyType::P384, make_key(scratch, "p384", &p384)),
        with(
            KeyType::Ed25519,
            make_key(scratch, "ed25519", &["-algorithm", "ED25519"]),
        ),
    ]
}

#[test]
fn every_form_gives_the_same_key() {
    let scratch = Scratch::new("line");
    for (key_type, private, public) in keys(&scratch) {
        let pem = std::fs::read(&public).unwrap();
        let der = openssl(&["pkey", "-pubin", "-outform", "DER"], &pem);
        let cert_pem = certificate(&private);
        let cert_der = openssl(&["x509", "-outform", "DER"], &cert_pem);
        let crlf = String::from_utf8(pem.clone())
            .unwrap()
            .replace('\n', "\r\n");
        let mut forms = vec![
            ("PEM", pem.clone()),
            ("DER", der.clone()),
            ("PEM with CRLF", crlf.into_bytes()),
            (
                "PEM amid text",
                [b"Key:\n", &pem[..], b"The end.\n"].concat(),
            ),
            ("PEM without a last newline", pem.trim_ascii_end().to_vec()),
            ("certificate, PEM", cert_pem.clone()),
            ("certificate, DER", cert_der),
            (
                "certificate with text",
                openssl(&["x509", "-text"], &cert_pem),
            ),
        ];
        if let KeyType::Rsa { .. } = key_type {
            let pkcs1 = ["rsa", "-pubin", "-RSAPublicKey_out"];
            let to_der = [&pkcs1[..], &["-outform", "DER"]].concat();
            forms.push(("PKCS#1, PEM", openssl(&pkcs1, &pem)));
            forms.push(("PKCS#1, DER", openssl(&to_der, &pem)));
        }
        for (form, content) in forms {
            let key = read(&content).unwrap_or_else(|error| panic!("{key_type}, {form}: {error}"));
            assert_eq!(key.key_type(), key_type, "{form}");
            assert_eq!(key.spki_der(), der, "{key_type}, {form}");
            // Neither cut short nor with anything behind it.
            for length in 0..(content.len() / 2).min(200) {
                assert!(read(&content[..length]).is_err(), "{form} cut at {length}");
            }
            if content[0] == 0x30 {
                assert!(read(&content[..content.len() - 1]).is_err(), "{form}");
                assert!(read(&[&content[..], &[0]].concat()).is_err(), "{form}");
            }
        }
    }
}

#[test]
fn private_keys_are_known_as_such() {
    let scratch = Scratch::new("line");
    for (key_type, private, _) in keys(&scratch) {
        let pem = std::fs::read(&private).unwrap();
        let cipher = ["-aes256", "-passout", "pass:secret"];
        let mut forms = vec![
            pem.clone(),
            openssl(&["pkey", "-outform", "DER"], &pem),
            openssl(&[&["pkcs8", "-topk8"][..], &cipher[1..]].concat(), &pem),
            openssl(
                &[&["pkcs8", "-topk8", "-outform", "DER"][..], &cipher[1..]].concat(),
                &pem,
            ),
        ];
        if key_type != KeyType::Ed25519 {
            let traditional = ["pkey", "-traditional"];
            forms.push(openssl(&traditional, &pem));
            forms.push(openssl(
                &[&traditional[..], &["-outform", "DER"]].concat(),
                &pem,
            ));
        }
        for (index, content) in forms.iter().enumerate() {
            assert_eq!(
                read(content),
                Err(PublicKeyError::Private),
                "{key_type}, form {index}"
            );
        }
    }
}

#[test]
fn what_is_not_one_public_key() {
    let scratch = Scratch::new("line");
    let (private, public) = make_rsa(&scratch, "rsa", 2048);
    let pem = std::fs::read(&public).unwrap();
    let twice = [&pem[..], &pem].concat();
    assert_eq!(read(&twice), Err(PublicKeyError::Several));
    let chain = [certificate(&private), certificate(&private)].concat();
    assert_eq!(read(&chain), Err(PublicKeyError::Several));
    let request = openssl(&["req", "-new", "-key", &private, "-subj", "/CN=x"], b"");
    assert_eq!(read(&request), Err(PublicKeyError::Malformed));
    let mut flipped = pem.clone();
    flipped[60] = b'!';
    assert_eq!(read(&flipped), Err(PublicKeyError::Malformed));
    for content in [
        &b""[..],
        b"nonsense",
        b"-----BEGIN PUBLIC KEY-----",
        b"-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n",
        b"-----BEGIN ",
        &[0x30, 0x00],
        &[0x30, 0x80],
        &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff],
        &[0; MAXIMUM_KEY_FILE + 1],
    ] {
        assert_eq!(read(content), Err(PublicKeyError::Malformed));
    }
    // The command reads no more of a file than a key can have.
    let path = scratch.path("long").display().to_string();
    std::fs::write(&path, vec![b'x'; MAXIMUM_KEY_FILE + 1]).unwrap();
    scratch.refused(
        &[
            "key",
            "export",
            "--label",
            "x",
            "--out",
            "y",
            "--recipient",
            &path,
        ],
        2,
        "long is longer than 65536 bytes",
        "",
    );
}

/// e = 3 is sound with OAEP, so it is refused on request only.
#[test]
fn small_exponents_are_refused_on_request() {
    let scratch = Scratch::new("line");
    scratch.done([
        "key",
        "create",
        "--label",
        "k",
        "--type",
        "aes-128",
        "--extractable",
    ]);
    let size = ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"];
    let exponent = ["-pkeyopt", "rsa_keygen_pubexp:3"];
    let (_, public) = make_key(&scratch, "e3", &[&size[..], &exponent].concat());
    let export = [
        "key",
        "export",
        "--label",
        "k",
        "--out",
        "blob",
        "--recipient",
        &public,
    ];
    let minimum = |least: &'static str| [&export[..], &["--min-exponent", least]].concat();
    for least in ["65537", "4"] {
        scratch.refused(
            &minimum(least),
            5,
            &format!("this RSA key's public exponent is 3; at least {least} was asked for"),
            "65537",
        );
        assert!(!scratch.path("blob").exists());
    }
    scratch.done(minimum("3"));
    scratch.done([&export[..], &["--force"]].concat());
    let huge = PublicKey::from_rsa(&[0xff; 256], &[0xff; 20]).unwrap();
    assert_eq!(huge.check_exponent(u64::MAX), Ok(()));
}
