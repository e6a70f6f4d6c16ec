//! `keyferry key`: make, list and export the keys of a token.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use keyferry_protocol::identity::Fingerprint;
use keyferry_protocol::suite::Suite;
use serde_json::{Map, Value};

use super::files::{check_new, write_new};
use super::token::KeyArgs;
use super::{Context, Outcome, TokenArgs, fields};
use crate::error::Failure;
use crate::hsm::{Flag, HsmError, KeyInfo, KeySpec, KeyType, KeyUsage, NewKey, PublicKey, Token};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Create a key inside the token.
    Create(Create),
    /// List the keys of a token: attributes, check values and fingerprints, never values.
    List {
        #[command(flatten)]
        token: TokenArgs,
    },
    /// Write the public key of a pair to a file, or to stdout.
    Public(Public),
    /// Wrap a key for a recipient and write the blob to a file.
    Export(Export),
}

#[derive(Debug, Args)]
pub(super) struct Create {
    #[command(flatten)]
    token: TokenArgs,
    /// The new key's label.
    #[arg(long, value_name = "LABEL")]
    label: String,
    /// aes-128, aes-192, aes-256, hmac-256, rsa-2048, rsa-3072, rsa-4096, p-256 or p-384.
    #[arg(long = "type", value_name = "TYPE", value_parser = parse_key_type)]
    key_type: KeyType,
    /// Let the key leave the token, wrapped. This cannot be changed later.
    #[arg(long)]
    extractable: bool,
    /// What the key may do on the token: encrypt, decrypt, sign, verify, derive. An authority key signs only.
    #[arg(
        long,
        value_name = "USAGE",
        value_delimiter = ',',
        default_value = "verify",
        value_parser = parse_usage
    )]
    usage: Vec<KeyUsage>,
}

