//! `station check`, `station schema`.

use serde_json::json;

use super::PlanArgs;
use super::files::load;
use crate::cli::output::counted;
use crate::cli::{Context, Outcome, fields};
use crate::error::Failure;
use crate::station::plan;

pub(super) fn check(context: &Context, arguments: &PlanArgs) -> Outcome {
    let loaded = match load(arguments) {
        Ok(loaded) => loaded,
        Err(failure) => {
            if let Failure::Plan(error) = &failure {
                for mistake in &error.mistakes {
                    context.event(fields! {
                        "line" => mistake.place.line,
                        "column" => mistake.place.column,
                        "mistake" => mistake.what.to_string(),
                        "hint" => mistake.what.hint(),
                    });
                }
            }
            return Err(failure);
        }
    };
    let plan = &loaded.plan;
    let (keys, ports, watched) = (plan.keys.len(), plan.ports.len(), plan.watch.len());
    context.note(&format!(
        "the plan '{}' is right: {} for each device, {}, {} of ports to watch",
        plan.name,
        counted(keys as u64, "key"),
        counted(ports as u64, "port"),
        counted(watched as u64, "pattern"),
    ));
    Ok(fields! {
        "plan" => plan.name,
        "keys" => keys,
        "ports" => ports,
        "watched" => watched,
    })
}

pub(super) fn schema(context: &Context) -> Outcome {
    let schema = plan::schema();
    context.print(&format!("{schema:#}"));
    Ok(fields! { "schema" => json!(schema) })
}
