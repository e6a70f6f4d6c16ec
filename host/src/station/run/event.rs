//! What a line tells while it works, and what has become of each device.

use std::time::Duration;

use keyferry_protocol::identity::DeviceId;
use keyferry_protocol::message::{Progress, Task};
use keyferry_protocol::suite::Suite;

use super::error::UnitError;
use super::hook::Moment;
use crate::device::port::SlowTimer;
use crate::station::Proved;
use crate::station::journal::Step;

/// A place of the fixture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nest {
    /// What stands beside it.
    pub name: String,
    /// Its port.
    pub port: String,
    /// The serial number that was scanned for it.
    pub serial: Option<String>,
}

/// Something that happened at a nest.
#[derive(Debug)]
pub struct Event<'a> {
    /// Where.
    pub nest: &'a Nest,
    /// What.
    pub what: What<'a>,
}

/// What happened.
#[derive(Debug)]
pub enum What<'a> {
    /// Something was plugged in.
    Appeared,
    /// It was pulled out.
    Vanished,
    /// The port is being opened.
    Begun,
    /// The port's adapter will be slow.
    Slow(&'a SlowTimer),
    /// A device has answered, and says that it is this one.
    Found(DeviceId),
    /// The device was under way when a station was stopped; it had come to this step.
    Resumed(Step),
    /// The device has come to a step.
    Step(Step),
    /// The device works.
    Progress(Progress),
    /// Nothing was heard of the device for this long.
    Quiet(Duration),
    /// Words for people.
    Note(&'a str),
    /// Words that must not be overlooked.
    Warning(&'a str),
    /// The plan's hook is being called.
    Hook(Moment),
    /// It is over.
    Ended(&'a Outcome),
}

/// What a device works at, in words.
#[must_use]
pub const fn task(progress: &Progress) -> &'static str {
    match progress.task {
        Task::GenerateUnwrapKey => "making its unwrap key",
        Task::Unwrap => "unwrapping",
        Task::Prove => "proving",
    }
}

/// What has become of a device.
#[derive(Debug)]
pub struct Outcome {
    /// Where.
    pub nest: Nest,
    /// The device, as it says, if it has said anything.
    pub device: Option<DeviceId>,
    /// How it ended.
    pub verdict: Verdict,
    /// How long it took.
    pub took: Duration,
}

impl Outcome {
    /// Of a device whose worker is gone.
    pub(super) fn broke_off(nest: &Nest) -> Self {
        Self {
            nest: nest.clone(),
            device: None,
            verdict: Verdict::Failed(UnitError::BrokeOff),
            took: Duration::ZERO,
        }
    }
}

/// How it ended.
#[derive(Debug)]
pub enum Verdict {
    /// All that the plan asks for is done.
    Done(Done),
    /// It was done before; a signed status says that it is the same device.
    Before,
    /// It was not done.
    Failed(UnitError),
    /// It was not begun.
    NotBegun(&'static str),
}

impl Verdict {
    /// Whether the device has all that the plan asks for.
    #[must_use]
    pub const fn is_pass(&self) -> bool {
        match self {
            Self::Done(_) | Self::Before => true,
            Self::Failed(_) | Self::NotBegun(_) => false,
        }
    }

    /// How many keys were proved.
    #[must_use]
    pub const fn keys_proved(&self) -> usize {
        match self {
            Self::Done(done) => done.keys.len(),
            Self::Before | Self::Failed(_) | Self::NotBegun(_) => 0,
        }
    }
}

/// What was done with a device.
#[derive(Clone, Debug)]
pub struct Done {
    /// The policy that it was believed by.
    pub policy: &'static str,
    /// How the KEK travelled, if keys were sent by this run.
    pub suite: Option<Suite>,
    /// The keys that were proved.
    pub keys: Vec<Proved>,
    /// Whether it got a certificate.
    pub certified: bool,
    /// Whether it is locked.
    pub locked: bool,
}
