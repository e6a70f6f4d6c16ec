//! What people and scripts see of a line at work: a bar for each nest on a terminal, plain lines elsewhere, JSON for scripts; and the
//! table in the end.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::Context;
use crate::station::run::{Event, Outcome, Verdict, What, as_json, task};

const PASS: Style = AnsiColor::Green.on_default().bold();
const FAIL: Style = AnsiColor::Red.on_default().bold();

/// The screen of a line.
pub(super) struct Screen {
    context: Context,
    /// Bars by nest, on a terminal.
    bars: Option<(MultiProgress, Mutex<BTreeMap<String, ProgressBar>>)>,
}

impl Screen {
    pub(super) fn new(context: &Context) -> Self {
        let has_bars = context.is_talkative() && std::io::stderr().is_terminal();
        let bars = has_bars.then(|| {
            let target = ProgressDrawTarget::stderr();
            (MultiProgress::with_draw_target(target), Mutex::default())
        });
        Self {
            context: *context,
            bars,
        }
    }

    /// Shows what has happened.
    pub(super) fn show(&self, event: &Event<'_>) {
        if self.context.is_json() {
            self.context.event(as_json(event));
            return;
        }
        let nest = &event.nest.name;
        match (&self.bars, &event.what) {
            (Some((all, _)), What::Warning(text)) => {
                all.suspend(|| self.context.warn(&format!("{nest}: {text}")));
            }
            (None, What::Warning(text)) => self.context.warn(&format!("{nest}: {text}")),
            (Some((all, bars)), _) => {
                let mut bars = bars.lock().unwrap_or_else(PoisonError::into_inner);
                let bar = bars
                    .entry(nest.clone())
                    .or_insert_with(|| new_bar(all, nest));
                draw(bar, &event.what);
            }
            // Too much for a log.
            (None, What::Progress(_)) => {}
            (None, what) => self.context.note(&format!("{nest}: {}", words(what))),
        }
    }

    /// Takes the bars away.
    pub(super) fn clear(&self) {
        if let Some((all, _)) = &self.bars {
            // What stays on the screen then is of no consequence.
            let _ = all.clear();
        }
    }

    /// The table of all nests, and the reasons.
    pub(super) fn table(&self, outcomes: &[Outcome]) {
        let rows: Vec<_> = outcomes
            .iter()
            .map(|outcome| {
                let device = outcome
                    .device
                    .map_or_else(|| "-".to_owned(), |id| id.to_string());
                let (keys, said) = match &outcome.verdict {
                    Verdict::Done(done) => (done.keys.len().to_string(), "done"),
                    Verdict::Before => ("-".to_owned(), "was done before"),
                    Verdict::Failed(_) => ("-".to_owned(), "see below"),
                    Verdict::NotBegun(why) => ("-".to_owned(), *why),
                };
                [
                    outcome.nest.name.clone(),
                    verdict(outcome).to_owned(),
                    device,
                    outcome
                        .nest
                        .serial
                        .clone()
                        .unwrap_or_else(|| "-".to_owned()),
                    keys,
                    format!("{:.1} s", outcome.took.as_secs_f64()),
                    said.to_owned(),
                ]
            })
            .collect();
        let heading = [
            "nest",
            "result",
            "device",
            "serial",
            "keys proved",
            "time",
            "",
        ];
        self.context.table(heading, &rows);
        for outcome in outcomes {
            if let Verdict::Failed(error) = &outcome.verdict {
                let nest = &outcome.nest.name;
                self.context
                    .print(&format!("{FAIL}{nest}{FAIL:#}: {error}"));
                if let Some(hint) = error.hint() {
                    self.context.print(&format!("  hint: {hint}"));
                }
            }
        }
        let names = |pass| {
            let those = outcomes.iter().filter(|it| it.verdict.is_pass() == pass);
            those
                .map(|it| it.nest.name.as_str())
                .collect::<Vec<_>>()
                .join(" ")
        };
        let (passed, failed) = (names(true), names(false));
        if !passed.is_empty() {
            self.context.print(&format!("{PASS}PASS{PASS:#} {passed}"));
        }
        if !failed.is_empty() {
            self.context.print(&format!("{FAIL}FAIL{FAIL:#} {failed}"));
        }
    }
}

const fn verdict(outcome: &Outcome) -> &'static str {
    if outcome.verdict.is_pass() {
        "PASS"
    } else {
        "FAIL"
    }
}

/// What has happened, in words.
fn words(what: &What<'_>) -> String {
    match what {
        What::Begun => "opening the port".to_owned(),
        What::Slow(slow) => format!("note: {slow}; {}", slow.hint()),
        What::Found(device) => format!("device {device}"),
        What::Resumed(step) => {
            format!("it was under way before, and had come to '{}'", step.name())
        }
        What::Step(step) => step.name().to_owned(),
        What::Progress(progress) => task(progress).to_owned(),
        What::Quiet(quiet) => {
            format!(
                "nothing heard for {} s; still waiting (power and cable?)",
                quiet.as_secs()
            )
        }
        What::Note(text) => (*text).to_owned(),
        What::Warning(text) => format!("warning: {text}"),
        What::Hook(moment) => format!("calling the hook ({} the device)", moment.name()),
        What::Ended(outcome) => match &outcome.verdict {
            Verdict::Done(_) => "PASS".to_owned(),
            Verdict::Before => "PASS, was done before".to_owned(),
            Verdict::Failed(error) => format!("FAIL: {error}"),
            Verdict::NotBegun(why) => format!("not begun: {why}"),
        },
    }
}

fn new_bar(all: &MultiProgress, nest: &str) -> ProgressBar {
    let bar = all.add(ProgressBar::new(1));
    if let Ok(style) = ProgressStyle::with_template("{prefix:>8} {bar:20} {elapsed:>4} {wide_msg}")
    {
        bar.set_style(style);
    }
    bar.set_prefix(nest.to_owned());
    bar.enable_steady_tick(Duration::from_secs(1));
    bar
}

fn draw(bar: &ProgressBar, what: &What<'_>) {
    if let What::Progress(progress) = what {
        // The search for primes has no end known in advance: the bar stops short of full until it is over.
        let total = u64::from(progress.total).max(u64::from(progress.done) + 1);
        bar.set_length(total);
        bar.set_position(u64::from(progress.done));
    }
    let said = words(what);
    match what {
        What::Ended(_) => {
            bar.set_length(1);
            bar.set_position(1);
            bar.abandon_with_message(said);
        }
        What::Begun
        | What::Slow(_)
        | What::Found(_)
        | What::Resumed(_)
        | What::Step(_)
        | What::Progress(_)
        | What::Quiet(_)
        | What::Note(_)
        | What::Warning(_)
        | What::Hook(_) => bar.set_message(said),
    }
}
