//! Recorded sessions: `--capture FILE` and `keyferry line decode FILE`.
#![cfg(unix)]

mod decode;
mod guide;
mod record;
mod spoiled;

use std::path::{Path, PathBuf};

use keyferry::device::capture::{Decoder, Item, NewFile, Recorder, Recording, To, describe};
use keyferry::device::port::Port;
use serde_json::Value;

/// Everything that is in a recording.
fn items(path: &Path) -> Vec<Item> {
    let mut decoder = Decoder::new();
    Recording::open(path)
        .unwrap()
        .flat_map(|record| decoder.take(record.unwrap()))
        .collect()
}

/// The messages of a recording: where each went, its name, and what it says.
fn messages(items: &[Item]) -> Vec<(To, &'static str, Value)> {
    items
        .iter()
        .filter_map(|item| match item {
            Item::Message { to, bytes, .. } => Some((*to, bytes)),
            Item::Frame { .. } | Item::Damaged { .. } | Item::Baud { .. } | Item::Gone { .. } => {
                None
            }
        })
        .map(|(to, bytes)| {
            let description = describe(to, bytes);
            let fields = description
                .fields
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect();
            (to, description.name, Value::Object(fields))
        })
        .collect()
}

/// Records a port in a new file of this folder. Nothing may go wrong with it.
fn recorded(port: Box<dyn Port>, folder: &Path, name: &str) -> (Box<dyn Port>, PathBuf) {
    let path = folder.join(name);
    let file = NewFile::make(&path, port.name()).unwrap();
    let told = Box::new(|error: &keyferry::device::capture::CaptureError| panic!("{error}"));
    let recorder = Recorder::new(port, file, told);
    (Box::new(recorder), path)
}
