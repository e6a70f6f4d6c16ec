//! The station's side of keyferry: keys leave an HSM wrapped toward a device's own public key, or toward another HSM.
//!
//! No type of this crate can hold a clear key; what it carries are public keys, wrapped blobs and signed statements.

pub mod audit;
pub mod broker;
pub mod certificate;
pub mod cli;
pub mod device;
pub mod emulate;
pub mod error;
pub mod export;
pub mod hsm;
pub mod migration;
mod pem;
pub mod station;
