//! Why a key was not migrated.

use keyferry_protocol::suite::Suite;

use crate::export::ExportError;
use crate::hsm::{HsmError, KeyType};

/// Why a key was not migrated. Nothing of it is on the target then, unless the message says so.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// One of the two tokens.
    #[error(transparent)]
    Hsm(#[from] HsmError),
    /// A copy is to have what the origin's key has not.
    #[error(transparent)]
    Attributes(Box<ExportError>),
    /// A public key is no secret; it moves by itself.
    #[error("'{0}' is a public key")]
    PublicKey(String),
    /// A key of a type that cannot be migrated.
    #[error("key '{label}' is of a type that is not supported ({found})")]
    UnsupportedType {
        /// The key.
        label: String,
        /// Its type.
        found: KeyType,
    },
    /// There is no suite under which the origin wraps and the target unwraps.
    #[error("'{from}' and '{to}' have no suite in common: {}", reasons(tried))]
    NoCommonSuite {
        /// The origin's label.
        from: String,
        /// The target's label.
        to: String,
        /// What was tried, and what the token that refused said.
        tried: Vec<(Suite, String)>,
    },
    /// The target does not take the key.
    #[error("token '{to}' does not take key '{label}': {reason}")]
    NotTaken {
        /// The key.
        label: String,
        /// The target's label.
        to: String,
        /// What it said.
        reason: Box<HsmError>,
    },
    /// The target has another key of this label.
    #[error("token '{to}' has another key '{label}'")]
    Occupied {
        /// The key.
        label: String,
        /// The target's label.
        to: String,
    },
    /// The target has something else under the key's id.
    #[error("token '{to}' has another key of id {id}")]
    IdTaken {
        /// `CKA_ID` in hexadecimal digits.
        id: String,
        /// The target's label.
        to: String,
    },
    /// What was unwrapped at the target is not the origin's key.
    #[error("what token '{to}' unwrapped is not key '{label}' of '{from}'")]
    CopyWrong {
        /// The key.
        label: String,
        /// The origin's label.
        from: String,
        /// The target's label.
        to: String,
    },
    /// A secret key that would come out longer than it went in. An HMAC does not show it, as it fills keys up with zeros itself.
    #[error(
        "key '{label}' of {bits} bits would arrive with zeros at its end: the origin fills keys up to eight bytes"
    )]
    Lengthened {
        /// The key.
        label: String,
        /// Its length in bits.
        bits: u16,
    },
    /// What came out of an export is not the key that the export describes.
    #[error("what token '{to}' unwrapped is not the key '{label}' that the export describes")]
    OtherKey {
        /// The key.
        label: String,
        /// The target's label.
        to: String,
    },
    /// The blob opens under none of the suites.
    #[error("token '{to}' does not open the blob: {}", reasons(tried))]
    NotOpened {
        /// The target's label.
        to: String,
        /// What was tried, and what the token said.
        tried: Vec<(Suite, String)>,
    },
    /// There is nothing that the key may do at the origin and that both tokens do with such a key.
    #[error(
        "the copy of key '{label}' cannot be proved: '{from}' and '{to}' have nothing to compare it by"
    )]
    Unprovable {
        /// The key.
        label: String,
        /// The origin's label.
        from: String,
        /// The target's label.
        to: String,
    },
    /// There is a key of this name on the target, and nobody can tell whether it is the same.
    #[error("token '{to}' has a key '{label}', and whether it is the same cannot be known")]
    CannotKnow {
        /// The key.
        label: String,
        /// The target's label.
        to: String,
    },
}

impl From<ExportError> for MigrationError {
    fn from(error: ExportError) -> Self {
        Self::Attributes(Box::new(error))
    }
}

impl MigrationError {
    /// Whether it says that the blob does not open under this suite, so that another one may be tried.
    pub(super) fn is_about_the_blob(&self) -> bool {
        let error = match self {
            Self::Hsm(error) => error,
            Self::NotTaken { reason, .. } => reason,
            _ => return false,
        };
        matches!(
            error,
            HsmError::SuiteRefused { .. } | HsmError::BlobRejected { .. }
        )
    }

    /// The next move for a person, where there is one to name.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Hsm(error) => return error.hint(),
            Self::Attributes(error) => return error.hint(),
            Self::PublicKey(_) => {
                "`keyferry key public` writes it to a file, `keyferry key import-public` reads it"
            }
            Self::UnsupportedType { .. } => {
                "aes, hmac, rsa, p-256, p-384 and ed25519 keys can be migrated"
            }
            Self::NoCommonSuite { .. } => {
                "`keyferry hsm probe` shows what each token can do; a key pair of another type may help: --via LABEL"
            }
            Self::NotTaken { .. } => "`keyferry hsm probe` shows what the target can do",
            Self::IdTaken { .. } => {
                "give one of the two another id with a tool of the token's maker"
            }
            Self::Occupied { .. } => {
                "rename or delete the key on the target, or give the origin's another label"
            }
            Self::CopyWrong { .. } => {
                "nothing was kept; one of the tokens wraps wrongly, see `keyferry hsm probe`"
            }
            Self::Lengthened { .. } => {
                "move it with a token that wraps as RFC 5649 has it; `keyferry hsm probe` tells"
            }
            Self::OtherKey { .. } => "nothing was kept; ask the sender for a new export",
            Self::NotOpened { .. } => {
                "the blob is damaged or was wrapped for another key; compare the recipient's fingerprint"
            }
            Self::Unprovable { .. } => {
                "--unproved migrates it without a proof; the key on the target is then taken on trust"
            }
            Self::CannotKnow { .. } => {
                "nothing was changed; compare where the keys are used, or delete the one on the target and migrate anew"
            }
        };
        Some(hint.into())
    }
}

fn reasons(tried: &[(Suite, String)]) -> String {
    if tried.is_empty() {
        return "the origin wraps under none".into();
    }
    let each: Vec<_> = tried
        .iter()
        .map(|(suite, reason)| format!("{suite}: {reason}"))
        .collect();
    each.join("; ")
}
