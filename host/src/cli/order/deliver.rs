//! `keyferry order deliver`.

use std::path::PathBuf;
use std::thread;

use clap::Args;
use keyferry_protocol::message::Progress;

use super::authority;
use crate::cli::{Context, Outcome, fields, port};
use crate::device::capture::{CaptureError, NewFile};
use crate::error::Failure;
use crate::export::Trust;
use crate::station::offline::{self, BatchFolder, Delivered, How, OfflineError};

#[derive(Debug, Args)]
pub(in crate::cli) struct Deliver {
    /// The folder that `order prepare` made. Receipts go into its folder `receipts`.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// A device's port (a serial device, tcp:HOST:NUMBER or unix:PATH); may be given several times, and all are served at once.
    #[arg(long = "port", value_name = "PORT", required = true, value_parser = port::named)]
    ports: Vec<String>,
    /// Record what goes over the line in a new file, for `keyferry line decode`; with several ports in one file each: FILE.1 for the
    /// first port, FILE.2 for the second …
    #[arg(long, value_name = "FILE")]
    capture: Option<PathBuf>,
    /// Public key file of the authority that must have signed the orders.
    #[arg(long, value_name = "FILE")]
    authority: PathBuf,
}

pub(in crate::cli) fn deliver(context: &Context, arguments: &Deliver) -> Outcome {
    let signer = authority(&arguments.authority)?;
    let folder =
        BatchFolder::open(&arguments.folder, Trust::Signer(&signer)).map_err(OfflineError::from)?;
    context.note(&format!(
        "batch {}, {} orders, signed by {}",
        folder.batch().name(),
        folder.batch().orders.len(),
        signer.fingerprint()
    ));
    let captures = captures(arguments)?;
    let results = serve(context, &folder, &arguments.ports, captures);
    let mut done = Vec::new();
    let mut failed = Vec::new();
    for (port, result) in arguments.ports.iter().zip(results) {
        match result {
            Ok(delivered) => {
                tell(context, port, &delivered);
                done.push(delivered);
            }
            Err(error) => {
                context.event(fields! {
                    "port" => port,
                    "state" => "failed",
                    "error" => error.to_string(),
                    "hint" => error.hint(),
                });
                if arguments.ports.len() > 1 {
                    context.warn(&format!("{port}: {error}"));
                }
                failed.push(error);
            }
        }
    }
    let count = failed.len();
    if let Some(first) = failed.into_iter().next() {
        let ports = arguments.ports.len();
        return Err(Failure::from(if ports == 1 {
            first
        } else {
            OfflineError::Several {
                failed: count,
                ports,
                first: Box::new(first),
            }
        }));
    }
    let delivered = done.iter().filter(|one| one.how == How::Delivered).count();
    let pending: usize = done.iter().map(|one| one.pending).sum();
    Ok(fields! {
        "batch" => folder.batch().name(),
        "devices" => done.len(),
        "delivered" => delivered,
        "collected" => done.len() - delivered,
        "proofs_pending" => pending,
    })
}

/// Makes the files of the recordings: all of them, before any device is called.
fn captures(arguments: &Deliver) -> Result<Vec<Option<NewFile>>, CaptureError> {
    let several = arguments.ports.len() > 1;
    (1_u32..)
        .zip(&arguments.ports)
        .map(|(number, port)| {
            let named = arguments.capture.as_ref().map(|path| {
                let mut path = path.clone().into_os_string();
                if several {
                    path.push(format!(".{number}"));
                }
                path
            });
            named
                .map(|path| NewFile::make(path.as_ref(), port))
                .transpose()
        })
        .collect()
}

/// Serves all ports at once: a device works for seconds, and the line has many.
fn serve(
    context: &Context,
    folder: &BatchFolder,
    ports: &[String],
    captures: Vec<Option<NewFile>>,
) -> Vec<Result<Delivered, OfflineError>> {
    thread::scope(|scope| {
        let threads: Vec<_> = ports
            .iter()
            .zip(captures)
            .map(|(name, capture)| {
                scope.spawn(move || {
                    let mut port = port::open(context, name)?;
                    if let Some(file) = capture {
                        port = port::record(context, port, file);
                    }
                    let mut progress = |step: Progress| {
                        context.event(fields! {
                            "port" => name,
                            "done" => step.done,
                            "total" => step.total,
                        });
                    };
                    offline::deliver(folder, port, &mut progress)
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            })
            .collect()
    })
}

fn tell(context: &Context, port: &str, delivered: &Delivered) {
    let state = if delivered.pending > 0 {
        "delivered, proof pending"
    } else {
        "delivered"
    };
    context.event(fields! {
        "port" => port,
        "device" => delivered.device.to_string(),
        "kind" => delivered.kind.name(),
        "state" => state,
        "collected" => delivered.how == How::Collected,
        "proofs_pending" => delivered.pending,
    });
    let words = match delivered.how {
        How::Delivered => state.to_owned(),
        How::Collected => format!("was applied before; receipt collected ({state})"),
    };
    context.print(&format!(
        "{port}: device {} {}: {words}",
        delivered.device,
        delivered.kind.name()
    ));
}
