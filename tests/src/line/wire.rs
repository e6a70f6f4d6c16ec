//! One direction: the sender's buffer, the wire, the receiver behind it, the adapter.

use std::collections::VecDeque;

use super::counts::Counts;
use super::injector::{Injector, Verdict};
use super::receiver::{Received, Receiver};
use super::{Adapter, CHARACTER_BITS, Nanos, Way, character_time, half_bits};

/// Bytes that can be sent again.
const HISTORY: usize = 1_024;

/// What a wire is made of.
pub(super) struct Make {
    pub(super) way: Way,
    pub(super) sender_baud: u32,
    pub(super) receiver_baud: u32,
    /// Bytes that the sender's buffer holds.
    pub(super) capacity: usize,
    /// Nanoseconds before the wire.
    pub(super) before: Nanos,
    /// Nanoseconds behind it.
    pub(super) after: Nanos,
    pub(super) adapter: Option<Adapter>,
}

/// One direction of a cable.
pub(super) struct Wire {
    make: Make,
    baud: u32,
    receiver: Receiver,
    queue: VecDeque<u8>,
    /// The queue's pieces: when each may go out, and its length.
    pieces: VecDeque<(Nanos, usize)>,
    /// Bytes that are sent once more, before the queue.
    again: VecDeque<u8>,
    history: VecDeque<u8>,
    /// When the last character has gone out. From then on the line is quiet.
    free_at: Nanos,
    /// What waits in the adapter.
    packet: VecDeque<u8>,
    /// When the first byte of it came.
    packet_since: Nanos,
    arrivals: VecDeque<(Nanos, u8)>,
}

impl Wire {
    pub(super) fn new(make: Make) -> Self {
        Self {
            baud: make.sender_baud,
            receiver: Receiver::new(make.receiver_baud),
            make,
            queue: VecDeque::new(),
            pieces: VecDeque::new(),
            again: VecDeque::new(),
            history: VecDeque::new(),
            free_at: 0,
            packet: VecDeque::new(),
            packet_since: 0,
            arrivals: VecDeque::new(),
        }
    }

    /// Bytes that the sender's buffer has room for.
    pub(super) fn room(&self) -> usize {
        self.make.capacity.saturating_sub(self.queue.len())
    }

    /// Takes what fits.
    pub(super) fn write(&mut self, bytes: &[u8], now: Nanos) -> usize {
        let count = bytes.len().min(self.room());
        if count > 0 {
            self.queue.extend(&bytes[..count]);
            self.pieces.push_back((now + self.make.before, count));
        }
        count
    }

    /// Gives what has arrived.
    pub(super) fn read(&mut self, bytes: &mut [u8], now: Nanos) -> usize {
        let mut count = 0;
        for place in bytes {
            match self.arrivals.front() {
                Some(&(at, byte)) if at <= now => *place = byte,
                Some(_) | None => break,
            }
            self.arrivals.pop_front();
            count += 1;
        }
        count
    }

    /// Forgets what has not gone out.
    pub(super) fn clear(&mut self) {
        self.queue.clear();
        self.pieces.clear();
        self.again.clear();
    }

    pub(super) const fn set_sender_baud(&mut self, baud: u32) {
        self.baud = baud;
    }

    pub(super) const fn set_receiver_baud(&mut self, baud: u32) {
        self.receiver.set_baud(baud);
    }

    pub(super) const fn sender_baud(&self) -> u32 {
        self.baud
    }

    /// When everything has gone out, if nothing waits to go out.
    pub(super) fn quiet_at(&self) -> Option<Nanos> {
        (self.queue.is_empty() && self.again.is_empty()).then_some(self.free_at)
    }

    /// When the next character could begin but for stalls.
    fn could_start(&self) -> Option<Nanos> {
        if !self.again.is_empty() {
            return Some(self.free_at);
        }
        let (ready, _) = self.pieces.front()?;
        Some(self.free_at.max(*ready))
    }

    /// When the next character begins.
    pub(super) fn next_start(&self, injector: &Injector) -> Option<Nanos> {
        let start = self.could_start()?;
        Some(injector.release(self.make.way, start))
    }

    /// When, after `now`, [`super::Cable::advance`] has something to do, or something arrives.
    pub(super) fn next_event(&self, now: Nanos, injector: &Injector) -> Option<Nanos> {
        let packet = self.packet_due();
        let here = match self.arrivals.front() {
            Some((at, _)) if *at <= now => self.arrivals.partition_point(|(at, _)| *at <= now),
            Some(_) | None => 0,
        };
        let arrival = self.arrivals.get(here).map(|(at, _)| *at);
        let events = [
            self.next_start(injector),
            self.receiver.completes(),
            packet,
            arrival,
        ];
        events.into_iter().flatten().min()
    }

