//! `keyferry hsm`: what tokens there are, and what one really does.

mod probe;

use clap::Subcommand;

use super::{Context, Outcome, TokenArgs, fields};
use crate::hsm::{HsmError, TokenInfo, tokens};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the tokens of a module. Needs no PIN.
    Tokens {
        #[command(flatten)]
        token: TokenArgs,
    },
    /// Find out by trial what a token really does: throw-away keys are wrapped and looked at. Leaves nothing on the token.
    Probe {
        #[command(flatten)]
        token: TokenArgs,
    },
}

pub(super) fn run(context: &Context, command: Command) -> Outcome {
    match command {
        Command::Tokens { token } => list(context, &token),
        Command::Probe { token } => probe::probe(context, &token),
    }
}

/// Lists the initialised tokens that the arguments match: all of a module if only that is named.
fn list(context: &Context, arguments: &TokenArgs) -> Outcome {
    let (spec, _) = arguments.spec()?;
    let (found, others): (Vec<TokenInfo>, Vec<TokenInfo>) = tokens(&spec)?
        .into_iter()
        .filter(|token| token.initialized)
        .partition(|token| spec.matches(token));
    if found.is_empty() && !others.is_empty() {
        return Err(HsmError::NoSuchToken {
            wanted: spec.to_string(),
            present: others.into_iter().map(|token| token.label).collect(),
        }
        .into());
    }
    if found.is_empty() {
        context.note("there is no initialised token in this module");
    }
    for token in &found {
        context.event(fields! {
            "token" => token.label,
            "serial" => token.serial,
            "manufacturer" => token.manufacturer,
            "model" => token.model,
            "slot" => token.slot,
            "pin" => token.pin.name(),
        });
    }
    let rows: Vec<_> = found
        .iter()
        .map(|token| {
            [
                token.label.clone(),
                token.serial.clone(),
                token.manufacturer.clone(),
                token.model.clone(),
                token.pin.name().to_owned(),
            ]
        })
        .collect();
    context.table(["LABEL", "SERIAL", "MANUFACTURER", "MODEL", "PIN"], &rows);
    Ok(fields! { "tokens" => found.len() })
}
