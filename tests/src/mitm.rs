//! A man in the middle of the line who understands it: he is a device to the station and a station to the device. Whole messages pass
//! through his hands, and what he changes goes on in frames of his own.

use std::collections::VecDeque;
use std::io;

use keyferry::device::port::Port;
use keyferry_protocol::MAX_MESSAGE;
use keyferry_protocol::link::{Event, Link, Millis};
use keyferry_protocol::message::{Reply, Request};

use crate::desk::Direction;

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes on, as it is now.
    Pass,
    /// The station's cable is pulled before the message gets through; the next session finds it plugged in again.
    Cut,
}

/// One of his two ends.
struct End {
    link: Box<Link<16_384, 16_384, 4_096>>,
    /// The message that is arriving.
    arriving: Vec<u8>,
    /// Messages that wait for room, the first of them with the number of bytes that have found some.
    waiting: VecDeque<(Vec<u8>, usize)>,
}

impl End {
    /// `number` as in [`Link::offering`].
    fn new(number: u16) -> Self {
        Self {
            link: Box::new(Link::offering(0, number)),
            arriving: Vec::new(),
            waiting: VecDeque::new(),
        }
    }

    /// The next message that is complete.
    fn message(&mut self) -> Option<Vec<u8>> {
        let front = self.link.front()?;
        let complete = front.is_complete();
        let bytes = front.bytes.to_vec();
        self.arriving.extend_from_slice(&bytes);
        self.link.consume(bytes.len());
        complete.then(|| std::mem::take(&mut self.arriving))
    }

    fn send(&mut self, message: Vec<u8>) {
        self.waiting.push_back((message, 0));
        self.flush();
    }

    fn flush(&mut self) {
        while let Some((message, written)) = self.waiting.front_mut() {
            let length = u16::try_from(message.len()).expect("a message of the link");
            if *written == 0 && self.link.begin(length).is_err() {
                return;
            }
            *written += self.link.write(&message[*written..]);
            if *written < message.len() {
                return;
            }
            self.waiting.pop_front();
        }
    }
}

/// A port whose messages pass through somebody's hands.
pub struct Mitm<F> {
    port: Box<dyn Port>,
    hands: F,
    /// Toward the station.
    near: End,
    /// Toward the device.
    far: End,
    sessions: u32,
    cut: bool,
}

impl<F: FnMut(Direction, &mut Vec<u8>) -> Fate + Send> Mitm<F> {
    /// Puts `hands` before `port`. They get each message.
    pub fn new(port: Box<dyn Port>, hands: F) -> Self {
        Self {
            port,
            hands,
            near: End::new(0),
            far: End::new(0),
            sessions: 0,
            cut: false,
        }
    }

    /// Passes on what has come from either end.
    fn pass(&mut self) -> io::Result<()> {
        let now = self.port.now();
        match self.near.link.event() {
            Some(Event::Opened) => {
                self.sessions += 1;
                self.far = End::new(0);
                self.near.arriving.clear();
                self.near.waiting.clear();
                self.far.link.open(self.sessions, now);
            }
            Some(Event::Reset | Event::Lost) => self.far.link.close(),
            None => {}
        }
        if self.far.link.event().is_some() {
            self.near.link.close();
        }
        while let Some(mut message) = self.near.message() {
            match (self.hands)(Direction::Down, &mut message) {
                Fate::Pass => self.far.send(message),
                Fate::Cut => self.cut = true,
            }
        }
        while let Some(mut message) = self.far.message() {
            match (self.hands)(Direction::Up, &mut message) {
                Fate::Pass => self.near.send(message),
                Fate::Cut => self.cut = true,
            }
        }
        self.near.flush();
        self.far.flush();
        loop {
            let bytes = self.far.link.transmit(now);
            if bytes.is_empty() {
                break;
            }
            let count = self.port.write(bytes)?;
            if count == 0 {
                break;
            }
            self.far.link.transmitted(count, now);
        }
        if std::mem::take(&mut self.cut) {
            // Another one than before, as a device that is restarted.
            self.near = End::new(0x4000_u16.wrapping_mul(self.sessions as u16));
            self.far = End::new(0);
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(())
    }
}

impl<F: FnMut(Direction, &mut Vec<u8>) -> Fate + Send> Port for Mitm<F> {
    fn name(&self) -> &str {
        self.port.name()
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.near.link.receive(bytes, self.port.now());
        self.pass()?;
        Ok(bytes.len())
    }

    fn read(&mut self, bytes: &mut [u8], until: Millis) -> io::Result<usize> {
        loop {
            self.pass()?;
            let now = self.port.now();
            let waiting = self.near.link.transmit(now);
            if !waiting.is_empty() {
                let count = waiting.len().min(bytes.len());
                bytes[..count].copy_from_slice(&waiting[..count]);
                self.near.link.transmitted(count, now);
                return Ok(count);
            }
            if now >= until {
                return Ok(0);
            }
            let deadlines = [self.near.link.deadline(), self.far.link.deadline()];
            let next = deadlines.into_iter().flatten().min();
            let mut buffer = [0; 1024];
            let next = next.map_or(until, |next| next.clamp(now + 1, until));
            let count = self.port.read(&mut buffer, next)?;
            self.far.link.receive(&buffer[..count], self.port.now());
        }
    }

    fn now(&self) -> Millis {
        self.port.now()
    }

    fn set_baud(&mut self, baud: u32) -> io::Result<bool> {
        self.port.set_baud(baud)
    }
}

/// Hands that change replies only.
pub fn replies(
    mut change: impl FnMut(Reply<'_>, &mut Vec<u8>) + Send,
) -> impl FnMut(Direction, &mut Vec<u8>) -> Fate + Send {
    move |direction, message| {
        if direction == Direction::Up {
            let copy = message.clone();
            if let Ok(reply) = Reply::decode(&copy) {
                change(reply, message);
            }
        }
        Fate::Pass
    }
}

/// Hands that change requests only.
pub fn requests(
    mut change: impl FnMut(Request<'_>, &mut Vec<u8>) + Send,
) -> impl FnMut(Direction, &mut Vec<u8>) -> Fate + Send {
    move |direction, message| {
        if direction == Direction::Down {
            let copy = message.clone();
            if let Ok(request) = Request::decode(&copy) {
                change(request, message);
            }
        }
        Fate::Pass
    }
}

/// The bytes of a reply.
///
/// # Panics
/// If it is too long for a message.
#[must_use]
pub fn reply(reply: &Reply<'_>) -> Vec<u8> {
    let mut buffer = [0; MAX_MESSAGE];
    reply
        .encode(&mut buffer)
        .expect("a reply of a test fits")
        .to_vec()
}

/// The bytes of a request.
///
/// # Panics
/// If it is too long for a message.
#[must_use]
pub fn request(request: &Request<'_>) -> Vec<u8> {
    let mut buffer = [0; MAX_MESSAGE];
    request
        .encode(&mut buffer)
        .expect("a request of a test fits")
        .to_vec()
}
