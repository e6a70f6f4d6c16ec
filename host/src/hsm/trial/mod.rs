//! Finds out by trial what a token really does, because a mechanism that is listed and a parameter that is accepted prove
//! nothing: the token wraps throw-away keys toward a throw-away recipient, and the results are opened and looked at.
//!
//! Each [`Fact`] is found when it is first asked for, and kept in the token's [`Profile`]: a station pays for what it needs only.
//! Trials leave nothing behind: they work with session objects, which are destroyed at once, and look at no other key.

mod fact;
mod open;
mod quirks;
mod throwaway;
mod unwrapping;
mod using;
mod verdict;
mod wrapping;

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

pub use fact::{Difference, Fact, Finding};
pub use quirks::Quirk;
pub use verdict::{Verdict, Warning};

use self::open::{Route, SharedKek};
use super::error::HsmError;
use super::key::{Flag, KeyType};
use super::pkcs11::WrapMechanism;
use super::token::Token;

/// What was found out about a token so far.
#[derive(Debug, Default)]
pub struct Profile {
    found: Mutex<HashMap<Fact, Finding>>,
}

impl Profile {
    fn get(&self, fact: Fact) -> Option<Finding> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.get(&fact).cloned()
    }

    fn put(&self, fact: Fact, finding: &Finding) {
        let lasting = match finding {
            Finding::Works | Finding::Differs(_) | Finding::Refused { .. } | Finding::Claimed => {
                true
            }
            // Another time it may be told.
            Finding::Failed { .. } | Finding::NotTried { .. } => false,
        };
        if lasting {
            let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
            found.insert(fact, finding.clone());
        }
    }
}

impl Token {
    /// Finds out one fact, or gives what was found out before.
    ///
    /// # Errors
    /// [`HsmError::Token`] if the token is gone, and [`HsmError::Random`]. That a token refuses or fails to do what a trial asks of it
    /// is no error but the [`Finding`].
    pub fn find_out(&self, fact: Fact) -> Result<Finding, HsmError> {
        if let Some(finding) = self.profile.get(fact) {
            return Ok(finding);
        }
        self.alive(|| {
            let mut result = None;
            let found = self.alive(|| {
                let found = self.try_out(fact)?;
                // What a trial got from a lost session says nothing about the token.
                if self.connection.is_lost() {
                    return Err(HsmError::Token {
                        function: "C_GetSessionInfo".into(),
                        code: "CKR_SESSION_CLOSED".into(),
                    });
                }
                Ok(found)
            })?;
            for (found, finding) in found {
                self.profile.put(found, &finding);
                if found == fact {
                    result = Some(finding);
                }
            }
            Ok(result.unwrap_or(Finding::NotTried {
                needs: "a trial of its own",
            }))
        })
    }

    /// Tries a fact, and tells those that came out with it.
    fn try_out(&self, fact: Fact) -> Result<Vec<(Fact, Finding)>, HsmError> {
        let (aes, secret) = (KeyType::Aes { bits: 256 }, KeyType::Secret { bits: 160 });
        let result = match fact {
            Fact::OaepSha256 => self.try_transport(Route::OaepSha256),
            Fact::OaepSha1 => self.try_transport(Route::OaepSha1),
            Fact::EcdhX963Sha256 => self.try_transport(Route::EcdhX963Sha256),
            Fact::EcdhNull => self.try_transport(Route::EcdhNull),
            Fact::SingleStepSha256 => self.try_single_step(Route::OaepSha256),
            Fact::SingleStepSha1 => self.try_single_step(Route::OaepSha1),
            Fact::KwpAes => self.try_padding(WrapMechanism::Kwp, aes),
            Fact::KwpSecret => self.try_padding(WrapMechanism::Kwp, secret),
            Fact::KwpPrivate => self.try_padding(WrapMechanism::Kwp, KeyType::P256),
            Fact::PadAes => self.try_padding(WrapMechanism::Pad, aes),
            Fact::PadSecret => self.try_padding(WrapMechanism::Pad, secret),
            Fact::PadPrivate => self.try_padding(WrapMechanism::Pad, KeyType::P256),
            Fact::LeadingZeros => self.try_own_zeros(),
            Fact::LeadingZerosUnwrapped => self.try_foreign_zeros(),
            Fact::OpenOaepSha256 | Fact::OpenOaepSha1 => return self.try_opening(),
            Fact::UnwrapAes => self.try_unwrapping(unwrapping::Incoming::Aes),
            Fact::UnwrapSecret => self.try_unwrapping(unwrapping::Incoming::Secret),
            Fact::UnwrapPrivate => self.try_unwrapping(unwrapping::Incoming::Private),
            Fact::UnwrapZeroTail => self.try_unwrapping(unwrapping::Incoming::ZeroTail),
            Fact::UnwrapWithLength => self.try_unwrapping(unwrapping::Incoming::WithLength),
            Fact::UnwrappedLength => self.try_unwrapped_length(),
            Fact::Ecdsa => self.try_ecdsa(using::Ecdsa::P256Digest),
            Fact::EcdsaSha256 => self.try_ecdsa(using::Ecdsa::P256Message),
            Fact::EcdsaP384 => self.try_own_signature(KeyType::P384),
            Fact::Ed25519 => self.try_own_signature(KeyType::Ed25519),
            Fact::RsaPkcs1 | Fact::RsaPss | Fact::Key(KeyType::Rsa { bits: 2048 }) => {
                return self.try_rsa();
            }
            Fact::Cmac => self.try_mac(using::CMAC),
            Fact::CmacVerify => self.try_mac_check(using::CMAC),
            Fact::Hmac => self.try_mac(using::HMAC),
            Fact::HmacVerify => self.try_mac_check(using::HMAC),
            Fact::HmacAes => self.try_mac(using::HMAC_AES),
            Fact::CheckValue => self.try_check_value(),
            Fact::KeepsSecret => self.try_keeping(aes, None),
            Fact::KeepsPrivate => self.try_keeping(KeyType::P256, None),
            Fact::KeepsTrusted => self.try_keeping(aes, Some(Flag::WrapWithTrusted)),
            Fact::Derives(way, key_type) => self.try_derivation(way, key_type),
            Fact::Key(key_type) => self.try_key(key_type),
        };
        Ok(vec![(fact, self.settle(result)?)])
    }

