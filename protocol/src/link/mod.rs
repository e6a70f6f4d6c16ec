//! The link, version 1: messages of any length on a serial line, as fast as the line is and whatever it does.
//!
//! A [`Link`] takes bytes and the time and gives back bytes, messages and a deadline. It owns no port, no clock and no heap, so
//! the same code runs at both ends, in a simulation and under a fuzzer. Each direction is a stream of bytes: messages with
//! their lengths, one after the other. [`frame`] cuts the stream into frames, `sender` decides which part goes out next,
//! `receiver` puts the stream together again. Nothing outside this folder knows a frame.
//!
//! A station opens a session; a device answers. Which of the two a link is shows in who calls [`Link::open`].

pub mod frame;
mod ranges;
pub mod rates;
mod receiver;
mod sender;
#[cfg(test)]
mod tests;

use frame::{Deframed, Deframer, Fields, OPENING_DATA, Parameters, flag};
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
    peer: Parameters,
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
    /// A frame of this session, which is not ours, is to be answered with a reset.
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
            peer: Parameters {
                nonce: 0,
                max_frame: 0,
                rates: 0,
            },
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
        self.own.rates & self.peer.rates
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
        self.peer = Parameters::default();
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

    /// Takes received bytes, all of them. See [`Self::event`] and [`Self::front`] afterwards.
    pub fn receive(&mut self, bytes: &[u8], now: Millis) {
        for &byte in bytes {
            match self.deframer.feed(byte, &mut self.receiver) {
                Deframed::Nothing => {}
                Deframed::Damaged => {
                    if self.state != State::Closed {
                        self.damaged_frames = self.damaged_frames.saturating_add(1);
                    }
                    if self.state == State::Open && self.reports < REPORTS {
                        if self.reports == 0 {
                            self.sender.shrink();
                        }
                        self.reports += 1;
                        self.damaged = true;
                        self.answer = true;
                    }
                    self.receiver.begin_frame();
                }
                Deframed::Frame(fields, length) => {
                    self.take(&fields, length, now);
                    self.receiver.begin_frame();
                }
            }
        }
    }

    fn take(&mut self, fields: &Fields, length: u16, now: Millis) {
        // A frame of one's own kind of end: the cable leads back to itself.
        if fields.has(flag::DEVICE) != self.station {
            return;
        }
        match fields.parameters {
            Some(parameters) if !self.station => {
                let same = self.state == State::Open && self.own.nonce == parameters.nonce;
                if !same && !self.accept_session(fields, parameters, length) {
                    return;
                }
            }
            Some(parameters)
                if self.state == State::Opening && self.own.nonce == parameters.nonce =>
            {
                self.session = fields.session;
                self.state = State::Open;
                self.meet(parameters);
            }
            Some(_) | None if self.state == State::Open && self.session == fields.session => {}
            Some(_) | None => {
                if !self.station && !fields.has(flag::RESET) {
                    self.reset = Some(fields.session);
                }
                return;
            }
        }
        if fields.has(flag::RESET) {
            self.restart();
            self.state = State::Closed;
            self.event = Some(Event::Reset);
            return;
        }
        self.heard_at = now;
        self.heard_frames = self.heard_frames.wrapping_add(1);
        self.reports = 0;
        self.known |= fields.parameters.is_none() || self.station;
        self.sender
            .acknowledge(fields, fields.has(flag::DAMAGED), now * 1000);
        if length > 0 || fields.has(flag::PING) {
            self.heard = fields.number;
            self.answer = true;
            self.receiver.accept(fields.offset, length);
        }
    }

    /// A device takes a new session up, and gives it its number.
    fn accept_session(&mut self, fields: &Fields, parameters: Parameters, length: u16) -> bool {
        let data = usize::from(length);
        if fields.offset != 0 || data > OPENING_DATA {
            return false;
        }
        self.restart();
        self.session = self.session.wrapping_add(1);
        self.state = State::Open;
        self.own.nonce = parameters.nonce;
        self.meet(parameters);
        self.event = Some(Event::Opened);
        for (offset, byte) in (0..).zip(self.deframer.opening_data(length)) {
            frame::Sink::put(&mut self.receiver, offset, *byte);
        }
        true
    }

    fn meet(&mut self, parameters: Parameters) {
        self.peer = parameters;
        self.sender
            .set_largest(Self::LARGEST.min(parameters.max_frame.max(SMALLEST_FRAME)));
    }

    fn restart(&mut self) {
        self.known = false;
        self.event = None;
        self.damaged_frames = 0;
        self.receiver.restart();
        self.sender.restart();
        self.heard = u8::MAX;
        self.answer = false;
        self.damaged = false;
        self.reports = 0;
        self.reset = None;
        self.told = 0;
        // A frame that is going out ends as it is; the other end drops it.
        self.out_number = None;
    }

    /// How far the other end may send.
    const fn limit(&self) -> u16 {
        self.receiver
            .acknowledgement()
            .wrapping_add(self.receiver.credit())
    }

    /// Bytes to send now, if any.
    pub fn transmit(&mut self, now: Millis) -> &[u8] {
        if self.out_sent == self.out_length {
            self.watch(now);
            self.out_sent = 0;
            self.out_length = 0;
            if self.decides_later() && self.line_free > (now + AHEAD) * 1000 {
                return &[];
            }
            // Bytes from nowhere may have come while the line was quiet: a zero parts them from the frame.
            let lead = now * 1000 >= self.line_free;
            self.out_length = self.next_frame(lead);
            if self.out_length == 0 {
                self.sender.mind(now * 1000);
            }
        }
        self.out.get(self.out_sent..self.out_length).unwrap_or(&[])
    }

    /// Says that the first `count` bytes of [`Self::transmit`] have gone out.
    pub fn transmitted(&mut self, count: usize, now: Millis) {
        let count = count.min(self.out_length - self.out_sent);
        self.out_sent += count;
        let wire = (count as u64 * self.byte_time).div_ceil(1000);
        self.line_free = self.line_free.max(now * 1000) + wire;
        if self.out_sent == self.out_length
            && let Some(number) = self.out_number.take()
        {
            self.sender.sent(number, self.line_free, now * 1000);
        }
    }

    /// When [`Self::transmit`] is to be asked again even if nothing arrives.
    #[must_use]
    pub fn deadline(&self) -> Option<Millis> {
        if self.state == State::Closed {
            return None;
        }
        let next = (self.decides_later()
            && self.out_sent == self.out_length
            && (self.answer || self.sender.has_due()))
        .then(|| self.line_free.div_ceil(1000).saturating_sub(AHEAD));
        let keep_alive = (self.station && self.state == State::Open && !self.sender.is_waiting())
            .then(|| self.heard_at + KEEP_ALIVE);
        [
            next,
            self.sender.timer(),
            keep_alive,
            Some(self.heard_at + SILENCE),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Whether frames wait for the line rather than in the port. A device hands over byte by byte what its transmitter takes, and
    /// changes its rate when nothing is left.
    fn decides_later(&self) -> bool {
        self.station && self.state == State::Open
    }

    /// Looks at the clock.
    fn watch(&mut self, now: Millis) {
        if self.state == State::Closed {
            return;
        }
        if now >= self.heard_at + SILENCE {
            self.restart();
            self.state = State::Closed;
            self.event = Some(Event::Lost);
            return;
        }
        if self.sender.timer().is_some_and(|at| now >= at) {
            self.sender
                .time_is_up(self.state == State::Opening, now * 1000);
        }
        if self.station && self.state == State::Open && now >= self.heard_at + KEEP_ALIVE {
            self.sender.ask();
        }
    }

    /// Encodes what is to go out next, and gives back its length; 0 if there is nothing.
    fn next_frame(&mut self, lead: bool) -> usize {
        let direction = if self.station { 0 } else { flag::DEVICE };
        if let Some(session) = self.reset.take() {
            let fields = Fields {
                flags: flag::RESET | direction,
                session,
                ..Fields::default()
            };
            return frame::encode(&fields, &[], lead, &mut self.out);
        }
        if self.state == State::Closed {
            return 0;
        }
        let due = self.sender.take_due();
        if due.is_none() && !self.answer {
            return 0;
        }
        let mut flags = direction;
        if core::mem::take(&mut self.damaged) {
            flags |= flag::DAMAGED;
        }
        if due.as_ref().is_some_and(|due| due.length == 0) {
            flags |= flag::PING;
        }
        self.answer = false;
        self.told = self.limit();
        self.out_number = due.as_ref().map(|due| due.number);
        let fields = Fields {
            flags,
            session: self.session,
            number: due.as_ref().map_or(0, |due| due.number),
            offset: due.as_ref().map_or(0, |due| due.offset),
            acknowledgement: self.receiver.acknowledgement(),
            heard: self.heard,
            credit: self.receiver.credit(),
            parameters: (!self.known).then_some(self.own),
            held: self.receiver.held().clone(),
        };
        let data = due.as_ref().map_or(&[][..], |due| self.sender.data(due));
        frame::encode(&fields, data, lead, &mut self.out)
    }
}
