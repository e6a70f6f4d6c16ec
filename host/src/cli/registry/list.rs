//! `keyferry registry list`.

use clap::Args;
use keyferry_protocol::receipt::State;

use super::{device, each};
use crate::cli::{Context, Outcome, RegistryArgs, fields};
use crate::station::registry::{Filter, SlotState};

#[derive(Debug, Args)]
pub(in crate::cli) struct List {
    #[command(flatten)]
    registry: RegistryArgs,
    /// Only devices in this state: blank, enrolled, provisioned, locked or quarantined.
    #[arg(long, value_name = "STATE", value_parser = parse_state)]
    state: Option<State>,
    /// Only devices with this board.
    #[arg(long, value_name = "NAME")]
    board: Option<String>,
    /// Released devices as well.
    #[arg(long)]
    released: bool,
}

fn parse_state(name: &str) -> Result<State, String> {
    [
        State::Blank,
        State::Enrolled,
        State::Provisioned,
        State::Locked,
        State::Quarantined,
    ]
    .into_iter()
    .find(|state| state.name() == name)
    .ok_or_else(|| "there is blank, enrolled, provisioned, locked and quarantined".to_owned())
}

pub(super) fn list(context: &Context, arguments: &List) -> Outcome {
    let registry = arguments.registry.open_named()?;
    let filter = Filter {
        state: arguments.state,
        board: arguments.board.clone(),
        released: arguments.released,
    };
    let mut rows = Vec::new();
    let count = each(&registry, &filter, |record| {
        if context.is_json() {
            context.event(device(record));
            return Ok(());
        }
        let slots = registry.slots(record.device)?;
        let number = |state| slots.iter().filter(|slot| slot.state == state).count();
        let state = if record.released.is_some() {
            "released"
        } else {
            record.state.name()
        };
        rows.push([
            record.device.to_string(),
            record.serial.clone().unwrap_or_else(|| "-".into()),
            state.to_owned(),
            number(SlotState::Proved).to_string(),
            number(SlotState::Pending).to_string(),
            record.board.clone(),
            record.policy.clone(),
            record.enrolled_at.clone(),
        ]);
        Ok(())
    })?;
    context.table(
        [
            "DEVICE", "SERIAL", "STATE", "PROVED", "PENDING", "BOARD", "POLICY", "ENROLLED",
        ],
        &rows,
    );
    if count == 0 && !arguments.released {
        context.note("no device; --released lists those that were released, too");
    }
    Ok(fields! { "devices" => count })
}
