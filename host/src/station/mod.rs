//! The station: what brings HSM and device together. Here a key's path can be read from end to end: wrapped in the token
//! toward the unwrap key of a verified statement, ordered, delivered, and proved against the token's own copy.

mod hsm;
mod job;
pub mod policy;
pub mod registry;

pub use hsm::{Hsm, KeptCard, KeyCard, LocalHsm, Recipient, TokenSigner};
pub use job::{
    JobError, Proved, Shipping, Target, check_one, check_proofs, choose_suite, inject, pack, prove,
};
