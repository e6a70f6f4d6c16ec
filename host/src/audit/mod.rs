//! The audit log: what a station did, in a file that shows later whether it was changed.
//!
//! Each line names the hash of the line before it, each order names the hash of the chain when it was made, and the audit key
//! signs the chain now and then. So whoever holds a receipt, an order or a checkpoint can tell later that the log was cut off or
//! replaced. Orders and receipts stand in it as they were signed: the log can be verified with public keys only.
//!
//! What it must never hold: a clear key, a PIN. Its types have no place for one. What it must never do: change a line.
//!
//! The guide is `host/AUDIT.md`.

mod anchor;
mod check;
mod checkpoint;
mod error;
mod export;
mod fault;
mod lines;
mod log;
mod record;
mod text;
mod verify;
mod words;

pub use der::DateTime;

pub use anchor::{Anchor, MAXIMUM_ANCHOR, Seen, Witness, WitnessReceipt};
pub use check::{GivenKeys, Notice, OpenKey, OpenOrder, Stage, Tally};
pub use checkpoint::{Checkpoint, read_signed_bytes, signed_bytes};
pub use error::{AnchorFault, AuditError, Difference};
pub use export::{COLUMNS, Row, rows, safe_cell};
pub use fault::Fault;
pub use log::{AuditLog, Head};
pub use record::{
    Authority, Certified, CheckpointLine, Disbelieved, Event, Failed, JobId, LogId, MAXIMUM_LINE,
    Note, Opened, Ordered, Proved, ProvedSlot, Received, Record, Statement, Torn, Trust, Work,
    Wrapped, WrappedKey, head_after,
};
pub use verify::{MAXIMUM_NOTICES, Report, verify};
pub use words::{describe, printable};
