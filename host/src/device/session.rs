//! A session with one device: the greeting, then requests and replies. Every wait has a deadline.

use std::time::Duration;

use keyferry_protocol::identity::{Challenge, DeviceId, Digest, Fingerprint};
use keyferry_protocol::link::{Event, Link, LinkError, Millis};
use keyferry_protocol::message::{Progress, Reply, Request};
use keyferry_protocol::order::Address;
use keyferry_protocol::receipt::{Refusal, State};
use keyferry_protocol::{MAX_MESSAGE, VERSION, VERSION_MIN};

use super::flow::SignedOrder;
use super::port::Port;
use super::verify::SignedReceipt;
use super::{DeviceError, MakeOrder, Witness};

/// How long to wait for the greeting, in milliseconds.
const GREETING_PATIENCE: Millis = 5_000;

/// How long a device may work without a sign of life, in milliseconds: longer than any single step it takes.
const PATIENCE: Millis = 30_000;

/// How long a device may work at all, in milliseconds, whatever progress it reports: an RSA-4096 key takes a slow part minutes.
const LONGEST_WORK: Millis = 60 * 60 * 1000;

/// How long a read may wait while bytes are still to go out, in milliseconds: then there is room to be found.
const TURN: Millis = 20;

/// How long the line may refuse every byte, in milliseconds.
const STALL: Millis = 10_000;

/// What the device said of itself in the greeting. Unsigned: good for addressing an order, for nothing else.
#[derive(Clone, Debug)]
pub struct Greeting {
    /// Its id.
    pub device: DeviceId,
    /// Its identity key's fingerprint; zero while it has none.
    pub identity: Fingerprint,
    /// Its unwrap key's fingerprint; zero while it has none.
    pub unwrap: Fingerprint,
    /// Its authority's fingerprint; zero while it has none.
    pub authority: Fingerprint,
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
    /// Whom an order to this device is addressed to.
    #[must_use]
    pub const fn address(&self) -> Address {
        Address {
            device: self.device,
            identity: self.identity,
            unwrap: self.unwrap,
        }
    }
}

/// Called with each progress message.
pub type OnProgress<'a> = dyn FnMut(Progress) + 'a;

/// A session.
pub struct Session {
    port: Box<dyn Port>,
    link: Box<Link>,
    unread: Vec<u8>,
    /// Bytes that arrived since the port was opened.
    arrived: usize,
    greeting: Greeting,
    /// The protocol versions that are offered.
    versions: (u8, u8),
    witness: Option<Box<dyn Witness>>,
}

impl Session {
    /// Greets the device on `port`.
    ///
    /// # Errors
    /// [`DeviceError::Silent`], [`DeviceError::Garbage`], [`DeviceError::Version`] and what the port says.
    pub fn open(port: Box<dyn Port>) -> Result<Self, DeviceError> {
        Self::open_with_versions(port, VERSION_MIN, VERSION)
    }

