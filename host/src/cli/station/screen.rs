//! What people and scripts see of a line at work: a bar for each nest on a terminal, plain lines elsewhere, JSON for scripts; and the
//! table in the end.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anstyle::{AnsiColor, Color, Style};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::Context;
use crate::cli::output::counted;
use crate::station::run::{Event, Outcome, Verdict, What, as_json, task};

const PASS: Style = AnsiColor::Green.on_default().bold();
const FAIL: Style = AnsiColor::Red.on_default().bold();
const BIG_PASS: Style = AnsiColor::Black
    .on_default()
    .bg_color(Some(Color::Ansi(AnsiColor::Green)))
    .bold();
const BIG_FAIL: Style = AnsiColor::White
    .on_default()
    .bg_color(Some(Color::Ansi(AnsiColor::Red)))
    .bold();
const BOLD: Style = Style::new().bold();

/// The screen of a line.
pub(super) struct Screen {
    context: Context,
    /// Whether devices come and go: the end of each is shown when it comes, and its bar goes.
    stays: bool,
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
            stays: false,
            bars,
        }
    }

    /// The screen of a line that stays.
    pub(super) fn staying(context: &Context) -> Self {
        Self {
            stays: true,
            ..Self::new(context)
        }
    }

    /// Writes something beside the bars.
    fn beside(&self, write: impl FnOnce()) {
        match &self.bars {
            Some((all, _)) => all.suspend(write),
            None => write(),
        }
    }

    /// Tells a person something.
    pub(super) fn say(&self, text: &str) {
        self.beside(|| self.context.note(text));
    }

    /// Tells what must not be overlooked.
    pub(super) fn warn(&self, text: &str) {
        self.beside(|| self.context.warn(text));
    }

    /// Shows what has happened.
    pub(super) fn show(&self, event: &Event<'_>) {
        if self.context.is_json() {
            self.context.event(as_json(event));
            return;
        }
        let nest = &event.nest.name;
        match (&self.bars, &event.what) {
            (Some(_), What::Warning(text)) => {
                self.warn(&format!("{nest}: {text}"));
            }
            (Some((all, bars)), What::Ended(outcome)) if self.stays => {
                let mut bars = bars.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(bar) = bars.remove(nest) {
                    bar.finish_and_clear();
                    all.remove(&bar);
                }
                drop(bars);
                self.end(outcome);
            }
            (None, What::Ended(outcome)) if self.stays => self.end(outcome),
            (Some(_), What::Appeared | What::Vanished) => {
                self.say(&format!("{nest}: {}", words(&event.what)));
            }
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

    /// What has become of a device, to be seen from afar.
    fn end(&self, outcome: &Outcome) {
        let nest = &outcome.nest.name;
        let device = outcome
            .device
            .map_or_else(String::new, |device| format!("  device {device}"));
        let said = match &outcome.verdict {
            Verdict::Failed(error) => {
                self.failed(nest, &error.to_string(), error.hint().as_deref());
                return;
            }
            Verdict::NotBegun(why) => {
                self.failed(nest, why, None);
                return;
            }
            Verdict::Before => "was done before".to_owned(),
            Verdict::Done(done) => format!(
                "{} proved, {:.1} s",
                counted(done.keys.len() as u64, "key"),
                outcome.took.as_secs_f64()
            ),
        };
        self.beside(|| {
            self.context.print(&format!(
                "{BIG_PASS} PASS {BIG_PASS:#} {BOLD}{nest}{BOLD:#}{device}  {said}"
            ));
        });
    }

    /// A device that is not done, to be seen from afar, with the reason and the next move.
    pub(super) fn failed(&self, nest: &str, error: &str, hint: Option<&str>) {
        self.beside(|| {
            self.context.print(&format!(
                "{BIG_FAIL} FAIL {BIG_FAIL:#} {BOLD}{nest}{BOLD:#}  {error}"
            ));
            if let Some(hint) = hint {
                self.context.print(&format!("  hint: {hint}"));
            }
        });
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
        What::Appeared => "plugged in".to_owned(),
        What::Vanished => "pulled out".to_owned(),
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
        What::Appeared
        | What::Vanished
        | What::Begun
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
