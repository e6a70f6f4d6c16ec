//! The one place where faults are drawn and injected. Each kind of each direction has a random stream of its own, so that another
//! rate of one fault leaves the others where they were.

use chacha20::ChaCha8Rng;
use chacha20::rand_core::{Rng as _, SeedableRng as _};

use super::counts::{Counts, Tally};
use super::faults::{Fault, Faults, Planned, Trigger, Ways};
use super::{CHARACTER_BITS, Nanos, Way};

/// Random streams of one direction.
const STREAMS: u64 = 6;

/// Draws the faults of a cable.
pub(super) struct Injector {
    faults: Faults,
    ways: [Direction; 2],
    planned: Vec<Planned>,
}

/// What becomes of one character.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Bits that are inverted: bit 0 is the start bit, bit 9 the stop bit.
    pub(super) flips: u16,
    /// The receiver gets it and it is lost behind it.
    pub(super) lost: bool,
    /// The line does not move.
    pub(super) dead: bool,
    /// So many of the last bytes are sent again behind it.
    pub(super) again: u32,
}

/// A time in which something does not work. It counts when it meets a byte.
#[derive(Clone, Copy, Default)]
struct Window {
    end: Nanos,
    met: bool,
}

impl Window {
    fn open(&mut self, from: Nanos, length: Nanos) {
        let end = from.saturating_add(length);
        if end > self.end {
            *self = Self { end, met: false };
        }
    }

    /// Whether `at` lies in it; adds one to `count` the first time.
    fn meets(&mut self, at: Nanos, count: &mut u64) -> bool {
        let inside = at < self.end;
        if inside && !self.met {
            self.met = true;
            *count += 1;
        }
        inside
    }
}

struct Direction {
    /// Characters begun so far, without repeated ones.
    carried: u64,
    /// The faults of the next character have been drawn.
    armed: bool,
    again: u32,
    dropping: u32,
    bursting: u32,
    stalled: Window,
    dead: Window,
    bits: Chance,
    drop: Chance,
    duplicate: Chance,
    burst: Chance,
    stall: Chance,
    cut: Chance,
}

impl Direction {
    fn new(faults: &Faults, seed: u64, way: Way) -> Self {
        let chance = |stream: u64, rate| {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            random.set_stream(way.index() as u64 * STREAMS + stream);
            Chance::new(random, rate)
        };
        Self {
            carried: 0,
            armed: false,
            again: 0,
            dropping: 0,
            bursting: 0,
            stalled: Window::default(),
            dead: Window::default(),
            bits: chance(0, faults.ber),
            drop: chance(1, faults.drop.rate),
            duplicate: chance(2, faults.duplicate.rate),
            burst: chance(3, faults.burst.rate),
            stall: chance(4, faults.stall.rate),
            cut: chance(5, faults.dead.rate),
        }
    }

    /// Bits that the noise of the line and a burst invert.
    fn flips(&mut self, counts: &mut Tally) -> u16 {
        let mut flips = self.bits.strikes_among(CHARACTER_BITS);
        counts.bit_errors += u64::from(flips.count_ones());
        if self.bursting > 0 {
            self.bursting -= 1;
            let random = (self.burst.random.next_u32() & ((1 << CHARACTER_BITS) - 1)) as u16;
            counts.burst_bits += u64::from(random.count_ones());
            flips ^= random;
        }
        flips
    }
}

impl Injector {
    pub(super) fn new(faults: &Faults, seed: u64) -> Self {
        Self {
            faults: faults.clone(),
            ways: Way::ALL.map(|way| Direction::new(faults, seed, way)),
            planned: faults.planned.clone(),
        }
    }

    /// Characters that a direction carries before noise inverts its first bit.
    pub(super) fn unharmed(&self, way: Way) -> u64 {
        self.ways[way.index()].bits.gap / CHARACTER_BITS
    }

    /// Draws what happens with the next character of this direction, which would begin at `at`. Once for each character.
    pub(super) fn arm(&mut self, way: Way, at: Nanos, counts: &mut Counts) {
        let direction = &mut self.ways[way.index()];
        if direction.armed {
            return;
        }
        direction.armed = true;
        let mut begun = [None; 5];
        let mut places = begun.iter_mut();
        let mut note = |struck: bool, fault: Fault, ways: Ways| {
            if let Some(place) = struck.then(|| places.next()).flatten() {
                *place = Some((fault, ways));
            }
        };
        let own = match way {
            Way::Down => Ways::Down,
            Way::Up => Ways::Up,
        };
        let faults = &self.faults;
        let struck = direction.drop.strikes();
        let length = direction.drop.length(struck, faults.drop.longest);
        note(struck, Fault::Drop(length), own);
        let struck = direction.duplicate.strikes();
        let length = direction.duplicate.length(struck, faults.duplicate.longest);
        note(struck, Fault::Duplicate(length), own);
        let struck = direction.burst.strikes();
        let length = direction.burst.length(struck, faults.burst.longest);
        note(struck, Fault::Burst(length), own);
        let struck = direction.stall.strikes();
        let ways = match direction.stall.length(struck, 3) {
            1 => Ways::Down,
            2 => Ways::Up,
            0 | 3.. => Ways::Both,
        };
        note(struck, Fault::Stall(faults.stall.length), ways);
        let struck = direction.cut.strikes();
        let ways = match direction.cut.length(struck, 2) {
            0 | 1 => Ways::Down,
            2.. => Ways::Up,
        };
        note(struck, Fault::Dead(faults.dead.length), ways);
        for (fault, ways) in begun.into_iter().flatten() {
            self.begin(fault, ways, way, at, counts);
        }
        self.begin_planned(way, at, counts);
    }

