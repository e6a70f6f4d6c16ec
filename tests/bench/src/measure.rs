//! Two ways to do the same work, timed side by side.

use std::time::{Duration, Instant};

use anyhow::Result;

/// How often each way goes in a row: long enough for the clock, short enough that whatever else the machine does hits both.
const BATCH: u32 = 8;
/// Which time of all batches counts, in percent from the fastest: slower ones say more about the machine than about the work.
const PERCENTILE: usize = 10;
/// So many batches at least, however long they take.
const MINIMUM_BATCHES: usize = 60;

/// The time of one piece of work, in seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// The first way.
    pub(crate) first: f64,
    /// The second way.
    pub(crate) second: f64,
}

impl Times {
    /// How many times as long the first way takes.
    pub(crate) fn ratio(self) -> f64 {
        self.first / self.second
    }
}

/// Does the work in both ways by turns, for about as long as `budget`; each is told which piece of work it is.
///
/// # Errors
/// The first one that a way gives.
pub(crate) fn side_by_side(
    budget: Duration,
    mut first: impl FnMut(u32) -> Result<()>,
    mut second: impl FnMut(u32) -> Result<()>,
) -> Result<Times> {
    let (mut firsts, mut seconds) = (Vec::new(), Vec::new());
    // Caches and allocators are warm after a round that does not count.
    batch(&mut first)?;
    batch(&mut second)?;
    let begun = Instant::now();
    while begun.elapsed() < budget || firsts.len() < MINIMUM_BATCHES {
        // Neither way is always the one that comes after the other.
        if firsts.len().is_multiple_of(2) {
            firsts.push(batch(&mut first)?);
            seconds.push(batch(&mut second)?);
        } else {
            seconds.push(batch(&mut second)?);
            firsts.push(batch(&mut first)?);
        }
    }
    Ok(Times {
        first: low(&mut firsts),
        second: low(&mut seconds),
    })
}

/// Seconds for each piece of work of one batch.
fn batch(work: &mut impl FnMut(u32) -> Result<()>) -> Result<f64> {
    let begun = Instant::now();
    for number in 0..BATCH {
        work(number)?;
    }
    Ok(begun.elapsed().as_secs_f64() / f64::from(BATCH))
}

/// The low percentile.
fn low(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    let index = times.len() * PERCENTILE / 100;
    times.get(index).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_low_percentile_does_not_see_what_is_slow() {
        let mut times: Vec<f64> = (0..200).map(|n| f64::from(n % 100)).collect();
        assert!((low(&mut times) - 10.0).abs() < f64::EPSILON);
        times[150..].fill(1e9);
        assert!((low(&mut times) - 10.0).abs() < f64::EPSILON);
    }

    #[test]
    fn both_ways_are_gone_equally_often() {
        let (mut first, mut second) = (0, 0);
        let count = |counter: &mut u32, number: u32| {
            assert!(number < BATCH);
            *counter += 1;
            Ok(())
        };
        let times = side_by_side(
            Duration::ZERO,
            |number| count(&mut first, number),
            |number| count(&mut second, number),
        );
        assert!(times.is_ok_and(|times| times.ratio() > 0.0));
        assert_eq!(first, second);
    }

    #[test]
    fn a_failure_ends_it() {
        let failing = |_| anyhow::bail!("the token is gone");
        assert!(side_by_side(Duration::MAX, failing, |_| Ok(())).is_err());
    }
}
