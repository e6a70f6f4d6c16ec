//! Faults as a person writes them: `1e-4:16`, `20@5000`, `300ms@random`, `300ms@2s/up`.

use std::str::FromStr;

use chacha20::ChaCha8Rng;
use chacha20::rand_core::{Rng as _, SeedableRng as _};

use super::{
    Fault, Faults, MICROSECOND, MILLISECOND, Nanos, Planned, SECOND, Spells, Stretches, Trigger,
    Ways,
};

/// The longest stretch where a word says none, in bytes.
const LONGEST: u32 = 16;
/// `@random` is one of the first so many bytes: about what a greeting and an order take.
const RANDOM_AMONG: u64 = 4_096;
/// The random stream for places, far from those of the faults.
const STREAM: u64 = 1 << 32;

/// A word that is no fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WordError {
    /// Not a rate.
    #[error("'{0}' is no chance for each bit or byte: a number from 0 to 1, such as 1e-5")]
    Rate(String),
    /// Not a number of bytes.
    #[error("'{0}' is no number of bytes")]
    Count(String),
    /// Not a length of time.
    #[error("'{0}' is no length of time: a whole number with us, ms or s, such as 300ms")]
    Time(String),
    /// Neither `LENGTH:RATE` nor `LENGTH@PLACE`.
    #[error("'{0}' says neither how often (300ms:1e-4) nor where (300ms@random)")]
    Place(String),
    /// Not a direction.
    #[error("'/{0}' is no direction: /down, /up or /both")]
    Way(String),
}

/// A bit error rate, or another chance.
///
/// # Errors
/// [`WordError::Rate`].
pub fn rate(word: &str) -> Result<f64, WordError> {
    let rate = word.parse().ok();
    rate.filter(|rate| (0.0..=1.0).contains(rate))
        .ok_or_else(|| WordError::Rate(word.to_owned()))
}

/// A length of time, in nanoseconds.
///
/// # Errors
/// [`WordError::Time`].
pub fn time(word: &str) -> Result<Nanos, WordError> {
    let units = [("us", MICROSECOND), ("ms", MILLISECOND), ("s", SECOND)];
    let value = units.into_iter().find_map(|(unit, length)| {
        let number: u64 = word.strip_suffix(unit)?.parse().ok()?;
        number.checked_mul(length)
    });
    value.ok_or_else(|| WordError::Time(word.to_owned()))
}

fn count(word: &str) -> Result<u32, WordError> {
    word.parse().map_err(|_| WordError::Count(word.to_owned()))
}

/// Where a planned fault begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    At(Trigger),
    /// At a byte that the seed chooses among the first so many.
    Random(u64),
}

/// `PLACE` or `PLACE/WAY`.
fn place(word: &str) -> Result<(Place, Ways), WordError> {
    let (place, ways) = word.split_once('/').unwrap_or((word, "both"));
    let ways = match ways {
        "down" => Ways::Down,
        "up" => Ways::Up,
        "both" => Ways::Both,
        other => return Err(WordError::Way(other.to_owned())),
    };
    let place = if place == "random" {
        Place::Random(RANDOM_AMONG)
    } else if let Some(among) = place.strip_prefix("random:") {
        Place::Random(u64::from(count(among)?.max(1)))
    } else if let Ok(byte) = place.parse() {
        Place::At(Trigger::Byte(byte))
    } else {
        Place::At(Trigger::Time(time(place)?))
    };
    Ok((place, ways))
}

/// A word for faults that hit a stretch of bytes: `RATE`, `RATE:LONGEST`, or `LENGTH@PLACE` for exactly one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StretchWord(Word<Stretches, u32>);

/// A word for faults that last: `LENGTH:RATE`, or `LENGTH@PLACE` for exactly one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SpellWord(Word<Spells, Nanos>);

/// Now and then, or exactly once.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Word<R, L> {
    Often(R),
    Once { length: L, place: Place, ways: Ways },
}

impl FromStr for StretchWord {
    type Err = WordError;

    fn from_str(word: &str) -> Result<Self, WordError> {
        if let Some((length, at)) = word.split_once('@') {
            let length = count(length)?;
            let (place, ways) = place(at)?;
            return Ok(Self(Word::Once {
                length,
                place,
                ways,
            }));
        }
        let (often, longest) = match word.split_once(':') {
            Some((often, longest)) => (often, count(longest)?),
            None => (word, LONGEST),
        };
        Ok(Self(Word::Often(Stretches::new(rate(often)?, longest))))
    }
}

impl FromStr for SpellWord {
    type Err = WordError;

    fn from_str(word: &str) -> Result<Self, WordError> {
        if let Some((length, at)) = word.split_once('@') {
            let length = time(length)?;
            let (place, ways) = place(at)?;
            return Ok(Self(Word::Once {
                length,
                place,
                ways,
            }));
        }
        let (length, often) = word
            .split_once(':')
            .ok_or_else(|| WordError::Place(word.to_owned()))?;
        Ok(Self(Word::Often(Spells::new(rate(often)?, time(length)?))))
    }
}

/// Words for every kind of fault.
#[derive(Clone, Debug, Default)]
pub struct Words {
    /// The bit error rate.
    pub ber: f64,
    /// Lost stretches.
    pub drop: Vec<StretchWord>,
    /// Stretches sent twice.
    pub duplicate: Vec<StretchWord>,
    /// Bursts of errors.
    pub burst: Vec<StretchWord>,
    /// Times in which nothing moves.
    pub stall: Vec<SpellWord>,
    /// Times in which a direction is dead.
    pub dead: Vec<SpellWord>,
}

impl Words {
    /// The faults they mean; the seed chooses the random places. Of several rates of one kind the last counts.
    #[must_use]
    pub fn faults(&self, seed: u64) -> Faults {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(STREAM);
        let mut planned = Vec::new();
        let mut stretches = |words: &[StretchWord], fault| {
            sort(
                &mut planned,
                &mut random,
                words.iter().map(|word| word.0),
                fault,
            )
        };
        let drop = stretches(&self.drop, Fault::Drop);
        let duplicate = stretches(&self.duplicate, Fault::Duplicate);
        let burst = stretches(&self.burst, Fault::Burst);
        let mut spells = |words: &[SpellWord], fault| {
            sort(
                &mut planned,
                &mut random,
                words.iter().map(|word| word.0),
                fault,
            )
        };
        let stall = spells(&self.stall, Fault::Stall);
        let dead = spells(&self.dead, Fault::Dead);
        Faults {
            ber: self.ber,
            drop,
            duplicate,
            burst,
            stall,
            dead,
            planned,
        }
    }
}

/// Puts what happens once to the planned faults, and gives what happens now and then.
fn sort<R: Default, L>(
    planned: &mut Vec<Planned>,
    random: &mut ChaCha8Rng,
    words: impl Iterator<Item = Word<R, L>>,
    fault: fn(L) -> Fault,
) -> R {
    let mut often = R::default();
    for word in words {
        match word {
            Word::Often(rate) => often = rate,
            Word::Once {
                length,
                place,
                ways,
            } => planned.push(Planned {
                fault: fault(length),
                ways,
                when: match place {
                    Place::At(when) => when,
                    Place::Random(among) => Trigger::Byte(random.next_u64() % among),
                },
            }),
        }
    }
    often
}
