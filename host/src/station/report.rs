//! A page about a run or a shift, for whoever answers for a shift: how many, how many of them good, where the time went, what went wrong.
//!
//! One file of HTML without anything that is loaded from elsewhere, so that it can be sent and kept. What comes from outside (names of nests,
//! serial numbers, reasons) is text in it and never markup: [`maud`] sees to that.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use keyferry_protocol::identity::DeviceId;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::journal::{End, Ending, History};

/// What runs came to, in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Devices that got all that the plan asks for.
    pub done: usize,
    /// Devices that had it before.
    pub before: usize,
    /// Devices that have not, each counted once, and ports that nobody answered on.
    pub failed: usize,
    /// Nests that were not begun.
    pub not_begun: usize,
    /// Why, and how often; the most frequent first.
    pub reasons: Vec<(String, usize)>,
}

impl Counts {
    /// Counts the last end of each device, or of each nest where no device said who it is: whoever failed and passed at the second attempt has
    /// passed, and so has a nest where nobody answered and a device passed later.
    #[must_use]
    pub fn of(history: &History) -> Self {
        // Keys: a device wherever it was, a nest where nobody said who it is, or a device that was done before, as claimed at a nest.
        let mut last: BTreeMap<(Option<&str>, Option<DeviceId>), &Ending> = BTreeMap::new();
        for ending in &history.endings {
            let (nest, device) = (Some(ending.nest.as_str()), ending.device);
            let Some(device) = device else {
                last.insert((nest, None), ending);
                continue;
            };
            let who = (None, Some(device));
            let known = last.get(&who).map(|known| known.end);
            match ending.end {
                End::Done | End::Before => {
                    last.remove(&(nest, None));
                    last.remove(&(nest, Some(device)));
                    if (known, ending.end) != (Some(End::Done), End::Before) {
                        last.insert(who, ending);
                    }
                }
                End::Failed | End::NotBegun => match known {
                    // A device that is done stays so. What claims its id later and fails is somebody else, or a matter of its nest.
                    Some(End::Done | End::Before) => {
                        last.insert((nest, Some(device)), ending);
                    }
                    Some(End::Failed | End::NotBegun) | None => {
                        last.insert(who, ending);
                    }
                },
            }
        }
        let mut counts = Self::default();
        let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
        for ending in last.values() {
            match ending.end {
                End::Done => counts.done += 1,
                End::Before => counts.before += 1,
                End::Failed => counts.failed += 1,
                End::NotBegun => counts.not_begun += 1,
            }
            if let (End::Failed | End::NotBegun, Some(reason)) = (ending.end, &ending.reason) {
                *reasons.entry(kind(reason)).or_default() += 1;
            }
        }
        counts.reasons = reasons.into_iter().collect();
        counts.reasons.sort_by_key(|reason| Reverse(reason.1));
        counts
    }

    /// The share of devices that were begun and are good, if any were.
    #[must_use]
    pub fn passed(&self) -> Option<f64> {
        let good = self.done + self.before;
        let all = good + self.failed;
        (all > 0).then(|| good as f64 / all as f64)
    }
}

/// A reason without what is one device's own: ids and ports, so that equal ones can be counted.
fn kind(reason: &str) -> String {
    let own = |word: &str| {
        let bare = word.trim_matches(|sign: char| !sign.is_alphanumeric() && sign != '/');
        bare.starts_with("/dev/")
            || bare.starts_with("tcp:")
            || bare.starts_with("unix:")
            || (bare.len() >= 16 && bare.bytes().all(|digit| digit.is_ascii_hexdigit()))
    };
    let words = reason
        .split(' ')
        .map(|word| if own(word) { "…" } else { word });
    words.collect::<Vec<_>>().join(" ")
}

