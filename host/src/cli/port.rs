//! The port of a device on a command line: what stands after `--port`, and what is told when it is opened.

use std::path::Path;

use super::{Context, fields};
use crate::device::DeviceError;
use crate::device::capture::{CaptureError, Recorder};
use crate::device::port::{self, Name, NameError, Port, SYSFS};

/// Checks a port's name before anything else is done.
pub(super) fn named(name: &str) -> Result<String, NameError> {
    let _: Name = name.parse()?;
    Ok(name.to_owned())
}

/// Opens a port, and tells of an adapter that will be slow.
pub(super) fn open(context: &Context, name: &str) -> Result<Box<dyn Port>, DeviceError> {
    let port = port::open_telling(name, Path::new(SYSFS), &mut |slow| {
        context.event(fields! {
            "port" => name,
            "note" => slow.to_string(),
            "hint" => slow.hint(),
        });
        context.note(&format!("note: {slow}\nhint: {}", slow.hint()));
    })?;
    Ok(port)
}

/// Records a port. Should that fail on the way, it is told, and the session goes on.
pub(super) fn record(
    context: &Context,
    port: Box<dyn Port>,
    path: &Path,
) -> Result<Box<dyn Port>, CaptureError> {
    let context = *context;
    let told = Box::new(move |error: &CaptureError| {
        context.warn(&format!("{error}; the session goes on without it"));
    });
    Ok(Box::new(Recorder::new(port, path, told)?))
}
