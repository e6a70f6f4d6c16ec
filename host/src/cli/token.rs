//! The arguments that name a token and say where its PIN is, shared by all commands that use one.

use std::path::PathBuf;

use clap::Args;

use super::Context;
use crate::error::Failure;
use crate::hsm::{HsmError, KeySpec, PinSource, Token, TokenSpec, parse};

/// Which token, and where its PIN is.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Token")]
pub struct TokenArgs {
    /// PKCS#11 URI of the token (RFC 7512), or its label if --module is given.
    #[arg(
        long,
        value_name = "URI|LABEL",
        env = "KEYFERRY_TOKEN",
        hide_env_values = true
    )]
    token: Option<String>,
    /// The HSM's PKCS#11 library.
    #[arg(long, value_name = "PATH")]
    module: Option<PathBuf>,
    /// File with the PIN, readable by its owner alone.
    #[arg(long, value_name = "PATH", conflicts_with = "pin_env")]
    pin_file: Option<PathBuf>,
    /// Environment variable with the PIN [default: KEYFERRY_PIN].
    #[arg(long, value_name = "NAME")]
    pin_env: Option<String>,
}

impl TokenArgs {
    /// A token that is named by other arguments than the usual ones.
    pub(super) fn of(token: String, pin_file: Option<PathBuf>, pin_env: Option<String>) -> Self {
        Self {
            token: Some(token),
            module: None,
            pin_file,
            pin_env,
        }
    }

    /// The token that is named, and the key if the URI names one.
    ///
    /// # Errors
    /// [`Failure::Spec`] if the URI is wrong.
    pub fn spec(&self) -> Result<(TokenSpec, KeySpec), Failure> {
        let (mut token, key) = match &self.token {
            None => Default::default(),
            Some(uri) if uri.starts_with("pkcs11:") => parse(uri)?,
            Some(label) => (
                TokenSpec {
                    label: Some(label.clone()),
                    ..TokenSpec::default()
                },
                KeySpec::default(),
            ),
        };
        if let Some(module) = &self.module {
            token.module = Some(module.clone());
        }
        Ok((token, key))
    }

    /// Logs in to the token. Gives the key too, if the URI names one.
    ///
    /// # Errors
    /// [`Failure::Spec`], [`Failure::Pin`] or [`Failure::Hsm`].
    pub fn open(&self, context: &Context) -> Result<(Token, KeySpec), Failure> {
        let (spec, key) = self.spec()?;
        // Found first: nobody should be asked for the PIN of a token that is not there.
        let found = Token::find(&spec)?;
        if found.pin == crate::hsm::PinState::Locked {
            return Err(HsmError::PinLocked { token: found.label }.into());
        }
        let pin = self
            .pin_source(&spec)?
            .fetch(&format!("token '{}'", found.label))?;
        let token = Token::open(&spec, &pin)?;
        context.note(&format!("token '{}', serial {}", found.label, found.serial));
        Ok((token, key))
    }

    fn pin_source(&self, spec: &TokenSpec) -> Result<PinSource, Failure> {
        Ok(match (&self.pin_file, &self.pin_env, &spec.pin_source) {
            (Some(path), _, _) => PinSource::File(path.clone()),
            (None, Some(name), _) => PinSource::Environment(name.clone()),
            (None, None, Some(source)) => PinSource::from_uri(source)?,
            (None, None, None) => PinSource::unnamed(),
        })
    }
}

/// Which key of the token; what the URI says is used where these are not given.
#[derive(Clone, Debug, Args)]
pub(super) struct KeyArgs {
    /// The key's label.
    #[arg(long, value_name = "LABEL")]
    label: Option<String>,
    /// The key's id (CKA_ID) in hexadecimal digits.
    #[arg(long, value_name = "HEX")]
    id: Option<String>,
}

impl KeyArgs {
    /// The key that is named here or in the URI.
    pub(super) fn spec(&self, from_uri: KeySpec) -> Result<KeySpec, Failure> {
        let mut spec = from_uri;
        if self.label.is_some() || self.id.is_some() {
            spec.label = self.label.clone();
            spec.id = self.id.as_deref().map(KeySpec::parse_id).transpose()?;
        }
        if spec.is_empty() {
            return Err(crate::hsm::SpecError::NoKey.into());
        }
        Ok(spec)
    }
}