#[derive(Debug, Args)]
pub(super) struct Public {
    #[command(flatten)]
    token: TokenArgs,
    #[command(flatten)]
    key: KeyArgs,
    /// The file to write; without it, PEM goes to stdout.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Write DER instead of PEM.
    #[arg(long, requires = "out")]
    der: bool,
    /// Replace an existing file.
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
pub(super) struct Export {
    #[command(flatten)]
    token: TokenArgs,
    #[command(flatten)]
    key: KeyArgs,
    /// Public key file (PEM or DER), or the label of a public key on the token.
    #[arg(long, value_name = "FILE|LABEL")]
    recipient: String,
    /// Refuse any other recipient: SHA-256 of its SubjectPublicKeyInfo.
    #[arg(long, value_name = "HEX", value_parser = parse_fingerprint)]
    fingerprint: Option<Fingerprint>,
    /// rsa-oaep-sha256, rsa-oaep-sha1 or ecdh-p256-null; without it, the strongest that fits.
    #[arg(long, value_name = "SUITE", value_parser = parse_suite)]
    suite: Option<Suite>,
    /// The file to write: the wrapped KEK, and behind it the wrapped key.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Replace an existing file.
    #[arg(long)]
    force: bool,
}

pub(super) fn run(context: &Context, command: Command) -> Outcome {
    match command {
        Command::Create(arguments) => create(context, arguments),
        Command::List { token } => list(context, &token),
        Command::Public(arguments) => public(context, &arguments),
        Command::Export(arguments) => export(context, &arguments),
    }
}

fn create(context: &Context, arguments: Create) -> Outcome {
    let (token, _) = arguments.token.open(context)?;
    let key = token.create_key(&NewKey {
        label: arguments.label,
        key_type: arguments.key_type,
        extractable: arguments.extractable,
        usage: arguments.usage,
    })?;
    let may = |flag| if key.flags.has(flag) { "" } else { "not " };
    context.note(&format!(
        "created {} key '{}', id {}, {}extractable",
        key.key_type,
        key.label,
        hex::encode(&key.id),
        may(Flag::Extractable),
    ));
    if let Some(public) = &key.public_key {
        context.note(&format!("public key fingerprint {}", public.fingerprint()));
    }
    Ok(describe(&key))
}

fn list(context: &Context, arguments: &TokenArgs) -> Outcome {
    let (token, _) = arguments.open(context)?;
    let keys = token.keys()?;
    for key in &keys {
        context.event(describe(key));
    }
    let rows: Vec<_> = keys.iter().map(row).collect();
    context.table(
        [
            "LABEL",
            "TYPE",
            "CLASS",
            "ID",
            "EXTRACTABLE",
            "USAGE",
            "CHECK VALUE OR FINGERPRINT",
        ],
        &rows,
    );
    Ok(fields! { "keys" => keys.len() })
}

/// One key as a row of the table.
fn row(key: &KeyInfo) -> [String; 7] {
    let extractable = match key.flags.get(Flag::Extractable) {
        Some(true) if key.flags.has(Flag::WrapWithTrusted) => "trusted only",
        Some(true) => "yes",
        Some(false) => "no",
        None => "-",
    };
    let usage: Vec<_> = key
        .flags
        .known()
        .filter(|(flag, value)| *value && is_usage(*flag))
        .map(|(flag, _)| flag.name())
        .collect();
    [
        key.label.clone(),
        key.key_type.to_string(),
        key.class.name().into(),
        hex::encode(&key.id),
        extractable.into(),
        if usage.is_empty() {
            "-".into()
        } else {
            usage.join(",")
        },
        match (&key.public_key, &key.check_value) {
            (Some(public), _) => public.fingerprint().to_string(),
            (None, Some(value)) => hex::encode(value),
            (None, None) => "-".into(),
        },
    ]
}

/// Whether an attribute says what a key may be used for.
const fn is_usage(flag: Flag) -> bool {
    match flag {
        Flag::Encrypt
        | Flag::Decrypt
        | Flag::Sign
        | Flag::Verify
        | Flag::SignRecover
        | Flag::VerifyRecover
        | Flag::Wrap
        | Flag::Unwrap
        | Flag::Derive => true,
        Flag::Token
        | Flag::Private
        | Flag::Modifiable
        | Flag::Copyable
        | Flag::Destroyable
        | Flag::Sensitive
        | Flag::Extractable
        | Flag::WrapWithTrusted
        | Flag::AlwaysAuthenticate
        | Flag::Trusted => false,
    }
}

/// One key for a script.
fn describe(key: &KeyInfo) -> Map<String, Value> {
    let attributes: Map<_, _> = key
        .flags
        .known()
        .map(|(flag, value)| (flag.name().to_owned(), Value::Bool(value)))
        .collect();
    let mut fields = fields! {
        "label" => key.label,
        "type" => key.key_type.to_string(),
        "class" => key.class.name(),
        "id" => hex::encode(&key.id),
        "attributes" => attributes,
    };
    if let Some(value) = &key.check_value {
        fields.insert("check_value".into(), hex::encode(value).into());
    }
    if let Some(public) = &key.public_key {
        let fingerprint = public.fingerprint().to_string();
        fields.insert("fingerprint".into(), fingerprint.into());
    }
    fields
}

fn public(context: &Context, arguments: &Public) -> Outcome {
    if let Some(path) = &arguments.out {
        check_new(path, arguments.force)?;
    }
    let (token, from_uri) = arguments.token.open(context)?;
    let spec = arguments.key.spec(from_uri)?;
    let key = token.public_key(&spec)?;
    let fingerprint = key.fingerprint().to_string();
    context.note(&format!(
        "{} public key, fingerprint {fingerprint}",
        key.key_type()
    ));
    let mut last = fields! { "type" => key.key_type().to_string(), "fingerprint" => fingerprint };
    match &arguments.out {
        Some(path) => {
            let pem = key.to_pem();
            let bytes = if arguments.der {
                key.spki_der()
            } else {
                pem.as_bytes()
            };
            write_new(path, bytes, arguments.force)?;
            last.insert("out".into(), path.display().to_string().into());
        }
        None => {
            context.print(key.to_pem().trim_end());
            last.insert("pem".into(), key.to_pem().into());
        }
    }
    Ok(last)
}

fn export(context: &Context, arguments: &Export) -> Outcome {
    check_new(&arguments.out, arguments.force)?;
    let from_file = recipient_file(&arguments.recipient)?;
    let (token, from_uri) = arguments.token.open(context)?;
    let key = token.key(&arguments.key.spec(from_uri)?)?;
    let recipient = match from_file {
        Some(recipient) => recipient,
        None => recipient_on_token(&token, &arguments.recipient)?,
    };
    let fingerprint = recipient.fingerprint();
    context.note(&format!(
        "recipient {} key, fingerprint {fingerprint}",
        recipient.key_type()
    ));
    match arguments.fingerprint {
        Some(expected) if expected != fingerprint => {
            return Err(Failure::FingerprintMismatch {
                expected,
                found: fingerprint,
            });
        }
        Some(_) | None => {}
    }
    recipient.check_recipient().map_err(HsmError::from)?;
    let suite = match arguments.suite {
        Some(suite) => suite,
        None => strongest_suite(&token, &recipient)?,
    };
    let wrapped = token.wrap_for(&recipient, suite, &[&key])?;
    let mut blob = wrapped.kek_blob;
    for key in &wrapped.blobs {
        blob.extend_from_slice(key);
    }
    write_new(&arguments.out, &blob, arguments.force)?;
    context.note(&format!(
        "exported {} key '{}' under {suite}: {} bytes in {}",
        key.key_type,
        key.label,
        blob.len(),
        arguments.out.display()
    ));
    Ok(fields! {
        "label" => key.label,
        "type" => key.key_type.to_string(),
        "suite" => suite.name(),
        "recipient" => fingerprint.to_string(),
        "out" => arguments.out.display().to_string(),
        "bytes" => blob.len(),
    })
}

/// The strongest suite that the token does and the recipient's key allows.
fn strongest_suite(token: &Token, recipient: &PublicKey) -> Result<Suite, Failure> {
    for suite in Suite::ALL {
        if recipient.key_type().fits(suite) && token.supports(suite)? {
            return Ok(suite);
        }
    }
    Err(Failure::NoCommonSuite {
        token: token.label().into(),
        recipient: recipient.key_type().to_string(),
        supported: token.supported_suites()?,
    })
}

/// The recipient's key if its name is that of a file.
fn recipient_file(name: &str) -> Result<Option<PublicKey>, Failure> {
    let path = Path::new(name);
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(Failure::Read {
                path: path.into(),
                source,
            });
        }
    };
    PublicKey::from_file_content(&bytes)
        .map(Some)
        .map_err(|reason| Failure::PublicKeyFile {
            path: path.into(),
            reason,
        })
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

fn parse_key_type(name: &str) -> Result<KeyType, String> {
    name.parse().map_err(|_| {
        let names: Vec<_> = KeyType::CREATABLE.iter().map(KeyType::to_string).collect();
        format!("one of: {}", names.join(", "))
    })
}

fn parse_usage(name: &str) -> Result<KeyUsage, String> {
    name.parse().map_err(|_| {
        let names: Vec<_> = KeyUsage::ALL.iter().map(|usage| usage.name()).collect();
        format!("one of: {}", names.join(", "))
    })
}

fn parse_suite(name: &str) -> Result<Suite, String> {
    name.parse().map_err(|_| {
        let names: Vec<_> = Suite::ALL.iter().map(|suite| suite.name()).collect();
        format!("one of: {}", names.join(", "))
    })
}

/// Takes 64 hexadecimal digits, with or without colons between bytes.
fn parse_fingerprint(text: &str) -> Result<Fingerprint, String> {
    let mut bytes = [0; Fingerprint::LENGTH];
    hex::decode_to_slice(text.replace(':', ""), &mut bytes)
        .map(|()| Fingerprint(bytes))
        .map_err(|_| "64 hexadecimal digits".into())
}
