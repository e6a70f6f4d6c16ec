//! What the facts mean: which suites and key types can be used, and what is dangerous about a token.

use keyferry_protocol::suite::Suite;

use super::{Difference, Fact, Finding};
use crate::hsm::error::HsmError;
use crate::hsm::key::KeyType;
use crate::hsm::pkcs11::WrapMechanism;
use crate::hsm::token::Token;

/// Whether something can be used, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it can.
    pub usable: bool,
    /// Why not, or what is to be known about it; may be empty.
    pub reason: String,
}

/// Dangerous or surprising behaviour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The name used in output; it stays the same.
    pub name: &'static str,
    /// What it means, for people.
    pub text: &'static str,
}

impl Warning {
    /// The warning about what was found, if there is one.
    #[must_use]
    pub fn of(fact: Fact, finding: &Finding) -> Option<Self> {
        let Finding::Differs(difference) = finding else {
            return None;
        };
        let (name, text) = match (difference, fact) {
            (Difference::GaveItAway, Fact::KeepsTrusted) => (
                "ignores-wrap-with-trusted",
                "the token wraps keys with CKA_WRAP_WITH_TRUSTED under any wrapping key",
            ),
            (Difference::GaveItAway, Fact::KeepsPrivate) => (
                "exports-private-keys",
                "the token wraps private keys that are not extractable: whoever is logged in can take them",
            ),
            (Difference::GaveItAway, _) => (
                "exports-secret-keys",
                "the token wraps secret keys that are not extractable: whoever is logged in can take them",
            ),
            (Difference::Sha1, _) => (
                "sha1-for-sha256",
                "the token accepts SHA-256 for OAEP and uses SHA-1",
            ),
            (Difference::Sha256, _) => (
                "sha256-for-sha1",
                "the token accepts SHA-1 for OAEP and uses SHA-256",
            ),
            (Difference::OtherDerivation, _) => (
                "other-derivation",
                "the token derives another KEK from ECDH than it is asked for",
            ),
            (Difference::ZeroTail, Fact::KwpPrivate | Fact::PadPrivate) => (
                "zero-tail",
                "private keys are wrapped with zero bytes at the end: strict importers (cloud key services) refuse them",
            ),
            (Difference::ShortScalar, Fact::LeadingZeros) => (
                "drops-leading-zeros",
                "one private key in 256 is wrapped too short: strict importers refuse it",
            ),
            (Difference::DoesNotOpen, _) => (
                "does-not-open",
                "the token wraps something that its recipient cannot open",
            ),
            (Difference::WrongResult, _) => (
                "wrong-result",
                "the token gives a result that is not the right one",
            ),
            (
                Difference::ZeroTail
                | Difference::ShortScalar
                | Difference::Pkcs7
                | Difference::NotTold
                | Difference::OddRefusal,
                _,
            ) => return None,
        };
        Some(Self { name, text })
    }
}

/// The fact on which the transport of a suite's KEK rests.
const fn transport(suite: Suite) -> Fact {
    match suite {
        Suite::RsaOaepSha256 => Fact::OaepSha256,
        Suite::RsaOaepSha1 => Fact::OaepSha1,
        Suite::EcdhP256X963Sha256 => Fact::EcdhX963Sha256,
        Suite::EcdhP256Null => Fact::EcdhNull,
    }
}

impl Token {
    /// Checks that the token wraps KEKs as the suite has it.
    ///
    /// # Errors
    /// [`HsmError::SuiteRefused`] if it refuses the suite, [`HsmError::SuiteWrong`] if it does something else than the suite;
    /// [`HsmError::Token`] if it cannot be told.
    pub(in crate::hsm) fn check_suite(&self, suite: Suite) -> Result<(), HsmError> {
        match self.find_out(transport(suite))? {
            Finding::Works | Finding::Claimed => Ok(()),
            Finding::Differs(difference) => Err(HsmError::SuiteWrong {
                token: self.label().into(),
                suite,
                difference,
            }),
            Finding::Refused { function, code } => Err(self.suite_refused(suite, function, code)),
            Finding::Failed { function, code } => Err(HsmError::Token { function, code }),
            Finding::NotTried { .. } => Err(self.no_key_wrap()),
        }
    }

