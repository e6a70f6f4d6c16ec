//! Where a door's words go: people read stderr, scripts read one JSON object per line on stdout.

use std::borrow::Cow;
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

/// For what is well.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default().bold();
/// For what is not.
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();
/// For what has been changed on the machine, or did not happen.
pub(crate) const NOTE: Style = AnsiColor::Yellow.on_default().bold();

/// How often the spinner turns.
const SPIN: Duration = Duration::from_millis(120);

/// Both audiences of one run.
pub(crate) struct Screen {
    json: bool,
    live: bool,
}

impl Screen {
    /// A screen that also writes records to stdout where `json` asks for it.
    pub(crate) fn new(json: bool) -> Self {
        let live = std::io::stderr().is_terminal();
        Self { json, live }
    }

    /// Whether a person watches, so that output may be overwritten in place.
    pub(crate) fn is_live(&self) -> bool {
        self.live
    }

    /// Says one line to people.
    pub(crate) fn say(&self, line: impl AsRef<str>) {
        // With stderr gone there is nobody left to tell.
        let _ = writeln!(anstream::stderr(), "{}", line.as_ref());
    }

    /// Says one line that begins with a coloured word of at most nine letters, so that lists line up.
    pub(crate) fn mark(&self, style: Style, word: &str, line: impl AsRef<str>) {
        self.say(format!("{style}{word:>9}{style:#}  {}", line.as_ref()));
    }

    /// Writes one record for scripts, if they asked for records.
    ///
    /// # Errors
    /// If stdout cannot be written.
    pub(crate) fn record(&self, record: &Value) -> anyhow::Result<()> {
        if !self.json {
            return Ok(());
        }
        let mut out = std::io::stdout().lock();
        writeln!(out, "{record}")
            .and_then(|()| out.flush())
            .context("cannot write to stdout")
    }

    /// Shows that `name` is under way until the returned value is dropped.
    pub(crate) fn watch(&self, name: &str) -> Watch {
        let bar = self.live.then(|| {
            let style =
                ProgressStyle::with_template("{spinner:>9}  {prefix} ({elapsed}) {wide_msg:.dim}")
                    .unwrap_or_else(|_| ProgressStyle::default_spinner());
            let bar = ProgressBar::new_spinner().with_style(style);
            bar.set_prefix(name.to_owned());
            bar.enable_steady_tick(SPIN);
            bar
        });
        if bar.is_none() {
            self.mark(Style::new(), "...", name);
        }
        Watch { bar }
    }
}

/// A piece of work in progress: a spinner for people, plain lines for a log file.
pub(crate) struct Watch {
    bar: Option<ProgressBar>,
}

impl Watch {
    /// Takes one line that the work printed.
    pub(crate) fn line(&self, line: &str) {
        match &self.bar {
            // A colour code cut off at the edge of the window would paint what follows.
            Some(bar) => bar.set_message(anstream::adapter::strip_str(line).to_string()),
            None => {
                let _ = writeln!(anstream::stderr(), "{line}");
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// `count` and the noun in the number that fits it.
pub(crate) fn count(count: usize, one: &str) -> String {
    let plural: Cow<'_, str> = if count == 1 {
        one.into()
    } else {
        format!("{one}s").into()
    };
    format!("{count} {plural}")
}
