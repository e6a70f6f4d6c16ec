//! The sending half: keeps the stream until it is acknowledged, and decides what goes out next.
//!
//! Frames arrive in the order in which they were sent, or not at all. So a frame that the other end does not have, although
//! it heard a later one, is lost; and what neither the other end holds nor is on its way is to be sent. There is no list of lost
//! frames beside that.

use heapless::Vec;

use super::frame::Fields;
use super::ranges::{Ranges, distance};
use super::receiver::PREFIX;
use super::{KEEP_ALIVE, Micros, Millis};

/// Smallest size that bad frames shrink the next ones to, in bytes of data.
pub const SMALLEST_FRAME: u16 = 64;

/// After how many full frames without a loss the size doubles again.
const CLEAN_FRAMES: u16 = 8;

/// Frames on their way at most.
const MAX_FLIGHTS: usize = 24;

/// Time allowed for an acknowledgement before any was measured, in milliseconds, beyond the time the frame takes on the wire.
const FIRST_ALLOWANCE: Millis = 100;
/// Added to the measured time: a USB adapter may hold an answer back for 16 ms.
const LEAST_ALLOWANCE: Millis = 20;
/// Longest time between two probes.
const LONGEST_ALLOWANCE: Millis = 1_000;
/// Probes before the time between them doubles.
const QUICK_PROBES: u8 = 3;

/// A frame on its way: data, or a ping, which has none.
#[derive(Clone, Copy, Debug)]
struct Flight {
    number: u8,
    start: u16,
    end: u16,
    /// When its last bit leaves, as far as this end can tell. `None` while it is being handed to the port.
    sent: Option<Micros>,
}

/// What is to go out next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) number: u8,
    pub(super) offset: u16,
    /// Where the data stands in [`Sender::data`], in bytes from its start.
    pub(super) start: usize,
    /// Its length; 0 for a ping.
    pub(super) length: usize,
}

pub(super) struct Sender<const TX: usize> {
    buffer: [u8; TX],
    /// Offset in the stream of the first byte of the buffer: the first that is not acknowledged.
    base: u16,
    length: usize,
    /// Bytes of the message that was begun and are still to be written.
    begun: u16,
    /// What the other end holds beyond the acknowledgement.
    held: Ranges,
    credit: u16,
    flights: Vec<Flight, MAX_FLIGHTS>,
    next_number: u8,
    /// How far the stream has been sent; see [`Self::repeated`].
    furthest: u16,
    repeated: u16,
    ping: bool,
    largest: u16,
    size: u16,
    /// Bytes acknowledged since the last loss or change of size.
    clean: u32,
    /// Smoothed time to an acknowledgement and its deviation (RFC 6298), in microseconds.
    measured: Option<(Micros, Micros)>,
    probes: u8,
    /// Questions for room in a row whose answers brought none.
    in_vain: u8,
    timer: Option<Millis>,
}

impl<const TX: usize> Sender<TX> {
    #[inline(always)]
    pub(super) const fn new() -> Self {
        assert!(TX >= 64 && TX <= 32_767, "between 64 bytes and 32 KiB");
        Self {
            buffer: [0; TX],
            base: 0,
            length: 0,
            begun: 0,
            held: Ranges::new(),
            credit: 0,
            flights: Vec::new(),
            next_number: 0,
            furthest: 0,
            repeated: 0,
            ping: false,
            largest: SMALLEST_FRAME,
            size: SMALLEST_FRAME,
            clean: 0,
            measured: None,
            probes: 0,
            in_vain: 0,
            timer: None,
        }
    }

    pub(super) fn restart(&mut self) {
        self.base = 0;
        self.length = 0;
        self.begun = 0;
        self.held.clear();
        self.credit = 0;
        self.flights.clear();
        self.next_number = 0;
        self.furthest = 0;
        self.repeated = 0;
        self.ping = false;
        self.clean = 0;
        self.measured = None;
        self.probes = 0;
        self.in_vain = 0;
        self.timer = None;
    }

    /// Sets the largest frame, in bytes of data.
    pub(super) fn set_largest(&mut self, largest: u16) {
        self.largest = largest.max(1);
        self.size = self.largest;
    }

    pub(super) const fn grant(&mut self, credit: u16) {
        self.credit = credit;
    }

    /// Everything that was sent is acknowledged.
    pub(super) const fn is_idle(&self) -> bool {
        self.length == 0 && self.begun == 0
    }

    /// Whether something waits for an answer of the other end.
    pub(super) fn is_waiting(&self) -> bool {
        self.length > 0 || self.ping || !self.flights.is_empty()
    }

    /// Room for the longest message that can be sent now.
    pub(super) const fn room(&self) -> usize {
        if self.begun > 0 {
            return 0;
        }
        (TX - self.length).saturating_sub(PREFIX)
    }

    pub(super) const fn room_to_write(&self) -> usize {
        let prefix = if self.begun > 0 { 0 } else { PREFIX };
        (TX - self.length).saturating_sub(prefix)
    }

