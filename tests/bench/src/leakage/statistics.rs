//! Whether classes of measurements can be told apart.

use chacha20::ChaCha20Rng;
use chacha20::rand_core::{Rng as _, SeedableRng as _};

/// How often labels are dealt anew.
const PERMUTATIONS: usize = 9_999;

/// A sample in short.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Summary {
    pub(crate) count: usize,
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
    pub(crate) mean: f64,
    /// Standard deviation of a sample (divided by n − 1).
    pub(crate) deviation: f64,
}

impl Summary {
    /// Of at least one value.
    pub(crate) fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let count = sorted.len();
        let mean = average(&sorted);
        let squares: f64 = sorted.iter().map(|value| (value - mean).powi(2)).sum();
        Self {
            count,
            min: sorted[0],
            median: f64::midpoint(sorted[(count - 1) / 2], sorted[count / 2]),
            max: sorted[count - 1],
            mean,
            deviation: (squares / count.saturating_sub(1).max(1) as f64).sqrt(),
        }
    }
}

fn average(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Welch's t of two samples. Zero if all values are equal; infinite if each sample has one value and they differ.
pub(crate) fn welch(first: &[f64], second: &[f64]) -> f64 {
    let (first, second) = (Summary::of(first), Summary::of(second));
    let difference = first.mean - second.mean;
    if difference == 0.0 {
        return 0.0;
    }
    let share = |summary: Summary| summary.deviation.powi(2) / summary.count as f64;
    difference / (share(first) + share(second)).sqrt()
}

/// Takes the mean of each round from its values, so that what a whole round has in common does not hide what its classes
/// have not.
pub(crate) fn centred(rounds: &[Vec<f64>]) -> Vec<Vec<f64>> {
    rounds
        .iter()
        .map(|round| {
            let mean = average(round);
            round.iter().map(|value| value - mean).collect()
        })
        .collect()
}

/// One class's values.
pub(crate) fn column(rounds: &[Vec<f64>], class: usize) -> Vec<f64> {
    rounds.iter().map(|round| round[class]).collect()
}

/// How far the class that lies farthest from the middle lies from it.
fn farthest(rounds: &[Vec<f64>]) -> f64 {
    let classes = rounds.first().map_or(0, Vec::len);
    (0..classes)
        .map(|class| average(&column(rounds, class)).abs())
        .fold(0.0, f64::max)
}

/// The permutation test on rounds of one value for each class (Fisher's randomisation test for a randomised block design):
/// how likely it is that labels dealt at random within each round put some class as far from the middle as it is. The same
/// rounds give the same answer.
pub(crate) fn permutation(rounds: &[Vec<f64>]) -> f64 {
    let mut dealt = centred(rounds);
    // A little less, or rounding could turn away the very same deal.
    let found = farthest(&dealt) - 1e-9;
    let mut random = ChaCha20Rng::from_seed([0x5e; 32]);
    let mut as_far = 1_usize;
    for _ in 0..PERMUTATIONS {
        for round in &mut dealt {
            shuffle(round, &mut random);
        }
        as_far += usize::from(farthest(&dealt) >= found);
    }
    as_far as f64 / (PERMUTATIONS + 1) as f64
}

/// Fisher and Yates.
pub(crate) fn shuffle<T>(values: &mut [T], random: &mut ChaCha20Rng) {
    for last in (1..values.len()).rev() {
        // The bias of a remainder of 64 bits by a handful is beyond measuring.
        let other = random.next_u64() % (last as u64 + 1);
        values.swap(last, other as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rounds of noise: a part for the whole round, and a small part for each value.
    fn noise(rounds: usize, classes: usize) -> Vec<Vec<f64>> {
        let mut random = ChaCha20Rng::from_seed([7; 32]);
        (0..rounds)
            .map(|_| {
                let common = (random.next_u32() % 10_000) as f64;
                (0..classes)
                    .map(|_| common + f64::from(random.next_u32() % 8))
                    .collect()
            })
            .collect()
    }

    #[test]
    fn a_summary_is_of_all_values() {
        let summary = Summary::of(&[4.0, 1.0, 3.0, 2.0]);
        assert_eq!((summary.min, summary.median, summary.max), (1.0, 2.5, 4.0));
        assert!((summary.deviation - 1.290_994_4).abs() < 1e-6);
        assert_eq!(Summary::of(&[5.0]).deviation, 0.0);
    }

    #[test]
    fn classes_of_noise_are_not_told_apart() {
        let rounds = noise(15, 14);
        assert!(permutation(&rounds) > 0.01);
        assert!(welch(&column(&rounds, 0), &column(&rounds, 1)).abs() < 4.5);
        let equal = vec![vec![3.0; 5]; 9];
        assert_eq!(permutation(&equal), 1.0);
        assert_eq!(welch(&equal[0], &equal[1]), 0.0);
    }

    #[test]
    fn one_class_that_differs_by_its_noise_is_found_under_the_noise_of_the_rounds() {
        let mut rounds = noise(15, 14);
        for round in &mut rounds {
            round[5] += 8.0;
        }
        assert!(permutation(&rounds) < 0.001);
    }

    #[test]
    fn welch_tells_samples_apart_that_do_not_overlap() {
        let (first, second) = ([1.0, 2.0, 1.5, 1.2, 1.8], [9.0, 9.5, 9.2, 9.9, 9.1]);
        assert!(welch(&first, &second) < -4.5);
        assert!(welch(&[1.0, 1.0], &[2.0, 2.0]).is_infinite());
    }
}
