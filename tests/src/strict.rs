//! A strict importer as an independent recipient: pyca/cryptography, another reading of the formats than OpenSSL's commands.

use keyferry::hsm::KeyType;
use keyferry_protocol::suite::Suite;
use serde_json::{Value, json};

use crate::pyca;

/// What to do about zeros behind the DER of a private key, fewer than eight, as SoftHSM 2.6.1 puts them there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// Refuse the key, as cloud services do.
    Refuse,
    /// Cut them off.
    Cut,
}

/// A private key, as far as it may be known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrivateKey {
    /// Algorithm and size.
    pub key_type: KeyType,
    /// Its public key (`SubjectPublicKeyInfo`, DER); it has verified a signature of the private key.
    pub spki: Vec<u8>,
}

/// Opens a blob that holds a secret key with the recipient's private key file; gives the key.
///
/// # Errors
/// Why the blob is refused.
///
/// # Panics
/// If Python or its library is missing.
pub fn open_secret(suite: Suite, recipient: &str, blob: &[u8]) -> Result<Vec<u8>, String> {
    let answer = ask(suite, recipient, blob, "secret", Tail::Refuse)?;
    Ok(bytes(&answer, "secret"))
}

/// Opens a blob that holds a private key with the recipient's private key file.
///
/// # Errors
/// Why the blob is refused.
///
/// # Panics
/// If Python or its library is missing.
pub fn open_private(
    suite: Suite,
    recipient: &str,
    blob: &[u8],
    tail: Tail,
) -> Result<PrivateKey, String> {
    let answer = ask(suite, recipient, blob, "private", tail)?;
    let name = answer["type"].as_str().unwrap_or_default();
    Ok(PrivateKey {
        key_type: name.parse().expect("the name of a key type"),
        spki: bytes(&answer, "spki"),
    })
}

fn ask(
    suite: Suite,
    recipient: &str,
    blob: &[u8],
    class: &str,
    tail: Tail,
) -> Result<Value, String> {
    let request = json!({
        "recipient": std::fs::read_to_string(recipient).expect("the recipient's private key"),
        "suite": suite.name(),
        "blob": hex::encode(blob),
        "class": class,
        "cut": tail == Tail::Cut,
    });
    pyca::ask("strict.py", &request)
}

fn bytes(answer: &Value, field: &str) -> Vec<u8> {
    hex::decode(answer[field].as_str().unwrap_or_default()).expect("hexadecimal digits")
}
