//! Trials of what a token takes in: a KEK, and keys in their different shapes.

use super::open::parcel::{self, Content, Parcel};
use super::open::{self, Route, Shape, Start};
use super::throwaway::ThrowAway;
use super::{Difference, Fact, Finding};
use crate::hsm::error::HsmError;
use crate::hsm::key::{Flag, KeyType};
use crate::hsm::token::Token;

/// What the token is given to unwrap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    Aes,
    Secret,
    Private,
    /// A private key with zero bytes up to a multiple of 8.
    ZeroTail,
    /// An AES key, with `CKA_VALUE_LEN` in the template.
    WithLength,
}

impl Token {
    /// Whether a KEK goes in under RSA-OAEP. Both hashes are tried with one key pair, for that takes long to make.
    pub(super) fn try_opening(&self) -> Result<Vec<(Fact, Finding)>, HsmError> {
        let rsa = KeyType::Rsa { bits: 2048 };
        let pair = ThrowAway::generate(&self.connection, rsa, &[Flag::Unwrap]);
        let mut found = Vec::new();
        for (fact, route) in [
            (Fact::OpenOaepSha256, Route::OaepSha256),
            (Fact::OpenOaepSha1, Route::OaepSha1),
        ] {
            let result = match &pair {
                Ok(pair) => self.try_opening_with(pair, route),
                Err(HsmError::Token { function, code }) => Err(HsmError::Token {
                    function: function.clone(),
                    code: code.clone(),
                }),
                Err(_) => Ok(Finding::Differs(Difference::WrongResult)),
            };
            found.push((fact, self.settle(result)?));
        }
        Ok(found)
    }

    fn try_opening_with(&self, pair: &ThrowAway<'_>, route: Route) -> Result<Finding, HsmError> {
        let Some(mechanism) = self.legible_mechanism()? else {
            return Ok(Finding::NotTried {
                needs: "AES key wrapping",
            });
        };
        let Some(kek) = parcel::give_kek(&self.connection, pair, route)? else {
            return Ok(Finding::Differs(Difference::WrongResult));
        };
        let key = self.throw_away(KeyType::Aes { bits: 256 })?;
        let seen = open::look(&self.connection, &kek, mechanism, &key)?;
        Ok(match seen {
            Some(_) => Finding::Works,
            None => Finding::Differs(Difference::WrongResult),
        })
    }

    /// Whether a key goes in, and comes out the same.
    pub(super) fn try_unwrapping(&self, incoming: Incoming) -> Result<Finding, HsmError> {
        let (kek, mechanism) = match self.looking_glass(&[Flag::Unwrap])? {
            Ok(both) => both,
            Err(finding) => return Ok(finding),
        };
        let (content, shape) = match incoming {
            Incoming::Aes | Incoming::WithLength => (Content::Aes, Shape::Exact),
            Incoming::Secret => (Content::Secret, Shape::Exact),
            Incoming::Private => (Content::Private, Shape::Exact),
            Incoming::ZeroTail => (Content::Private, Shape::ZeroTail),
        };
        let parcel = Parcel::new(&kek, content, shape)?;
        let connection = &self.connection;
        let unpacked = match incoming {
            Incoming::WithLength => parcel.unpack_with_length(connection, &kek, mechanism)?,
            Incoming::Aes | Incoming::Secret | Incoming::Private | Incoming::ZeroTail => {
                parcel.unpack(connection, &kek, mechanism)?
            }
        };
        // How it comes out again is another question.
        Ok(match unpacked.look(connection, &kek, mechanism)? {
            Some(_) => Finding::Works,
            None => Finding::Differs(Difference::WrongResult),
        })
    }

    /// Whether a private key that was unwrapped and begins with a zero byte still does when it comes out.
    pub(super) fn try_foreign_zeros(&self) -> Result<Finding, HsmError> {
        let (kek, mechanism) = match self.looking_glass(&[Flag::Unwrap])? {
            Ok(both) => both,
            Err(finding) => return Ok(finding),
        };
        let unpacked = Parcel::new(&kek, Content::LeadingZero, Shape::Exact)?.unpack(
            &self.connection,
            &kek,
            mechanism,
        )?;
        let seen = unpacked.look(&self.connection, &kek, mechanism)?;
        // What is around it is another question.
        Ok(match seen.map(|look| look.start) {
            Some(Start::ZeroKept) => Finding::Works,
            Some(Start::ZeroDropped) => Finding::Differs(Difference::ShortScalar),
            Some(Start::Plain) | None => Finding::Differs(Difference::WrongResult),
        })
    }

    /// Whether the token tells how long a key is that it has unwrapped.
    pub(super) fn try_unwrapped_length(&self) -> Result<Finding, HsmError> {
        let (kek, mechanism) = match self.looking_glass(&[Flag::Unwrap])? {
            Ok(both) => both,
            Err(finding) => return Ok(finding),
        };
        let unpacked = Parcel::new(&kek, Content::Aes, Shape::Exact)?.unpack(
            &self.connection,
            &kek,
            mechanism,
        )?;
        Ok(match unpacked.key_type(&self.connection)? {
            KeyType::Aes { bits: 256 } => Finding::Works,
            KeyType::Aes { bits: 0 } | KeyType::Other => Finding::Differs(Difference::NotTold),
            _ => Finding::Differs(Difference::WrongResult),
        })
    }
}
