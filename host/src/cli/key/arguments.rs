//! What several of the key commands take: types, usages, suites, fingerprints, recipients.

use std::path::Path;

use keyferry_protocol::identity::Fingerprint;
use keyferry_protocol::suite::Suite;

use crate::error::Failure;
use crate::hsm::{HsmError, KeySpec, KeyType, KeyUsage, PublicKey, Token};

/// The recipient's key if its name is that of a file.
pub(super) fn recipient_file(name: &str) -> Result<Option<PublicKey>, Failure> {
    match public_key_file(Path::new(name)) {
        Err(Failure::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            Ok(None)
        }
        result => result.map(Some),
    }
}

/// Reads a public key file.
pub(super) fn public_key_file(path: &Path) -> Result<PublicKey, Failure> {
    let bytes = std::fs::read(path).map_err(|source| Failure::Read {
        path: path.into(),
        source,
    })?;
    PublicKey::from_file_content(&bytes).map_err(|reason| Failure::PublicKeyFile {
        path: path.into(),
        reason,
    })
}

pub(super) fn recipient_on_token(token: &Token, label: &str) -> Result<PublicKey, Failure> {
    match token.public_key(&KeySpec::label(label)) {
        Err(HsmError::NoSuchKey { .. }) => Err(Failure::NoSuchRecipient {
            recipient: label.into(),
            token: token.label().into(),
        }),
        result => Ok(result?),
    }
}

pub(super) fn parse_key_type(name: &str) -> Result<KeyType, String> {
    name.parse().map_err(|_| {
        let names: Vec<_> = KeyType::CREATABLE.iter().map(KeyType::to_string).collect();
        format!(
            "one of: {}; or hmac-N with N from 128 to 512, a multiple of 8",
            names.join(", ")
        )
    })
}

pub(super) fn parse_usage(name: &str) -> Result<KeyUsage, String> {
    name.parse().map_err(|_| {
        let names: Vec<_> = KeyUsage::ALL.iter().map(|usage| usage.name()).collect();
        format!("one of: {}", names.join(", "))
    })
}

pub(super) fn parse_suite(name: &str) -> Result<Suite, String> {
    name.parse().map_err(|_| {
        let names: Vec<_> = Suite::ALL.iter().map(|suite| suite.name()).collect();
        format!("one of: {}", names.join(", "))
    })
}

/// Takes 64 hexadecimal digits, with or without colons between bytes.
pub(super) fn parse_fingerprint(text: &str) -> Result<Fingerprint, String> {
    let mut bytes = [0; Fingerprint::LENGTH];
    hex::decode_to_slice(text.replace(':', ""), &mut bytes)
        .map(|()| Fingerprint(bytes))
        .map_err(|_| "64 hexadecimal digits".into())
}
