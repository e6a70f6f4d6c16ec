//! Keys that leave as files: the wrapped blob, beside it a document that says what it is, and the document's signature.
//!
//! Whoever takes such a key in knows from the signed document, and from nothing else, which key it is, what it may do and for
//! whom it was wrapped. A document is UTF-8 JSON. Its signature is ECDSA P-256 with SHA-256 over the file's exact bytes, in
//! DER, so that `openssl dgst -sha256 -verify signer.pem -signature FILE.json.sig FILE.json` checks it too. It is made by a
//! key of the HSM that can do nothing else. No other signature of that key can be mistaken for one of a document, or the
//! other way round: a document begins with `{` and then names its format, and everything else that is signed with such
//! keys begins with another tag.
//!
//! Verifying takes the signer's public key only, and no token. Nothing here can hold a clear key.

mod backend;
mod batch;
mod error;
mod folder;
mod narrow;
mod sidecar;
mod signature;
pub(crate) mod wire;

pub use backend::{
    DeviceAttributes, DeviceBlob, DeviceKey, MAXIMUM_KEYS, MAXIMUM_MANIFEST, Made, Manifest,
    MasterInfo,
};
pub use batch::{Batch, BatchKey, BatchOf, Source, check_backend};
pub use error::ExportError;
pub use folder::{Folder, MANIFEST, read_folder};
pub(crate) use folder::{make as make_folder, read_file, sync as sync_folder};
pub use narrow::{Wanted, narrow};
pub use sidecar::{
    BlobInfo, CopyProof, KeyDescription, MAXIMUM_DOCUMENT, RecipientInfo, Sidecar, Tail,
    sidecar_path, signature_path,
};
pub(crate) use sidecar::{read as read_document, to_json as write_document};
pub use signature::{MAXIMUM_SIGNATURE, Signer, Trust, sign};
