//! Takes a key in from an export: the last two steps of a migration, when the origin is not there to ask.

use std::cell::Cell;

use keyferry_protocol::suite::Suite;

use super::error::MigrationError;
use super::landing::{Arrival, Landing};
use super::{Done, Outcome, check_length};
use crate::export::{CopyProof, Tail};
use crate::hsm::{
    Comparison, Evidence, Flags, Held, KeyClass, KeyDraft, KeyInfo, SessionKey, Token, answers,
    compare, is_pair,
};

/// An export that is to become a key on a token.
pub struct Import<'t> {
    /// The target.
    pub to: &'t Token,
    /// The key of the target that the blob was wrapped for.
    pub with: KeyInfo,
    /// The suites to try; one, if it is known.
    pub suites: Vec<Suite>,
    /// What the key is to be.
    pub draft: KeyDraft,
    /// The attributes of its public half.
    pub public_flags: Option<Flags>,
    /// What the wrapped bytes end with.
    pub tail: Tail,
    /// What the origin's copy answered to a random question.
    pub proof: Option<CopyProof>,
}

impl<'t> Import<'t> {
    /// Unwraps, proves as far as there is something to prove it by, and keeps the key. A key that is there already is compared and
    /// left as it is.
    ///
    /// # Errors
    /// [`MigrationError`]; the token is as before then.
    pub fn run(&self, blob: &[u8]) -> Result<Done, MigrationError> {
        let draft = &self.draft;
        check_length(draft.class, draft.key_type, &draft.label, || {
            Ok::<_, MigrationError>(self.tail == Tail::Zeros)
        })?;
        let before = Cell::new(None);
        self.to.alive(|| {
            let present = self.landing().present()?;
            // Lost and done again, the key may be there from the first time.
            let was_there = before.get().unwrap_or(present.is_some());
            before.set(Some(was_there));
            let mut done = self.carry_out(blob, present)?;
            if !was_there {
                done.outcome = Outcome::Migrated;
            }
            Ok(done)
        })
    }

    fn carry_out(&self, blob: &[u8], present: Option<KeyInfo>) -> Result<Done, MigrationError> {
        let landing = self.landing();
        let (arrival, twin) = self.open(&landing, blob)?;
        let evidence = self.evidence(twin.info())?;
        let held = |key| Held {
            token: self.to,
            key,
        };
        if let Some(present) = present {
            return match compare(held(twin.info()), held(&present))? {
                Comparison::Different => Err(landing.occupied()),
                Comparison::Unknown => Err(landing.cannot_know()),
                Comparison::Same(_) => Ok(Done {
                    outcome: if landing.complete()? {
                        Outcome::Completed
                    } else {
                        Outcome::AlreadyThere
                    },
                    evidence,
                    suite: Some(arrival.suite),
                    wider: present.flags.widened_from(&self.draft.flags),
                }),
            };
        }
        let copy = landing.keep(&arrival)?;
        if compare(held(twin.info()), held(&copy))? == Comparison::Different {
            self.to.destroy(&copy)?;
            return Err(self.other_key());
        }
        landing.complete()?;
        Ok(Done {
            outcome: Outcome::Migrated,
            evidence,
            suite: Some(arrival.suite),
            wider: None,
        })
    }

    fn landing(&self) -> Landing<'_, 't> {
        Landing {
            to: self.to,
            draft: &self.draft,
            public_flags: self.public_flags.as_ref(),
        }
    }

    /// Opens the blob under the first suite that works. A wrong ECDH suite gives a KEK as well, so the key must come out too.
    fn open(
        &self,
        landing: &Landing<'_, 't>,
        blob: &[u8],
    ) -> Result<(Arrival<'t>, SessionKey<'t>), MigrationError> {
        let mut tried = Vec::new();
        for suite in self.suites.iter().copied() {
            let opened = self
                .to
                .open_blob(&self.with, suite, blob)
                .map_err(MigrationError::from)
                .and_then(|(kek, rest)| {
                    let arrival = Arrival {
                        kek,
                        blob: rest.to_vec(),
                        suite,
                    };
                    let twin = landing.twin(&arrival)?;
                    Ok((arrival, twin))
                });
            match opened {
                Err(error) if error.is_about_the_blob() => tried.push((suite, error)),
                result => return result,
            }
        }
        // Where one suite was named, or fits at all, the token's own words say most.
        if tried.len() == 1
            && let Some((_, error)) = tried.pop()
        {
            return Err(error);
        }
        Err(MigrationError::NotOpened {
            to: self.to.label().into(),
            tried: tried
                .into_iter()
                .map(|(suite, error)| (suite, error.to_string()))
                .collect(),
        })
    }

    /// How it is known that the unwrapped key is the one that was exported; nothing if there is nothing to tell by.
    fn evidence(&self, twin: &KeyInfo) -> Result<Option<Evidence>, MigrationError> {
        let held = Held {
            token: self.to,
            key: twin,
        };
        let comparison = match (&self.draft.class, &self.draft.public_key, &self.proof) {
            (KeyClass::Private, Some(public), _) => is_pair(held, public)?,
            (KeyClass::Secret, _, Some(proof)) => {
                answers(held, proof.algorithm, &proof.input, &proof.value)?
            }
            _ => Comparison::Unknown,
        };
        match comparison {
            Comparison::Same(evidence) => Ok(Some(evidence)),
            Comparison::Unknown => Ok(None),
            Comparison::Different => Err(self.other_key()),
        }
    }

    fn other_key(&self) -> MigrationError {
        MigrationError::OtherKey {
            label: self.draft.label.clone(),
            to: self.to.label().into(),
        }
    }
}
