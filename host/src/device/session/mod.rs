//! A session with one device: the greeting, then requests and replies. Every wait has a deadline.
//!
//! `rate` finds the rate at which the device listens, and agrees on a faster one.

mod rate;

use std::time::Duration;

use keyferry_protocol::identity::{Challenge, DeviceId, Digest, Fingerprint, Hint};
use keyferry_protocol::link::{Event, Link, LinkError, Millis};
use keyferry_protocol::message::{Progress, Reply, Request};
use keyferry_protocol::order::Address;
use keyferry_protocol::receipt::{Refusal, State};
use keyferry_protocol::{MAX_MESSAGE, VERSION, VERSION_MIN};

use super::flow::SignedOrder;
use super::port::Port;
use super::verify::SignedReceipt;
use super::{DeviceError, MakeOrder, Witness};

/// How long a device may work without a sign of life, in milliseconds: longer than any single step it takes.
const PATIENCE: Millis = 30_000;

/// How long a device may work at all, in milliseconds, whatever progress it reports: an RSA-4096 key takes a slow part minutes.
const LONGEST_WORK: Millis = 60 * 60 * 1000;

/// How long the device may take to accept one message, in milliseconds: several times what all blobs of an order need at 9600 baud.
const LONGEST_SENDING: Millis = 5 * 60 * 1000;

/// How long a read may wait while bytes are still to go out, in milliseconds: then there is room to be found.
const TURN: Millis = 5;

/// How long nothing may be heard before somebody is told, in milliseconds. A device is asked twice a second,
/// and answers at once but in a long step of its work.
const QUIET: Millis = 5_000;

/// How long the line may refuse every byte, in milliseconds.
const STALL: Millis = 10_000;

/// What the device said of itself in the greeting. Unsigned: good for addressing an order, for nothing else.
#[derive(Clone, Debug)]
pub struct Greeting {
    /// Its id.
    pub device: DeviceId,
    /// Its identity key's fingerprint; zero while it has none.
    pub identity: Fingerprint,
    /// The beginning of its authority's fingerprint; zero while it has none.
    pub authority: Hint,
    /// Its state.
    pub state: State,
    /// Whether it has a certificate.
    pub certified: bool,
    /// Its counter.
    pub counter: u32,
    /// The challenge for the next order.
    pub challenge: Challenge,
    /// The board's name.
    pub board: String,
    /// The firmware's version.
    pub firmware: String,
}

impl Greeting {
    /// Whom an [`Enroll`](keyferry_protocol::order::Kind::Enroll) to this device is addressed to: its unwrap key is not known yet.
    #[must_use]
    pub const fn enrolment_address(&self) -> Address {
        Address {
            device: self.device,
            identity: self.identity,
            unwrap: Fingerprint::ZERO,
        }
    }
}

/// What the line did to a session. Nothing of it is lost to whoever uses the session: it costs time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mishaps {
    /// How often something came that was no frame.
    pub damaged: u16,
    /// How many frames with data the station sent again.
    pub repeated: u16,
}

/// Called with each progress message.
pub type OnProgress<'a> = dyn FnMut(Progress) + 'a;

/// Is told, once in a session's life, that nothing has been heard of a device for this long, while it is waited for.
pub type OnQuiet = Box<dyn FnMut(Duration) + Send>;

/// Gives each session a nonce, which tells it from earlier ones. It is no secret.
pub type Nonces = Box<dyn FnMut() -> u32 + Send>;

/// The station's end of the link: 16 KiB each way, frames of up to 4 KiB.
type StationLink = Link<16_384, 16_384, 4_096>;

