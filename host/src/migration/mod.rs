//! Moves a key from one token to another: the target makes a key pair, its public key goes to the origin, the origin wraps the
//! key for it, the target unwraps, and the copy is proved. The key pair lives in a session and is gone with it, whatever happens.

mod draft;
mod error;
mod import;
mod landing;

pub use draft::matching_public_flags;
pub use error::MigrationError;
pub use import::Import;

use std::cell::{Cell, RefCell};

use keyferry_protocol::identity::Fingerprint;
use keyferry_protocol::suite::Suite;

use crate::hsm::{
    Comparison, Evidence, Flag, Flags, Held, HsmError, KeyClass, KeyDraft, KeyInfo, KeyType,
    SessionKey, Token, compare,
};
use landing::{Arrival, Landing};

/// The temporary key pair of a migration through RSA.
const TEMPORARY_RSA: KeyType = KeyType::Rsa { bits: 3072 };

/// From where to where, and how.
pub struct Migration<'t> {
    /// The origin.
    pub from: &'t Token,
    /// The target.
    pub to: &'t Token,
    /// A key pair of the target to wrap for; without one, a temporary one is made.
    pub via: Option<KeyInfo>,
    /// Whether the copy may leave the target again.
    pub extractable: bool,
    /// Whether to go on where no proof is possible.
    pub unproved: bool,
}

/// What a migration will do for one key.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The key at the origin.
    pub key: KeyInfo,
    /// What it will be at the target.
    pub draft: KeyDraft,
    /// The attributes of its public half at the target.
    pub public_flags: Option<Flags>,
    /// The key of the same name that is on the target already.
    pub present: Option<KeyInfo>,
    /// The suites to try, best first.
    pub suites: Vec<Suite>,
}

/// Something a person may want to see on the way.
#[derive(Clone, Debug)]
pub enum Step {
    /// A key pair of the target is the recipient.
    Recipient {
        /// Its type.
        key_type: KeyType,
        /// Its public key.
        fingerprint: Fingerprint,
        /// Whether it was made for this migration.
        temporary: bool,
    },
    /// The origin has wrapped the key.
    Wrapped {
        /// The suite.
        suite: Suite,
        /// Length of the blob in bytes.
        bytes: usize,
    },
    /// The target has unwrapped the key into a session, and it was compared with the origin's.
    Proved(Evidence),
    /// The key is on the target.
    Kept,
}

/// How a key's migration ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The key is on the target now.
    Migrated,
    /// It was there before.
    AlreadyThere,
    /// An interrupted migration is now complete: the public half was missing.
    Completed,
}

impl Outcome {
    /// The name used in output: `migrated`, `already-there`, `completed`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Migrated => "migrated",
            Self::AlreadyThere => "already-there",
            Self::Completed => "completed",
        }
    }

    /// The words before a key's name.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Migrated => "imported",
            Self::AlreadyThere => "already there:",
            Self::Completed => "completed",
        }
    }
}

/// A key that is on the target.
#[derive(Clone, Debug)]
pub struct Done {
    /// How it came there.
    pub outcome: Outcome,
    /// How it is known to be the origin's; nothing if it was taken on trust.
    pub evidence: Option<Evidence>,
    /// The suite it travelled under, if it did.
    pub suite: Option<Suite>,
    /// A right that a key which was there before has, and a migrated one would not.
    pub wider: Option<Flag>,
}

