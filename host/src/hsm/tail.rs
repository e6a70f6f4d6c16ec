//! Whether a token fills keys up with zeros before it wraps them, found out by wrapping a throw-away key and unwrapping it again.

use super::error::HsmError;
use super::key::{Flag, Flags, KeyClass, KeyType};
use super::pkcs11::Incoming;
use super::token::{Token, key_info};
use super::wrap::{SESSION_LABEL, session_aes_key};

/// A length in bytes that is no multiple of eight.
const ODD_LENGTH: u16 = 17;

impl Token {
    /// Whether wrapped keys whose length is no multiple of eight bytes end with zeros. Strict importers refuse such private
    /// keys.
    ///
    /// # Errors
    /// [`HsmError::MechanismMissing`], [`HsmError::UnexpectedLength`], [`HsmError::Token`].
    pub fn fills_with_zeros(&self) -> Result<bool, HsmError> {
        let both_ways = [
            Flag::Private,
            Flag::Destroyable,
            Flag::Sensitive,
            Flag::Wrap,
            Flag::Unwrap,
        ];
        let kek = session_aes_key(&self.connection, &both_ways)?;
        let key_type = KeyType::Secret {
            bits: ODD_LENGTH * 8,
        };
        let flags = Flags::of(
            KeyClass::Secret,
            &[
                Flag::Private,
                Flag::Destroyable,
                Flag::Sensitive,
                Flag::Extractable,
            ],
        );
        let key = self.connection.guard(self.connection.generate_secret(
            key_type,
            SESSION_LABEL,
            &[],
            &flags,
        )?);
        let info = |handle| {
            let object = self.connection.read(handle, KeyClass::Secret)?;
            Ok::<_, HsmError>(key_info(KeyClass::Secret, object, None))
        };
        let blob = self.wrap_under(&info(kek.handle())?, &info(key.handle())?)?;
        let incoming = Incoming {
            class: KeyClass::Secret,
            key_type,
            label: SESSION_LABEL,
            id: &[],
            flags,
            public_key: None,
        };
        let mechanism = self.key_wrap_mechanism()?;
        let copy = self.connection.guard(self.connection.unwrap(
            mechanism,
            kek.handle(),
            &blob,
            &incoming,
        )?);
        let found = self
            .connection
            .read(copy.handle(), KeyClass::Secret)?
            .key_type;
        Ok(found != key_type)
    }
}
