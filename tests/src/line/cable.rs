//! Both directions, their faults and their counts. Whoever calls owns the clock.

use super::counts::{Counts, Tally};
use super::injector::Injector;
use super::wire::{Make, Wire};
use super::{End, Nanos, Settings, Way};

/// A full-duplex serial line. Times must never go back from one call to the next.
pub struct Cable {
    wires: [Wire; 2],
    injector: Injector,
    counts: Counts,
    now: Nanos,
}

impl Cable {
    /// A new line.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let down = Make {
            way: Way::Down,
            sender_baud: settings.station_baud,
            receiver_baud: settings.device_baud,
            capacity: settings.system_buffer,
            before: settings.down_latency,
            after: 0,
            adapter: None,
        };
        let up = Make {
            way: Way::Up,
            sender_baud: settings.device_baud,
            receiver_baud: settings.station_baud,
            capacity: settings.board.transmit_ring,
            before: 0,
            after: settings.up_latency,
            adapter: settings.adapter,
        };
        Self {
            wires: [Wire::new(down), Wire::new(up)],
            injector: Injector::new(&settings.faults, settings.seed),
            counts: Counts::default(),
            now: 0,
        }
    }

    /// Bytes that the sender's buffer of this direction has room for.
    #[must_use]
    pub fn room(&self, way: Way) -> usize {
        self.wires[way.index()].room()
    }

    /// Puts bytes into the sender's buffer, as many as fit, and says how many.
    pub fn write(&mut self, way: Way, bytes: &[u8], now: Nanos) -> usize {
        self.advance(now);
        let count = self.wires[way.index()].write(bytes, now);
        self.advance(now);
        count
    }

    /// Takes bytes that have come out at the far end of this direction, as many as fit, and says how many.
    pub fn read(&mut self, way: Way, bytes: &mut [u8], now: Nanos) -> usize {
        self.advance(now);
        self.wires[way.index()].read(bytes, now)
    }

    /// Lets time pass until `now`. A character that begins until then is decided then, up to its end.
    pub fn advance(&mut self, now: Nanos) {
        self.now = self.now.max(now);
        // In order of time: a fault that one direction meets may hit both.
        while let Some(way) = self.next_to_send(now) {
            self.wires[way.index()].send(now, &mut self.injector, &mut self.counts);
        }
        for wire in &mut self.wires {
            wire.listen(now, &mut self.counts);
            wire.flush(now);
        }
    }

    /// The direction whose next character begins first, if that is not after `now`.
    fn next_to_send(&self, now: Nanos) -> Option<Way> {
        let start = |way: Way| self.wires[way.index()].next_start(&self.injector);
        let (way, at) = Way::ALL
            .into_iter()
            .filter_map(|way| Some((way, start(way)?)))
            .min_by_key(|(_, at)| *at)?;
        (at <= now).then_some(way)
    }

    /// When something happens next on the line; `None` if nothing is under way. What has arrived already does not count.
    #[must_use]
    pub fn next(&self) -> Option<Nanos> {
        let events = self
            .wires
            .iter()
            .map(|wire| wire.next_event(self.now, &self.injector));
        events.flatten().min()
    }

    /// When the last character of this direction has gone out, if nothing waits to go out.
    #[must_use]
    pub fn quiet_at(&self, way: Way) -> Option<Nanos> {
        self.wires[way.index()].quiet_at()
    }

    /// The rate at which an end sends and receives.
    #[must_use]
    pub const fn baud(&self, end: End) -> u32 {
        match end {
            End::Station => self.wires[Way::Down.index()].sender_baud(),
            End::Device => self.wires[Way::Up.index()].sender_baud(),
        }
    }

    /// Changes the rate of one end at once, for what has not begun to go out too; half a received character is lost.
    pub fn set_baud(&mut self, end: End, baud: u32, now: Nanos) {
        self.advance(now);
        let (sends, receives) = match end {
            End::Station => (Way::Down, Way::Up),
            End::Device => (Way::Up, Way::Down),
        };
        self.wires[sends.index()].set_sender_baud(baud);
        self.wires[receives.index()].set_receiver_baud(baud);
    }

    /// Forgets what the sender of this direction has not sent yet.
    pub fn clear(&mut self, way: Way) {
        self.wires[way.index()].clear();
    }

    /// What has happened so far.
    #[must_use]
    pub const fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Notes a reset of the device.
    pub(super) const fn count_reset(&mut self) {
        self.counts.resets += 1;
    }

    /// Counts of one direction, for faults that happen beside the wire.
    pub(super) const fn tally_mut(&mut self, way: Way) -> &mut Tally {
        self.counts.way_mut(way)
    }
}
