//! Why a broker does not do what it is asked, and why it cannot be asked.

use std::path::PathBuf;

use keyferry_protocol::identity::{DeviceId, Fingerprint};
use keyferry_protocol::order::{Kind, MAX_RECOVERED_COUNTER};

use super::wire::{Failed, FrameError};
use crate::error::{Exit, Failure};

/// Why a broker refuses. In each of them nothing was wrapped and nothing was signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GuardError {
    /// The key is not one of those that it was told to give out.
    #[error("the broker does not give out key '{label}'{}", device_use.as_ref().map(|wanted| format!(" for {wanted}")).unwrap_or_default())]
    KeyForbidden {
        /// The key.
        label: String,
        /// The use that was asked for, if another than the natural one.
        device_use: Option<String>,
    },
    /// What the station says of a key is not what the broker says of it.
    #[error("the broker knows key '{label}' with other attributes, or another proof")]
    OtherCard {
        /// The key.
        label: String,
    },
    /// No random keys are kept under this key.
    #[error("the broker keeps no keys of devices under '{label}'")]
    NoKeeper {
        /// The key.
        label: String,
    },
    /// Somebody who may not ask.
    #[error("user {0} may not use this broker")]
    Stranger(u32),
    /// The statement does not verify.
    #[error("the statement does not verify: {reason}")]
    NoStatement {
        /// What is wrong with it.
        reason: String,
    },
    /// The device obeys somebody else.
    #[error("device {device} obeys authority {found}, not {expected}")]
    OtherAuthority {
        /// The device.
        device: DeviceId,
        /// The broker's authority.
        expected: Fingerprint,
        /// That of the statement.
        found: Fingerprint,
    },
    /// The statement answers no order of this broker, and the broker's registry does not know the keys in it.
    #[error(
        "the statement of device {device} answers no recent order of this broker, and its keys are not pinned in the broker's registry"
    )]
    NotFresh {
        /// The device.
        device: DeviceId,
    },
    /// The suite is not allowed for the device.
    #[error("suite {suite} is not one that device {device} offers and the broker allows")]
    SuiteForbidden {
        /// The device.
        device: DeviceId,
        /// The suite.
        suite: keyferry_protocol::suite::Suite,
    },
    /// A limit is reached.
    #[error("the broker's limit of {limit} {what} is reached")]
    LimitReached {
        /// What is counted.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// Something else than an order was to be signed.
    #[error("what is to be signed is no order")]
    NotAnOrder,
    /// A document that is to be signed is no manifest of orders.
    #[error("what is to be signed is no manifest of detached orders: {reason}")]
    NotABatch {
        /// What is wrong.
        reason: String,
    },
    /// A manifest names an order that is not the broker's.
    #[error("the order for device {device} was not signed here, or too long ago")]
    NotSignedHere {
        /// The device.
        device: DeviceId,
    },
    /// Orders of this kind are not signed here.
    #[error("the broker signs no order of kind {}", .0.name())]
    KindForbidden(Kind),
    /// An `Enroll` for another authority, or a `Rotate` that is none.
    #[error("the order names an authority that it must not name")]
    AuthorityInOrder,
    /// An `Inject` with something that was not made here for this device.
    #[error("the order for device {device} carries {what} that this broker has not made for it")]
    NotMadeHere {
        /// The device.
        device: DeviceId,
        /// What it is.
        what: &'static str,
    },
    /// An `Inject` that gives a key other attributes, another name or another proof than it was wrapped for.
    #[error(
        "the order for device {device} gives key '{label}' another {what} than it was wrapped for"
    )]
    Widened {
        /// The device.
        device: DeviceId,
        /// The key.
        label: String,
        /// What differs.
        what: &'static str,
    },
    /// A `Wipe` that would leave a quarantined device few orders, or none.
    #[error(
        "the order gives device {device} the counter {counter}, and {MAX_RECOVERED_COUNTER} is the highest"
    )]
    CounterTooHigh {
        /// The device.
        device: DeviceId,
        /// The counter in the order.
        counter: u32,
    },
    /// The bytes that a proof is to be over are no proof input.
    #[error("what is to be verified is no proof of a device")]
    NotAProof,
    /// There is no audit key.
    #[error("the broker has no audit key")]
    NoAuditor,
    /// The chain of a log has gone back, or has another line where a checkpoint was.
    #[error(
        "the audit log is not the one of its last checkpoint: it has {found} lines, and had {known}"
    )]
    LogWentBack {
        /// Lines at the last checkpoint.
        known: u64,
        /// Lines now.
        found: u64,
    },
    /// The station's clock and the broker's differ too much.
    #[error("the checkpoint's time is {seconds} seconds off")]
    Clock {
        /// How much.
        seconds: u64,
    },
}

