//! Events as JSON objects: what `--json` prints of a line, and what a hook gets.

use keyferry_protocol::identity::DeviceId;
use serde_json::{Map, Value, json};

use super::event::{Event, Nest, Outcome, Verdict, What, task};
use super::hook::Moment;
use crate::station::Proved;
use crate::station::journal::RunId;

/// An event as a JSON object.
#[must_use]
pub fn as_json(event: &Event<'_>) -> Map<String, Value> {
    let mut object = of_nest(event.nest);
    add(
        &mut object,
        match &event.what {
            What::Appeared => json!({ "event": "appeared" }),
            What::Vanished => json!({ "event": "vanished" }),
            What::Begun => json!({ "event": "begun" }),
            What::Slow(slow) => {
                json!({ "event": "note", "note": slow.to_string(), "hint": slow.hint() })
            }
            What::Found(device) => json!({ "event": "found", "device": device.to_string() }),
            What::Resumed(step) => json!({ "event": "resumed", "step": step.name() }),
            What::Step(step) => json!({ "event": "step", "step": step.name() }),
            What::Progress(progress) => json!({
                "event": "progress",
                "progress": task(progress),
                "done": progress.done,
                "total": progress.total,
            }),
            What::Quiet(quiet) => json!({ "event": "quiet", "seconds": quiet.as_secs() }),
            What::Note(text) => json!({ "event": "note", "note": text }),
            What::Warning(text) => json!({ "event": "warning", "warning": text }),
            What::Hook(moment) => json!({ "event": "hook", "moment": moment.name() }),
            What::Ended(outcome) => ended("ended", outcome),
        },
    );
    object
}

/// What a hook gets before a device.
pub(super) fn before(
    run: RunId,
    plan: &str,
    nest: &Nest,
    device: DeviceId,
    serial: Option<&str>,
) -> Map<String, Value> {
    let mut object = of_nest(nest);
    add(&mut object, of_run(run, plan));
    add(
        &mut object,
        json!({
            "event": Moment::Before.name(),
            "device": device.to_string(),
            "serial": serial,
        }),
    );
    object
}

/// What a hook gets after a device: what the event of its end says.
pub(super) fn after(run: RunId, plan: &str, outcome: &Outcome) -> Map<String, Value> {
    let mut object = of_nest(&outcome.nest);
    add(&mut object, of_run(run, plan));
    add(&mut object, ended(Moment::After.name(), outcome));
    object
}

fn of_nest(Nest { name, port, .. }: &Nest) -> Map<String, Value> {
    let mut object = Map::new();
    add(&mut object, json!({ "nest": name, "port": port }));
    object
}

fn of_run(run: RunId, plan: &str) -> Value {
    json!({ "run": run.to_string(), "plan": plan })
}

fn add(object: &mut Map<String, Value>, more: Value) {
    if let Value::Object(more) = more {
        object.extend(more);
    }
}

fn ended(event: &str, outcome: &Outcome) -> Value {
    let result = if outcome.verdict.is_pass() {
        "PASS"
    } else {
        "FAIL"
    };
    let mut object = Map::new();
    add(
        &mut object,
        json!({
            "event": event,
            "result": result,
            "device": outcome.device.map(|id| id.to_string()),
            "serial": outcome.nest.serial,
            "seconds": outcome.took.as_secs_f64(),
        }),
    );
    add(
        &mut object,
        match &outcome.verdict {
            Verdict::Done(done) => json!({
                "policy": done.policy,
                "suite": done.suite.map(|suite| suite.name()),
                "certified": done.certified,
                "locked": done.locked,
                "keys_proved": done.keys.len(),
                "keys": keys(&done.keys),
            }),
            Verdict::Before => json!({ "before": true }),
            Verdict::Failed(error) => {
                json!({ "error": error.to_string(), "hint": error.hint(), "done": error.is_done() })
            }
            Verdict::NotBegun(why) => json!({ "error": why }),
        },
    );
    Value::Object(object)
}

fn keys(proved: &[Proved]) -> Vec<Value> {
    let key = |slot: &Proved| {
        json!({
            "slot": slot.slot,
            "label": slot.label,
            "type": slot.key_type,
            "proof": slot.proof.name(),
        })
    };
    proved.iter().map(key).collect()
}
