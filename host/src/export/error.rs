//! What can be wrong with an export, or with one that is taken in.

use std::path::PathBuf;

use keyferry_protocol::identity::Fingerprint;

use crate::hsm::{Flag, HsmError, KeyType};

/// Why an export is not made, or not taken.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The token.
    #[error(transparent)]
    Hsm(#[from] HsmError),
    /// The document is longer than any that is written.
    #[error("the document is longer than {limit} bytes")]
    TooLong {
        /// The most that is read, in bytes.
        limit: usize,
    },
    /// It is not a document of its format.
    #[error("this is not a document of format {format}: {reason}")]
    Malformed {
        /// The format's name.
        format: &'static str,
        /// What is wrong, and where.
        reason: String,
    },
    /// It is a document of another format or version.
    #[error("the document's format is '{found}', not '{wanted}'")]
    OtherFormat {
        /// The format it names.
        found: String,
        /// The format that is read here.
        wanted: &'static str,
    },
    /// What it says cannot be.
    #[error("the document contradicts itself: {0}")]
    Inconsistent(&'static str),
    /// There is no signature.
    #[error("the document is not signed")]
    Unsigned,
    /// The signature is none of its form.
    #[error("the signature is not an ECDSA P-256 signature in DER")]
    SignatureMalformed,
    /// It is signed by another key.
    #[error("the document is signed by {found}, not by {expected}")]
    OtherSigner {
        /// The key that was given.
        expected: Fingerprint,
        /// The key that the document names.
        found: Fingerprint,
    },
    /// The signature is not the signer's over this document.
    #[error("the document's signature is wrong: it was altered after it was signed")]
    Altered,
    /// The key to verify with is no P-256 key.
    #[error("documents are signed with p-256 keys; this key is of type {0}")]
    SignerType(KeyType),
    /// The key to sign with may do more than sign.
    #[error("key '{label}' may do more than sign ({} is true)", flag.attribute())]
    NotSignOnly {
        /// The key's label.
        label: String,
        /// The attribute that is true.
        flag: Flag,
    },
    /// The key is of a type that no document can name.
    #[error("key '{label}' is of type {found}, which cannot be exported")]
    UnsupportedType {
        /// The key's label.
        label: String,
        /// Its type.
        found: KeyType,
    },
    /// The blob is not the one the document describes.
    #[error(
        "the blob of '{name}' is not the one that was signed for (SHA-256 {found}, not {expected})"
    )]
    OtherBlob {
        /// The key's label or the blob's file.
        name: String,
        /// The digest in the document.
        expected: String,
        /// The digest of the blob.
        found: String,
    },
    /// The blob has not the length that the document says.
    #[error("the blob of '{name}' has {found} bytes where {expected} were signed for")]
    BlobLength {
        /// The key's label or the blob's file.
        name: String,
        /// The length in the document, in bytes.
        expected: usize,
        /// The length of the blob, in bytes.
        found: usize,
    },
    /// It was wrapped for somebody else.
    #[error("this was wrapped for the key {found}, not for {expected}")]
    OtherRecipient {
        /// The key that is to open it.
        expected: Fingerprint,
        /// The key that the document names.
        found: Fingerprint,
    },
    /// A strict importer would refuse the blob.
    #[error(
        "the token puts zeros behind key '{label}' (type {key_type}) when it wraps it; strict importers refuse that"
    )]
    ZeroTail {
        /// The key's label.
        label: String,
        /// Its type.
        key_type: KeyType,
    },
    /// The backend's key is not of the type that takes keys.
    #[error("a backend's KEK is an rsa key; this one is of type {0}")]
    BackendKey(KeyType),
    /// There is something where a folder is to be made.
    #[error("{} exists already", .0.display())]
    FolderExists(PathBuf),
    /// A file of a folder is not there.
    #[error("'{0}' is not there: the folder is not complete")]
    Incomplete(String),
    /// There is a file in a folder that the manifest does not name.
    #[error("'{0}' does not belong to the folder: the manifest does not name it")]
    Stray(String),
    /// A file cannot be read.
    #[error("{} cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error("{} cannot be written: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// More was asked for than the key may do at its origin.
    #[error("{} was not so at the origin; attributes may only narrow", flag.attribute())]
    Widened {
        /// The attribute.
        flag: Flag,
    },
    /// The copy of a key does not answer as the origin's did.
    #[error("the key is not the one that the origin made its proof with")]
    ProofWrong,
}

impl ExportError {
    /// The next move for a person, where there is one to name.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Hsm(error) => return error.hint(),
            Self::TooLong { .. } | Self::Malformed { .. } => {
                "is this the document that `keyferry` wrote beside the blob?"
            }
            Self::OtherFormat { .. } => "a newer or older keyferry wrote it",
            Self::Unsigned => {
                "ask for the signature file; --unauthenticated takes the document on trust"
            }
            Self::SignatureMalformed | Self::Altered | Self::Inconsistent(_) => {
                "do not use it; ask the sender for a new export"
            }
            Self::OtherSigner { .. } => {
                "ask the sender, by another way than the file came, for the signer's public key"
            }
            Self::SignerType(_) => "give the public key of the key that signed",
            Self::NotSignOnly { .. } => "create one for this: key create --type p-256 --usage sign",
            Self::UnsupportedType { .. } | Self::Read { .. } | Self::Write { .. } => return None,
            Self::ZeroTail { .. } => {
                "use a token that adds none (see `keyferry hsm probe`); --allow-zero-tail, or in a station's plan `allow-zero-tail = true` under [backend], is for importers that cut them off"
            }
            Self::BackendKey(_) => "ask the backend for an rsa key",
            Self::FolderExists(_) => {
                "name a new folder; `keyferry key verify-export` says whether that one is complete"
            }
            Self::Incomplete(_) | Self::Stray(_) => {
                "do not use the folder; ask the sender for it again"
            }
            Self::OtherBlob { .. } | Self::BlobLength { .. } => {
                "the blob was damaged or exchanged; ask the sender for a new export"
            }
            Self::OtherRecipient { .. } => "ask the sender to wrap for this key's fingerprint",
            Self::Widened { .. } => "leave it out; only the origin can give a key more rights",
            Self::ProofWrong => "take the copy off the token; ask the sender for a new export",
        };
        Some(hint.into())
    }
}
