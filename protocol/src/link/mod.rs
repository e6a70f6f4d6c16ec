//! The link, version 1: messages of any length on a serial line, as fast as the line is and whatever it does.
//!
//! A [`Link`] takes bytes and the time and gives back bytes, messages and a deadline. It owns no port, no clock and no heap, so
//! the same code runs at both ends, in a simulation and under a fuzzer. Each direction is a stream of bytes: messages with
//! their lengths, one after the other. [`frame`] cuts the stream into frames, `sender` decides which part goes out next,
//! `receiver` puts the stream together again, `traffic` brings the frames to both. Nothing outside this folder knows a frame.
//!
//! A station opens a session; a device answers. Which of the two a link is shows in who calls [`Link::open`].

pub mod frame;
mod ranges;
pub mod rates;
mod receiver;
mod sender;
#[cfg(test)]
mod tests;
mod traffic;

use frame::{Deframer, OPENING_DATA, Parameters};
use receiver::Receiver;
use sender::Sender;

pub use frame::LINK_VERSION;
pub use ranges::Ranges;
pub use receiver::Front;
pub use sender::SMALLEST_FRAME;

/// Milliseconds since any fixed moment, from a clock that never goes back.
pub type Millis = u64;

/// Microseconds since the same moment.
type Micros = u64;

/// How long a station lets a session be quiet before it asks for a sign of life, in milliseconds.
pub const KEEP_ALIVE: Millis = 500;

/// How long nothing may be heard of the other end before it counts as gone, in milliseconds.
pub const SILENCE: Millis = 30_000;

/// How long before its last byte has left a station decides what goes out next, in milliseconds. Decided earlier, frames would wait
/// in the port's buffer while news of a loss comes in, and then be the wrong ones; later, the line might stand still meanwhile.
const AHEAD: Millis = 25;

/// How often in a row damage is reported while no good frame arrives. More would be an echo between ends at different rates.
const REPORTS: u8 = 4;

/// What happened to the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The station opened a new session: what belonged to the old one is gone. Only a device sees this.
    Opened,
    /// The other end has ended the session, or does not know it: it was restarted.
    Reset,
    /// The other end was not heard for [`SILENCE`].
    Lost,
}

/// Why a message cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkError {
    /// The message never fits; nor does one without a byte.
    TooLong,
    /// There is no room before what was sent earlier is acknowledged.
    Busy,
    /// No session is open.
    Closed,
}

impl core::fmt::Display for LinkError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::TooLong => "the message is too long for the link",
            Self::Busy => "the messages before are not acknowledged yet",
            Self::Closed => "no session is open",
        })
    }
}

impl core::error::Error for LinkError {}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed,
    /// A station that has not heard the device yet.
    Opening,
    Open,
}

/// One end of the link.
///
/// `RX` bytes of the stream can be received before they are consumed, `TX` bytes can be sent before they are acknowledged, and
/// an encoded frame has at most `OUT` bytes.
pub struct Link<const RX: usize, const TX: usize, const OUT: usize> {
    state: State,
    station: bool,
    /// The number of the session, which the device gives it: at a device the last one given, at a station 0 until it is told.
    session: u16,
    own: Parameters,
    /// Line rates that the other end can switch to.
    peer_rates: u16,
    /// The other end knows our parameters.
    known: bool,
    event: Option<Event>,
    deframer: Deframer,
    receiver: Receiver<RX>,
    sender: Sender<TX>,
    /// The number of the last frame heard.
    heard: u8,
    /// When a good frame of the session came last.
    heard_at: Millis,
    /// How many good frames of the session came, modulo 2^32.
    heard_frames: u32,
    /// What came in this session and was no frame, at most `u16::MAX`.
    damaged_frames: u16,
    /// A frame is to be answered even if there is nothing to say.
    answer: bool,
    damaged: bool,
    reports: u8,
    /// The other end is to be told that this session is over, or not known.
    reset: Option<u16>,
    /// How far the other end was told that it may send.
    told: u16,
    out: [u8; OUT],
    out_length: usize,
    out_sent: usize,
    /// The number of the frame in `out`, if it has one.
    out_number: Option<u8>,
    /// Time of a byte on the line in nanoseconds.
    byte_time: u64,
    /// When the last byte handed over has left, in microseconds.
    line_free: Micros,
}

