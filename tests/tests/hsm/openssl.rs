//! OpenSSL as an independent recipient.

use std::process::{Command, Stdio};

use keyferry_protocol::identity::p256_spki;
use keyferry_tests::tokens::Scratch;

/// Runs OpenSSL and gives its stdout.
pub(crate) fn openssl(arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new("openssl")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl is not installed: the package is openssl");
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
pub(crate) fn make_key(scratch: &Scratch, name: &str, algorithm: &[&str]) -> (String, String) {
    let private = scratch.path(&format!("{name}.key")).display().to_string();
    let public = scratch.path(&format!("{name}.pem")).display().to_string();
    openssl(
        &[&["genpkey", "-quiet", "-out", &private], algorithm].concat(),
        b"",
    );
    openssl(&["pkey", "-in", &private, "-pubout", "-out", &public], b"");
    (private, public)
}

pub(crate) fn make_rsa(scratch: &Scratch, name: &str, bits: u16) -> (String, String) {
    let size = format!("rsa_keygen_bits:{bits}");
    make_key(scratch, name, &["-algorithm", "RSA", "-pkeyopt", &size])
}

pub(crate) fn make_p256(scratch: &Scratch, name: &str) -> (String, String) {
    let curve = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
    make_key(scratch, name, &curve)
}

/// Opens a key blob: AES-256 key wrap with padding (RFC 5649).
fn unwrap_kwp(kek: &[u8], blob: &[u8]) -> Vec<u8> {
    assert_eq!(kek.len(), 32);
    let kek = hex::encode(kek);
    openssl(
        &[
            "enc",
            "-d",
            "-id-aes256-wrap-pad",
            "-K",
            &kek,
            "-iv",
            "A65959A6",
        ],
        blob,
    )
}

/// Opens OAEP(SHA-1) ‖ KWP with the recipient's private key.
pub(crate) fn open_oaep_sha1(private: &str, modulus: usize, blob: &[u8]) -> Vec<u8> {
    let kek = openssl(
        &[
            "pkeyutl",
            "-decrypt",
            "-inkey",
            private,
            "-pkeyopt",
            "rsa_padding_mode:oaep",
            "-pkeyopt",
            "rsa_oaep_md:sha1",
            "-pkeyopt",
            "rsa_mgf1_md:sha1",
        ],
        &blob[..modulus],
    );
    unwrap_kwp(&kek, &blob[modulus..])
}

/// Opens ephemeral point ‖ KWP with the recipient's private key; the KEK is the shared x coordinate.
pub(crate) fn open_ecdh_null(scratch: &Scratch, private: &str, blob: &[u8]) -> Vec<u8> {
    let point: &[u8; 65] = blob[..65].try_into().unwrap();
    let ephemeral = scratch.path("ephemeral.der");
    std::fs::write(&ephemeral, p256_spki::from_point(point)).unwrap();
    let ephemeral = ephemeral.display().to_string();
    let kek = openssl(
        &[
            "pkeyutl",
            "-derive",
            "-inkey",
            private,
            "-peerform",
            "DER",
            "-peerkey",
            &ephemeral,
        ],
        b"",
    );
    unwrap_kwp(&kek, &blob[65..])
}

/// Cuts a private key at its DER length, as a recipient has to: SoftHSM 2.6.1 fills it up to eight bytes with zeros.
pub(crate) fn cut_at_der_length(bytes: &[u8]) -> &[u8] {
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
