//! The target's half of a migration or an import: what is there already, the copy in a session that is proved first, the copy
//! that stays, its public half.

use keyferry_protocol::suite::Suite;

use super::draft::proving_usages;
use super::error::MigrationError;
use crate::hsm::{
    Flags, HsmError, KeyClass, KeyDraft, KeyInfo, KeySpec, OpenKek, SessionKey, Token,
};

/// A key that has arrived: its KEK is open at the target, under the suite that worked.
pub(super) struct Arrival<'t> {
    pub(super) kek: OpenKek<'t>,
    pub(super) blob: Vec<u8>,
    pub(super) suite: Suite,
}

/// Where a key is to land.
pub(super) struct Landing<'a, 't> {
    pub(super) to: &'t Token,
    pub(super) draft: &'a KeyDraft,
    /// The attributes of the public half.
    pub(super) public_flags: Option<&'a Flags>,
}

impl<'t> Landing<'_, 't> {
    /// The key's name in messages.
    pub(super) fn name(&self) -> String {
        if self.draft.label.is_empty() {
            format!("id {}", hex::encode(&self.draft.id))
        } else {
            self.draft.label.clone()
        }
    }

    pub(super) fn occupied(&self) -> MigrationError {
        MigrationError::Occupied {
            label: self.name(),
            to: self.to.label().into(),
        }
    }

    pub(super) fn cannot_know(&self) -> MigrationError {
        MigrationError::CannotKnow {
            label: self.name(),
            to: self.to.label().into(),
        }
    }

    /// Makes a token's complaint about this key one about the key.
    fn not_taken(&self, error: HsmError) -> MigrationError {
        match error {
            error @ (HsmError::BlobRejected { .. }
            | HsmError::MechanismMissing { .. }
            | HsmError::Widened { .. }
            | HsmError::WrongKeyType { .. }
            | HsmError::Token { .. }) => MigrationError::NotTaken {
                label: self.name(),
                to: self.to.label().into(),
                reason: Box::new(error),
            },
            other => other.into(),
        }
    }

    /// The key of this name at the target, if there is one. Something else of that name is an error.
    pub(super) fn present(&self) -> Result<Option<KeyInfo>, MigrationError> {
        let id = Some(self.draft.id.clone()).filter(|id| !id.is_empty());
        let by_name = if self.draft.label.is_empty() {
            KeySpec {
                id: id.clone(),
                ..KeySpec::default()
            }
        } else {
            KeySpec::label(&self.draft.label)
        };
        let exactly = KeySpec {
            id,
            ..by_name.clone()
        };
        let found = match self.to.key(&by_name) {
            Err(HsmError::SeveralKeys { .. }) => self.to.key(&exactly),
            result => result,
        };
        self.check_id()?;
        match found {
            Ok(found) if found.class == self.draft.class => Ok(Some(found)),
            Ok(_) => Err(self.occupied()),
            Err(HsmError::NoSuchKey { .. }) => {
                // Another public half is found before the private one is kept, not after.
                self.lacks_public()?;
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Refuses an id under which the target has something else: what finds a pair by its id would find the wrong halves.
    fn check_id(&self) -> Result<(), MigrationError> {
        if self.draft.id.is_empty() {
            return Ok(());
        }
        let taken = || MigrationError::IdTaken {
            id: hex::encode(&self.draft.id),
            to: self.to.label().into(),
        };
        for class in [None, Some(KeyClass::Public)] {
            let spec = KeySpec {
                id: Some(self.draft.id.clone()),
                label: None,
                class,
            };
            match self.to.key(&spec) {
                Ok(found) if found.label == self.draft.label => {}
                Err(HsmError::NoSuchKey { .. }) => {}
                Ok(_) | Err(HsmError::SeveralKeys { .. }) => return Err(taken()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// The key in a session of the target, with the rights that a proof takes. It is proved before the key is kept.
    pub(super) fn twin(&self, arrival: &Arrival<'t>) -> Result<SessionKey<'t>, MigrationError> {
        let usages = proving_usages(self.draft);
        arrival
            .kek
            .unwrap_to_session(&arrival.blob, self.draft, usages)
            .map_err(|error| self.not_taken(error))
    }

    /// The key on the target, to stay.
    pub(super) fn keep(&self, arrival: &Arrival<'t>) -> Result<KeyInfo, MigrationError> {
        arrival
            .kek
            .unwrap_to_token(&arrival.blob, self.draft)
            .map_err(|error| self.not_taken(error))
    }

    /// Puts the public half beside a private key if it is not there. Says whether it was missing.
    pub(super) fn complete(&self) -> Result<bool, MigrationError> {
        let (Some(public), Some(flags), true) = (
            &self.draft.public_key,
            self.public_flags,
            self.lacks_public()?,
        ) else {
            return Ok(false);
        };
        let draft = self.draft;
        self.to
            .import_public(public, &draft.label, &draft.id, flags)?;
        Ok(true)
    }

    /// Whether the public half of a private key is not there. Another one in its place is an error.
    fn lacks_public(&self) -> Result<bool, MigrationError> {
        let (Some(public), Some(_)) = (&self.draft.public_key, self.public_flags) else {
            return Ok(false);
        };
        let spec = KeySpec {
            class: Some(KeyClass::Public),
            label: Some(self.draft.label.clone()).filter(|label| !label.is_empty()),
            id: Some(self.draft.id.clone()).filter(|id| !id.is_empty()),
        };
        match self.to.key(&spec) {
            Ok(found) if found.public_key.as_ref() == Some(public) => Ok(false),
            Ok(_) | Err(HsmError::SeveralKeys { .. }) => Err(self.occupied()),
            Err(HsmError::NoSuchKey { .. }) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }
}
