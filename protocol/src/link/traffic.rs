//! Frames in and out: what they do to the session, what goes out next, and what time brings.

use super::frame::{self, Deframed, Fields, OPENING_DATA, Parameters, flag};
use super::{AHEAD, Event, KEEP_ALIVE, Link, Millis, REPORTS, SILENCE, SMALLEST_FRAME, State};

impl<const RX: usize, const TX: usize, const OUT: usize> Link<RX, TX, OUT> {
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
        self.peer_rates = parameters.rates;
        self.sender
            .set_largest(Self::LARGEST.min(parameters.max_frame.max(SMALLEST_FRAME)));
    }

    pub(super) fn restart(&mut self) {
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
    pub(super) const fn limit(&self) -> u16 {
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