    /// The AES mechanism that is RFC 5649 on this token.
    ///
    /// # Errors
    /// [`HsmError::MechanismMissing`] if there is none; [`HsmError::Token`].
    pub(in crate::hsm) fn key_wrap_mechanism(&self) -> Result<WrapMechanism, HsmError> {
        for (fact, mechanism) in [
            (Fact::KwpAes, WrapMechanism::Kwp),
            (Fact::PadAes, WrapMechanism::Pad),
        ] {
            match self.find_out(fact)? {
                Finding::Works => return Ok(mechanism),
                Finding::Failed { function, code } => {
                    return Err(HsmError::Token { function, code });
                }
                Finding::Differs(_)
                | Finding::Refused { .. }
                | Finding::Claimed
                | Finding::NotTried { .. } => {}
            }
        }
        Err(self.no_key_wrap())
    }

    /// Whether wrapped keys whose length is no multiple of eight bytes end with zeros up to one. Strict importers refuse such
    /// private keys.
    ///
    /// # Errors
    /// As [`Token::find_out`]; [`HsmError::MechanismMissing`] if the token does not wrap as in RFC 5649.
    pub fn fills_with_zeros(&self) -> Result<bool, HsmError> {
        let facts = if self.key_wrap_mechanism()? == WrapMechanism::Kwp {
            [Fact::KwpSecret, Fact::KwpPrivate]
        } else {
            [Fact::PadSecret, Fact::PadPrivate]
        };
        for fact in facts {
            match self.find_out(fact)? {
                Finding::Differs(Difference::ZeroTail) => return Ok(true),
                Finding::Failed { function, code } => {
                    return Err(HsmError::Token { function, code });
                }
                Finding::Works
                | Finding::Differs(_)
                | Finding::Refused { .. }
                | Finding::Claimed
                | Finding::NotTried { .. } => {}
            }
        }
        Ok(false)
    }

    /// Whether keys can be wrapped under the suite.
    ///
    /// # Errors
    /// As [`Token::find_out`].
    pub fn suite_verdict(&self, suite: Suite) -> Result<Verdict, HsmError> {
        let finding = self.find_out(transport(suite))?;
        if finding != Finding::Works {
            return Ok(Verdict {
                usable: false,
                reason: format!("the KEK: {finding}"),
            });
        }
        Ok(match self.key_wrap_mechanism() {
            Ok(mechanism) => Verdict {
                usable: true,
                reason: match mechanism {
                    WrapMechanism::Pad => "keys with AES_KEY_WRAP_PAD",
                    WrapMechanism::Kwp
                    | WrapMechanism::OaepSha1
                    | WrapMechanism::OaepSha256
                    | WrapMechanism::SingleStepSha1
                    | WrapMechanism::SingleStepSha256 => "keys with AES_KEY_WRAP_KWP",
                }
                .into(),
            },
            Err(HsmError::MechanismMissing { .. }) => Verdict {
                usable: false,
                reason: "the keys: no AES key wrapping as in RFC 5649".into(),
            },
            Err(HsmError::Token { function, code }) => Verdict {
                usable: false,
                reason: format!("the keys: cannot be told ({function}: {code})"),
            },
            Err(error) => return Err(error),
        })
    }

    /// Whether keys of this type can be made on the token and wrapped.
    ///
    /// # Errors
    /// As [`Token::find_out`].
    pub fn key_verdict(&self, key_type: KeyType) -> Result<Verdict, HsmError> {
        let finding = self.find_out(Fact::Key(key_type))?;
        let usable = matches!(finding, Finding::Works | Finding::Claimed);
        let mut reasons = Vec::new();
        if finding != Finding::Works {
            reasons.push(finding.to_string());
        }
        if usable && key_type.is_pair() && matches!(self.fills_with_zeros(), Ok(true)) {
            reasons.push(Difference::ZeroTail.to_string());
        }
        if usable && matches!(key_type, KeyType::P256 | KeyType::P384) {
            let zeros = self.find_out(Fact::LeadingZeros)?;
            if let Finding::Differs(Difference::ShortScalar) = zeros {
                reasons.push(zeros.to_string());
            }
        }
        Ok(Verdict {
            usable,
            reason: reasons.join("; "),
        })
    }
}
