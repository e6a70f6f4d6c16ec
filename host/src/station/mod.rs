//! The station: what brings HSM and device together. Here a key's path can be read from end to end: wrapped in the token
//! toward the unwrap key of a verified statement, ordered, delivered, and proved against the token's own copy.
//!
//! [`Visitor`] decides who a device is, `job` does what it is visited for, [`Scribe`] writes it down, and [`Hsm`] is all
//! that is asked of an HSM.

mod database;
mod finding;
mod hsm;
mod job;
pub mod journal;
pub mod offline;
pub mod plan;
pub mod policy;
mod records;
pub mod registry;
pub mod report;
pub mod run;
mod shared_hsm;
mod visit;

pub use hsm::{
    Backend, Ca, DerivedCard, Exported, Hsm, KeptCard, KeyCard, LocalHsm, Recipient, Signers,
    TokenSigner,
};
pub(crate) use job::slots_in_words;
pub use job::{
    JobError, Proved, Shipping, Target, certify, check_one, check_proofs, check_targets,
    choose_suite, inject, pack, prove,
};
pub use records::{Patience, Records, Scribe, Told};
pub use shared_hsm::{MAXIMUM_SEATS, SharedHsm};
pub use visit::{Visit, Visitor, identity_of};