/// A session.
pub struct Session {
    port: Box<dyn Port>,
    link: Box<StationLink>,
    /// Bytes that arrived since the session was opened.
    arrived: usize,
    /// When the line last took a byte.
    moved_at: Millis,
    /// The line's rate now, in baud; `None` on a port that has none.
    rate: Option<u32>,
    /// Rates that did not work on this line: see [`keyferry_protocol::link::rates`].
    unfit: u16,
    greeting: Greeting,
    /// The protocol versions that are offered.
    versions: (u8, u8),
    nonces: Nonces,
    witness: Option<Box<dyn Witness>>,
    /// Until it is told.
    on_quiet: Option<OnQuiet>,
}

impl Session {
    /// Greets the device on `port`.
    ///
    /// # Errors
    /// [`DeviceError::Silent`], [`DeviceError::Garbage`], [`DeviceError::HungUp`], [`DeviceError::Version`] and what the port says.
    pub fn open(port: Box<dyn Port>) -> Result<Self, DeviceError> {
        Self::open_with_versions(port, VERSION_MIN, VERSION)
    }

    /// Greets the device, offering protocol versions `min` to `max`.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with_versions(port: Box<dyn Port>, min: u8, max: u8) -> Result<Self, DeviceError> {
        Self::open_as(port, (min, max), Box::new(random_nonce))
    }

    /// Greets the device under nonces that the caller chooses, so that a simulation is the same each time. They must not repeat.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with_nonces(port: Box<dyn Port>, nonces: Nonces) -> Result<Self, DeviceError> {
        Self::open_as(port, (VERSION_MIN, VERSION), nonces)
    }

    fn open_as(
        port: Box<dyn Port>,
        versions: (u8, u8),
        nonces: Nonces,
    ) -> Result<Self, DeviceError> {
        let mut session = Self {
            moved_at: port.now(),
            port,
            link: Box::new(Link::offering(u16::MAX, 0)),
            arrived: 0,
            rate: None,
            unfit: 0,
            greeting: Greeting {
                device: DeviceId::ZERO,
                identity: Fingerprint::ZERO,
                authority: Hint::ZERO,
                state: State::Quarantined,
                certified: false,
                counter: 0,
                challenge: Challenge::ZERO,
                board: String::new(),
                firmware: String::new(),
            },
            versions,
            nonces,
            witness: None,
            on_quiet: None,
        };
        session.greet()?;
        Ok(session)
    }

    /// Has every order of this session, and every receipt, written down.
    pub fn set_witness(&mut self, witness: Box<dyn Witness>) {
        self.witness = Some(witness);
    }

    /// Has somebody told when the device is not heard any more, long before it is given up.
    pub fn set_on_quiet(&mut self, on_quiet: OnQuiet) {
        self.on_quiet = Some(on_quiet);
    }

    /// Has an order made, and written down where there is a witness.
    ///
    /// # Errors
    /// Those of `make`; [`DeviceError::Witness`].
    pub fn witness_order(&mut self, make: &mut MakeOrder<'_>) -> Result<SignedOrder, DeviceError> {
        match &mut self.witness {
            Some(witness) => witness.order(make),
            None => make(Digest::ZERO),
        }
    }

    /// Has a receipt written down where there is a witness.
    ///
    /// # Errors
    /// [`DeviceError::Unwitnessed`].
    pub fn witness_receipt(
        &mut self,
        order: &Digest,
        receipt: &SignedReceipt,
    ) -> Result<(), DeviceError> {
        match &mut self.witness {
            Some(witness) => witness.receipt(order, receipt),
            None => Ok(()),
        }
    }

    /// Opens a new session on the same port, after the old one was lost.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn greet_again(&mut self) -> Result<(), DeviceError> {
        self.greet()
    }

    fn greet(&mut self) -> Result<(), DeviceError> {
        self.arrived = 0;
        let message = match self.find() {
            Err(DeviceError::Disappeared { port }) => return Err(self.hung_up(port)),
            found => found?,
        };
        let (min, max) = self.versions;
        match Reply::decode(&message) {
            Ok(Reply::Hello(hello)) if (min..=max).contains(&hello.version) => {
                self.greeting = Greeting {
                    device: hello.device,
                    identity: hello.identity,
                    authority: hello.authority,
                    state: hello.state,
                    certified: hello.certified,
                    counter: hello.counter,
                    challenge: hello.challenge,
                    board: printable(hello.board),
                    firmware: printable(hello.firmware),
                };
                Ok(())
            }
            Ok(Reply::Hello(_) | Reply::Refused(Refusal::UnknownVersion)) => {
                Err(DeviceError::Version {
                    port: self.port_name(),
                    min,
                    max,
                })
            }
            Ok(Reply::Refused(refusal)) => Err(DeviceError::Refused {
                refusal,
                signed: false,
            }),
            Ok(_) | Err(_) => Err(DeviceError::Unexpected),
        }
    }

    /// Sends the greeting, and waits for an answer until `deadline`; until `end` if a device is heard that has trouble with the line.
    fn call(&mut self, deadline: Millis, end: Millis) -> Result<Option<Vec<u8>>, DeviceError> {
        let (min, max) = self.versions;
        let mut buffer = [0; MAX_MESSAGE];
        let hello = Request::Hello { min, max }
            .encode(&mut buffer)
            .map_err(|_| DeviceError::TooLong)?;
        self.link.open((self.nonces)(), self.port.now());
        self.link
            .send(hello)
            .map_err(|error| self.link_error(error))?;
        let before = self.link.heard_frames();
        match self.wait(deadline)? {
            None if self.link.heard_frames() != before => self.wait(end),
            answer => Ok(answer),
        }
    }

    /// What the device said of itself.
    #[must_use]
    pub const fn greeting(&self) -> &Greeting {
        &self.greeting
    }

    /// What the line did to this session so far.
    #[must_use]
    pub fn mishaps(&self) -> Mishaps {
        Mishaps {
            damaged: self.link.damaged_frames(),
            repeated: self.link.repeated_frames(),
        }
    }

    /// The port's name.
    #[must_use]
    pub fn port_name(&self) -> String {
        self.port.name().to_owned()
    }

    /// Sends a request and waits for what answers it.
    ///
    /// # Errors
    /// [`DeviceError`]; progress starts the device's patience anew.
    pub fn exchange(
        &mut self,
        request: &Request<'_>,
        on_progress: &mut OnProgress<'_>,
    ) -> Result<Vec<u8>, DeviceError> {
        match self.send(request, on_progress)? {
            Some(early) => Ok(early),
            None => self.answer(on_progress),
        }
    }

    /// Sends a request. An answer that comes before there is room for it is given back.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub fn send(
        &mut self,
        request: &Request<'_>,
        on_progress: &mut OnProgress<'_>,
    ) -> Result<Option<Vec<u8>>, DeviceError> {
        let mut buffer = vec![0; request.longest()];
        let message = request
            .encode(&mut buffer)
            .map_err(|_| DeviceError::TooLong)?;
        let length = u16::try_from(message.len()).map_err(|_| DeviceError::TooLong)?;
        let sent = self.send_whole(message, length, on_progress);
        if sent.is_err() {
            // Half a message stands in the stream: nothing can follow it.
            self.link.close();
        }
        sent
    }

    fn send_whole(
        &mut self,
        message: &[u8],
        length: u16,
        on_progress: &mut OnProgress<'_>,
    ) -> Result<Option<Vec<u8>>, DeviceError> {
        let end = self.port.now() + LONGEST_SENDING;
        let mut early = None;
        let mut rest = message;
        let mut begun = false;
        loop {
            if !begun {
                match self.link.begin(length) {
                    Ok(()) => begun = true,
                    Err(LinkError::Busy) => {}
                    Err(error) => return Err(self.link_error(error)),
                }
            }
            if begun {
                let count = self.link.write(rest);
                rest = rest.get(count..).unwrap_or(&[]);
                if rest.is_empty() {
                    return Ok(early);
                }
            }
            let deadline = (self.port.now() + PATIENCE).min(end);
            match self.wait_for(deadline, |link| link.room_to_write() > 0)? {
                Some(message) if self.port.now() < end => {
                    early = early.or(take_progress(message, on_progress)?);
                }
                None if self.link.room_to_write() > 0 && self.port.now() < end => {}
                Some(_) | None => return Err(self.disappeared()),
            }
        }
    }

    /// Waits for an answer.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub fn answer(&mut self, on_progress: &mut OnProgress<'_>) -> Result<Vec<u8>, DeviceError> {
        let end = self.port.now() + LONGEST_WORK;
        loop {
            let deadline = (self.port.now() + PATIENCE).min(end);
            match self.wait(deadline)? {
                None => return Err(self.disappeared()),
                Some(_) if self.port.now() >= end => return Err(self.disappeared()),
                Some(message) => {
                    if let Some(answer) = take_progress(message, on_progress)? {
                        return Ok(answer);
                    }
                }
            }
        }
    }

    fn wait(&mut self, deadline: Millis) -> Result<Option<Vec<u8>>, DeviceError> {
        self.wait_for(deadline, |_| false)
    }

    /// Moves bytes until a message is complete, the deadline has passed, or the link is as wanted.
    fn wait_for(
        &mut self,
        deadline: Millis,
        wanted: impl Fn(&StationLink) -> bool,
    ) -> Result<Option<Vec<u8>>, DeviceError> {
        let start = self.port.now();
        loop {
            if let Some(message) = self.take_message()? {
                return Ok(Some(message));
            }
            self.mind_quiet(start);
            let more_to_write = self.write()?;
            if wanted(&self.link) || self.port.now() >= deadline {
                return Ok(None);
            }
            self.read(deadline, more_to_write)?;
        }
    }

    /// Tells that nothing is heard, if it is so since `start` at least: before, nobody listened.
    fn mind_quiet(&mut self, start: Millis) {
        let since = self.link.heard_at().max(start);
        let quiet = self.port.now().saturating_sub(since);
        if quiet >= QUIET
            && let Some(mut on_quiet) = self.on_quiet.take()
        {
            on_quiet(Duration::from_millis(quiet));
        }
    }

    /// The message at the front, once all of it is there.
    fn take_message(&mut self) -> Result<Option<Vec<u8>>, DeviceError> {
        let Some(front) = self.link.front() else {
            return Ok(None);
        };
        if front.length > MAX_MESSAGE {
            return Err(DeviceError::Unexpected);
        }
        if !front.is_complete() {
            return Ok(None);
        }
        let message = front.bytes.to_vec();
        self.link.consume(message.len());
        Ok(Some(message))
    }

    /// Writes what the link has and the port takes, and says whether something is left.
    fn write(&mut self) -> Result<bool, DeviceError> {
        self.keep_rate()?;
        loop {
            let now = self.port.now();
            let outgoing = self.link.transmit(now);
            if outgoing.is_empty() {
                self.moved_at = now;
                return self.check_session().map(|()| false);
            }
            let written = match self.port.write(outgoing) {
                Ok(written) => written,
                Err(error) => return Err(self.port_error(error)),
            };
            if written == 0 {
                return if now > self.moved_at + STALL {
                    Err(self.disappeared())
                } else {
                    Ok(true)
                };
            }
            self.moved_at = now;
            self.link.transmitted(written, now);
        }
    }

    /// Reads what has come, or waits for it until somebody has something to do.
    fn read(&mut self, deadline: Millis, more_to_write: bool) -> Result<(), DeviceError> {
        let now = self.port.now();
        let deadlines = [self.link.deadline(), self.rate_deadline(), Some(deadline)];
        let mut until = deadlines.into_iter().flatten().min().unwrap_or(deadline);
        if more_to_write {
            // What the link has to do is to write, and that has to wait for the port.
            until = deadline.min(now + TURN);
        }
        let mut buffer = [0; 4096];
        match self.port.read(&mut buffer, until) {
            Ok(count) => {
                self.arrived += count;
                self.link.receive(&buffer[..count], self.port.now());
                self.check_session()
            }
            Err(error) => Err(self.port_error(error)),
        }
    }

    fn check_session(&mut self) -> Result<(), DeviceError> {
        match self.link.event() {
            None => Ok(()),
            Some(Event::Reset) => Err(DeviceError::Restarted {
                port: self.port_name(),
            }),
            Some(Event::Lost) => Err(self.disappeared()),
            // Only a device sees that.
            Some(Event::Opened) => Err(DeviceError::Unexpected),
        }
    }

    fn disappeared(&self) -> DeviceError {
        DeviceError::Disappeared {
            port: self.port_name(),
        }
    }

    /// Nobody can be gone from where no device was yet.
    fn hung_up(&mut self, port: String) -> DeviceError {
        // What was said in farewell may still be there after a write has failed.
        let mut buffer = [0; 4096];
        if let Ok(count) = self.port.read(&mut buffer, self.port.now()) {
            self.arrived += count;
        }
        DeviceError::HungUp {
            port,
            bytes: self.arrived,
        }
    }

    fn link_error(&self, error: LinkError) -> DeviceError {
        match error {
            LinkError::TooLong => DeviceError::TooLong,
            LinkError::Busy | LinkError::Closed => DeviceError::Unexpected,
        }
    }

    /// A port that fails after it was opened has been unplugged.
    fn port_error(&self, source: std::io::Error) -> DeviceError {
        match source.kind() {
            std::io::ErrorKind::BrokenPipe
            | std::io::ErrorKind::UnexpectedEof
            // A server that goes without having read all that it was sent.
            | std::io::ErrorKind::ConnectionReset
            | std::io::ErrorKind::ConnectionAborted => self.disappeared(),
            // Linux reports EIO, which has no kind of its own, when a terminal's other end is closed.
            _ if source.raw_os_error() == Some(5) => self.disappeared(),
            _ => DeviceError::Port {
                port: self.port_name(),
                source,
            },
        }
    }
}

