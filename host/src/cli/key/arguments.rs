//! What several of the key commands take: types, usages, suites, fingerprints, recipients.

use std::path::{Path, PathBuf};

use keyferry_protocol::identity::Fingerprint;
use keyferry_protocol::suite::Suite;
use zeroize::Zeroizing;

use crate::cli::Context;
use crate::cli::files::read_short;
use crate::error::Failure;
use crate::export::check_backend;
use crate::hsm::{HsmError, KeySpec, KeyType, KeyUsage, MAXIMUM_KEY_FILE, PublicKey, Token};

/// The recipient's key if its name is that of a file.
fn recipient_file(name: &str) -> Result<Option<PublicKey>, Failure> {
    match public_key_file(Path::new(name)) {
        Err(Failure::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            Ok(None)
        }
        result => result.map(Some),
    }
}

/// Reads a public key file.
pub(in crate::cli) fn public_key_file(path: &Path) -> Result<PublicKey, Failure> {
    // It may turn out to be a private key.
    let bytes = Zeroizing::new(read_short(path, MAXIMUM_KEY_FILE)?);
    PublicKey::from_file_content(&bytes).map_err(|reason| Failure::PublicKeyFile {
        path: path.into(),
        reason,
    })
}

/// For whom keys are wrapped.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Recipient")]
pub(super) struct RecipientArgs {
    /// Public key file (SubjectPublicKeyInfo, PKCS#1 or X.509 certificate; PEM or DER), or the label of a public key on the token.
    #[arg(long, value_name = "FILE|LABEL")]
    recipient: String,
    /// Refuse any other recipient: SHA-256 of its SubjectPublicKeyInfo.
    #[arg(long, value_name = "HEX", value_parser = parse_fingerprint)]
    fingerprint: Option<Fingerprint>,
    /// Refuse an RSA recipient key whose public exponent is smaller, for example 65537.
    #[arg(long, value_name = "N")]
    min_exponent: Option<u64>,
}

impl RecipientArgs {
    /// The recipient's key if it is in a file.
    pub(super) fn in_file(&self) -> Result<Option<PublicKey>, Failure> {
        recipient_file(&self.recipient)
    }

    /// The recipient's key, checked and announced. `in_file` is what [`RecipientArgs::in_file`] gave; it is asked before the
    /// login, so that a wrong file costs no PIN.
    pub(super) fn checked(
        &self,
        context: &Context,
        token: &Token,
        in_file: Option<PublicKey>,
    ) -> Result<PublicKey, Failure> {
        let recipient = match in_file {
            Some(recipient) => recipient,
            None => recipient_on_token(token, &self.recipient)?,
        };
        let found = recipient.fingerprint();
        context.note(&format!(
            "recipient {} key, fingerprint {found}",
            recipient.key_type()
        ));
        match self.fingerprint {
            Some(expected) if expected != found => {
                return Err(Failure::FingerprintMismatch { expected, found });
            }
            Some(_) | None => {}
        }
        recipient
            .check_recipient()
            .and_then(|()| recipient.check_exponent(self.min_exponent.unwrap_or(0)))
            .map_err(HsmError::from)?;
        Ok(recipient)
    }
}

/// The backend's key-encryption key.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Backend")]
pub(super) struct BackendArgs {
    /// Public key file of the backend's RSA key-encryption key.
    #[arg(long, value_name = "FILE")]
    backend: PathBuf,
    /// Its fingerprint, SHA-256 of its SubjectPublicKeyInfo: any other key is refused.
    #[arg(long, value_name = "HEX", value_parser = parse_fingerprint)]
    fingerprint: Fingerprint,
}

impl BackendArgs {
    /// The backend's key, announced, if it is the one whose fingerprint was given.
    pub(super) fn read(&self, context: &Context) -> Result<PublicKey, Failure> {
        let key = public_key_file(&self.backend)?;
        let found = key.fingerprint();
        context.note(&format!(
            "backend {} key, fingerprint {found}",
            key.key_type()
        ));
        if found != self.fingerprint {
            return Err(Failure::FingerprintMismatch {
                expected: self.fingerprint,
                found,
            });
        }
        // Asked before the login, so that a wrong key costs no PIN.
        check_backend(&key)?;
        Ok(key)
    }
}

fn recipient_on_token(token: &Token, label: &str) -> Result<PublicKey, Failure> {
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