/// The middle of sorted times, the one that nine tenths stay below, and the longest.
fn spread(times: &[Duration]) -> [Duration; 3] {
    let mut times = times.to_vec();
    times.sort_unstable();
    let at = |share: usize| {
        let index = (times.len() * share / 100).min(times.len().saturating_sub(1));
        times.get(index).copied().unwrap_or_default()
    };
    [at(50), at(90), at(100)]
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

/// The page's style sheet.
const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}\
table{border-collapse:collapse;width:100%;margin:1rem 0}td,th{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #ddd;vertical-align:top}\
td.n,th.n{text-align:right}.big{font-size:2rem;font-weight:600}.pass{color:#176b2c}.fail{color:#a3131a}dl{display:flex;gap:3rem}dt{color:#666}\
dd{margin:0}rect.half{fill:#2f6fab}rect.most{fill:#9cc0e2}text{font:13px system-ui,sans-serif}";

/// The page.
#[must_use]
pub fn page(history: &History) -> String {
    let counts = Counts::of(history);
    let share = counts
        .passed()
        .map_or_else(|| "-".to_owned(), |share| format!("{:.1} %", share * 100.0));
    let plans: BTreeSet<_> = history.runs.iter().map(|run| run.plan.as_str()).collect();
    let plans = plans.into_iter().collect::<Vec<_>>().join(", ");
    let since = history.since.as_deref();
    let since = since.or_else(|| history.runs.first().map(|run| run.begun.as_str()));
    let since = since.unwrap_or_default();
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                title { "keyferry: " (plans) ", " (since) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { (plans) }
                @if let Some(since) = &history.since { p { "What ended since " (since) "." } }
                table {
                    tr { th { "run" } th { "plan" } th { "begun" } th { "ended" } }
                    @for run in &history.runs {
                        tr {
                            td { code { (run.name) } }
                            td { (run.plan) }
                            td { (run.begun) }
                            @match &run.ended {
                                Some(ended) => td { (ended) },
                                None => td class="fail" { "no end: the station was stopped, or is at work" },
                            }
                        }
                    }
                }
                dl {
                    div { dt { "good" } dd class="big pass" { (counts.done + counts.before) } dd { (counts.before) " of them before" } }
                    div { dt { "failed" } dd class="big fail" { (counts.failed) } }
                    div { dt { "yield" } dd class="big" { (share) } }
                    div { dt { "not begun" } dd class="big" { (counts.not_begun) } }
                }
                (reasons(&counts))
                (times(history))
                (units(history))
            }
        }
    }
    .into_string()
}

fn reasons(counts: &Counts) -> Markup {
    html! {
        @if !counts.reasons.is_empty() {
            h2 { "What went wrong" }
            table {
                tr { th class="n" { "how often" } th { "reason" } }
                @for (reason, count) in &counts.reasons {
                    tr { td class="n" { (count) } td { (reason) } }
                }
            }
        }
    }
}

/// Pixels of the longest bar, of a row, and of the words before the bars.
const WIDTH: f64 = 480.0;
const ROW: usize = 30;
const LABEL: usize = 110;

fn times(history: &History) -> Markup {
    let rows: Vec<_> = history
        .steps
        .iter()
        .map(|(step, times)| (*step, spread(times), times.len()))
        .collect();
    let longest = rows
        .iter()
        .map(|(_, [_, most, _], _)| *most)
        .max()
        .unwrap_or_default()
        .as_secs_f64()
        .max(0.001);
    let width = |time: Duration| format!("{:.1}", time.as_secs_f64() / longest * WIDTH);
    html! {
        @if !rows.is_empty() {
            h2 { "Where the time went" }
            p { "From the step before: half of the devices within the dark bar, nine of ten within the light one; behind it the longest." }
            svg width="760" height=(rows.len() * ROW + 10) role="img" aria-label="time of each step" {
                @for (index, (step, [half, most, all], count)) in rows.iter().enumerate() {
                    @let top = index * ROW + 6;
                    text x="0" y=(top + 14) { (step.name()) " (" (count) ")" }
                    rect class="most" x=(LABEL) y=(top) width=(width(*most)) height="18" {}
                    rect class="half" x=(LABEL) y=(top + 4) width=(width(*half)) height="10" {}
                    text x=(LABEL as f64 + WIDTH + 10.0) y=(top + 14) { (seconds(*half)) ", " (seconds(*most)) ", " (seconds(*all)) }
                }
            }
        }
    }
}

fn units(history: &History) -> Markup {
    html! {
        h2 { "Each device" }
        table {
            tr { th { "nest" } th { "device" } th { "serial" } th { "end" } th class="n" { "time" } th { "reason" } }
            @for ending in &history.endings {
                tr {
                    td { (ending.nest) }
                    td { @match ending.device { Some(device) => code { (device) }, None => "-" } }
                    td { (ending.serial.as_deref().unwrap_or("-")) }
                    @match ending.end {
                        End::Done | End::Before => td class="pass" { (ending.end.name()) },
                        End::Failed | End::NotBegun => td class="fail" { (ending.end.name()) },
                    }
                    td class="n" { (seconds(ending.took)) }
                    td { (ending.reason.as_deref().unwrap_or("")) }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::station::journal::{Run, Step};

    fn ending(nest: &str, device: u8, end: End, reason: Option<&str>) -> Ending {
        Ending {
            nest: nest.to_owned(),
            device: (device > 0).then_some(DeviceId([device; 16])),
            serial: None,
            end,
            reason: reason.map(str::to_owned),
            took: Duration::from_millis(1234),
        }
    }

    fn history() -> History {
        let id = DeviceId([2; 16]);
        History {
            runs: vec![Run {
                name: "ab".repeat(16),
                plan: "five <keys>".to_owned(),
                begun: "2026-01-01T06:00:00Z".to_owned(),
                ended: None,
            }],
            since: None,
            endings: vec![
                ending("1", 1, End::Done, None),
                ending(
                    "2",
                    2,
                    End::Failed,
                    Some(&format!("device {id} is not expected")),
                ),
                ending(
                    "3",
                    0,
                    End::Failed,
                    Some("nothing was heard on /dev/ttyUSB3: 5 s"),
                ),
                ending(
                    "4",
                    0,
                    End::Failed,
                    Some("nothing was heard on /dev/ttyUSB4: 5 s"),
                ),
                // Plugged in again.
                ending("5", 1, End::Before, None),
                ending("2", 2, End::Done, None),
            ],
            steps: vec![(Step::Proved, (1..=10).map(Duration::from_secs).collect())],
        }
    }

    #[test]
    fn the_last_end_of_a_device_counts_and_reasons_are_put_together() {
        let counts = Counts::of(&history());
        assert_eq!((counts.done, counts.before, counts.failed), (2, 0, 2));
        assert_eq!(counts.passed(), Some(0.5));
        assert_eq!(
            counts.reasons,
            [("nothing was heard on … 5 s".to_owned(), 2)]
        );
        assert_eq!(Counts::default().passed(), None);
    }

    fn counted(endings: Vec<Ending>) -> [usize; 4] {
        let counts = Counts::of(&History {
            endings,
            ..history()
        });
        let failed = counts.failed + counts.not_begun;
        let reasons = counts.reasons.iter().map(|reason| reason.1).sum();
        [counts.done, counts.before, failed, reasons]
    }

    #[test]
    fn what_was_mended_at_a_nest_does_not_count() {
        let silent = |nest| ending(nest, 0, End::Failed, Some("does not exist"));
        // Nobody answered, and later a device passes there; at another nest it mends nothing.
        for end in [End::Done, End::Before] {
            let [done, before] = [end == End::Done, end == End::Before].map(usize::from);
            let mended = vec![silent("1"), silent("1"), ending("1", 1, end, None)];
            assert_eq!(counted(mended), [done, before, 0, 0]);
            let elsewhere = vec![silent("1"), ending("2", 1, end, None)];
            assert_eq!(counted(elsewhere), [done, before, 1, 1]);
        }
        // It was pulled out after it had passed.
        let after = vec![ending("1", 1, End::Done, None), silent("1")];
        assert_eq!(counted(after.clone()), [1, 0, 1, 1]);
        let again = ending("1", 1, End::Before, None);
        assert_eq!(counted([after, vec![again]].concat()), [1, 0, 0, 0]);
        // It had passed, was erased, and has its keys again.
        let erased = ending("1", 1, End::Failed, Some("is blank now"));
        let released = vec![
            ending("1", 1, End::Before, None),
            erased.clone(),
            ending("1", 1, End::Done, None),
        ];
        assert_eq!(counted(released), [1, 0, 0, 0]);
        // Another device with the id of one that is done: neither a third device that passes there mends that, nor silence.
        let claimed = vec![
            ending("2", 1, End::Done, None),
            erased,
            ending("1", 3, End::Done, None),
        ];
        assert_eq!(counted(claimed.clone()), [2, 0, 1, 1]);
        let more = vec![silent("1"), ending("1", 3, End::Before, None)];
        assert_eq!(counted([claimed, more].concat()), [2, 0, 1, 1]);
    }

    #[test]
    fn times_are_spread_as_they_are_said_to_be() {
        let times: Vec<_> = (1..=10).rev().map(Duration::from_secs).collect();
        assert_eq!(spread(&times).map(|time| time.as_secs()), [6, 10, 10]);
        assert_eq!(spread(&[]), [Duration::ZERO; 3]);
    }

    #[test]
    fn nothing_from_outside_is_markup() {
        let mut history = history();
        history.endings[0].nest = "<script>".to_owned();
        history.endings[1].reason = Some("\" onload=\"x".to_owned());
        let page = page(&history);
        assert!(page.contains("five &lt;keys&gt;"));
        assert!(!page.contains("<script>") && page.contains("&lt;script&gt;"));
        assert!(page.contains("50.0 %"), "{page}");
        // Nothing is loaded from elsewhere.
        assert!(!page.contains("http") && !page.contains("src="));
    }
}