/// Gives progress to the listener, and everything else back.
fn take_progress(
    message: Vec<u8>,
    on_progress: &mut OnProgress<'_>,
) -> Result<Option<Vec<u8>>, DeviceError> {
    match Reply::decode(&message) {
        Ok(Reply::Progress(mut progress)) => {
            // How long the search for primes takes is a guess of the device.
            progress.total = progress.total.max(progress.done);
            on_progress(progress);
            Ok(None)
        }
        Ok(_) => Ok(Some(message)),
        Err(_) => Err(DeviceError::Unexpected),
    }
}

/// A device's words without control characters: they end up on a terminal.
pub(crate) fn printable(text: &str) -> String {
    text.replace(char::is_control, "?")
}

fn random_nonce() -> u32 {
    use std::hash::{BuildHasher, Hasher};
    // One half of it is as random as the other.
    std::hash::RandomState::new().build_hasher().finish() as u32
}

impl Drop for Session {
    /// Lets the device know that nobody goes on with what it may have under way. If it does not hear, it finds out by itself.
    fn drop(&mut self) {
        self.link.close();
        let _ = self.write();
    }
}

#[cfg(test)]
mod tests {
    use keyferry_protocol::message::Task;

    use super::*;

    #[test]
    fn nobody_is_told_of_more_steps_than_there_are() {
        let mut told = Vec::new();
        for (done, total) in [(80, 81), (81, 81), (99, 81)] {
            let progress = Reply::Progress(Progress {
                task: Task::GenerateUnwrapKey,
                done,
                total,
            });
            let mut buffer = [0; 32];
            let message = progress.encode(&mut buffer).unwrap().to_vec();
            let answer = take_progress(message, &mut |step| told.push((step.done, step.total)));
            assert!(answer.unwrap().is_none());
        }
        assert_eq!(told, [(80, 81), (81, 81), (99, 99)]);
    }
}