    /// The room itself.
    pub(super) fn space(&mut self) -> &mut [u8] {
        if self.begun > 0 {
            return &mut [];
        }
        self.buffer
            .get_mut(self.length + PREFIX..)
            .unwrap_or(&mut [])
    }

    /// Sends what was written to the front of [`Self::space`].
    pub(super) fn commit(&mut self, length: u16) {
        if length == 0 || usize::from(length) > self.room() {
            return;
        }
        if let Some(prefix) = self.buffer.get_mut(self.length..self.length + PREFIX) {
            prefix.copy_from_slice(&length.to_le_bytes());
            self.length += PREFIX + usize::from(length);
        }
    }

    /// Begins a message that is written piece by piece.
    pub(super) fn begin(&mut self, length: u16) {
        if let Some(prefix) = self.buffer.get_mut(self.length..self.length + PREFIX) {
            prefix.copy_from_slice(&length.to_le_bytes());
            self.length += PREFIX;
            self.begun = length;
        }
    }

    /// Takes as much of the message that was begun as there is room for.
    pub(super) fn write(&mut self, bytes: &[u8]) -> usize {
        let count = bytes
            .len()
            .min(usize::from(self.begun))
            .min(TX - self.length);
        let (Some(place), Some(bytes)) = (
            self.buffer.get_mut(self.length..self.length + count),
            bytes.get(..count),
        ) else {
            return 0;
        };
        place.copy_from_slice(bytes);
        self.length += count;
        self.begun -= count as u16;
        count
    }

    /// The stream from the first byte that is not acknowledged.
    pub(super) fn data(&self, due: &Due) -> &[u8] {
        self.buffer
            .get(due.start..due.start + due.length)
            .unwrap_or(&[])
    }

    /// Asks for a sign of life.
    pub(super) fn ask(&mut self) {
        if self.flights.is_empty() {
            self.ping = true;
        }
    }

    /// What the other end says of what it has.
    pub(super) fn acknowledge(&mut self, fields: &Fields, damaged: bool, now: Micros) {
        let advance = usize::from(fields.acknowledgement.wrapping_sub(self.base));
        if advance > self.length {
            // The line has repeated what it brought before.
            return;
        }
        let reach = fields.acknowledgement.wrapping_add(fields.credit);
        if distance(self.base.wrapping_add(self.credit), reach) > 0 {
            self.in_vain = 0;
        }
        if advance > 0 {
            self.buffer.copy_within(advance..self.length, 0);
            self.length -= advance;
            self.base = fields.acknowledgement;
            self.clean = self.clean.saturating_add(advance as u32);
            self.probes = 0;
        }
        self.held.clear();
        // Others could lead around in a circle, or beyond what there is.
        if fields.held.are_rising(self.base, self.length) {
            self.held = fields.held.clone();
        }
        self.credit = fields.credit;
        let (mut lost, mut news) = (false, advance > 0);
        while let Some(flight) = self.flights.first().copied() {
            // 128 numbers are more than ever are on their way.
            if fields.heard.wrapping_sub(flight.number) >= 128 {
                break;
            }
            if let (true, Some(sent)) = (fields.heard == flight.number, flight.sent) {
                self.measure(now.saturating_sub(sent));
                self.probes = 0;
            }
            lost |= !self.is_there(flight);
            news = true;
            self.flights.remove(0);
        }
        // What is acknowledged is on its way no more, whatever was heard: its offsets come again.
        let base = self.base;
        self.flights
            .retain(|flight| flight.start == flight.end || distance(base, flight.end) > 0);
        if damaged
            && let Some(flight) = self.flights.first().copied()
            && flight.sent.is_some()
        {
            // What arrived damaged was sent after the last frame heard: this one, most likely.
            lost |= flight.start != flight.end;
            news = true;
            self.flights.remove(0);
        }
        if lost {
            self.shrink();
        } else if self.clean >= u32::from(self.size) * u32::from(CLEAN_FRAMES) {
            self.size = self.size.saturating_mul(2).min(self.largest);
            self.clean = 0;
        }
        if news || !self.is_waiting() {
            self.set_timer(now);
        }
    }

    /// Whether the other end has all of it.
    fn is_there(&self, flight: Flight) -> bool {
        let mut at = flight.start;
        if distance(at, self.base) > 0 {
            at = self.base;
        }
        if let Some(end) = self.held.end_of(at) {
            at = end;
        }
        distance(at, flight.end) <= 0
    }

    /// RFC 6298 section 2.
    fn measure(&mut self, sample: Micros) {
        self.measured = Some(match self.measured {
            None => (sample, sample / 2),
            Some((smoothed, deviation)) => (
                (smoothed * 7 + sample) / 8,
                (deviation * 3 + smoothed.abs_diff(sample)) / 4,
            ),
        });
    }

