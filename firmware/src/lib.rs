//! The device side of keyferry: verifies signed orders, unwraps keys toward the device's own unwrap key, and keeps them
//! encrypted in NOR flash.
//!
//! A board gives a [`Platform`], feeds received bytes to a [`device::Device`] and sends the bytes it gives back. The crate
//! is `no_std`, holds no `unsafe` code, and uses no heap unless the `rsa-keys` feature
//! is on, which RSA suites bring with them.
//!
//! The path of one key: [`device`] checks the order, [`unwrap`] opens the KEK and then the key in place, [`store`] writes
//! it encrypted, [`prove`] reads it back and proves it, and the store's commit makes all of it durable at once.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(all(feature = "rsa-keys", not(target_has_atomic = "ptr")))]
compile_error!(
    "feature `rsa-keys`, and `rsa` with it, does not build for targets without atomic compare-and-swap (thumbv6m): \
     crypto-bigint's heap integers need `alloc::sync::Arc`. Leave the feature off; the ECDH suites need no heap."
);

#[cfg(not(any(
    feature = "ecdh-p256-null",
    feature = "ecdh-p256-x963-sha256",
    feature = "rsa-oaep-sha256",
    feature = "rsa-oaep-sha1"
)))]
compile_error!(
    "no suite is switched on, so that the device could not open a key: \
     choose `ecdh-p256-null`, `ecdh-p256-x963-sha256`, `rsa-oaep-sha256` or `rsa-oaep-sha1`."
);
#[cfg(all(
    feature = "rsa-generation",
    not(any(feature = "rsa-oaep-sha256", feature = "rsa-oaep-sha1"))
))]
compile_error!(
    "feature `rsa-generation` makes an unwrap key for which no suite is switched on: \
     add `rsa-oaep-sha256` or `rsa-oaep-sha1`, or leave it off."
);

#[cfg(feature = "rsa-keys")]
extern crate alloc;
#[cfg(test)]
extern crate std;

mod fmt;

pub mod application;
mod cipher;
pub mod device;
pub mod health;
pub mod keys;
pub mod led;
mod mac;
pub mod platform;
pub mod prove;
pub mod rng;
pub mod root_page;
pub mod store;
pub mod unwrap;
pub mod wipe;

pub use keyferry_protocol as protocol;
pub use platform::Platform;

/// The guide's code is compiled.
#[cfg(doctest)]
#[doc = include_str!("../GUIDE.md")]
struct Guide;
