//! What a key becomes at the target: as at the origin, never more.

use crate::hsm::{Flag, Flags, KeyClass, KeyDraft, KeyInfo, KeyType};

/// The copy: same label, id and usages; sensitive, and not extractable unless that is wanted.
pub(super) fn draft(key: &KeyInfo, extractable: bool) -> KeyDraft {
    let mut set = vec![
        Flag::Token,
        Flag::Private,
        Flag::Destroyable,
        Flag::Sensitive,
    ];
    if extractable {
        set.push(Flag::Extractable);
    }
    set.extend(kept(&key.flags));
    KeyDraft {
        class: key.class,
        key_type: key.key_type,
        label: key.label.clone(),
        id: key.id.clone(),
        flags: Flags::of(key.class, &set),
        public_key: key.public_key.clone(),
    }
}

/// The attributes of the public half: as at the origin; if the origin has none, what belongs to the private key's.
pub(super) fn public_flags(key: &KeyInfo) -> Option<Flags> {
    if key.class != KeyClass::Private {
        return None;
    }
    let mut set = vec![Flag::Token, Flag::Destroyable];
    match &key.public_flags {
        Some(flags) => set.extend(kept(flags)),
        None => set.extend(key.flags.public_usages()),
    }
    Some(Flags::of(KeyClass::Public, &set))
}

/// The usages and protections that a copy keeps.
fn kept(flags: &Flags) -> impl Iterator<Item = Flag> + '_ {
    flags
        .known()
        .filter(|(flag, value)| {
            *value
                && (flag.is_usage()
                    || matches!(flag, Flag::WrapWithTrusted | Flag::AlwaysAuthenticate))
        })
        .map(|(flag, _)| flag)
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
