//! Trials of what leaves a token: how a KEK reaches its recipient, and what is around a key in its wrapping.

use std::time::{Duration, Instant};

use super::open::{self, Look, Route, Shared, Start};
use super::throwaway::ThrowAway;
use super::{Difference, Finding};
use crate::hsm::error::HsmError;
use crate::hsm::key::{Flag, KeyType};
use crate::hsm::pkcs11::WrapMechanism;
use crate::hsm::token::Token;

/// How many keys are made at most until one begins with a zero byte: all but one time in three thousand there is one.
const MOST_KEYS: usize = 2048;

/// How long keys are made for it at most.
const PATIENCE: Duration = Duration::from_secs(2);

impl Token {
    /// Whether a KEK comes out this way.
    pub(super) fn try_transport(&self, route: Route) -> Result<Finding, HsmError> {
        Ok(match open::share(&self.connection, route, &[])? {
            Shared::Kek(_, real) => taken(route, real),
            Shared::Lost => Finding::Differs(Difference::DoesNotOpen),
            Shared::Unseen => Finding::NotTried {
                needs: "AES key wrapping",
            },
        })
    }

    /// Whether a key comes out of `CKM_RSA_AES_KEY_WRAP` with the hash of this route.
    pub(super) fn try_single_step(&self, route: Route) -> Result<Finding, HsmError> {
        let mechanism = match route {
            Route::OaepSha256 => WrapMechanism::SingleStepSha256,
            Route::OaepSha1 | Route::EcdhNull | Route::EcdhX963Sha256 => {
                WrapMechanism::SingleStepSha1
            }
        };
        let key = self.throw_away(KeyType::Aes { bits: 256 })?;
        let seen = open::look_at_single_step(&self.connection, mechanism, &key)?;
        Ok(match seen {
            Some((real, look)) => match taken(route, real) {
                Finding::Works => judge(Some(look)),
                other => other,
            },
            None => Finding::Differs(Difference::DoesNotOpen),
        })
    }

    /// What this mechanism does with a key of this type.
    pub(super) fn try_padding(
        &self,
        mechanism: WrapMechanism,
        key_type: KeyType,
    ) -> Result<Finding, HsmError> {
        let Some(kek) = self.shared_kek(&[])? else {
            return Ok(Finding::NotTried {
                needs: "a suite that brings a KEK out",
            });
        };
        // PKCS#7 and RFC 5649 take the same room for some lengths, so two are tried.
        let key_types = match key_type {
            KeyType::Aes { bits: 256 } => vec![KeyType::Aes { bits: 128 }, key_type],
            other => vec![other],
        };
        for key_type in key_types {
            let key = self.throw_away(key_type)?;
            let finding = judge(open::look(&self.connection, &kek, mechanism, &key)?);
            if finding != Finding::Works {
                return Ok(finding);
            }
        }
        Ok(Finding::Works)
    }

    /// Whether a private key that the token made and that begins with a zero byte comes out with it. One key in 256 does begin so;
    /// keys are made until there is one.
    pub(super) fn try_own_zeros(&self) -> Result<Finding, HsmError> {
        let (kek, mechanism) = match self.looking_glass(&[])? {
            Ok(both) => both,
            Err(finding) => return Ok(finding),
        };
        let end = Instant::now() + PATIENCE;
        for _ in 0..MOST_KEYS {
            let key = ThrowAway::generate(&self.connection, KeyType::P256, &[Flag::Extractable])?;
            let seen = open::look(&self.connection, &kek, mechanism, &key)?;
            match seen.map(|look| look.start) {
                Some(Start::ZeroKept) => return Ok(Finding::Works),
                Some(Start::ZeroDropped) => {
                    return Ok(Finding::Differs(Difference::ShortScalar));
                }
                Some(Start::Plain) => {}
                None => return Ok(Finding::Differs(Difference::DoesNotOpen)),
            }
            if Instant::now() > end {
                break;
            }
        }
        Ok(Finding::NotTried {
            needs: "more time: no key began with a zero byte",
        })
    }

    /// Whether a key of this type can be made and comes out whole.
    pub(super) fn try_key(&self, key_type: KeyType) -> Result<Finding, HsmError> {
        if let KeyType::Rsa {
            bits: bits @ 2049..,
        } = key_type
        {
            return Ok(if self.connection.offers_rsa(bits) {
                Finding::Claimed
            } else {
                Finding::Refused {
                    function: "C_GetMechanismInfo".into(),
                    code: "not in its range of lengths".into(),
                }
            });
        }
        let key = self.throw_away(key_type)?;
        Ok(match self.looking_glass(&[])? {
            Ok((kek, mechanism)) => whole(open::look(&self.connection, &kek, mechanism, &key)?),
            Err(finding) => finding,
        })
    }

    /// An extractable throw-away key; it can be compared with what comes out.
    pub(super) fn throw_away(&self, key_type: KeyType) -> Result<ThrowAway<'_>, HsmError> {
        let comparing = match key_type {
            KeyType::Aes { .. } => Flag::Encrypt,
            KeyType::Secret { .. }
            | KeyType::Rsa { .. }
            | KeyType::P256
            | KeyType::P384
            | KeyType::Ed25519
            | KeyType::Other => Flag::Sign,
        };
        let set = [Flag::Extractable, comparing];
        ThrowAway::generate(&self.connection, key_type, &set)
    }
}

/// Compares the way a KEK came with the one that was asked for.
fn taken(asked: Route, real: Route) -> Finding {
    match real {
        _ if real == asked => Finding::Works,
        Route::OaepSha1 => Finding::Differs(Difference::Sha1),
        Route::OaepSha256 => Finding::Differs(Difference::Sha256),
        Route::EcdhNull | Route::EcdhX963Sha256 => Finding::Differs(Difference::OtherDerivation),
    }
}

/// Says whether a key comes out. Whether it has a tail is another question: by chance there may be nothing to fill up.
pub(super) fn whole(seen: Option<Look>) -> Finding {
    match judge(seen) {
        Finding::Differs(Difference::ZeroTail) => Finding::Works,
        other => other,
    }
}

/// Says whether what was seen is right.
pub(super) fn judge(seen: Option<Look>) -> Finding {
    match seen.map(Look::difference) {
        Some(None) => Finding::Works,
        Some(Some(difference)) => Finding::Differs(difference),
        None => Finding::Differs(Difference::DoesNotOpen),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hsm::trial::{Fact, Quirk, Warning};

    /// A token that accepts SHA-256 and uses SHA-1 (SoftHSM 2.7.0 in a single step) is not believed.
    #[test]
    fn a_claimed_hash_is_a_difference() {
        let found = taken(Route::OaepSha256, Route::OaepSha1);
        assert_eq!(found, Finding::Differs(Difference::Sha1));
        for fact in [Fact::OaepSha256, Fact::SingleStepSha256] {
            let warning = Warning::of(fact, &found).unwrap();
            assert_eq!(warning.name, "sha1-for-sha256");
        }
        let quirk = Quirk::of(Fact::SingleStepSha256, &found).unwrap();
        assert_eq!(quirk.seen_in, "SoftHSM 2.7.0");
        assert!(Quirk::of(Fact::OaepSha256, &found).is_none());
        for route in [
            Route::OaepSha256,
            Route::OaepSha1,
            Route::EcdhNull,
            Route::EcdhX963Sha256,
        ] {
            assert_eq!(taken(route, route), Finding::Works);
        }
        assert_eq!(
            taken(Route::EcdhX963Sha256, Route::EcdhNull),
            Finding::Differs(Difference::OtherDerivation)
        );
    }
}
