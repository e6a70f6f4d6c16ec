//! The port of a device on a command line: what stands after `--port`, and what is told when it is opened.

use std::path::Path;

use super::{Context, fields};
use crate::device::DeviceError;
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
