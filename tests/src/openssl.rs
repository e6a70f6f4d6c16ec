//! OpenSSL as an independent recipient and sender.

use std::process::{Command, Stdio};

use keyferry::hsm::PublicKey;
use keyferry_protocol::identity::p256_spki;
use keyferry_protocol::suite::Suite;
use sha2::{Digest, Sha256};

use crate::tokens::Scratch;

/// Runs OpenSSL and gives its stdout.
///
/// # Panics
/// If it is not installed, or fails.
pub fn openssl(arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new("openssl")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl is not there: run cargo xtask setup");
    // A command that reads no input may be gone already.
    let _ = std::io::Write::write_all(&mut child.stdin.take().unwrap(), input);
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "openssl {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// Makes a private key file, and its public key file beside it; gives both paths.
///
/// # Panics
/// If OpenSSL refuses.
#[must_use]
pub fn make_key(scratch: &Scratch, name: &str, algorithm: &[&str]) -> (String, String) {
    let private = scratch.path(&format!("{name}.key")).display().to_string();
    let public = scratch.path(&format!("{name}.pem")).display().to_string();
    openssl(
        &[&["genpkey", "-quiet", "-out", &private], algorithm].concat(),
        b"",
    );
    openssl(&["pkey", "-in", &private, "-pubout", "-out", &public], b"");
    (private, public)
}

/// Makes an RSA key as [`make_key`] does.
///
/// # Panics
/// If OpenSSL refuses.
#[must_use]
pub fn make_rsa(scratch: &Scratch, name: &str, bits: u16) -> (String, String) {
    let size = format!("rsa_keygen_bits:{bits}");
    make_key(scratch, name, &["-algorithm", "RSA", "-pkeyopt", &size])
}

/// Makes a P-256 key as [`make_key`] does.
///
/// # Panics
/// If OpenSSL refuses.
#[must_use]
pub fn make_p256(scratch: &Scratch, name: &str) -> (String, String) {
    let curve = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
    make_key(scratch, name, &curve)
}

/// The clear key in a private key file, as PKCS#8 DER (RFC 5208). Only for keys that a test has made itself.
///
/// # Panics
/// If OpenSSL does not understand the file.
#[must_use]
pub fn pkcs8(private: &str) -> Vec<u8> {
    openssl(
        &[
            "pkcs8", "-topk8", "-nocrypt", "-outform", "DER", "-in", private,
        ],
        b"",
    )
}

/// The public key (`SubjectPublicKeyInfo`, DER) of a private key: a file's name, or PKCS#8 in DER.
///
/// # Panics
/// If OpenSSL does not understand it.
#[must_use]
pub fn public_of(private: Private<'_>) -> Vec<u8> {
    let arguments = ["pkey", "-pubout", "-outform", "DER"];
    match private {
        Private::File(file) => openssl(&[&arguments[..], &["-in", file]].concat(), b""),
        Private::Pkcs8(der) => openssl(&[&arguments[..], &["-inform", "DER"]].concat(), der),
    }
}

/// Where a private key is.
#[derive(Clone, Copy, Debug)]
pub enum Private<'a> {
    /// In a file, in PEM.
    File(&'a str),
    /// Here, as PKCS#8 DER.
    Pkcs8(&'a [u8]),
}

/// Opens a blob of one key with the recipient's private key file: the KEK, then AES-256 key wrap with padding (RFC 5649).
///
/// # Panics
/// If OpenSSL does not open it. It does not open wrapped keys of 4096 bytes and more.
#[must_use]
pub fn open_blob(scratch: &Scratch, suite: Suite, private: &str, blob: &[u8]) -> Vec<u8> {
    let (kek_blob, key_blob) = blob.split_at(kek_blob_length(&public_of(Private::File(private))));
    let kek = match suite {
        Suite::RsaOaepSha256 | Suite::RsaOaepSha1 => {
            let options = oaep_options(suite);
            let arguments = ["pkeyutl", "-decrypt", "-inkey", private];
            openssl(&[&arguments[..], &options].concat(), kek_blob)
        }
        Suite::EcdhP256Null => agree(scratch, private, kek_blob),
        Suite::EcdhP256X963Sha256 => {
            let spki = public_of(Private::File(private));
            derive(&agree(scratch, private, kek_blob), &spki)
        }
    };
    key_wrap("-d", &kek, key_blob)
}

/// Wraps a clear key of a test toward a public key file, as a sender who has nothing but OpenSSL would. A private key is
/// given as [`pkcs8`].
///
/// # Panics
/// If OpenSSL refuses.
#[must_use]
pub fn make_blob(scratch: &Scratch, suite: Suite, public: &str, clear: &[u8]) -> Vec<u8> {
    let (kek_blob, kek) = match suite {
        Suite::RsaOaepSha256 | Suite::RsaOaepSha1 => {
            let kek = openssl(&["rand", "32"], b"");
            let options = oaep_options(suite);
            let arguments = ["pkeyutl", "-encrypt", "-pubin", "-inkey", public];
            (openssl(&[&arguments[..], &options].concat(), &kek), kek)
        }
        Suite::EcdhP256X963Sha256 | Suite::EcdhP256Null => {
            let (ephemeral, _) = make_p256(scratch, "ephemeral");
            let point = public_of(Private::File(&ephemeral));
            // The point is the end of its SubjectPublicKeyInfo (RFC 5480 §2).
            let point = point[point.len() - 65..].to_vec();
            let arguments = [
                "pkeyutl", "-derive", "-inkey", &ephemeral, "-peerkey", public,
            ];
            let agreed = openssl(&arguments, b"");
            let kek = match suite {
                Suite::EcdhP256X963Sha256 => {
                    let public = ["pkey", "-pubin", "-in", public, "-outform", "DER"];
                    derive(&agreed, &openssl(&public, b""))
                }
                Suite::EcdhP256Null | Suite::RsaOaepSha256 | Suite::RsaOaepSha1 => agreed,
            };
            (point, kek)
        }
    };
    [kek_blob, key_wrap("-e", &kek, clear)].concat()
}

/// How long the KEK's part of a blob is for this recipient.
fn kek_blob_length(spki: &[u8]) -> usize {
    let recipient = PublicKey::from_spki_der(spki).expect("a recipient's public key");
    let algorithm = recipient.unwrap_algorithm().expect("an RSA or P-256 key");
    algorithm.kek_blob_length()
}

fn oaep_options(suite: Suite) -> [&'static str; 6] {
    let (digest, mask) = match suite {
        Suite::RsaOaepSha256 => ("rsa_oaep_md:sha256", "rsa_mgf1_md:sha256"),
        Suite::RsaOaepSha1 => ("rsa_oaep_md:sha1", "rsa_mgf1_md:sha1"),
        Suite::EcdhP256X963Sha256 | Suite::EcdhP256Null => panic!("{suite} has no OAEP"),
    };
    let padding = "rsa_padding_mode:oaep";
    ["-pkeyopt", padding, "-pkeyopt", digest, "-pkeyopt", mask]
}

/// The shared x coordinate of a private key and an uncompressed P-256 point.
fn agree(scratch: &Scratch, private: &str, point: &[u8]) -> Vec<u8> {
    let point: &[u8; 65] = point.try_into().expect("an uncompressed P-256 point");
    let peer = scratch.path("peer.der");
    std::fs::write(&peer, p256_spki::from_point(point)).expect("a file in the scratch folder");
    let peer = peer.display().to_string();
    let arguments = ["pkeyutl", "-derive", "-inkey", private];
    openssl(
        &[&arguments[..], &["-peerform", "DER", "-peerkey", &peer]].concat(),
        b"",
    )
}

/// The KEK of `ecdh-p256-x963-sha256`: ANSI X9.63 with SHA-256; the shared information is a tag, the suite's number and the
/// fingerprint of the recipient's key.
fn derive(agreed: &[u8], spki: &[u8]) -> Vec<u8> {
    let info = [&b"keyferry ecdhkek\x02"[..], &Sha256::digest(spki)].concat();
    let secret = format!("hexsecret:{}", hex::encode(agreed));
    let info = format!("hexinfo:{}", hex::encode(info));
    let length = ["kdf", "-binary", "-keylen", "32"];
    let options = [
        "-kdfopt",
        "digest:SHA2-256",
        "-kdfopt",
        &secret,
        "-kdfopt",
        &info,
        "X963KDF",
    ];
    openssl(&[&length[..], &options].concat(), b"")
}

/// AES-256 key wrap with padding, in (`-e`) or out (`-d`).
fn key_wrap(direction: &str, kek: &[u8], input: &[u8]) -> Vec<u8> {
    assert_eq!(kek.len(), 32);
    let kek = hex::encode(kek);
    let cipher = ["enc", direction, "-id-aes256-wrap-pad"];
    openssl(
        &[&cipher[..], &["-K", &kek, "-iv", "A65959A6"]].concat(),
        input,
    )
}

/// Cuts a private key at its DER length, as a recipient has to: SoftHSM 2.6.1 fills it up to eight bytes with zeros.
///
/// # Panics
/// If it is no DER SEQUENCE, or something else follows it.
#[must_use]
pub fn cut_at_der_length(bytes: &[u8]) -> &[u8] {
    assert_eq!(bytes[0], 0x30);
    let (length, head) = match bytes[1] {
        short @ 0..=0x7f => (usize::from(short), 2),
        0x81 => (usize::from(bytes[2]), 3),
        0x82 => (usize::from(u16::from_be_bytes([bytes[2], bytes[3]])), 4),
        other => panic!("length octets {other:#x}"),
    };
    let (key, tail) = bytes.split_at(head + length);
    assert!(tail.len() < 8 && tail.iter().all(|byte| *byte == 0));
    key
}
