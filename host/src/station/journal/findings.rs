//! What the registry is still to be told, in the order in which it was found out, while its server is away. And what it did not take,
//! for a person to look at.

use keyferry_protocol::identity::DeviceId;
use rusqlite::{Row, Transaction};

use super::{Journal, JournalError, UnitId, execute, now};
use crate::station::finding::Finding;
use crate::station::registry::names;

/// Most findings that are read at once.
const PAGE: u32 = 64;

/// A finding that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::station) struct Waiting {
    pub(in crate::station) number: i64,
    pub(in crate::station) device: DeviceId,
    pub(in crate::station) finding: Finding,
}

/// Something that the registry did not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Untaken {
    /// The device.
    pub device: DeviceId,
    /// Why not.
    pub reason: String,
}

impl Journal {
    /// Keeps a finding until the registry has been told.
    pub(in crate::station) fn keep(
        &self,
        device: DeviceId,
        finding: &Finding,
    ) -> Result<(), JournalError> {
        let text = serde_json::to_string(finding).map_err(|_| JournalError::Finding)?;
        self.change("kept", |transaction| {
            let row = (device.to_string(), text, now()?);
            let inserted = execute(
                transaction,
                "INSERT INTO findings (device, finding, found_at) VALUES (?1, ?2, ?3)",
                row,
            );
            self.done(inserted).map(|_| ())
        })
    }

    /// The oldest findings that wait.
    pub(in crate::station) fn waiting(&self) -> Result<Vec<Waiting>, JournalError> {
        let read = || {
            let sql = "SELECT number, device, finding FROM findings WHERE untaken IS NULL
                 ORDER BY number LIMIT ?1";
            let mut query = self.connection.prepare_cached(sql)?;
            let rows = query.query_map([PAGE], |row: &Row<'_>| {
                let text: String = row.get("finding")?;
                Ok((row.get("number")?, names::device(row, "device")?, text))
            })?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        };
        let waiting = |(number, device, text): (i64, DeviceId, String)| {
            let finding = serde_json::from_str(&text).map_err(|_| JournalError::Finding)?;
            Ok(Waiting {
                number,
                device,
                finding,
            })
        };
        self.done(read())?.into_iter().map(waiting).collect()
    }

    /// The registry has been told.
    pub(in crate::station) fn told(&self, number: i64) -> Result<(), JournalError> {
        self.change("told", |transaction| {
            let removed = execute(
                transaction,
                "DELETE FROM findings WHERE number = ?1",
                [number],
            );
            self.done(removed).map(|_| ())
        })
    }

    /// The registry did not take it.
    pub(in crate::station) fn put_aside(
        &self,
        number: i64,
        reason: &str,
    ) -> Result<(), JournalError> {
        self.change("put-aside", |transaction| {
            let sql = "UPDATE findings SET untaken = ?1 WHERE number = ?2";
            let changed = execute(transaction, sql, (reason, number));
            self.done(changed).map(|_| ())
        })
    }

    /// The device was done again since the registry did not take something of it: that is settled.
    pub(super) fn drop_untaken(
        &self,
        transaction: &Transaction<'_>,
        unit: UnitId,
    ) -> Result<(), JournalError> {
        let removed = execute(
            transaction,
            "DELETE FROM findings WHERE untaken IS NOT NULL AND EXISTS
                (SELECT 1 FROM units WHERE unit = ?1 AND units.device = findings.device AND findings.found_at < units.begun_at)",
            [unit.0],
        );
        self.done(removed).map(|_| ())
    }

    /// How many findings wait for the registry.
    ///
    /// # Errors
    /// Those of the database.
    pub fn waiting_count(&self) -> Result<u64, JournalError> {
        let sql = "SELECT count(*) FROM findings WHERE untaken IS NULL";
        let count = self
            .connection
            .query_row(sql, [], |row| row.get::<_, i64>(0));
        Ok(u64::try_from(self.done(count)?).unwrap_or_default())
    }

    /// What the registry did not take: a person has to look at these devices.
    ///
    /// # Errors
    /// Those of the database.
    pub fn untaken(&self) -> Result<Vec<Untaken>, JournalError> {
        let read = || {
            let sql = "SELECT device, untaken FROM findings WHERE untaken IS NOT NULL
                 ORDER BY number";
            let mut query = self.connection.prepare_cached(sql)?;
            let rows = query.query_map([], |row| {
                Ok(Untaken {
                    device: names::device(row, "device")?,
                    reason: row.get("untaken")?,
                })
            })?;
            rows.collect()
        };
        self.done(read())
    }
}
