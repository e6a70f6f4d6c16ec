//! The broker: a process that holds a token's login, so that the station need not. The station asks it over a local socket for
//! what it would ask of a token ([`crate::station::Hsm`]), and gets it only if the broker's own rules say so.
//!
//! What it is for: whoever owns the station's account can ask, but not take. Keys are wrapped for devices only that the rules
//! given to the broker accept, orders are signed only if they are orders, of a kind that is allowed, and carry what was wrapped
//! here for that very device; everything is counted and logged.
//!
//! What it must never do: wrap toward a key that stands in no verified statement, sign bytes that it does not understand, take a
//! rule from the station, or say a PIN or a key. It has no request for any of that. What it cannot write down it does not do.
//!
//! [`wire`] is what passes through the socket, `guard` what may be done, `service` does it, `server` owns the socket;
//! [`BrokerClient`] is the station's end. The guide is `host/BROKER.md`.

mod error;
mod guard;
mod journal;
mod service;
pub mod wire;

#[cfg(unix)]
mod client;
#[cfg(not(unix))]
mod elsewhere;
#[cfg(unix)]
mod server;

#[cfg(unix)]
pub use client::{BrokerClient, status};
#[cfg(not(unix))]
pub use elsewhere::{Listener, status};
pub use error::{BrokerError, GuardError};
pub use guard::{AllowedKey, AllowedKeys, Guard, Limits};
pub use journal::Journal;
#[cfg(unix)]
pub use server::Listener;
pub use service::Service;

use keyferry_protocol::order::Kind;

/// The kinds of order that a broker signs unless it is told otherwise. `Rotate` gives a device away and `Wipe` destroys it: each
/// wants a word of its own.
pub const USUAL_KINDS: [Kind; 5] = [
    Kind::Enroll,
    Kind::Inject,
    Kind::Prove,
    Kind::Remove,
    Kind::Lock,
];
