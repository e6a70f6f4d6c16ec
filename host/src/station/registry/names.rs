//! How values stand in columns, and come out of them again. What is in a column and is no such value is an error, never a default.

use keyferry_protocol::identity::{DeviceId, Digest, Fingerprint, Signature};
use keyferry_protocol::order::Kind;
use keyferry_protocol::proof::Proof;
use keyferry_protocol::receipt::State;
use rusqlite::types::{FromSqlError, Type};

use crate::station::database::{self, Fault};

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

/// A row of a table.
pub(in crate::station) trait Columns {
    /// What is said of a column that does not hold what it should.
    type Fault;

    fn text(&self, column: &str) -> Result<String, Self::Fault>;

    fn bytes(&self, column: &str) -> Result<Vec<u8>, Self::Fault>;

    fn wrong(&self, column: &str) -> Self::Fault;
}

impl Columns for rusqlite::Row<'_> {
    type Fault = rusqlite::Error;

    fn text(&self, column: &str) -> Result<String, Self::Fault> {
        self.get(column)
    }

    fn bytes(&self, column: &str) -> Result<Vec<u8>, Self::Fault> {
        self.get(column)
    }

    fn wrong(&self, column: &str) -> Self::Fault {
        let place = self.as_ref().column_index(column).unwrap_or_default();
        let fault = Box::new(FromSqlError::InvalidType);
        rusqlite::Error::FromSqlConversionFailure(place, Type::Text, fault)
    }
}

impl Columns for database::Row {
    type Fault = Fault;

    fn text(&self, column: &str) -> Result<String, Fault> {
        self.get(column)
    }

    fn bytes(&self, column: &str) -> Result<Vec<u8>, Fault> {
        self.get(column)
    }

    fn wrong(&self, column: &str) -> Fault {
        Self::wrong(column)
    }
}

fn hexadecimal<const N: usize, R: Columns>(row: &R, column: &str) -> Result<[u8; N], R::Fault> {
    let mut bytes = [0; N];
    hex::decode_to_slice(row.text(column)?, &mut bytes).map_err(|_| row.wrong(column))?;
    Ok(bytes)
}

pub(in crate::station) fn device<R: Columns>(row: &R, column: &str) -> Result<DeviceId, R::Fault> {
    hexadecimal(row, column).map(DeviceId)
}

pub(in crate::station) fn fingerprint<R: Columns>(
    row: &R,
    column: &str,
) -> Result<Fingerprint, R::Fault> {
    hexadecimal(row, column).map(Fingerprint)
}

pub(in crate::station) fn digest<R: Columns>(row: &R, column: &str) -> Result<Digest, R::Fault> {
    hexadecimal(row, column).map(Digest)
}

pub(in crate::station) fn signature<R: Columns>(
    row: &R,
    column: &str,
) -> Result<Signature, R::Fault> {
    let bytes: [u8; Signature::LENGTH] = row
        .bytes(column)?
        .try_into()
        .map_err(|_| row.wrong(column))?;
    Ok(Signature::from_bytes(&bytes))
}

/// The value whose name stands in a column.
pub(in crate::station) fn named<T: Copy, R: Columns>(
    row: &R,
    column: &str,
    all: &[T],
    name: fn(T) -> &'static str,
) -> Result<T, R::Fault> {
    let text = row.text(column)?;
    all.iter()
        .copied()
        .find(|value| name(*value) == text)
        .ok_or_else(|| row.wrong(column))
}

pub(in crate::station) fn state<R: Columns>(row: &R, column: &str) -> Result<State, R::Fault> {
    named(row, column, &STATES, State::name)
}

pub(in crate::station) fn kind<R: Columns>(row: &R, column: &str) -> Result<Kind, R::Fault> {
    named(row, column, &KINDS, Kind::name)
}

pub(in crate::station) fn proof<R: Columns>(row: &R, column: &str) -> Result<Proof, R::Fault> {
    named(row, column, &Proof::ALL, Proof::name)
}
