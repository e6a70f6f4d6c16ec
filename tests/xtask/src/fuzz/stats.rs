//! What the fuzzer prints, as figures.

use std::fmt;

use serde_json::{Map, Value, json};

/// The figures of one run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stats {
    /// Inputs that were run.
    pub(super) executions: u64,
    /// Of these in a second.
    pub(super) per_second: u64,
    /// Places in the code that were reached.
    pub(super) coverage: u64,
    /// Inputs that reach something no other does.
    pub(super) corpus: u64,
    /// Their bytes, roughly.
    pub(super) corpus_bytes: u64,
    /// The most memory that the process had, in megabytes.
    pub(super) peak_megabytes: u64,
    /// What the slowest input took, in whole seconds.
    pub(super) slowest_seconds: u64,
}

impl Stats {
    /// Reads libFuzzer's closing figures, and its last line of progress:
    /// `#2048 pulse  cov: 123 ft: 456 corp: 78/9Kb lim: 4096 exec/s: 512 rss: 60Mb`. Those of a run that ended early have fewer.
    pub(super) fn of(output: &str) -> Self {
        let mut stats = Self::default();
        for line in output.lines() {
            if let Some((name, value)) = stat(line) {
                match name {
                    "number_of_executed_units" => stats.executions = value,
                    "average_exec_per_sec" => stats.per_second = value,
                    "peak_rss_mb" => stats.peak_megabytes = value,
                    "slowest_unit_time_sec" => stats.slowest_seconds = value,
                    _ => {}
                }
            } else if line.starts_with('#') {
                stats.progress(line);
            }
        }
        stats
    }

    fn progress(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        while let Some(word) = words.next() {
            match word {
                "cov:" => self.coverage = number(words.next()).unwrap_or(self.coverage),
                "corp:" => {
                    let Some((count, size)) = words.next().and_then(|word| word.split_once('/'))
                    else {
                        continue;
                    };
                    self.corpus = number(Some(count)).unwrap_or(self.corpus);
                    self.corpus_bytes = bytes(size).unwrap_or(self.corpus_bytes);
                }
                _ => {}
            }
        }
    }

    /// The fields of a JSON record.
    pub(super) fn record(&self) -> Map<String, Value> {
        Map::from_iter([
            ("executions".to_owned(), json!(self.executions)),
            ("executions_per_second".to_owned(), json!(self.per_second)),
            ("coverage".to_owned(), json!(self.coverage)),
            ("corpus".to_owned(), json!(self.corpus)),
            ("corpus_bytes".to_owned(), json!(self.corpus_bytes)),
            ("peak_megabytes".to_owned(), json!(self.peak_megabytes)),
            ("slowest_seconds".to_owned(), json!(self.slowest_seconds)),
        ])
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>10} executions, {:>6} a second; coverage {:>6}; corpus {:>5} ({} bytes); {:>4} MB",
            self.executions,
            self.per_second,
            self.coverage,
            self.corpus,
            self.corpus_bytes,
            self.peak_megabytes
        )
    }
}

/// A line such as `stat::number_of_executed_units: 4096`.
fn stat(line: &str) -> Option<(&str, u64)> {
    let (name, value) = line.strip_prefix("stat::")?.split_once(':')?;
    Some((name, value.trim().parse().ok()?))
}

fn number(word: Option<&str>) -> Option<u64> {
    word?.parse().ok()
}

/// A size such as `310b`, `12Kb`, `3Mb`.
fn bytes(size: &str) -> Option<u64> {
    let digits = size.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match size.get(digits.len()..)? {
        "b" => 1,
        "Kb" => 1024,
        "Mb" => 1024 * 1024,
        _ => return None,
    };
    Some(digits.parse::<u64>().ok()? * factor)
}

/// What went wrong, in the words of whoever noticed it: the panic's message, else the fuzzer's or the sanitizer's.
pub(super) fn complaint(output: &str) -> Option<&str> {
    let mut lines = output.lines();
    let panic = lines
        .by_ref()
        .find(|line| line.contains("' panicked at ") || line.contains(") panicked at "))
        .and_then(|place| Some((place, lines.next()?)));
    if let Some((_, words)) = panic {
        return Some(words);
    }
    output
        .lines()
        .find(|line| line.contains("ERROR: ") || line.contains("SUMMARY: "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: &str = "\
INFO: seed corpus: files: 12 min: 1b max: 300b total: 2000b rss: 40Mb
#13\tINITED cov: 100 ft: 150 corp: 9/1900b exec/s: 0 rss: 41Mb
#65536\tpulse  cov: 204 ft: 301 corp: 44/12Kb lim: 652 exec/s: 32768 rss: 60Mb
#70000\tDONE   cov: 205 ft: 303 corp: 45/12Kb lim: 652 exec/s: 35000 rss: 61Mb
Done 70000 runs in 2 second(s)
stat::number_of_executed_units: 70000
stat::average_exec_per_sec:     35000
stat::new_units_added:          33
stat::slowest_unit_time_sec:    1
stat::peak_rss_mb:              61
";

    #[test]
    fn the_last_figures_count() {
        assert_eq!(
            Stats::of(RUN),
            Stats {
                executions: 70_000,
                per_second: 35_000,
                coverage: 205,
                corpus: 45,
                corpus_bytes: 12 * 1024,
                peak_megabytes: 61,
                slowest_seconds: 1,
            }
        );
        assert_eq!(complaint(RUN), None);
    }

    #[test]
    fn a_complaint_is_the_panic_s_before_the_fuzzer_s() {
        let fuzzer = "==7== ERROR: libFuzzer: out-of-memory (malloc(1))\n";
        assert_eq!(complaint(fuzzer), fuzzer.lines().next());
        let panic = "thread '<unnamed>' (7) panicked at a.rs:1:2:\nindex out of bounds\n";
        let both = [panic, fuzzer].concat();
        assert_eq!(complaint(&both), Some("index out of bounds"));
    }
}
