//! `keyferry key create`.

use clap::Args;

use super::arguments::{parse_key_type, parse_usage};
use super::list::describe;
use crate::cli::{Context, Outcome, TokenArgs};
use crate::hsm::{Flag, KeyType, KeyUsage, NewKey};

#[derive(Debug, Args)]
pub(in crate::cli) struct Create {
    #[command(flatten)]
    token: TokenArgs,
    /// The new key's label.
    #[arg(long, value_name = "LABEL")]
    label: String,
    /// aes-128, aes-192, aes-256, hmac-128 to hmac-512, rsa-2048, rsa-3072, rsa-4096, p-256, p-384 or ed25519.
    #[arg(long = "type", value_name = "TYPE", value_parser = parse_key_type)]
    key_type: KeyType,
    /// Let the key leave the token, wrapped. This cannot be changed later.
    #[arg(long)]
    extractable: bool,
    /// What the key may do on the token: encrypt, decrypt, sign, verify, derive; or unwrap, for a pair
    /// that receives wrapped keys; or keep, for an AES key that random keys of devices are kept under until they are proved. An
    /// authority key signs only.
    #[arg(
        long,
        value_name = "USAGE",
        value_delimiter = ',',
        default_value = "verify",
        value_parser = parse_usage
    )]
    usage: Vec<KeyUsage>,
    /// Ask for the PIN at each use of the private key, not only at the login.
    #[arg(long)]
    always_authenticate: bool,
}

pub(super) fn create(context: &Context, arguments: Create) -> Outcome {
    let (token, _) = arguments.token.open(context)?;
    let key = token.create_key(&NewKey {
        label: arguments.label,
        key_type: arguments.key_type,
        extractable: arguments.extractable,
        usage: arguments.usage,
        always_authenticate: arguments.always_authenticate,
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
