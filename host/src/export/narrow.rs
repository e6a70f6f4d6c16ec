//! What a copy may do: as much as the key at its origin or less, never more.

use super::error::ExportError;
use crate::hsm::{Flag, Flags, KeyClass};

/// What the importer wants a copy to be able to do.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted<'a> {
    /// Whether the copy may leave its token again.
    pub extractable: bool,
    /// What it may be used for; nothing given means: for what it may at the origin.
    pub usage: Option<&'a [Flag]>,
}

/// The attributes of a token object that is a copy of a key: sensitive, and extractable only if that is wanted and it is so at
/// the origin; usages as at the origin or fewer. What an origin does not say is taken as not allowed.
///
/// # Errors
/// [`ExportError::Widened`] if something is wanted that the origin does not have.
pub fn narrow(class: KeyClass, origin: &Flags, wanted: &Wanted<'_>) -> Result<Flags, ExportError> {
    let mut set = vec![Flag::Token, Flag::Destroyable];
    if class != KeyClass::Public {
        set.extend([Flag::Private, Flag::Sensitive]);
    }
    if wanted.extractable {
        set.push(Flag::Extractable);
    }
    set.extend(Flag::ALL.into_iter().filter(|flag| match wanted.usage {
        Some(usage) if flag.is_usage() => usage.contains(flag),
        Some(_) | None => flag.is_usage() && origin.has(*flag),
    }));
    // Protections stay.
    set.extend(
        [Flag::WrapWithTrusted, Flag::AlwaysAuthenticate]
            .into_iter()
            .filter(|flag| origin.has(*flag)),
    );
    let foreign = set
        .iter()
        .find(|flag| flag.is_usage() && !class.flags().contains(flag));
    if let Some(flag) = foreign {
        return Err(ExportError::Widened { flag: *flag });
    }
    let narrowed = Flags::of(class, &set);
    match narrowed.widened_from(origin) {
        Some(flag) => Err(ExportError::Widened { flag }),
        None => Ok(narrowed),
    }
}
