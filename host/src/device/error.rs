//! What can go wrong between station and device.

use std::time::Duration;

use keyferry_protocol::receipt::Refusal;
use thiserror::Error;

use super::port::PortError;

/// What went wrong with a device or the line to it.
#[derive(Debug, Error)]
pub enum DeviceError {
    /// The port cannot be opened.
    #[error(transparent)]
    Open(#[from] PortError),
    /// The operating system failed on the port.
    #[error("port '{port}' failed")]
    Port {
        /// The port as given.
        port: String,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// Nothing at all came back.
    #[error("no answer from '{port}' within {} s", waited.as_secs())]
    Silent {
        /// The port as given.
        port: String,
        /// How long it was waited for.
        waited: Duration,
    },
    /// Bytes came back, but none that a device would send.
    #[error("what answers on '{port}' is no keyferry device ({bytes} bytes made no sense)")]
    Garbage {
        /// The port as given.
        port: String,
        /// How many bytes came.
        bytes: usize,
    },
    /// The other end of the port went before a device had answered.
    #[error("'{port}' was closed at its other end before a device answered{}", sent(*bytes))]
    HungUp {
        /// The port as given.
        port: String,
        /// How many bytes came before.
        bytes: usize,
    },
    /// The device was there and is gone.
    #[error("the device on '{port}' disappeared in mid-session")]
    Disappeared {
        /// The port as given.
        port: String,
    },
    /// The device restarted in mid-session.
    #[error("the device on '{port}' restarted in mid-session")]
    Restarted {
        /// The port as given.
        port: String,
    },
    /// The device has lost the order with the session, again and again: nothing was changed.
    #[error("the order was lost with the session on '{port}', and was not done")]
    NotDone {
        /// The port as given.
        port: String,
    },
    /// The device speaks no protocol version that this station speaks.
    #[error(
        "the device on '{port}' speaks another protocol version than this station ({min} to {max})"
    )]
    Version {
        /// The port as given.
        port: String,
        /// The oldest version offered.
        min: u8,
        /// The newest version offered.
        max: u8,
    },
    /// The device refused.
    #[error("the device refused the order: {refusal}")]
    Refused {
        /// Its reason.
        refusal: Refusal,
        /// Whether the refusal was signed by its identity key.
        signed: bool,
    },
    /// An answer that should prove something does not.
    #[error("the device's answer cannot be trusted: {reason}")]
    Untrusted {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An answer that does not belong to the question.
    #[error("the device answered something else than it was asked")]
    Unexpected,
    /// The order is too long for one message.
    #[error("the order is too long: fewer keys at a time")]
    TooLong,
    /// The device's counter leaves no number for this order.
    #[error("the device's counter leaves no number for another order")]
    CounterSpent,
    /// What was to be done could not be written down, so it was not done.
    #[error("what was to be done cannot be written down: {0}")]
    Witness(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// What the device has answered could not be written down.
    #[error("what the device has answered cannot be written down: {0}")]
    Unwitnessed(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The authority did not sign.
    #[error("the authority did not sign the order: {0}")]
    Authority(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl DeviceError {
    /// Whether an order may have been done although no answer came that can be believed: anybody on the cable can say no, cut it, or
    /// spoil an answer. Only what the device has signed, and what happened before the order left, says that it was not done.
    #[must_use]
    pub const fn leaves_order_open(&self) -> bool {
        match self {
            Self::Disappeared { .. }
            | Self::Restarted { .. }
            | Self::Port { .. }
            | Self::Silent { .. }
            | Self::Garbage { .. }
            | Self::HungUp { .. }
            | Self::Refused { signed: false, .. }
            | Self::Untrusted { .. }
            | Self::Unexpected
            | Self::Unwitnessed(_) => true,
            Self::Open(_)
            | Self::Version { .. }
            | Self::NotDone { .. }
            | Self::Refused { signed: true, .. }
            | Self::TooLong
            | Self::CounterSpent
            | Self::Witness(_)
            | Self::Authority(_) => false,
        }
    }

    /// Whether an answer was lost on the way, so that it is worth to ask again.
    #[must_use]
    pub const fn is_lost_answer(&self) -> bool {
        match self {
            Self::Disappeared { .. } | Self::Restarted { .. } => true,
            Self::Open(_)
            | Self::Port { .. }
            | Self::Silent { .. }
            | Self::Garbage { .. }
            | Self::HungUp { .. }
            | Self::Version { .. }
            | Self::NotDone { .. }
            | Self::Refused { .. }
            | Self::Untrusted { .. }
            | Self::Unexpected
            | Self::TooLong
            | Self::CounterSpent
            | Self::Witness(_)
            | Self::Unwitnessed(_)
            | Self::Authority(_) => false,
        }
    }

    /// The next move, for a person.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Open(error) => error.hint(),
            Self::Port { .. } => "unplug the adapter, plug it in again, and try once more",
            Self::Silent { .. } => {
                "check power, cable and port, and that no terminal has the port open; the device must run keyferry firmware"
            }
            Self::Garbage { .. } => {
                "check the cable, and that this is the device's keyferry port, not its console or a loopback plug; --capture FILE records what came"
            }
            Self::HungUp { .. } => {
                "check that a device is connected there and that nobody else is being served; --capture FILE records what came"
            }
            Self::NotDone { .. } => "check the cable, then run the command again",
            Self::Disappeared { .. } | Self::Restarted { .. } => {
                "check power, cable and port; an order under way was done whole or not at all: see `keyferry device list`"
            }
            Self::Version { .. } => "update the device's firmware or this program",
            Self::Refused { refusal, .. } => refusal_hint(*refusal),
            Self::Untrusted { .. } => {
                "do not use this device: something on the line is not what it claims to be"
            }
            Self::Unexpected => {
                "run the command again; if it stays, firmware and station do not match"
            }
            Self::TooLong => "split the keys over two orders",
            Self::CounterSpent => "take the device out of service: it takes no order any more",
            Self::Witness(_) => {
                "check audit log and registry; nothing was sent that is not in them"
            }
            Self::Unwitnessed(_) => {
                "check audit log and registry, then have the keys proved with `keyferry device prove`"
            }
            Self::Authority(_) => "check the token and the authority key",
        }
    }
}

fn sent(bytes: usize) -> String {
    match bytes {
        0 => String::new(),
        1 => " (1 byte came)".to_owned(),
        _ => format!(" ({bytes} bytes came)"),
    }
}

const fn refusal_hint(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Malformed | Refusal::UnknownVersion | Refusal::Unsupported => {
            "firmware and station do not match: update the older one"
        }
        Refusal::BadSignature => "the device obeys another authority: use that one's key",
        Refusal::WrongAddress => "the order was made for another device: make one for this device",
        Refusal::Stale | Refusal::Counter => "the order was used before: make a new one",
        Refusal::State => {
            "see `keyferry device info`: a blank device must be enrolled first, a locked one takes no keys any more, \
             a quarantined one takes `keyferry device wipe` only"
        }
        Refusal::Suite => "choose a suite that the device's statement offers",
        Refusal::Attributes => "choose a key type and proof that the firmware supports",
        Refusal::SlotTaken => "choose a free slot, or give a higher --version to replace the key",
        Refusal::VersionRollback => {
            "the slot has held this version or a newer one, and a removed key counts on: give a higher --version"
        }
        Refusal::StoreFull => "remove keys first, or use fewer or smaller ones",
        Refusal::Unwrap => "the blob was altered, or was not wrapped for this device: wrap again",
        Refusal::SlotEmpty => "see `keyferry device list`",
        Refusal::Entropy => "the device's hardware is not fit for keys: take it off the line",
        Refusal::Storage => {
            "restart the device: its flash could not be read or changed; if that stays, it is worn, or belongs to another board: take the device off the line"
        }
        Refusal::TooLong => "prove fewer keys in one order",
        Refusal::Sequence => "run the command again",
    }
}
