//! What a key becomes at the target: as at the origin, never more.

use crate::export::{ExportError, Wanted, narrow};
use crate::hsm::{Flag, Flags, KeyClass, KeyDraft, KeyInfo, KeyType};

/// The copy: same label, id and usages; sensitive, and not extractable unless that is wanted.
///
/// # Errors
/// [`ExportError::Widened`] if a copy is to have what the origin's key has not.
pub(super) fn draft(key: &KeyInfo, extractable: bool) -> Result<KeyDraft, ExportError> {
    let wanted = Wanted {
        extractable,
        usage: None,
    };
    Ok(KeyDraft {
        class: key.class,
        key_type: key.key_type,
        label: key.label.clone(),
        id: key.id.clone(),
        flags: narrow(key.class, &key.flags, &wanted)?,
        public_key: key.public_key.clone(),
    })
}

/// The attributes of the public half: as at the origin; if the origin has none, what belongs to the private key's.
///
/// # Errors
/// As [`draft`].
pub(super) fn public_flags(key: &KeyInfo) -> Result<Option<Flags>, ExportError> {
    if key.class != KeyClass::Private {
        return Ok(None);
    }
    match &key.public_flags {
        Some(flags) => narrow(KeyClass::Public, flags, &Wanted::default()).map(Some),
        None => Ok(Some(matching_public_flags(&key.flags))),
    }
}

/// The attributes of a public half that does what belongs to its private half's usages.
#[must_use]
pub fn matching_public_flags(private: &Flags) -> Flags {
    let mut set = vec![Flag::Token, Flag::Destroyable];
    set.extend(private.public_usages());
    Flags::of(KeyClass::Public, &set)
}

/// What a copy in a session may do so that it can be compared with the origin's key, whatever that one may do.
pub(super) const fn proving_usages(key: &KeyDraft) -> &'static [Flag] {
    match (key.class, key.key_type) {
        (KeyClass::Secret, KeyType::Aes { .. }) => &[
            Flag::Sign,
            Flag::Verify,
            Flag::Encrypt,
            Flag::Decrypt,
            Flag::Wrap,
            Flag::Unwrap,
        ],
        (KeyClass::Secret, _) => &[Flag::Sign, Flag::Verify],
        (KeyClass::Private | KeyClass::Public, _) => &[Flag::Sign],
    }
}
