//! What comes from the line: whole messages to the requests, blobs piece by piece to their order, and the rate of the line itself.
//!
//! A message waits in the link until there is room for its answer, and a blob until the one before is opened. Meanwhile the station
//! gets no credit, so nothing is lost however long the work takes.

use keyferry_protocol::MAX_MESSAGE;
use keyferry_protocol::link::{Millis, rates};
use keyferry_protocol::message::{Reply, Request};
use keyferry_protocol::receipt::Refusal;

use super::{Device, Job, SCRUBBED_STACK};
use crate::platform::Platform;
use crate::wipe::scrub_stack;

/// What the message at the front of the link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    /// One that is dealt with when all of it is there.
    Whole,
    /// Blobs.
    Blobs,
    /// One that nobody wants: its bytes are passed over.
    Unwanted,
}

/// The rate of the line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    now: u32,
    /// What was agreed on, and holds as soon as the answer has left.
    agreed: Option<u32>,
    since: Millis,
    /// Good frames that had come by then.
    heard: u32,
}

impl Rate {
    pub(super) const fn new() -> Self {
        Self {
            now: rates::BASE,
            agreed: None,
            since: 0,
            heard: 0,
        }
    }
}

impl<P: Platform, const RX: usize, const OUT: usize> Device<P, RX, OUT> {
    /// Deals with what has come, as far as there is room for answers and blobs.
    pub(super) fn take_messages(&mut self) {
        while self.has_room() && self.take_front() {}
    }

    /// Deals with the message at the front, or a part of it; says whether it did.
    fn take_front(&mut self) -> bool {
        let Some(front) = self.link.front() else {
            return false;
        };
        if front.consumed == 0 {
            // Only its first bytes tell blobs from the rest.
            if front.bytes.len() < Request::BLOB_FRONT && !front.is_complete() {
                return false;
            }
            let fits = front.length <= RX.min(MAX_MESSAGE);
            match Request::blob_front(front.bytes) {
                Some((before, length)) if before + length == front.length && self.greeted => {
                    self.link.consume(before);
                    self.begin_blobs();
                    return true;
                }
                None if fits => self.incoming = Incoming::Whole,
                Some(_) | None => {
                    self.refuse(Refusal::Malformed);
                    self.incoming = Incoming::Unwanted;
                }
            }
        }
        match self.incoming {
            Incoming::Whole => self.take_whole(),
            Incoming::Blobs => self.take_blobs(),
            Incoming::Unwanted => self.pass_over(),
        }
    }

    fn take_whole(&mut self) -> bool {
        let length = match self.link.front() {
            Some(front) if front.is_complete() => front.length,
            Some(_) | None => return false,
        };
        self.handle();
        self.link.consume(length);
        true
    }

    fn pass_over(&mut self) -> bool {
        let count = self.link.front().map_or(0, |front| front.bytes.len());
        self.link.consume(count);
        count > 0
    }

    fn begin_blobs(&mut self) {
        self.incoming = Incoming::Blobs;
        if !matches!(self.job, Job::Inject(_)) && !self.drops_blobs {
            self.refuse(Refusal::Sequence);
            self.drops_blobs = true;
        }
    }

    /// Moves bytes to the blob that is due. Nothing is taken while one waits to be opened.
    fn take_blobs(&mut self) -> bool {
        if self.blob_is_complete() {
            return false;
        }
        let order = match &self.job {
            Job::Inject(injecting) if !self.drops_blobs => injecting.order,
            // The answer to the order is theirs too. One more would stand in its place, or be taken for the next question's.
            Job::Idle | Job::Enroll(_) | Job::Inject(_) => {
                self.incoming = Incoming::Unwanted;
                return true;
            }
        };
        let bytes = self.link.front().map_or(&[][..], |front| front.bytes);
        if bytes.is_empty() {
            return false;
        }
        let mut count = 0;
        // Not through a method: the link lends its bytes meanwhile.
        if let Job::Inject(injecting) = &self.job
            && let Some((_, blob)) = injecting.due
            && let Some(place) = self
                .buffer
                .blob()
                .get_mut(self.blob_length..usize::from(blob.length))
        {
            count = place.len().min(bytes.len());
            place[..count].copy_from_slice(&bytes[..count]);
        }
        if count == 0 {
            // More than the order announced.
            self.answer_refusal(&order, Refusal::Sequence);
            scrub_stack::<SCRUBBED_STACK>();
            return true;
        }
        self.blob_length += count;
        self.link.consume(count);
        self.fed = self.now;
        true
    }

    /// The rate in baud at which the line is to run from now on. A board that offers [`Platform::line_rates`] asks before it
    /// transmits, and changes when its transmitter is empty.
    #[must_use]
    pub const fn rate(&self) -> u32 {
        self.rate.now
    }

    /// What a session that is over had agreed on holds no more.
    pub(super) fn forget_agreed_rate(&mut self) {
        self.rate.agreed = None;
    }

    pub(super) fn change_rate(&mut self, baud: u32) {
        if rates::set_of(&[baud]) & rates::set_of(self.platform.line_rates()) == 0 {
            self.refuse(Refusal::Unsupported);
            return;
        }
        self.rate.agreed = Some(baud);
        self.reply(&Reply::Rate { baud });
    }

    /// Nothing waits to be sent: a change that was agreed on takes place, one that does not work ends.
    pub(super) fn settle_rate(&mut self, now: Millis) {
        let rate = match self.rate.agreed.take() {
            Some(rate) => {
                self.rate.since = now;
                self.rate.heard = self.link.heard_frames();
                rate
            }
            None if self.rate_deadline().is_some_and(|at| now >= at) => rates::BASE,
            None => return,
        };
        self.rate.now = rate;
        self.link.set_rate(rate);
    }

    /// When to go back to the base rate.
    pub(super) fn rate_deadline(&self) -> Option<Millis> {
        (self.rate.now != rates::BASE).then(|| {
            if self.link.heard_frames() == self.rate.heard {
                self.rate.since + rates::TRIAL
            } else {
                self.link.heard_at() + rates::PATIENCE
            }
        })
    }
}
