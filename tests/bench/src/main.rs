//! What keyferry costs: its figures, one JSON object a line. `cargo xtask bench` builds this in release mode, runs it, and
//! judges.

mod bare;
mod hsm;
mod measure;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// keyferry's figures.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    bench: Bench,
}

/// What is measured.
#[derive(Subcommand)]
enum Bench {
    /// The time for one new device (wrap a key for it, sign its order) beside the bare calls of the token.
    Hsm {
        /// How long each case is measured, in seconds.
        #[arg(long, default_value_t = 2.0)]
        seconds: f64,
    },
    /// The cases of one token, in a process of its own: a token's library is initialised once for the process, and reads its
    /// configuration then.
    #[command(hide = true)]
    HsmToken {
        /// The token's software, as in the case's name.
        #[arg(long)]
        kind: String,
        /// The token's library.
        #[arg(long)]
        module: PathBuf,
        /// The token, with its PIN's file.
        #[arg(long)]
        uri: String,
        /// As above.
        #[arg(long)]
        seconds: f64,
    },
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().bench {
        Bench::Hsm { seconds } => hsm::run(seconds),
        Bench::HsmToken {
            kind,
            module,
            uri,
            seconds,
        } => hsm::token(&kind, &module, &uri, seconds),
    }
}
