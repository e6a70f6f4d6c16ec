//! Keys on real tokens, SoftHSM 2.6.1 where no other is named, through the real command and through the library: what leaves
//! the token opens with OpenSSL and is the key that stayed; what must not leave does not; every mistake is answered.

mod backend;
mod calls;
mod derive;
mod each_use;
mod exports;
mod faults;
mod growth;
mod key_files;
mod keys;
mod kinds;
mod mistakes;
mod opened;
mod probe;
mod registry;
mod sidecars;

use keyferry::hsm::{HsmError, KeyInfo, KeySpec, KeyType, PinSource, PublicKey, Token, parse};
use keyferry_tests::tokens::Scratch;

/// What proofs are made over in these tests.
const MESSAGE: &[u8] = b"what a device proves its key over";

/// The types that are exported; the name is the key's label and its `--type`.
const EXPORTED: [(&str, KeyType); 5] = [
    ("aes-128", KeyType::Aes { bits: 128 }),
    ("aes-256", KeyType::Aes { bits: 256 }),
    ("hmac-256", KeyType::Secret { bits: 256 }),
    ("p-256", KeyType::P256),
    ("rsa-2048", KeyType::Rsa { bits: 2048 }),
];

/// Creates an extractable key of each of these types with the command.
fn create_all(scratch: &Scratch) {
    for (name, _) in EXPORTED {
        scratch.done([
            "key",
            "create",
            "--label",
            name,
            "--type",
            name,
            "--extractable",
        ]);
    }
}

/// Logs in to the scratch token in this process.
fn open(scratch: &Scratch) -> Token {
    open_uri(&scratch.uri()).expect("the scratch token opens")
}

fn open_uri(uri: &str) -> Result<Token, HsmError> {
    let (spec, _) = parse(uri).unwrap();
    let pin = PinSource::from_uri(spec.pin_source.as_deref().unwrap())
        .unwrap()
        .fetch("the scratch token")
        .unwrap();
    Token::open(&spec, &pin)
}

fn key(token: &Token, label: &str) -> KeyInfo {
    token.key(&KeySpec::label(label)).unwrap()
}

fn public_key(file: &str) -> PublicKey {
    PublicKey::from_file_content(&std::fs::read(file).unwrap()).unwrap()
}
