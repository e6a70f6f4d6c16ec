//! `keyferry line`: what went over a line.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use keyferry_protocol::link::Millis;
use keyferry_protocol::link::frame::{Fields, flag};
use keyferry_protocol::link::rates;
use serde_json::{Map, Value, json};

use super::output::counted;
use super::{Context, Outcome, fields};
use crate::device::capture::{Decoder, Item, Recording, To, describe};
use crate::device::session::printable;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show a session that was recorded with --capture.
    Decode(Decode),
}

#[derive(Debug, Args)]
pub(super) struct Decode {
    /// The recording.
    #[arg(value_name = "FILE")]
    recording: PathBuf,
}

pub(super) fn run(context: &Context, command: Command) -> Outcome {
    match command {
        Command::Decode(arguments) => decode(context, &arguments),
    }
}

/// What is counted on the way.
#[derive(Default)]
struct Counts {
    frames: u64,
    again: u64,
    damaged: u64,
    messages: u64,
}

fn decode(context: &Context, arguments: &Decode) -> Outcome {
    let mut recording = Recording::open(&arguments.recording)?;
    let heading = recording.heading();
    let (port, started) = (printable(&heading.port), printable(&heading.started));
    context.print(&format!("port {port}, from {started}"));
    let mut decoder = Decoder::new();
    let mut counts = Counts::default();
    for record in recording.by_ref() {
        for item in decoder.take(record?) {
            show(context, &item, &mut counts);
        }
    }
    if recording.is_cut() {
        context.warn("the recording ends in the middle of a line: its program was stopped");
    }
    let (to_device, to_station) = decoder.unfinished();
    for (to, bytes) in [(To::Device, to_device), (To::Station, to_station)] {
        if bytes > 0 {
            context.warn(&format!(
                "it ends with {} to the {to} of a frame that has no end",
                counted(bytes as u64, "byte")
            ));
        }
    }
    context.print(&format!(
        "{} ({} repeated), {} damaged, {}",
        counted(counts.frames, "frame"),
        counts.again,
        counts.damaged,
        counted(counts.messages, "message")
    ));
    Ok(fields! {
        "port" => port,
        "started" => started,
        "frames" => counts.frames,
        "repeated" => counts.again,
        "damaged" => counts.damaged,
        "messages" => counts.messages,
        "cut" => recording.is_cut(),
    })
}

fn show(context: &Context, item: &Item, counts: &mut Counts) {
    match item {
        Item::Frame {
            ms,
            to,
            length,
            fields,
            data,
            again,
        } => {
            counts.frames += 1;
            counts.again += u64::from(*again);
            let mut event = start(*ms, Some(*to), "frame");
            event.extend(fields! { "length" => length, "data" => data, "repeated" => again });
            event.extend(header(fields));
            context.event(event);
            let again = if *again { "  repeated" } else { "" };
            let words = format!("{}{again}", header_words(fields, *data));
            context.print(&line(*ms, Some(*to), &words));
        }
        Item::Damaged {
            ms,
            to,
            length,
            start: first,
        } => {
            counts.damaged += 1;
            let text: String = first
                .iter()
                .map(|byte| match byte {
                    0x20..=0x7e => char::from(*byte),
                    _ => '.',
                })
                .collect();
            let mut event = start(*ms, Some(*to), "damaged");
            event.extend(
                fields! { "length" => length, "start" => hex::encode(first), "text" => text },
            );
            context.event(event);
            let words = format!(
                "damaged: {}, {} |{text}|",
                counted(*length as u64, "byte"),
                hex::encode(first)
            );
            context.print(&line(*ms, Some(*to), &words));
        }
        Item::Message { ms, to, bytes } => {
            counts.messages += 1;
            let description = describe(*to, bytes);
            let mut event = start(*ms, Some(*to), "message");
            event.insert("message".to_owned(), json!(description.name));
            let mut words = format!("    {}", description.name);
            for (name, value) in description.fields {
                words.push_str(&format!("  {} {}", name.replace('_', " "), plain(&value)));
                event.insert(name.to_owned(), value);
            }
            context.event(event);
            context.print(&line(*ms, Some(*to), &words));
        }
        Item::Baud { ms, baud } => {
            let mut event = start(*ms, None, "baud");
            event.extend(fields! { "baud" => baud });
            context.event(event);
            context.print(&line(*ms, None, &format!("rate {baud} baud")));
        }
        Item::Gone { ms, reason } => {
            let reason = printable(reason);
            let mut event = start(*ms, None, "gone");
            event.extend(fields! { "reason" => reason });
            context.event(event);
            context.print(&line(*ms, None, &format!("the port was gone: {reason}")));
        }
    }
}