impl<const RX: usize, const TX: usize, const OUT: usize> Default for Link<RX, TX, OUT> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const RX: usize, const TX: usize, const OUT: usize> Link<RX, TX, OUT> {
    /// Bytes of RAM that a link takes beside its three buffers.
    pub const STATE: usize = size_of::<Self>() - RX - TX - OUT;

    /// Most bytes of data that this end puts into a frame.
    const LARGEST: u16 = {
        let fits = frame::data_that_fits(OUT);
        assert!(fits >= OPENING_DATA, "OUT is too small for a frame");
        if fits > 16_384 { 16_384 } else { fits as u16 }
    };

    /// A link with no session, on a line at 115200 baud, which is the only rate it knows, and with `number` 0: see [`Self::offering`].
    #[must_use]
    pub const fn new() -> Self {
        Self::offering(0, 0)
    }

    /// A link whose end can switch to these line rates: see [`rates`]. A device numbers its sessions from the one after `number` on, which
    /// is random at each start, and no secret: so none is taken for one of the device before it was restarted. A station has no use for it.
    // A link is kilobytes. Inlined, as what it is made of, it is made in its place and not moved there over the stack.
    #[inline(always)]
    #[must_use]
    pub const fn offering(rates: u16, number: u16) -> Self {
        Self {
            state: State::Closed,
            station: false,
            session: number,
            own: Parameters {
                nonce: 0,
                // Two frames in the buffer: one arrives while the one before is acknowledged.
                max_frame: (RX / 2) as u16,
                rates,
            },
            peer_rates: 0,
            known: false,
            event: None,
            deframer: Deframer::new(),
            receiver: Receiver::new(),
            sender: Sender::new(),
            heard: u8::MAX,
            heard_at: 0,
            heard_frames: 0,
            damaged_frames: 0,
            answer: false,
            damaged: false,
            reports: 0,
            reset: None,
            told: 0,
            out: [0; OUT],
            out_length: 0,
            out_sent: 0,
            out_number: None,
            byte_time: rates::byte_time(rates::BASE),
            line_free: 0,
        }
    }

    /// The line rates that both ends can switch to; none before the session is open.
    #[must_use]
    pub const fn common_rates(&self) -> u16 {
        self.own.rates & self.peer_rates
    }

    /// Says how fast the line is, in baud, so that a frame is not missed before it can have arrived.
    pub const fn set_rate(&mut self, baud: u32) {
        self.byte_time = rates::byte_time(baud);
    }

    /// Opens a session; what was under way is dropped. Its first message, of at most 30 bytes, goes along if it is sent before
    /// anything is transmitted. `nonce` is random, and differs from the last ones.
    pub fn open(&mut self, nonce: u32, now: Millis) {
        self.restart();
        self.session = 0;
        self.state = State::Opening;
        self.station = true;
        self.own.nonce = nonce;
        self.peer_rates = 0;
        self.sender.set_largest(OPENING_DATA as u16);
        self.sender.grant(OPENING_DATA as u16);
        self.heard_at = now;
    }

    /// Ends the session: the other end is told, and everything under way is dropped.
    pub fn close(&mut self) {
        if self.state == State::Closed {
            return;
        }
        self.restart();
        // While it is being opened, it has no number that could be told.
        self.reset = (self.state == State::Open).then_some(self.session);
        self.state = State::Closed;
    }

