//! The station: what brings HSM and device together. Here a key's path can be read from end to end: wrapped in the token
//! toward the unwrap key of a verified statement, ordered, delivered, and proved against the token's own copy.

mod job;

pub use job::{JobError, Proved, Shipping, Target, TokenAuthority, choose_suite, inject, prove};
