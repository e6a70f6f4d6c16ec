//! `station watch`: stays, and does every device that is plugged in.

use clap::Args;

use super::files::load;
use super::fixture::{Bench, watched};
use super::opened::{LineArgs, Station};
use super::screen::Screen;
use crate::cli::output::counted;
use crate::cli::{Context, Outcome, fields};
use crate::error::Failure;
use crate::station::run::Event;

#[derive(Debug, Args)]
pub(in crate::cli) struct Watch {
    #[command(flatten)]
    line: LineArgs,
    /// Read serial numbers of labels from standard input, as a scanner types them: nest and serial number on a line, or one line after the
    /// other.
    #[arg(long)]
    scan: bool,
}

pub(super) fn run(context: &Context, arguments: &Watch) -> Outcome {
    let loaded = load(&arguments.line.plan)?;
    let ports = watched(&loaded.plan)?;
    if loaded.plan.serials && !arguments.scan {
        return Err(Failure::Missing {
            name: "--scan",
            because: "the plan wants the serial number of every device",
        });
    }
    let station = Station::open(context, &arguments.line, loaded)?;
    let screen = Screen::staying(context);
    station.begin(context, fields! {})?;
    let follower = station.follower(&screen);
    let on_event = |event: &Event<'_>| follower.follow(event);
    let mut bench = Bench::new(context, &screen, &station, ports, arguments.scan);
    let why = station.line(&on_event).watch(&station.stock, &mut bench);
    let tally = bench.tally;
    screen.clear();
    let closing = station.close(context);
    // Whatever became of the books, what became of the devices is shown.
    context.note(why.words());
    for open in tally.open.values() {
        screen.failed(&open.nest, &open.error, open.hint.as_deref());
    }
    let closing = closing?;
    station.warn_of_rest(context)?;
    let waiting = closing.waiting;
    let exported = closing.exported()?;
    let not_done = tally.open.len() as u64 + tally.more;
    let summary = fields! {
        "run" => station.run.to_string(),
        "ended" => why.words(),
        "done" => tally.done,
        "before" => tally.before,
        "failed" => tally.failed,
        "not_done" => not_done,
        "keys_proved" => tally.keys,
        "keys_exported" => exported,
        "registry_waiting" => waiting,
    };
    if not_done > 0 {
        let mut event = fields! { "event" => "summary" };
        event.extend(summary);
        context.event(event);
        return Err(Failure::NotDone { failed: not_done });
    }
    context.note(&format!(
        "{} done, {}",
        counted(tally.done, "device"),
        counted(tally.keys as u64, "key")
    ));
    Ok(summary)
}
