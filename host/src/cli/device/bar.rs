//! Progress: a bar for a person at a terminal, JSON lines for a script.

use indicatif::{ProgressBar, ProgressStyle};
use keyferry_protocol::message::{Progress, Task};

use crate::cli::{Context, fields};

pub(super) struct Bar<'a> {
    context: &'a Context,
    bar: ProgressBar,
}

impl<'a> Bar<'a> {
    pub(super) fn new(context: &'a Context) -> Self {
        // indicatif draws on a terminal only.
        let bar = if context.is_talkative() {
            ProgressBar::new(1)
        } else {
            ProgressBar::hidden()
        };
        if let Ok(style) = ProgressStyle::with_template("{msg:22} {bar:30} {elapsed}") {
            bar.set_style(style);
        }
        Self { context, bar }
    }

    pub(super) fn show(&self, progress: Progress) {
        let task = match progress.task {
            Task::GenerateUnwrapKey => "making its unwrap key",
            Task::Unwrap => "unwrapping",
            Task::Prove => "proving",
        };
        self.bar.set_message(task);
        // The search for primes has no end known in advance: the bar stops short of full until it is over.
        let total = u64::from(progress.total).max(u64::from(progress.done) + 1);
        self.bar.set_length(total);
        self.bar.set_position(u64::from(progress.done));
        self.context.event(fields! {
            "progress" => task,
            "done" => progress.done,
            "total" => progress.total,
        });
    }
}

impl Drop for Bar<'_> {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
