//! The device side of keyferry: verifies signed orders, unwraps keys toward the device's own unwrap key, and keeps them
//! encrypted in NOR flash.
//!
//! A board gives a [`Platform`], feeds received bytes to a [`device::Device`] and sends the bytes it gives back. The crate
//! is `no_std`, holds no `unsafe` code, and uses no heap unless the `rsa` feature is on.
//!
//! The path of one key: [`device`] checks the order, [`unwrap`] opens the KEK and then the key in place, [`store`] writes
//! it encrypted, [`prove`] reads it back and proves it, and the store's commit makes all of it durable at once.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(all(feature = "rsa", not(target_has_atomic = "ptr")))]
compile_error!(
    "feature `rsa` does not build for targets without atomic compare-and-swap (thumbv6m): \
     crypto-bigint's heap integers need `alloc::sync::Arc`. Leave the feature off; the ECDH suites need no heap."
);

#[cfg(feature = "rsa")]
extern crate alloc;
#[cfg(test)]
extern crate std;

mod fmt;

pub mod application;
mod cipher;
pub mod device;
pub mod keys;
mod mac;
pub mod platform;
pub mod prove;
pub mod rng;
pub mod store;
pub mod unwrap;
pub mod wipe;

pub use keyferry_protocol as protocol;
pub use platform::Platform;

/// The guide's code is compiled.
#[cfg(doctest)]
#[doc = include_str!("../GUIDE.md")]
struct Guide;