impl GuardError {
    /// The next move, for a person.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::KeyForbidden { .. } => {
                "whoever runs the broker can allow it: --allow-key LABEL, --allow-key LABEL=USE"
            }
            Self::Stranger(_) => "whoever runs the broker can allow it: --allow-uid",
            Self::NoKeeper { .. } => "whoever runs the broker can allow it: --keep-under LABEL",
            Self::OtherCard { .. } => "run the command again: the key on the token has changed",
            Self::NoStatement { .. } => {
                "do not use this device: something on the line is not what it claims to be"
            }
            Self::OtherAuthority { .. } => "use the broker of the device's own authority",
            Self::NotFresh { .. } => {
                "visit the device through this broker, or start the broker with the registry in which the device was enrolled"
            }
            Self::SuiteForbidden { .. } => {
                "choose another suite, or allow it where the broker is started"
            }
            Self::LimitReached { .. } => {
                "if that is right, whoever runs the broker starts it again: the counts begin anew"
            }
            Self::NotAnOrder
            | Self::NotABatch { .. }
            | Self::NotSignedHere { .. }
            | Self::NotMadeHere { .. }
            | Self::Widened { .. }
            | Self::CounterTooHigh { .. }
            | Self::NotAProof
            | Self::AuthorityInOrder => {
                "if this station runs nothing but keyferry, take it off the line: something asks in its name"
            }
            Self::KindForbidden(_) => "whoever runs the broker can allow it: --allow-kinds",
            Self::NoAuditor => "start the broker with --audit-key",
            Self::LogWentBack { .. } => {
                "the log was cut off or replaced: look for the whole one, and run `keyferry audit verify`"
            }
            Self::Clock { .. } => "set the station's clock",
        };
        Some(hint.to_owned())
    }
}

/// Why a broker cannot be started or asked.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// It refuses.
    #[error(transparent)]
    Refused(#[from] GuardError),
    /// It has refused, or it has failed, and says why.
    #[error("the broker: {}", .0.error)]
    Answered(Failed),
    /// What was asked makes no sense.
    #[error("what was asked makes no sense: {0}")]
    Unreadable(#[source] FrameError),
    /// Nobody listens.
    #[error("no broker answers on {}", socket.display())]
    Absent {
        /// The socket.
        socket: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It went away, or did not answer in time.
    #[error("the broker on {} did not answer {request}", socket.display())]
    Lost {
        /// The socket.
        socket: PathBuf,
        /// What was asked.
        request: &'static str,
        /// What went wrong.
        source: FrameError,
    },
    /// It answered something else.
    #[error("what listens on {} answered {request} with something else", socket.display())]
    Unexpected {
        /// The socket.
        socket: PathBuf,
        /// What was asked.
        request: &'static str,
    },
    /// It has no such key any more, or another one than at first.
    #[error("another broker listens on {} than before: its keys differ", socket.display())]
    Replaced {
        /// The socket.
        socket: PathBuf,
    },
    /// Another broker is there.
    #[error("a broker listens on {} already", socket.display())]
    Occupied {
        /// The socket.
        socket: PathBuf,
    },
    /// Something that is no socket is there.
    #[error("{} is there and is no socket", socket.display())]
    NotASocket {
        /// The path.
        socket: PathBuf,
    },
    /// Others could put their own socket in its place.
    #[error("others than its owner may use the folder {}", folder.display())]
    OpenFolder {
        /// The folder.
        folder: PathBuf,
    },
    /// The socket cannot be made.
    #[error("the socket {} cannot be made", socket.display())]
    Socket {
        /// The socket.
        socket: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The log cannot be written.
    #[error("the broker's log {} cannot be written", path.display())]
    Log {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Others than its owner can read the log.
    #[error("others than its owner may use the log {}", path.display())]
    OpenLog {
        /// The file.
        path: PathBuf,
    },
    /// A checkpoint that is to be signed is none.
    #[error("this is no checkpoint of an audit log")]
    NotACheckpoint,
    /// There are no such sockets here.
    #[error("a broker is not on this system yet: it needs Unix domain sockets")]
    Elsewhere,
}

impl BrokerError {
    /// The exit code for it.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Refused(_) => Exit::Policy,
            Self::Answered(failed) => Exit::from_code(failed.exit),
            Self::Absent { .. }
            | Self::Lost { .. }
            | Self::Unexpected { .. }
            | Self::Replaced { .. } => Exit::Hsm,
            Self::Unreadable(_)
            | Self::Occupied { .. }
            | Self::NotASocket { .. }
            | Self::OpenFolder { .. }
            | Self::OpenLog { .. }
            | Self::NotACheckpoint
            | Self::Elsewhere => Exit::Usage,
            Self::Socket { .. } | Self::Log { .. } => Exit::JobFailed,
        }
    }

    /// The next move, for a person.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Refused(error) => return error.hint(),
            Self::Answered(failed) => return failed.hint.clone(),
            Self::Absent { .. } => {
                "start it with `keyferry broker`, or see to the rights of the socket and its folder"
            }
            Self::Lost { .. } => {
                "see whether it runs (`keyferry broker status`), then repeat the command: nothing is done twice"
            }
            Self::Unreadable(_) | Self::Unexpected { .. } => {
                "update the older of station and broker"
            }
            Self::Replaced { .. } => "run the command again",
            Self::Occupied { .. } => "stop it first, or choose another --socket",
            Self::NotASocket { .. } => "choose another --socket",
            Self::OpenFolder { .. } => {
                "put the socket into a folder of its own, which the broker makes"
            }
            Self::Socket { .. } => {
                "choose a --socket in a folder that the broker may make or write"
            }
            Self::Log { .. } => "see to the disk: what cannot be logged is not done",
            Self::OpenLog { .. } => "chmod 600 it, or choose another --log",
            Self::NotACheckpoint => return None,
            Self::Elsewhere => "use the token on this system itself, with --token",
        };
        Some(hint.to_owned())
    }
}

impl From<BrokerError> for Failure {
    fn from(error: BrokerError) -> Self {
        Self::Job(error.into())
    }
}

impl From<GuardError> for Failure {
    fn from(error: GuardError) -> Self {
        BrokerError::from(error).into()
    }
}
