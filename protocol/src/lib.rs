//! What a keyferry station and a keyferry device say to each other.
//!
//! Two signed things cross the wire and mirror each other: an [`order`] changes the device, a [`receipt`] states what the
//! device did. Everything else is an unsigned [`message`] that changes nothing and from which nothing is decided. Messages
//! travel in the frames of a [`link`].
//!
//! This crate holds layouts and state machines only. It must never hold cryptography, a clock, a port or an allocation:
//! both ends, every test and every fuzzer share it as it is. The normative text is `SPEC.md` beside it.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod attributes;
mod codec;
pub mod identity;
pub mod link;
pub mod message;
pub mod order;
pub mod proof;
pub mod receipt;
pub mod suite;

pub use codec::{DecodeError, TooLong};

/// The protocol version this crate speaks, exchanged in the greeting.
pub const VERSION: u8 = 0;

/// The oldest protocol version this crate still speaks.
pub const VERSION_MIN: u8 = 0;

/// Slots of a device: slot numbers run from 0 to `MAX_SLOTS - 1`.
pub const MAX_SLOTS: usize = 16;

/// Entries one order can carry.
pub const MAX_ENTRIES: usize = 16;

/// Longest message in bytes, and so the longest signed order or receipt with its signature around it.
pub const MAX_MESSAGE: usize = 2048;

/// Longest wrapped blob in bytes: an RSA-4096 private key as PKCS#8 DER (at most 2 376 bytes) under AES-KWP.
pub const MAX_BLOB: usize = 2432;

/// Longest certificate of an identity key in bytes of DER.
pub const MAX_CERTIFICATE: usize = 1024;

/// Longest certificate of a vendor key in bytes of DER: what fits into a statement beside an RSA-4096 unwrap key.
pub const MAX_VENDOR_CERTIFICATE: usize = 768;

/// Bytes of all questions in one order.
pub const MAX_QUESTIONS: usize = 512;