    fn set_timer(&mut self, now: Micros) {
        let allowance = match self.measured {
            None => FIRST_ALLOWANCE,
            Some((smoothed, deviation)) => LEAST_ALLOWANCE + (smoothed + 4 * deviation) / 1000,
        };
        let doublings = self.probes.saturating_sub(QUICK_PROBES).min(10);
        let mut allowance = (allowance << doublings).min(LONGEST_ALLOWANCE);
        if self.flights.is_empty() {
            // Only news of room can be lost now, and it is as good as the keep-alive is quick.
            let patient = (allowance << self.in_vain.min(10)).min(KEEP_ALIVE);
            allowance = allowance.max(patient);
        }
        let last = self.flights.iter().filter_map(|flight| flight.sent).max();
        self.timer = self
            .is_waiting()
            .then(|| last.unwrap_or(now).max(now).div_ceil(1000) + allowance);
    }

    /// Something waits, and nothing of it may go out: then news of room may have been lost, and is to be asked for.
    pub(super) fn mind(&mut self, now: Micros) {
        if self.timer.is_none() && self.is_waiting() {
            self.set_timer(now);
        }
    }

    /// How many frames had data that was sent before, at most `u16::MAX`.
    pub(super) const fn repeated(&self) -> u16 {
        self.repeated
    }

    pub(super) const fn timer(&self) -> Option<Millis> {
        self.timer
    }

    /// The time for an acknowledgement is up. A ping brings to light what of all that was sent has arrived; an opening frame
    /// is sent again, since nobody answers a ping before.
    pub(super) fn time_is_up(&mut self, opening: bool, now: Micros) {
        self.probes = self.probes.saturating_add(1);
        if !opening && self.flights.is_empty() && self.length > 0 && self.due_data().is_none() {
            self.in_vain = self.in_vain.saturating_add(1);
        }
        if opening || self.flights.is_full() {
            self.flights.clear();
        }
        self.ping = !opening;
        self.set_timer(now);
    }

    /// Something damaged has come the other way: what ruins one direction will not spare the other.
    pub(super) fn shrink(&mut self) {
        self.size = (self.size / 2).max(SMALLEST_FRAME.min(self.largest));
        self.clean = 0;
    }

    /// Whether [`Self::take_due`] would give something.
    pub(super) fn has_due(&self) -> bool {
        !self.flights.is_full() && (self.ping || self.due_data().is_some())
    }

    /// What is to go out next, if anything. It counts as on its way from now on.
    pub(super) fn take_due(&mut self) -> Option<Due> {
        if self.flights.is_full() {
            return None;
        }
        let (offset, length) = if core::mem::take(&mut self.ping) {
            (self.base.wrapping_add(self.length as u16), 0)
        } else {
            self.due_data()?
        };
        let number = self.next_number;
        self.next_number = number.wrapping_add(1);
        let flight = Flight {
            number,
            start: offset,
            end: offset.wrapping_add(length),
            sent: None,
        };
        // There is a place, see above.
        let _ = self.flights.push(flight);
        let again = length > 0 && distance(offset, self.furthest) > 0;
        self.repeated = self.repeated.saturating_add(again.into());
        if distance(self.furthest, flight.end) > 0 {
            self.furthest = flight.end;
        }
        Some(Due {
            number,
            offset,
            start: usize::from(offset.wrapping_sub(self.base)),
            length: usize::from(length),
        })
    }

    /// The first bytes that the other end neither holds nor will get, as many as a frame may have.
    fn due_data(&self) -> Option<(u16, u16)> {
        let all = self.length as u16;
        let limit = all.min(self.credit);
        let mut at = self.base;
        // Each turn leaves a range or a flight behind.
        let beyond = loop {
            let before = at;
            if let Some(end) = self.held.end_of(at) {
                at = end;
            }
            for flight in &self.flights {
                if distance(flight.start, at) >= 0 && distance(at, flight.end) > 0 {
                    at = flight.end;
                }
            }
            if at == before {
                break usize::from(at.wrapping_sub(self.base));
            }
        };
        let room = limit.checked_sub(u16::try_from(beyond).ok()?)?;
        let mut length = room.min(self.size);
        let starts = self.held.as_slice().iter().map(|(start, _)| *start);
        for start in starts.chain(self.flights.iter().map(|flight| flight.start)) {
            let gap = distance(at, start);
            if gap > 0 {
                length = length.min(u16::try_from(gap).unwrap_or(u16::MAX));
            }
        }
        // Rather wait for credit than send many small frames (RFC 9293 section 3.8.6.2.1).
        let cut_by_credit = limit < all && length < self.size && length == room;
        let worth_it = length > 0 && (!cut_by_credit || self.flights.is_empty());
        worth_it.then_some((at, length))
    }

    /// The frame with this number has been handed to the port; its last bit leaves at `at`.
    pub(super) fn sent(&mut self, number: u8, at: Micros, now: Micros) {
        for flight in &mut self.flights {
            if flight.number == number {
                flight.sent = Some(at);
            }
        }
        self.set_timer(now);
    }
}