/// Refuses a secret key that a token lengthens on the way. A private key's encoding says where it ends; nothing says where a
/// secret ends.
fn check_length<E: Into<MigrationError>>(
    class: KeyClass,
    key_type: KeyType,
    label: &str,
    filled: impl FnOnce() -> Result<bool, E>,
) -> Result<(), MigrationError> {
    match key_type {
        KeyType::Aes { bits } | KeyType::Secret { bits }
            if class == KeyClass::Secret && !bits.is_multiple_of(64) =>
        {
            if filled().map_err(Into::into)? {
                return Err(MigrationError::Lengthened {
                    label: label.into(),
                    bits,
                });
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

impl<'t> Migration<'t> {
    /// Finds out what there is to do for a key. Changes nothing.
    ///
    /// # Errors
    /// [`MigrationError`] if the key may not leave, is of no supported type, or the target has something in its place.
    pub fn plan(&self, key: &KeyInfo) -> Result<Plan, MigrationError> {
        if key.class == KeyClass::Public {
            return Err(MigrationError::PublicKey(key.name()));
        }
        key.check_may_leave()?;
        if key.key_type == KeyType::Other {
            return Err(MigrationError::UnsupportedType {
                label: key.name(),
                found: key.key_type,
            });
        }
        let key = &self.from.with_pair(key.clone())?;
        check_length(key.class, key.key_type, &key.label, || {
            self.from.fills_with_zeros()
        })?;
        let draft = draft::draft(key, self.extractable)?;
        let public_flags = draft::public_flags(key)?;
        let landing = Landing {
            to: self.to,
            draft: &draft,
            public_flags: public_flags.as_ref(),
        };
        let present = landing.present()?;
        let suites = self.from.supported_suites()?;
        let via = self.via.as_ref().map(|via| via.key_type);
        Ok(Plan {
            key: key.clone(),
            draft,
            public_flags,
            present,
            suites: suites
                .into_iter()
                .filter(|suite| via.is_none_or(|via| via.fits(*suite)))
                .collect(),
        })
    }

    /// Carries out a plan. Run again after an interruption, it completes what is missing.
    ///
    /// # Errors
    /// [`MigrationError`].
    pub fn run(&self, plan: &Plan, on_step: &mut dyn FnMut(&Step)) -> Result<Done, MigrationError> {
        let on_step = RefCell::new(on_step);
        let first = Cell::new(true);
        self.from.alive(|| {
            self.to.alive(|| {
                let mut on_step = |step: &Step| (on_step.borrow_mut())(step);
                if first.replace(false) {
                    return self.carry_out(plan, &mut on_step);
                }
                // A session was lost on the way. The key may be at the target all the same.
                let again = self.plan(&plan.key)?;
                let mut done = self.carry_out(&again, &mut on_step)?;
                if plan.present.is_none() {
                    done.outcome = Outcome::Migrated;
                }
                Ok(done)
            })
        })
    }

    fn carry_out(
        &self,
        plan: &Plan,
        on_step: &mut dyn FnMut(&Step),
    ) -> Result<Done, MigrationError> {
        match &plan.present {
            Some(present) => self.check_present(plan, present, on_step),
            None => self.migrate(plan, on_step),
        }
    }

    fn migrate(&self, plan: &Plan, on_step: &mut dyn FnMut(&Step)) -> Result<Done, MigrationError> {
        let landing = self.landing(plan);
        let arrival = self.ship(plan, on_step)?;
        let evidence = {
            let twin = landing.twin(&arrival)?;
            self.prove(plan, &twin, on_step)?
        };
        let copy = landing.keep(&arrival)?;
        // The blob is proved, but the object that stays was unwrapped by a call of its own.
        if self.compare(&plan.key, &copy)? == Comparison::Different {
            self.to.destroy(&copy)?;
            return Err(self.copy_wrong(plan));
        }
        on_step(&Step::Kept);
        landing.complete()?;
        Ok(Done {
            outcome: Outcome::Migrated,
            evidence,
            suite: Some(arrival.suite),
            wider: None,
        })
    }

    fn landing<'a>(&self, plan: &'a Plan) -> Landing<'a, 't> {
        Landing {
            to: self.to,
            draft: &plan.draft,
            public_flags: plan.public_flags.as_ref(),
        }
    }

    /// Finds out whether the key of this name at the target is the origin's, and completes it.
    fn check_present(
        &self,
        plan: &Plan,
        present: &KeyInfo,
        on_step: &mut dyn FnMut(&Step),
    ) -> Result<Done, MigrationError> {
        let landing = self.landing(plan);
        let (evidence, suite) = match self.compare(&plan.key, present)? {
            Comparison::Different => return Err(landing.occupied()),
            Comparison::Same(evidence) => (evidence, None),
            Comparison::Unknown => {
                // A copy that may do more than either of the two can tell what they cannot tell each other.
                let arrival = self.ship(plan, on_step)?;
                let twin = landing.twin(&arrival)?;
                let to_twin = |token, key| {
                    let twin = Held {
                        token: self.to,
                        key: twin.info(),
                    };
                    compare(Held { token, key }, twin)
                };
                match (to_twin(self.from, &plan.key)?, to_twin(self.to, present)?) {
                    (Comparison::Same(evidence), Comparison::Same(_)) => {
                        (evidence, Some(arrival.suite))
                    }
                    (Comparison::Different, _) => return Err(self.copy_wrong(plan)),
                    (_, Comparison::Different) => return Err(landing.occupied()),
                    (Comparison::Unknown, _) | (_, Comparison::Unknown) => {
                        return Err(landing.cannot_know());
                    }
                }
            }
        };
        on_step(&Step::Proved(evidence));
        let outcome = if landing.complete()? {
            Outcome::Completed
        } else {
            Outcome::AlreadyThere
        };
        Ok(Done {
            outcome,
            evidence: Some(evidence),
            suite,
            wider: present.flags.widened_from(&plan.draft.flags),
        })
    }

    /// Wraps at the origin and opens at the target, under the first suite that both really do.
    fn ship(
        &self,
        plan: &Plan,
        on_step: &mut dyn FnMut(&Step),
    ) -> Result<Arrival<'t>, MigrationError> {
        let mut temporary: Option<SessionKey<'t>> = None;
        let mut tried = Vec::new();
        for suite in plan.suites.iter().copied() {
            let recipient = match (&self.via, &temporary) {
                (Some(via), _) => via,
                (None, Some(pair)) if pair.info().key_type.fits(suite) => pair.info(),
                (None, _) => {
                    let key_type = if TEMPORARY_RSA.fits(suite) {
                        TEMPORARY_RSA
                    } else {
                        KeyType::P256
                    };
                    match self.to.recipient_pair(key_type) {
                        Ok(pair) => temporary.insert(pair).info(),
                        Err(error @ HsmError::Token { .. }) => {
                            tried.push((suite, error.to_string()));
                            continue;
                        }
                        Err(error) => return Err(error.into()),
                    }
                }
            };
            let public = recipient.public_key()?;
            let wrapped = match self.from.wrap_for(public, suite, &[&plan.key]) {
                Ok(wrapped) => wrapped,
                Err(error @ HsmError::SuiteRefused { .. }) => {
                    tried.push((suite, error.to_string()));
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            match self.to.open_kek(recipient, suite, &wrapped.kek_blob) {
                Ok(kek) => {
                    let blob = wrapped.blobs.into_iter().flatten().collect::<Vec<_>>();
                    on_step(&Step::Recipient {
                        key_type: recipient.key_type,
                        fingerprint: public.fingerprint(),
                        temporary: self.via.is_none(),
                    });
                    on_step(&Step::Wrapped {
                        suite,
                        bytes: wrapped.kek_blob.len() + blob.len(),
                    });
                    return Ok(Arrival { kek, blob, suite });
                }
                Err(error @ (HsmError::SuiteRefused { .. } | HsmError::BlobRejected { .. })) => {
                    tried.push((suite, error.to_string()));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(MigrationError::NoCommonSuite {
            from: self.from.label().into(),
            to: self.to.label().into(),
            tried,
        })
    }

    fn prove(
        &self,
        plan: &Plan,
        twin: &SessionKey<'_>,
        on_step: &mut dyn FnMut(&Step),
    ) -> Result<Option<Evidence>, MigrationError> {
        match self.compare(&plan.key, twin.info())? {
            Comparison::Same(evidence) => {
                on_step(&Step::Proved(evidence));
                Ok(Some(evidence))
            }
            Comparison::Different => Err(self.copy_wrong(plan)),
            Comparison::Unknown if self.unproved => Ok(None),
            Comparison::Unknown => Err(MigrationError::Unprovable {
                label: plan.key.name(),
                from: self.from.label().into(),
                to: self.to.label().into(),
            }),
        }
    }

    /// Compares a key of the origin with one of the target.
    fn compare(&self, origin: &KeyInfo, copy: &KeyInfo) -> Result<Comparison, HsmError> {
        compare(
            Held {
                token: self.from,
                key: origin,
            },
            Held {
                token: self.to,
                key: copy,
            },
        )
    }

    fn copy_wrong(&self, plan: &Plan) -> MigrationError {
        MigrationError::CopyWrong {
            label: plan.key.name(),
            from: self.from.label().into(),
            to: self.to.label().into(),
        }
    }
}