fn start(ms: Millis, to: Option<To>, what: &str) -> Map<String, Value> {
    let mut event = fields! { "ms" => ms, "item" => what };
    if let Some(to) = to {
        event.extend(fields! { "to" => to.name() });
    }
    event
}

/// One line for a person: seconds, where to, and what.
fn line(ms: Millis, to: Option<To>, what: &str) -> String {
    let place = match to {
        Some(To::Device) => "> device ",
        Some(To::Station) => "< station",
        None => "         ",
    };
    format!("{:>6}.{:03}  {place}  {what}", ms / 1000, ms % 1000)
}

/// A value as a person reads it.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) => short(text),
        Value::Number(number) => number.to_string(),
        Value::Array(values) if values.is_empty() => "none".to_owned(),
        Value::Array(values) => values.iter().map(plain).collect::<Vec<_>>().join(", "),
        Value::Object(_) => value.to_string(),
    }
}

/// A digest or fingerprint by its beginning, which is enough to tell two apart; scripts get all of it.
fn short(text: &str) -> String {
    let is_digest = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match text.get(..16) {
        Some(_) if is_digest && text.bytes().all(|byte| byte == b'0') => "none".to_owned(),
        Some(start) if is_digest => format!("{start}…"),
        Some(_) | None => text.to_owned(),
    }
}

/// The flags that are set, by their names in the specification.
fn flags(fields: &Fields) -> Vec<&'static str> {
    [
        (flag::OPEN, "OPEN"),
        (flag::RESET, "RESET"),
        (flag::PING, "PING"),
        (flag::DAMAGED, "DAMAGED"),
        (flag::HELD, "HELD"),
        (flag::DEVICE, "DEVICE"),
    ]
    .into_iter()
    .filter(|(flag, _)| fields.has(*flag))
    .map(|(_, name)| name)
    .collect()
}

fn header(fields: &Fields) -> Map<String, Value> {
    let mut event = fields! {
        "flags" => flags(fields),
        "session" => fields.session,
        "number" => fields.number,
        "offset" => fields.offset,
        "acknowledgement" => fields.acknowledgement,
        "heard" => fields.heard,
        "credit" => fields.credit,
    };
    if let Some(parameters) = fields.parameters {
        event.extend(fields! {
            "nonce" => parameters.nonce,
            "max_frame" => parameters.max_frame,
            "rates" => rates::of_set(parameters.rates).collect::<Vec<_>>(),
        });
    }
    if fields.has(flag::HELD) {
        event.extend(fields! { "held" => fields.held.as_slice() });
    }
    event
}

fn header_words(fields: &Fields, data: u16) -> String {
    let mut words = format!("session {:04x}", fields.session);
    if data > 0 || fields.has(flag::PING) {
        words.push_str(&format!("  number {}", fields.number));
    }
    if data > 0 {
        words.push_str(&format!("  offset {} + {data}", fields.offset));
    }
    words.push_str(&format!(
        "  ack {}  heard {}  credit {}",
        fields.acknowledgement, fields.heard, fields.credit
    ));
    for name in flags(fields) {
        // The direction says it already.
        if name != "DEVICE" {
            words.push_str("  ");
            words.push_str(name);
        }
    }
    if let Some(parameters) = fields.parameters {
        let rates: Vec<String> = rates::of_set(parameters.rates)
            .map(|rate| rate.to_string())
            .collect();
        let rates = if rates.is_empty() {
            "none".to_owned()
        } else {
            rates.join(", ")
        };
        words.push_str(&format!(
            "  nonce {:08x}  frames up to {}  rates {rates}",
            parameters.nonce, parameters.max_frame
        ));
    }
    for (from, to) in fields.held.as_slice() {
        words.push_str(&format!("  holds {from} to {to}"));
    }
    words
}
