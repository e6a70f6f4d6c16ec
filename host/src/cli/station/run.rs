//! `station run`: every device that is plugged in, once.

use std::path::PathBuf;

use clap::Args;

use super::files::{Loaded, load};
use super::opened::{LineArgs, Station};
use super::screen::Screen;
use super::serials;
use crate::cli::output::counted;
use crate::cli::{Context, Outcome, fields};
use crate::error::Failure;
use crate::station::plan::{MAXIMUM_PORTS, check_nest};
use crate::station::run::{Event, Nest};

#[derive(Debug, Args)]
pub(in crate::cli) struct Run {
    #[command(flatten)]
    line: LineArgs,
    /// A device's port, instead of those of the plan; may be given more than once. A port of the plan keeps its nest; others are
    /// numbered, unless the nest stands before an equals sign.
    #[arg(long = "port", value_name = "[NEST=]PORT", value_parser = parse_port)]
    ports: Vec<(Option<String>, String)>,
    /// Serial numbers of the devices' labels: a text file, nest and serial number on each line.
    #[arg(long, value_name = "FILE")]
    serials: Option<PathBuf>,
}

/// What stands after `--port`. The name of a serial device or a host has no equals sign before its colon or stroke.
fn parse_port(text: &str) -> Result<(Option<String>, String), String> {
    let (nest, port) = match text.split_once('=') {
        Some((nest, port)) if !nest.is_empty() && !nest.contains(['/', ':', '\\']) => {
            check_nest(nest)?;
            (Some(nest.to_owned()), port)
        }
        Some(_) | None => (None, text),
    };
    let port = crate::cli::port::named(port).map_err(|error| error.to_string())?;
    Ok((nest, port))
}

/// Where devices are looked for.
fn nests(loaded: &Loaded, arguments: &Run) -> Result<Vec<Nest>, Failure> {
    let nest = |name: String, port: &str| Nest {
        name,
        port: port.to_owned(),
        serial: None,
    };
    let planned = &loaded.plan.ports;
    let mut nests: Vec<Nest> = Vec::new();
    if arguments.ports.is_empty() {
        nests.extend(planned.iter().map(|it| nest(it.nest.clone(), &it.port)));
    }
    for (number, (name, port)) in (1..).zip(&arguments.ports) {
        let known = planned.iter().find(|it| it.port == *port);
        let name = match (name, known) {
            (Some(name), _) => name.clone(),
            (None, Some(known)) => known.nest.clone(),
            (None, None) => number.to_string(),
        };
        nests.push(nest(name, port));
    }
    if nests.is_empty() {
        return Err(Failure::Missing {
            name: "--port",
            because: "the plan names no port either",
        });
    }
    let twice = nests.iter().enumerate().find(|(index, one)| {
        let mut before = nests.iter().take(*index);
        before.any(|other| other.name == one.name || other.port == one.port)
    });
    if let Some((_, twice)) = twice {
        return Err(Failure::NestTwice {
            nest: twice.name.clone(),
            port: twice.port.clone(),
        });
    }
    if nests.len() > MAXIMUM_PORTS {
        return Err(Failure::TooManyPorts(MAXIMUM_PORTS));
    }
    match &arguments.serials {
        Some(path) => {
            let others: Vec<&str> = planned.iter().map(|it| it.nest.as_str()).collect();
            serials::bind(path, &mut nests, &others)?;
        }
        None if loaded.plan.serials => {
            return Err(Failure::Missing {
                name: "--serials",
                because: "the plan wants the serial number of every device",
            });
        }
        None => {}
    }
    Ok(nests)
}

pub(super) fn run(context: &Context, arguments: &Run) -> Outcome {
    // All that can be wrong in files first: nobody is asked for a PIN in vain.
    let loaded = load(&arguments.line.plan)?;
    let nests = nests(&loaded, arguments)?;
    let station = Station::open(context, &arguments.line, loaded)?;
    station.begin(context, fields! { "nests" => nests.len() })?;
    let screen = Screen::new(context);
    let follower = station.follower(&screen);
    let on_event = |event: &Event<'_>| follower.follow(event);
    let outcomes = station.line(&on_event).run(&station.stock, &nests);
    screen.clear();
    let closing = station.close(context);
    // Whatever became of the books, what became of the devices is shown.
    screen.table(&outcomes);
    let closing = closing?;
    station.warn_of_rest(context)?;
    let waiting = closing.waiting;
    let exported = closing.exported()?;
    let failed = outcomes.iter().filter(|it| !it.verdict.is_pass()).count();
    let proved: usize = outcomes.iter().map(|it| it.verdict.keys_proved()).sum();
    let summary = fields! {
        "run" => station.run.to_string(),
        "devices" => outcomes.len(),
        "passed" => outcomes.len() - failed,
        "failed" => failed,
        "keys_proved" => proved,
        "keys_exported" => exported,
        "registry_waiting" => waiting,
    };
    if failed > 0 {
        let mut event = fields! { "event" => "summary" };
        event.extend(summary);
        context.event(event);
        let devices = outcomes.len();
        return Err(Failure::SomeDevices { failed, devices });
    }
    context.note(&format!(
        "{}, {}",
        counted(outcomes.len() as u64, "device"),
        counted(proved as u64, "key")
    ));
    Ok(summary)
}

#[cfg(test)]
mod tests {
    use super::parse_port;

    #[test]
    fn a_nest_may_stand_before_the_port() {
        let of = |text| parse_port(text).unwrap();
        assert_eq!(
            of("A1=/dev/ttyS0"),
            (Some("A1".into()), "/dev/ttyS0".into())
        );
        assert_eq!(of("tcp:host:1"), (None, "tcp:host:1".into()));
        assert_eq!(of("unix:/a=b"), (None, "unix:/a=b".into()));
        assert!(parse_port("A1=tcp:").is_err());
    }
}
