//! The port of a device on a command line: what stands after `--port`, and what is told when it is opened.

use std::path::Path;

use super::{Context, fields};
use crate::device::DeviceError;
use crate::device::capture::{CaptureError, NewFile, Recorder};
use crate::device::port::{self, Name, NameError, Port, SYSFS};
use crate::device::session::Session;
use crate::error::Failure;

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

/// Opens a port, and records it if a file is named for that. The file is made first.
pub(super) fn open_recorded(
    context: &Context,
    name: &str,
    capture: Option<&Path>,
) -> Result<Box<dyn Port>, Failure> {
    let file = capture.map(|path| NewFile::make(path, name)).transpose()?;
    let port = open(context, name)?;
    match file {
        Some(file) => Ok(record(context, port, file)),
        None => Ok(port),
    }
}

/// Tells when a device is not heard any more, long before it is given up.
pub(super) fn tell_of_quiet(context: &Context, session: &mut Session) {
    let (context, port) = (*context, session.port_name());
    session.set_on_quiet(Box::new(move |quiet| {
        let seconds = quiet.as_secs();
        context.event(fields! {
            "port" => port,
            "note" => "nothing is heard of the device",
            "seconds" => seconds,
        });
        context.note(&format!(
            "nothing heard from '{port}' for {seconds} s; still waiting (power and cable?)"
        ));
    }));
}

/// Records a port. Should that fail on the way, it is told, and the session goes on.
pub(super) fn record(context: &Context, port: Box<dyn Port>, file: NewFile) -> Box<dyn Port> {
    let context = *context;
    let told = Box::new(move |error: &CaptureError| {
        context.warn(&format!("{error}; the session goes on without it"));
    });
    Box::new(Recorder::new(port, file, told))
}
