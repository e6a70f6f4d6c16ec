//! What goes wrong in one run, drawn from the campaign's seed and the run's number alone.

use chacha20::ChaCha8Rng;
use chacha20::rand_core::{Rng as _, SeedableRng as _};
use keyferry_tests::line::{
    Board, Fault, Faults, MICROSECOND, MILLISECOND, Nanos, Planned, Settings, Trigger, Ways,
};

/// The bit error rates of the campaign.
pub const BIT_ERROR_RATES: [f64; 4] = [1e-6, 1e-5, 1e-4, 1e-3];

/// Bit error rates on which a session may well fail, to see how it does.
pub const HOPELESS_RATES: [f64; 2] = [3e-3, 1e-2];

/// What the bootloader of the device says at each start.
pub const CHATTER: &[u8] = b"\0\xffROM 1.4\r\nclock 48 MHz, image ok\r\n";

/// Longest stretch that is lost or comes twice, in bytes.
const LONGEST_STRETCH: u64 = 32;

/// Random numbers of one run.
pub struct Dice(ChaCha8Rng);

impl Dice {
    /// Those of this run. `purpose` keeps the numbers for different uses apart.
    #[must_use]
    pub fn new(seed: u64, number: u64, purpose: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed ^ purpose.rotate_left(48));
        random.set_stream(number);
        Self(random)
    }

    /// A number below `count`, which is not 0.
    pub fn below(&mut self, count: u64) -> u64 {
        // The counts here are small beside 2^64: no number is visibly likelier than another.
        self.0.next_u64() % count
    }

    /// Whether something with a chance of so many in a hundred happens.
    pub fn in_a_hundred(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Random bytes.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }
}

/// How many characters a run without faults puts on the wire each way.
#[derive(Clone, Copy, Debug, Default)]
pub struct Length {
    /// Station to device.
    pub down: u64,
    /// Device to station.
    pub up: u64,
}

/// The faults of one run.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Errors of the line.
    pub faults: Faults,
    /// The device is reset when the line has begun with so many characters.
    pub resets: Vec<u64>,
}

impl Plan {
    /// Draws at least one fault besides the bit errors, all within `length`.
    #[must_use]
    pub fn draw(dice: &mut Dice, ber: f64, length: Length) -> Self {
        let mut plan = Self::default();
        plan.faults.ber = ber;
        let all = length.down + length.up;
        if dice.in_a_hundred(25) {
            plan.resets.push(dice.below(all));
        }
        if dice.in_a_hundred(40) {
            let stall = MILLISECOND * (50 + dice.below(251));
            let ways = [Ways::Down, Ways::Up, Ways::Both][dice.below(3) as usize];
            plan.add(dice, Fault::Stall(stall), ways, length);
        }
        if dice.in_a_hundred(50) {
            plan.add_stretches(dice, Fault::Duplicate, length);
        }
        let none_yet = plan.resets.is_empty() && plan.faults.planned.is_empty();
        if none_yet || dice.in_a_hundred(50) {
            plan.add_stretches(dice, Fault::Drop, length);
        }
        plan
    }

    /// One to three stretches of this kind.
    fn add_stretches(&mut self, dice: &mut Dice, kind: impl Fn(u32) -> Fault, length: Length) {
        for _ in 0..1 + dice.below(3) {
            let fault = kind(1 + dice.below(LONGEST_STRETCH) as u32);
            let way = [Ways::Down, Ways::Up][dice.below(2) as usize];
            self.add(dice, fault, way, length);
        }
    }

    fn add(&mut self, dice: &mut Dice, fault: Fault, ways: Ways, length: Length) {
        // The bootloader has spoken before.
        let before = CHATTER.len() as u64;
        let when = match ways {
            Ways::Down => dice.below(length.down),
            Ways::Up => before + dice.below(length.up),
            Ways::Both => before + dice.below(length.down + length.up),
        };
        self.faults.planned.push(Planned {
            fault,
            ways,
            when: Trigger::Byte(when),
        });
    }
}

/// Latency of each direction: a turn takes a millisecond.
const LATENCY: Nanos = 500 * MICROSECOND;

/// The line of the campaign: 115200 baud, 1 ms turnaround, a small board with a bootloader that talks.
#[must_use]
pub fn settings(faults: Faults, seed: u64) -> Settings {
    Settings {
        down_latency: LATENCY,
        up_latency: LATENCY,
        faults,
        seed,
        board: Board {
            receive_ring: 256,
            chatter: CHATTER.to_vec(),
            ..Board::default()
        },
        ..Settings::default()
    }
}

/// Nanoseconds after which the device is up.
pub const UP: Nanos = 100 * MILLISECOND;