    /// Makes a KEK that the token has and that is known to the trial as well; nothing if no suite brings one out.
    fn shared_kek(&self, usage: &[Flag]) -> Result<Option<SharedKek<'_>>, HsmError> {
        // The cheapest first: a throw-away RSA key takes long to make.
        for (fact, route) in [
            (Fact::EcdhNull, Route::EcdhNull),
            (Fact::EcdhX963Sha256, Route::EcdhX963Sha256),
            (Fact::OaepSha256, Route::OaepSha256),
            (Fact::OaepSha1, Route::OaepSha1),
        ] {
            if self.find_out(fact)? == Finding::Works {
                let shared = open::share(&self.connection, route, usage)?;
                return Ok(shared.kek());
            }
        }
        Ok(None)
    }

    /// The AES mechanism whose wrappings can be opened, the right one first.
    fn legible_mechanism(&self) -> Result<Option<WrapMechanism>, HsmError> {
        for (fact, mechanism) in [
            (Fact::KwpAes, WrapMechanism::Kwp),
            (Fact::PadAes, WrapMechanism::Pad),
        ] {
            if matches!(
                self.find_out(fact)?,
                Finding::Works | Finding::Differs(Difference::ZeroTail | Difference::Pkcs7)
            ) {
                return Ok(Some(mechanism));
            }
        }
        Ok(None)
    }

    /// A KEK that is known and a mechanism that can be opened: what it takes to look at a key.
    fn looking_glass(
        &self,
        usage: &[Flag],
    ) -> Result<Result<(SharedKek<'_>, WrapMechanism), Finding>, HsmError> {
        let Some(kek) = self.shared_kek(usage)? else {
            return Ok(Err(Finding::NotTried {
                needs: "a suite that brings a KEK out",
            }));
        };
        Ok(match self.legible_mechanism()? {
            Some(mechanism) => Ok((kek, mechanism)),
            None => Err(Finding::NotTried {
                needs: "AES key wrapping",
            }),
        })
    }

    /// Tells what a token refused or failed to do from a token that is gone or has forgotten the session.
    fn settle(&self, result: Result<Finding, HsmError>) -> Result<Finding, HsmError> {
        match result {
            // Each token has its own word for a session that it has lost, so it is asked.
            Err(error @ HsmError::Token { .. }) if self.connection.is_lost() => Err(error),
            Err(HsmError::Token { function, code }) => match answer(&code) {
                Answer::Refusal => Ok(Finding::Refused { function, code }),
                Answer::Failure => Ok(Finding::Failed { function, code }),
                Answer::Gone => Err(HsmError::Token { function, code }),
            },
            // An object that is not of the type that was asked for, or without its numbers.
            Err(
                HsmError::WrongKeyType { .. }
                | HsmError::NoPublicKey { .. }
                | HsmError::UnexpectedLength { .. },
            ) => Ok(Finding::Differs(Difference::WrongResult)),
            other => other,
        }
    }
}

/// What a return value says about the token.
enum Answer {
    /// It does not do this.
    Refusal,
    /// It failed to.
    Failure,
    /// Nothing can be asked of it at the moment.
    Gone,
}

fn answer(code: &str) -> Answer {
    match code {
        "CKR_DEVICE_REMOVED"
        | "CKR_TOKEN_NOT_PRESENT"
        | "CKR_SESSION_HANDLE_INVALID"
        | "CKR_SESSION_CLOSED"
        | "CKR_SESSION_COUNT"
        | "CKR_USER_NOT_LOGGED_IN"
        | "CKR_CRYPTOKI_NOT_INITIALIZED" => Answer::Gone,
        "CKR_GENERAL_ERROR"
        | "CKR_FUNCTION_FAILED"
        | "CKR_DEVICE_ERROR"
        | "CKR_DEVICE_MEMORY"
        | "CKR_HOST_MEMORY" => Answer::Failure,
        _ => Answer::Refusal,
    }
}