    /// Begins the planned faults whose turn it is.
    fn begin_planned(&mut self, way: Way, at: Nanos, counts: &mut Counts) {
        if self.planned.is_empty() {
            return;
        }
        let carried = self.ways[way.index()].carried;
        let all: u64 = self.ways.iter().map(|direction| direction.carried).sum();
        let due = |planned: &Planned| {
            let (concerned, bytes) = match planned.ways {
                Ways::Down => (way == Way::Down, carried),
                Ways::Up => (way == Way::Up, carried),
                Ways::Both => (true, all),
            };
            let reached = match planned.when {
                // The other direction may have taken the very number meanwhile.
                Trigger::Byte(number) => bytes >= number,
                Trigger::Time(time) => at >= time,
            };
            concerned && reached
        };
        let (due, later) = self.planned.iter().partition::<Vec<_>, _>(|p| due(p));
        self.planned = later;
        for planned in due {
            self.begin(planned.fault, planned.ways, way, at, counts);
        }
    }

    fn begin(&mut self, fault: Fault, ways: Ways, way: Way, at: Nanos, counts: &mut Counts) {
        let direction = &mut self.ways[way.index()];
        let tally = counts.way_mut(way);
        match fault {
            Fault::Drop(count) => {
                direction.dropping = direction.dropping.max(count);
                tally.drops += u64::from(count > 0);
            }
            Fault::Duplicate(count) => direction.again = direction.again.max(count),
            Fault::Burst(count) => {
                direction.bursting = direction.bursting.max(count);
                tally.bursts += u64::from(count > 0);
            }
            Fault::Stall(length) => {
                for way in ways.each() {
                    self.ways[way.index()].stalled.open(at, length);
                }
            }
            Fault::Dead(length) => {
                for way in ways.each() {
                    self.ways[way.index()].dead.open(at, length);
                }
            }
        }
    }

    /// When a character that could begin at `at` may begin.
    pub(super) fn release(&self, way: Way, at: Nanos) -> Nanos {
        at.max(self.ways[way.index()].stalled.end)
    }

    /// Notes that a character was held back from `at` on, if it was.
    pub(super) fn hold(&mut self, way: Way, at: Nanos, counts: &mut Counts) {
        let count = &mut counts.way_mut(way).stalls;
        self.ways[way.index()].stalled.meets(at, count);
    }

    /// What becomes of the character that begins now. One that is sent again meets the line's faults only.
    pub(super) fn character(
        &mut self,
        way: Way,
        at: Nanos,
        repeated: bool,
        counts: &mut Counts,
    ) -> Verdict {
        let direction = &mut self.ways[way.index()];
        let tally = counts.way_mut(way);
        let mut verdict = Verdict {
            dead: direction.dead.meets(at, &mut tally.dead_spells),
            ..Verdict::default()
        };
        if verdict.dead {
            tally.dead_bytes += 1;
        } else {
            verdict.flips = direction.flips(tally);
        }
        if !repeated {
            direction.carried += 1;
            direction.armed = false;
            verdict.again = std::mem::take(&mut direction.again);
            if direction.dropping > 0 {
                direction.dropping -= 1;
                tally.dropped_bytes += 1;
                verdict.lost = true;
            }
        }
        verdict
    }
}

impl Ways {
    fn each(self) -> impl Iterator<Item = Way> {
        Way::ALL.into_iter().filter(move |way| match self {
            Self::Down => *way == Way::Down,
            Self::Up => *way == Way::Up,
            Self::Both => true,
        })
    }
}

/// Something that happens now and then.
struct Chance {
    random: ChaCha8Rng,
    rate: f64,
    /// Trials before the next time.
    gap: u64,
}

impl Chance {
    fn new(random: ChaCha8Rng, rate: f64) -> Self {
        let mut chance = Self {
            random,
            rate,
            gap: 0,
        };
        chance.draw();
        chance
    }

    /// Draws the number of trials that fail before one succeeds: one random number each time it happens, not each trial.
    fn draw(&mut self) {
        self.gap = if self.rate <= 0.0 {
            u64::MAX
        } else if self.rate >= 1.0 {
            0
        } else {
            // From (0, 1]: 53 bits are what an f64 holds.
            let uniform = ((self.random.next_u64() >> 11) + 1) as f64 / (1_u64 << 53) as f64;
            // A cast of what is too large gives the largest.
            (uniform.ln() / (-self.rate).ln_1p()) as u64
        };
    }

    fn strikes(&mut self) -> bool {
        if self.gap > 0 {
            self.gap -= 1;
            return false;
        }
        self.draw();
        true
    }

    /// Which of the next `count` trials succeed, as a bit mask.
    fn strikes_among(&mut self, count: u64) -> u16 {
        if self.gap >= count {
            self.gap -= count;
            return 0;
        }
        (0..count).fold(0, |mask, bit| mask | u16::from(self.strikes()) << bit)
    }

    /// Where it happened, a length from 1 to `longest`.
    fn length(&mut self, struck: bool, longest: u32) -> u32 {
        if !struck || longest == 0 {
            return 0;
        }
        // `longest` is small beside 2^64: no length is visibly likelier than another.
        1 + (self.random.next_u64() % u64::from(longest)) as u32
    }
}
