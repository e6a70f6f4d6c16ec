//! Counts what libtest reports, so that a test that did not run cannot pass unseen.

use std::ops::AddAssign;

/// Sums over all test binaries and documentation tests of one step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    /// Marked `#[ignore]`.
    pub(crate) ignored: usize,
    /// Not chosen by a filter.
    pub(crate) filtered: usize,
}

impl Tally {
    /// Sums up the lines `test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; …`.
    pub(crate) fn of(output: &str) -> Self {
        let mut tally = Self::default();
        for line in output
            .lines()
            .filter(|line| line.starts_with("test result:"))
        {
            for part in line.split(';') {
                let mut words = part
                    .split_whitespace()
                    .rev()
                    .skip_while(|word| *word == "out");
                let (Some(what), Some(Ok(count))) =
                    (words.next(), words.next().map(str::parse::<usize>))
                else {
                    continue;
                };
                match what {
                    "passed" => tally.passed += count,
                    "failed" => tally.failed += count,
                    "ignored" => tally.ignored += count,
                    "filtered" => tally.filtered += count,
                    _ => {}
                }
            }
        }
        tally
    }

    /// Why this is no complete success, or `None` if it is one.
    pub(crate) fn complaint(&self) -> Option<String> {
        if self.failed > 0 {
            Some(format!(
                "{} of {} tests failed",
                self.failed,
                self.failed + self.passed
            ))
        } else if self.ignored > 0 {
            Some(format!(
                "{} ignored: every test must run",
                crate::screen::count(self.ignored, "test")
            ))
        } else if self.filtered > 0 {
            Some(format!(
                "{} left out: every test must run",
                crate::screen::count(self.filtered, "test")
            ))
        } else if self.passed == 0 {
            Some("no test ran".to_owned())
        } else {
            None
        }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
        self.filtered += other.filtered;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "\
running 5 tests
test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
   Doc-tests keyferry
test result: FAILED. 7 passed; 1 failed; 2 ignored; 0 measured; 3 filtered out; finished in 1.50s
";

    #[test]
    fn counts_every_binary() {
        assert_eq!(
            Tally::of(TWO),
            Tally {
                passed: 12,
                failed: 1,
                ignored: 2,
                filtered: 3
            }
        );
    }

    #[test]
    fn only_tests_that_ran_are_a_success() {
        let good = Tally {
            passed: 1,
            ..Tally::default()
        };
        assert_eq!(good.complaint(), None);
        for bad in [
            Tally::default(),
            Tally { failed: 1, ..good },
            Tally { ignored: 1, ..good },
            Tally {
                filtered: 1,
                ..good
            },
        ] {
            assert!(bad.complaint().is_some(), "{bad:?}");
        }
    }
}