    /// Sends the character whose turn it is, unless a stall holds it back longer than `now`.
    pub(super) fn send(&mut self, now: Nanos, injector: &mut Injector, counts: &mut Counts) {
        let way = self.make.way;
        let Some(could) = self.could_start() else {
            return;
        };
        let repeated = !self.again.is_empty();
        if !repeated {
            injector.arm(way, could, counts);
        }
        injector.hold(way, could, counts);
        let start = injector.release(way, could);
        if start > now {
            return;
        }
        let Some(byte) = self.again.pop_front().or_else(|| self.pop()) else {
            return;
        };
        let verdict = injector.character(way, start, repeated, counts);
        counts.way_mut(way).characters += 1;
        self.transfer(byte, start, verdict, counts);
        if repeated {
            return;
        }
        if self.history.len() == HISTORY {
            self.history.pop_front();
        }
        self.history.push_back(byte);
        if verdict.again > 0 {
            let count = (verdict.again as usize).min(self.history.len());
            self.again
                .extend(self.history.range(self.history.len() - count..));
            counts.way_mut(way).duplicates += 1;
            counts.way_mut(way).duplicated_bytes += count as u64;
        }
    }

    /// The next byte of the queue.
    fn pop(&mut self) -> Option<u8> {
        let (_, length) = self.pieces.front_mut()?;
        *length -= 1;
        if *length == 0 {
            self.pieces.pop_front();
        }
        self.queue.pop_front()
    }

    /// A character on the wire.
    fn transfer(&mut self, byte: u8, start: Nanos, verdict: Verdict, counts: &mut Counts) {
        let end = start + character_time(self.baud);
        self.listen(start, counts);
        self.free_at = end;
        let same_rate = self.receiver.baud() == self.baud;
        if verdict.flips == 0 && !verdict.dead && same_rate && self.receiver.is_idle() {
            // What the sampling below would come to.
            if !verdict.lost {
                let at = end;
                let framed = true;
                self.arrive(Received { at, byte, framed }, counts);
            }
            return;
        }
        let levels = if verdict.dead {
            u16::MAX
        } else {
            (u16::from(byte) << 1 | 1 << (CHARACTER_BITS - 1)) ^ verdict.flips
        };
        let mut received = Vec::new();
        for bit in 0..CHARACTER_BITS {
            let from = start + half_bits(2 * bit, self.baud);
            let to = start + half_bits(2 * bit + 2, self.baud);
            let high = levels >> bit & 1 == 1;
            self.receiver
                .level(from, to, high, |one| received.push(one));
        }
        for one in received {
            if !verdict.lost {
                self.arrive(one, counts);
            }
        }
    }

    /// The line is quiet until `to`: a receiver that was led astray gets its bits.
    pub(super) fn listen(&mut self, to: Nanos, counts: &mut Counts) {
        if self.receiver.is_idle() || to <= self.free_at {
            return;
        }
        let mut received = Vec::new();
        self.receiver
            .level(self.free_at, to, true, |one| received.push(one));
        for one in received {
            self.arrive(one, counts);
        }
    }

    /// A byte has come out of the receiver.
    fn arrive(&mut self, received: Received, counts: &mut Counts) {
        let tally = counts.way_mut(self.make.way);
        tally.delivered += 1;
        tally.framing_errors += u64::from(!received.framed);
        let Some(adapter) = self.make.adapter else {
            self.arrivals
                .push_back((received.at + self.make.after, received.byte));
            return;
        };
        self.flush(received.at);
        if self.packet.is_empty() {
            self.packet_since = received.at;
        }
        self.packet.push_back(received.byte);
        if self.packet.len() >= adapter.packet {
            self.hand_over(received.at);
        }
    }

    /// When the adapter's timer runs out.
    fn packet_due(&self) -> Option<Nanos> {
        let adapter = self.make.adapter.as_ref()?;
        (!self.packet.is_empty()).then(|| self.packet_since + adapter.timer)
    }

    /// Lets the adapter's timer run out if it is time.
    pub(super) fn flush(&mut self, now: Nanos) {
        if let Some(due) = self.packet_due()
            && due <= now
        {
            self.hand_over(due);
        }
    }

    /// The adapter's packet goes to the host.
    fn hand_over(&mut self, at: Nanos) {
        let arrived = self.packet.drain(..);
        let at = at + self.make.after;
        self.arrivals.extend(arrived.map(|byte| (at, byte)));
    }
}
