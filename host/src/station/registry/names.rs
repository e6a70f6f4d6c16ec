//! How values stand in columns, and come out of them again. What is in a column and is no such value is an error, never a default.

use keyferry_protocol::identity::{DeviceId, Digest, Fingerprint, Signature};
use keyferry_protocol::order::Kind;
use keyferry_protocol::proof::Proof;
use keyferry_protocol::receipt::State;
use rusqlite::types::{FromSqlError, Type};
use rusqlite::{Error, Result, Row};

const STATES: [State; 5] = [
    State::Blank,
    State::Enrolled,
    State::Provisioned,
    State::Locked,
    State::Quarantined,
];

const KINDS: [Kind; 7] = [
    Kind::Enroll,
    Kind::Inject,
    Kind::Prove,
    Kind::Remove,
    Kind::Rotate,
    Kind::Lock,
    Kind::Wipe,
];

fn wrong(row: &Row<'_>, column: &str) -> Error {
    let place = row.as_ref().column_index(column).unwrap_or_default();
    Error::FromSqlConversionFailure(place, Type::Text, Box::new(FromSqlError::InvalidType))
}

fn hexadecimal<const N: usize>(row: &Row<'_>, column: &str) -> Result<[u8; N]> {
    let text: String = row.get(column)?;
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes).map_err(|_| wrong(row, column))?;
    Ok(bytes)
}

pub(in crate::station) fn device(row: &Row<'_>, column: &str) -> Result<DeviceId> {
    hexadecimal(row, column).map(DeviceId)
}

pub(in crate::station) fn fingerprint(row: &Row<'_>, column: &str) -> Result<Fingerprint> {
    hexadecimal(row, column).map(Fingerprint)
}

pub(in crate::station) fn digest(row: &Row<'_>, column: &str) -> Result<Digest> {
    hexadecimal(row, column).map(Digest)
}

pub(in crate::station) fn signature(row: &Row<'_>, column: &str) -> Result<Signature> {
    row.get(column)
        .map(|bytes: [u8; Signature::LENGTH]| Signature::from_bytes(&bytes))
}

/// The value whose name stands in a column.
pub(in crate::station) fn named<T: Copy>(
    row: &Row<'_>,
    column: &str,
    all: &[T],
    name: fn(T) -> &'static str,
) -> Result<T> {
    let text: String = row.get(column)?;
    all.iter()
        .copied()
        .find(|value| name(*value) == text)
        .ok_or_else(|| wrong(row, column))
}

pub(in crate::station) fn state(row: &Row<'_>, column: &str) -> Result<State> {
    named(row, column, &STATES, State::name)
}

pub(in crate::station) fn kind(row: &Row<'_>, column: &str) -> Result<Kind> {
    named(row, column, &KINDS, Kind::name)
}

pub(in crate::station) fn proof(row: &Row<'_>, column: &str) -> Result<Proof> {
    named(row, column, &Proof::ALL, Proof::name)
}