    /// Whether a session is open, or being opened.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state != State::Closed
    }

    /// Sends a message of 1 to `TX` - 2 bytes.
    ///
    /// # Errors
    /// [`LinkError`].
    pub fn send(&mut self, message: &[u8]) -> Result<(), LinkError> {
        let length = u16::try_from(message.len()).map_err(|_| LinkError::TooLong)?;
        if length == 0 || message.len() + receiver::PREFIX > TX {
            return Err(LinkError::TooLong);
        }
        self.check_room(message.len())?;
        self.begin(length)?;
        self.write(message);
        Ok(())
    }

    fn check_room(&self, length: usize) -> Result<(), LinkError> {
        if self.state == State::Closed {
            Err(LinkError::Closed)
        } else if self.sender.room() < length {
            Err(LinkError::Busy)
        } else {
            Ok(())
        }
    }

    /// Begins a message of 1 to 65535 bytes that [`Self::write`] brings piece by piece.
    ///
    /// # Errors
    /// [`LinkError`].
    pub fn begin(&mut self, length: u16) -> Result<(), LinkError> {
        if length == 0 {
            return Err(LinkError::TooLong);
        }
        self.check_room(1)?;
        self.sender.begin(length);
        Ok(())
    }

    /// Takes as many bytes of the message that was begun as there is room for, and says how many.
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        self.sender.write(bytes)
    }

    /// Length in bytes of the longest message that [`Self::send`] would take now.
    #[must_use]
    pub fn room(&self) -> usize {
        match self.state {
            State::Closed => 0,
            State::Opening | State::Open => self.sender.room(),
        }
    }

    /// How many bytes [`Self::write`] would take now, or the next message may have.
    #[must_use]
    pub fn room_to_write(&self) -> usize {
        match self.state {
            State::Closed => 0,
            State::Opening | State::Open => self.sender.room_to_write(),
        }
    }

    /// Room to write a message to: see [`Self::commit`].
    pub fn space(&mut self) -> &mut [u8] {
        match self.state {
            State::Closed => &mut [],
            State::Opening | State::Open => self.sender.space(),
        }
    }

    /// Sends the first `length` bytes of [`Self::space`] as a message.
    pub fn commit(&mut self, length: usize) {
        if let (Ok(length), true) = (u16::try_from(length), self.state != State::Closed) {
            self.sender.commit(length);
        }
    }

    /// Whether all that was sent is acknowledged.
    #[must_use]
    pub fn idle(&self) -> bool {
        self.sender.is_idle()
    }

    /// What happened since this was asked last.
    pub fn event(&mut self) -> Option<Event> {
        self.event.take()
    }

    /// The message at the front of what has come, once its length is known.
    #[must_use]
    pub fn front(&self) -> Option<Front<'_>> {
        match self.state {
            State::Closed | State::Opening => None,
            State::Open => self.receiver.front(),
        }
    }

    /// The message at the front together with the room for its answer: [`Self::front`] and [`Self::space`].
    pub fn halves(&mut self) -> (Option<Front<'_>>, &mut [u8]) {
        match self.state {
            State::Closed | State::Opening => (None, &mut []),
            State::Open => (self.receiver.front(), self.sender.space()),
        }
    }

    /// Consumes bytes of the message at the front. Once all of it is consumed, the next one stands there.
    pub fn consume(&mut self, count: usize) {
        self.receiver.consume(count);
        let limit = self.limit();
        // An end that waits for room is told once there is enough to be worth a frame.
        if usize::from(limit.wrapping_sub(self.told)) >= RX / 4 {
            self.answer = true;
        }
    }

    /// When a good frame of this session came last, or when it was opened.
    #[must_use]
    pub const fn heard_at(&self) -> Millis {
        self.heard_at
    }

    /// How many good frames came, modulo 2^32: whether one came since is seen even within a millisecond.
    #[must_use]
    pub const fn heard_frames(&self) -> u32 {
        self.heard_frames
    }

    /// How often in this session something came that was no frame: most often one that was damaged on the way. At most `u16::MAX`.
    #[must_use]
    pub const fn damaged_frames(&self) -> u16 {
        self.damaged_frames
    }

    /// How many frames of this session had data that was sent before, because it was lost on the way. At most `u16::MAX`.
    #[must_use]
    pub const fn repeated_frames(&self) -> u16 {
        self.sender.repeated()
    }

    /// Asks the other end for a sign of life, unless it owes one already.
    pub fn ping(&mut self) {
        if self.state == State::Open {
            self.sender.ask();
        }
    }
}
