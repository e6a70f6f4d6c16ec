//! Keys that a token makes for a trial and for nothing else.

use crate::hsm::derive::Diversification;
use crate::hsm::error::HsmError;
use crate::hsm::key::{Flag, Flags, KeyClass, KeyType};
use crate::hsm::pkcs11::{Connection, KeyHandle, SessionObject};
use crate::hsm::public_key::PublicKey;

/// Label of every object of a trial.
pub(super) const TRIAL_LABEL: &str = "keyferry trial";

/// A key that the token has just generated in the session, for one trial. There is no other way to make one of these, so no key
/// that belongs to anybody can get into a trial. It is destroyed with this value.
pub(super) struct ThrowAway<'c> {
    object: SessionObject<'c>,
    key_type: KeyType,
    /// The public half of a pair.
    public: Option<(SessionObject<'c>, PublicKey)>,
}

impl<'c> ThrowAway<'c> {
    /// Generates a key with these attributes beside those that all such keys have. The public half of a pair can verify.
    pub(super) fn generate(
        connection: &'c Connection,
        key_type: KeyType,
        set: &[Flag],
    ) -> Result<Self, HsmError> {
        let set: Vec<_> = [Flag::Private, Flag::Destroyable, Flag::Sensitive]
            .into_iter()
            .chain(set.iter().copied().filter(|flag| *flag != Flag::Token))
            .collect();
        if !key_type.is_pair() {
            let flags = Flags::of(KeyClass::Secret, &set);
            let handle = connection.generate_secret(key_type, TRIAL_LABEL, &[], &flags)?;
            return Ok(Self {
                object: connection.guard(handle),
                key_type,
                public: None,
            });
        }
        let mut public_set = vec![Flag::Destroyable];
        if set.contains(&Flag::Sign) {
            public_set.push(Flag::Verify);
        }
        let (public, private) = connection.generate_pair(
            key_type,
            TRIAL_LABEL,
            &[],
            &Flags::of(KeyClass::Public, &public_set),
            &Flags::of(KeyClass::Private, &set),
        )?;
        let (public, object) = (connection.guard(public), connection.guard(private));
        let numbers = connection
            .read(public.handle(), KeyClass::Public)?
            .public_key
            .ok_or_else(|| HsmError::NoPublicKey {
                label: TRIAL_LABEL.into(),
            })?;
        Ok(Self {
            object,
            key_type,
            public: Some((public, numbers)),
        })
    }

    /// Derives a key from another one of these, which must be an AES key that may derive. It is extractable.
    pub(super) fn derive(
        connection: &'c Connection,
        way: Diversification,
        master: &Self,
        input: &[u8],
        key_type: KeyType,
    ) -> Result<Self, HsmError> {
        let set = [
            Flag::Private,
            Flag::Destroyable,
            Flag::Sensitive,
            Flag::Extractable,
        ];
        let flags = Flags::of(KeyClass::Secret, &set);
        Ok(Self {
            object: connection.diversify(
                way,
                master.handle(),
                input,
                key_type,
                TRIAL_LABEL,
                &flags,
            )?,
            key_type,
            public: None,
        })
    }

    /// Gives the object of a secret key away.
    pub(super) fn into_object(self) -> SessionObject<'c> {
        self.object
    }

    /// The secret or private key.
    pub(super) fn handle(&self) -> KeyHandle {
        self.object.handle()
    }

    pub(super) fn key_type(&self) -> KeyType {
        self.key_type
    }

    /// The public key of a pair.
    pub(super) fn public_key(&self) -> Option<&PublicKey> {
        self.public.as_ref().map(|(_, numbers)| numbers)
    }

    /// The object that verifies: the public half, or the secret key itself.
    pub(super) fn verifier(&self) -> KeyHandle {
        match &self.public {
            Some((object, _)) => object.handle(),
            None => self.handle(),
        }
    }

    /// `CKA_CHECK_VALUE`, where the token has it.
    pub(super) fn check_value(&self, connection: &Connection) -> Result<Option<Vec<u8>>, HsmError> {
        Ok(connection
            .read(self.handle(), KeyClass::Secret)?
            .check_value)
    }
}
