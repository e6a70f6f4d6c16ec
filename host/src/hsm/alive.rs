//! Sessions die: a network HSM drops connections, a token forgets a login. What the station asks of a token is done again as a
//! whole when that happens, once, in a new session. Objects of the old one are gone by then, so nothing less can be repeated.

use super::error::HsmError;
use super::key::{Flag, KeyInfo};
use super::pkcs11::{KeyHandle, TokenInfo};
use super::token::Token;
use super::uri::KeySpec;

impl Token {
    /// Runs an operation; if it fails because the session or the login is lost, opens and logs in again and runs it once more.
    /// Operations of this interface do so by themselves; several that depend on each other, such as all that is done with a
    /// [`SessionKey`](super::SessionKey), are put into one. A PIN that was refused is never sent again.
    ///
    /// # Errors
    /// Those of the operation; [`HsmError::TokenGone`], [`HsmError::TokenReplaced`], [`HsmError::LostTwice`],
    /// [`HsmError::NoSession`], and those of [`Token::open`].
    pub fn alive<T, E: From<HsmError>>(
        &self,
        operation: impl Fn() -> Result<T, E>,
    ) -> Result<T, E> {
        let Some(_busy) = self.connection.begin() else {
            return operation();
        };
        if self.connection.is_outdated() {
            self.connection.renew()?;
        }
        match operation() {
            Err(_) if self.connection.is_lost_after_failure() => {
                self.connection.renew().map_err(|error| match error {
                    HsmError::Token { .. } if self.connection.is_lost_after_failure() => {
                        self.lost_twice()
                    }
                    other => other,
                })?;
                operation().map_err(|error| {
                    if self.connection.is_lost_after_failure() {
                        self.lost_twice().into()
                    } else {
                        error
                    }
                })
            }
            Err(error) => match self.connection.token_is_gone() {
                Some(gone) => Err(gone.into()),
                None => Err(error),
            },
            done => done,
        }
    }

    fn lost_twice(&self) -> HsmError {
        HsmError::LostTwice {
            token: self.label().into(),
        }
    }

    /// What the token calls a key now. After a new login that is found out again.
    ///
    /// # Errors
    /// [`HsmError::NoSuchKey`] or [`HsmError::SeveralKeys`] if the key is no longer there or not alone.
    pub(super) fn handle_of(&self, key: &KeyInfo) -> Result<KeyHandle, HsmError> {
        if self.connection.knows(key.handle) {
            return Ok(key.handle);
        }
        let spec = KeySpec {
            label: Some(key.label.clone()).filter(|label| !label.is_empty()),
            id: Some(key.id.clone()).filter(|id| !id.is_empty()),
            class: Some(key.class),
        };
        let mut found = self.objects(key.class, &spec)?;
        found.retain(|object| {
            object.key_type.may_be(key.key_type) || key.key_type.may_be(object.key_type)
        });
        let ids = found.iter().map(|object| hex::encode(&object.id)).collect();
        match found.pop() {
            // An object of a session has ended with it.
            Some(object) if found.is_empty() && key.flags.has(Flag::Token) => Ok(object.handle),
            Some(_) if !found.is_empty() => Err(HsmError::SeveralKeys {
                token: self.label().into(),
                wanted: spec.to_string(),
                ids,
            }),
            Some(_) | None => Err(HsmError::NoSuchKey {
                token: self.label().into(),
                wanted: spec.to_string(),
                present: self.labels()?,
            }),
        }
    }

    /// Checks that the token lets itself be changed.
    ///
    /// # Errors
    /// [`HsmError::ReadOnly`].
    pub(super) fn check_writable(&self) -> Result<(), HsmError> {
        let TokenInfo {
            write_protected,
            label,
            ..
        } = self.info();
        if *write_protected {
            let token = label.clone();
            return Err(HsmError::ReadOnly { token });
        }
        Ok(())
    }

    /// Says in one way what tokens that cannot be changed say in several.
    pub(super) fn changing<T>(&self, result: Result<T, HsmError>) -> Result<T, HsmError> {
        result.map_err(|error| match &error {
            HsmError::Token { code, .. }
                if matches!(
                    code.as_str(),
                    "CKR_TOKEN_WRITE_PROTECTED" | "CKR_SESSION_READ_ONLY"
                ) =>
            {
                HsmError::ReadOnly {
                    token: self.label().into(),
                }
            }
            _ => error,
        })
    }
}
