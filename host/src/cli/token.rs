//! The arguments that name a token and say where its PIN is, shared by all commands that use one.

use std::path::PathBuf;

use clap::Args;

use super::Context;
use crate::error::Failure;
use crate::hsm::{
    Credentials, HsmError, KeySpec, PIN_VARIABLE, PinSource, PinState, Token, TokenInfo, TokenSpec,
    is_uri, parse,
};

/// Where a PIN is.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct PinArgs {
    /// File with the PIN, readable by its owner alone.
    #[arg(long, value_name = "PATH", conflicts_with = "pin_env")]
    pub(super) pin_file: Option<PathBuf>,
    /// Environment variable with the PIN [default: KEYFERRY_PIN].
    #[arg(long, value_name = "NAME")]
    pub(super) pin_env: Option<String>,
    /// Send the PIN even if a wrong one would lock the token.
    #[arg(long)]
    pub(super) allow_last_try: bool,
}

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
    #[command(flatten)]
    pin: PinArgs,
    /// File with the PIN of keys that ask for one at each use, where it is not the token's.
    #[arg(long, value_name = "PATH", conflicts_with = "key_pin_env")]
    key_pin_file: Option<PathBuf>,
    /// Environment variable with the PIN of such keys.
    #[arg(long, value_name = "NAME")]
    key_pin_env: Option<String>,
}

impl TokenArgs {
    /// A token that is named by other arguments than the usual ones.
    pub(super) const fn of(token: String, pin: PinArgs) -> Self {
        Self {
            token: Some(token),
            module: None,
            pin,
            key_pin_file: None,
            key_pin_env: None,
        }
    }

    /// As [`Self::of`], with the PIN where one looks for it when nothing is said.
    pub(super) fn named(&self, token: String) -> Self {
        let pin = PinArgs {
            allow_last_try: self.pin.allow_last_try,
            ..PinArgs::default()
        };
        Self::of(token, pin)
    }

    /// The token that is named, and the key if the URI names one.
    ///
    /// # Errors
    /// [`Failure::Spec`] if the URI is wrong.
    pub fn spec(&self) -> Result<(TokenSpec, KeySpec), Failure> {
        let (mut token, key) = match &self.token {
            None => Default::default(),
            Some(uri) if is_uri(uri) => parse(uri)?,
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
        self.check_pin_state(context, &found)?;
        let (mut credentials, source) = if found.pin_pad && !self.names_pin(&spec) {
            context.note(&format!("enter the PIN at token '{}' itself", found.label));
            (Credentials::pin_pad(), None)
        } else {
            let source = self.pin_source(&spec)?;
            let pin = source.fetch(&format!("token '{}'", found.label))?;
            (Credentials::pin(pin), Some(source))
        };
        if self.pin.allow_last_try {
            credentials = credentials.even_at_last_try();
        }
        if let Some(source) = self.key_pin_source() {
            credentials = credentials.with_key_pin(source.fetch("the key")?);
        }
        let token = Token::log_in(&spec, &credentials).inspect_err(|error| {
            if let (HsmError::PinIncorrect { .. }, Some(source)) = (error, &source) {
                context.warn(&format!("the PIN was the one {source}"));
            }
        })?;
        context.note(&format!("token '{}', serial {}", found.label, found.serial));
        Ok((token, key))
    }

    /// Says what a wrong PIN would do now, before anybody is asked for one.
    fn check_pin_state(&self, context: &Context, found: &TokenInfo) -> Result<(), HsmError> {
        let token = found.label.clone();
        match found.pin {
            PinState::Locked => return Err(HsmError::PinLocked { token }),
            PinState::LastTry if !self.pin.allow_last_try => {
                return Err(HsmError::LastTry { token });
            }
            PinState::LastTry => {
                context.warn(&format!("one try is left for the PIN of token '{token}'"));
            }
            PinState::TriesUsed => context.warn(&format!(
                "token '{token}' was given a wrong PIN since the last right one"
            )),
            PinState::Ready | PinState::NotSet => {}
        }
        Ok(())
    }

    /// Whether it is said anywhere where the PIN is.
    fn names_pin(&self, spec: &TokenSpec) -> bool {
        self.pin.pin_file.is_some()
            || self.pin.pin_env.is_some()
            || spec.pin_source.is_some()
            || std::env::var_os(PIN_VARIABLE).is_some()
    }

    /// Where the PIN of single keys is, if it is another.
    fn key_pin_source(&self) -> Option<PinSource> {
        match (&self.key_pin_file, &self.key_pin_env) {
            (Some(path), _) => Some(PinSource::File(path.clone())),
            (None, Some(name)) => Some(PinSource::Environment(name.clone())),
            (None, None) => None,
        }
    }

    fn pin_source(&self, spec: &TokenSpec) -> Result<PinSource, Failure> {
        Ok(
            match (&self.pin.pin_file, &self.pin.pin_env, &spec.pin_source) {
                (Some(path), _, _) => PinSource::File(path.clone()),
                (None, Some(name), _) => PinSource::Environment(name.clone()),
                (None, None, Some(source)) => PinSource::from_uri(source)?,
                (None, None, None) => PinSource::unnamed(),
            },
        )
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