    /// Greets the device, offering protocol versions `min` to `max`.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with_versions(port: Box<dyn Port>, min: u8, max: u8) -> Result<Self, DeviceError> {
        let mut session = Self {
            port,
            link: Box::new(Link::new()),
            unread: Vec::new(),
            arrived: 0,
            greeting: Greeting {
                device: DeviceId::ZERO,
                identity: Fingerprint::ZERO,
                unwrap: Fingerprint::ZERO,
                authority: Fingerprint::ZERO,
                state: State::Quarantined,
                certified: false,
                counter: 0,
                challenge: Challenge::ZERO,
                board: String::new(),
                firmware: String::new(),
            },
            versions: (min, max),
            witness: None,
        };
        session.greet()?;
        Ok(session)
    }

    /// Has every order of this session, and every receipt, written down.
    pub fn set_witness(&mut self, witness: Box<dyn Witness>) {
        self.witness = Some(witness);
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
        *self.link = Link::new();
        self.unread.clear();
        self.arrived = 0;
        self.greet()
    }

    fn greet(&mut self) -> Result<(), DeviceError> {
        let number = session_number();
        match self.greet_as(number) {
            // One session in 65536 has the number of the device's last one: the device takes its greeting for that one's, come
            // twice, and acknowledges without an answer.
            Err(DeviceError::Garbage { .. }) => {
                *self.link = Link::new();
                self.unread.clear();
                self.greet_as(number.wrapping_add(1))
            }
            result => result,
        }
    }

    fn greet_as(&mut self, number: u16) -> Result<(), DeviceError> {
        let session = self;
        let (min, max) = session.versions;
        let mut buffer = [0; MAX_MESSAGE];
        let hello = Request::Hello { min, max }
            .encode(&mut buffer)
            .map_err(|_| DeviceError::TooLong)?;
        session
            .link
            .open(number, hello)
            .map_err(|error| session.link_error(error))?;
        let deadline = session.port.now() + GREETING_PATIENCE;
        let message = match session.wait(deadline) {
            Ok(Some(message)) => message,
            Ok(None) | Err(DeviceError::Disappeared { .. }) if session.arrived == 0 => {
                return Err(DeviceError::Silent {
                    port: session.port_name(),
                    waited: Duration::from_millis(GREETING_PATIENCE),
                });
            }
            Ok(None) => {
                return Err(DeviceError::Garbage {
                    port: session.port_name(),
                    bytes: session.arrived,
                });
            }
            Err(error) => return Err(error),
        };
        match Reply::decode(&message) {
            Ok(Reply::Hello(hello)) if (min..=max).contains(&hello.version) => {
                session.greeting = Greeting {
                    device: hello.device,
                    identity: hello.identity,
                    unwrap: hello.unwrap,
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
                    port: session.port_name(),
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

    /// What the device said of itself.
    #[must_use]
    pub const fn greeting(&self) -> &Greeting {
        &self.greeting
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

    /// Sends a request and waits until it is acknowledged. An answer that comes first is given back.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub fn send(
        &mut self,
        request: &Request<'_>,
        on_progress: &mut OnProgress<'_>,
    ) -> Result<Option<Vec<u8>>, DeviceError> {
        let mut buffer = [0; MAX_MESSAGE];
        let message = request
            .encode(&mut buffer)
            .map_err(|_| DeviceError::TooLong)?;
        self.link
            .send(message)
            .map_err(|error| self.link_error(error))?;
        let mut early = None;
        while !self.link.ready() {
            let deadline = self.port.now() + PATIENCE;
            match self.wait_until(deadline, true)? {
                Some(message) => early = early.or(take_progress(message, on_progress)?),
                None if self.link.ready() => {}
                None => return Err(self.disappeared()),
            }
        }
        Ok(early)
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
        self.wait_until(deadline, false)
    }

    /// Moves bytes until a message is complete, the deadline has passed, or, if asked, what was sent is acknowledged.
    fn wait_until(
        &mut self,
        deadline: Millis,
        acknowledged: bool,
    ) -> Result<Option<Vec<u8>>, DeviceError> {
        let mut moved_at = self.port.now();
        loop {
            let now = self.port.now();
            let outgoing = match self.link.transmit(now) {
                Ok(bytes) => bytes,
                Err(error) => return Err(self.link_error(error)),
            };
            if !outgoing.is_empty() {
                let written = match self.port.write(outgoing) {
                    Ok(written) => written,
                    Err(error) => return Err(self.port_error(error)),
                };
                if written > 0 {
                    moved_at = now;
                    self.link.transmitted(written, now);
                } else if now > moved_at + STALL {
                    return Err(self.disappeared());
                }
            }
            if self.unread.is_empty() {
                let mut until = deadline.min(self.link.deadline().unwrap_or(deadline));
                let now = self.port.now();
                match self.link.transmit(now) {
                    Ok([]) => {}
                    Ok(_) => until = until.min(now + TURN),
                    Err(error) => return Err(self.link_error(error)),
                }
                let mut buffer = [0; 1024];
                match self.port.read(&mut buffer, until) {
                    Ok(count) => {
                        self.arrived += count;
                        self.unread.extend_from_slice(&buffer[..count]);
                    }
                    Err(error) => return Err(self.port_error(error)),
                }
            }
            let (used, event) = self.link.receive(&self.unread);
            self.unread.drain(..used);
            match event {
                Some(Event::Message) => return Ok(Some(self.link.message().to_vec())),
                Some(Event::Reset) => {
                    return Err(DeviceError::Restarted {
                        port: self.port_name(),
                    });
                }
                // Only a station opens sessions; a looped-back cable hears itself.
                Some(Event::Opened) => return Err(DeviceError::Unexpected),
                None => {}
            }
            if acknowledged && self.link.ready() {
                // The acknowledgements this end owes go out with the next call.
                return Ok(None);
            }
            if self.port.now() >= deadline {
                return Ok(None);
            }
        }
    }

    fn disappeared(&self) -> DeviceError {
        DeviceError::Disappeared {
            port: self.port_name(),
        }
    }

    fn link_error(&self, error: LinkError) -> DeviceError {
        match error {
            LinkError::TooLong => DeviceError::TooLong,
            LinkError::Busy | LinkError::Closed => DeviceError::Unexpected,
            LinkError::Lost => self.disappeared(),
        }
    }

    /// A port that fails after it was opened has been unplugged.
    fn port_error(&self, source: std::io::Error) -> DeviceError {
        match source.kind() {
            std::io::ErrorKind::BrokenPipe | std::io::ErrorKind::UnexpectedEof => {
                self.disappeared()
            }
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
        Ok(Reply::Progress(progress)) => {
            on_progress(progress);
            Ok(None)
        }
        Ok(_) => Ok(Some(message)),
        Err(_) => Err(DeviceError::Unexpected),
    }
}

/// A device's words without control characters: they end up on a terminal.
pub(super) fn printable(text: &str) -> String {
    text.replace(char::is_control, "?")
}

fn session_number() -> u16 {
    use std::hash::{BuildHasher, Hasher};
    let hash = std::hash::RandomState::new().build_hasher().finish();
    u16::try_from(hash & 0xffff).unwrap_or(1)
}
