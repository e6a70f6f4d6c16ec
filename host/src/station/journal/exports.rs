//! Keys of devices that a backend is to have as well. They stand here wrapped for it from before the device gets them until they are
//! in a folder whose manifest is signed: so the backend has exactly the keys of the devices that were done, each once. Which backend
//! that is stands beside each: a plan may name another one by then.

use keyferry_protocol::identity::{Digest, Fingerprint};
use rusqlite::{OptionalExtension as _, Transaction};

use super::{Journal, JournalError, RunId, UnitId, execute};
use crate::station::Exported;
use crate::station::registry::names;

/// Rows of an earlier version do not say for whom they are. A plan names its backend's key by fingerprint, so it is the one of the plan with
/// which they were made, if all that the journal knows of their making is of that plan.
const ADOPT: &str = "
UPDATE exports SET recipient = ?1
WHERE recipient IS NULL
  AND unit IN (SELECT unit FROM steps JOIN runs USING (run) WHERE step = 'prepared'
               AND plan_digest = (SELECT plan_digest FROM runs WHERE run = ?2))
  AND unit NOT IN (SELECT unit FROM steps JOIN runs USING (run) WHERE step = 'prepared'
                   AND plan_digest <> (SELECT plan_digest FROM runs WHERE run = ?2))";

/// Keys of devices that were done, and that wait for other backends than one run's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The backend's key; the journal does not know it of keys that an earlier version has kept.
    pub recipient: Option<Fingerprint>,
    /// How many they are.
    pub keys: u64,
}

impl Journal {
    /// Keeps what is to be exported of a unit, instead of what was kept before.
    pub(super) fn keep_exports(
        &self,
        transaction: &Transaction<'_>,
        unit: UnitId,
        exports: &[Exported],
    ) -> Result<(), JournalError> {
        self.drop_exports(transaction, unit)?;
        let slots: serde_json::Value = exports.iter().map(|it| it.entry.slot).collect();
        let noted = execute(
            transaction,
            "UPDATE units SET exported = ?1 WHERE unit = ?2",
            (slots.to_string(), unit.0),
        );
        self.done(noted)?;
        for export in exports {
            let slot = export.entry.slot;
            let entry = serde_json::to_string(&export.entry);
            let entry = entry.map_err(|_| JournalError::Key { slot })?;
            let recipient = export.recipient.to_string();
            let inserted = execute(
                transaction,
                "INSERT INTO exports (unit, slot, entry, blob, recipient) VALUES (?1, ?2, ?3, ?4, ?5)",
                (unit.0, slot, entry, &export.blob, recipient),
            );
            self.done(inserted)?;
        }
        Ok(())
    }

    /// Whether the key that an order brought to a slot was wrapped for a backend, which gets it if the device was done. Of orders that were not made with
    /// this journal, or by an earlier version, nobody knows: then it counts as wrapped.
    ///
    /// # Errors
    /// Those of the database.
    pub fn was_exported(&self, order: &Digest, slot: u16) -> Result<bool, JournalError> {
        let read = || {
            let sql = "SELECT exported IS NULL OR EXISTS (SELECT 1 FROM json_each(exported) WHERE value = ?2)
                       FROM units JOIN orders USING (unit) WHERE digest = ?1";
            let mut query = self.connection.prepare_cached(sql)?;
            query
                .query_row((order.to_string(), slot), |row| row.get(0))
                .optional()
        };
        Ok(self.done(read())?.unwrap_or(true))
    }

    /// The device has not got these keys.
    pub(super) fn drop_exports(
        &self,
        transaction: &Transaction<'_>,
        unit: UnitId,
    ) -> Result<(), JournalError> {
        for sql in [
            "DELETE FROM exports WHERE unit = ?1",
            "UPDATE units SET exported = '[]' WHERE unit = ?1",
        ] {
            self.done(execute(transaction, sql, [unit.0]))?;
        }
        Ok(())
    }

    /// A unit whose keys are only prepared goes on with those that the device had: no order carries its own any more.
    pub(super) fn drop_unsent(
        &self,
        transaction: &Transaction<'_>,
        unit: UnitId,
    ) -> Result<(), JournalError> {
        for sql in [
            "DELETE FROM exports WHERE unit = ?1 AND (SELECT step FROM units WHERE unit = ?1) = 'prepared'",
            "DELETE FROM keys WHERE unit = ?1 AND (SELECT step FROM units WHERE unit = ?1) = 'prepared'",
        ] {
            self.done(execute(transaction, sql, [unit.0]))?;
        }
        Ok(())
    }

    /// The device has this unit's keys now, and no longer those that earlier units have put into the same slots.
    pub(super) fn drop_replaced(
        &self,
        transaction: &Transaction<'_>,
        unit: UnitId,
    ) -> Result<(), JournalError> {
        let removed = execute(
            transaction,
            "DELETE FROM exports
             WHERE slot IN (SELECT slot FROM keys WHERE unit = ?1)
               AND unit IN (SELECT unit FROM units
                            WHERE device = (SELECT device FROM units WHERE unit = ?1) AND unit < ?1)",
            [unit.0],
        );
        self.done(removed).map(|_| ())
    }

    /// Gives keys of devices that were done, if they are wrapped for this recipient, to a folder that the run is about to write, `most` of
    /// them at most, and says how many.
    ///
    /// # Errors
    /// Those of the database; so in all functions here.
    pub fn claim_exports(
        &self,
        run: RunId,
        recipient: Fingerprint,
        folder: &str,
        most: usize,
    ) -> Result<usize, JournalError> {
        let recipient = recipient.to_string();
        self.change("claimed", |transaction| {
            self.done(execute(transaction, ADOPT, (&recipient, run.to_string())))?;
            let changed = execute(
                transaction,
                "UPDATE exports SET folder = ?1 WHERE rowid IN
                 (SELECT exports.rowid FROM exports JOIN units USING (unit)
                  WHERE folder IS NULL AND recipient = ?2 AND step = 'done' ORDER BY unit, slot LIMIT ?3)",
                (folder, &recipient, i64::try_from(most).unwrap_or(i64::MAX)),
            );
            self.done(changed)
        })
    }

    /// The folders that a recipient's keys were given to, and that may not have been written.
    ///
    /// # Errors
    /// Those of the database.
    pub fn claimed_folders(&self, recipient: Fingerprint) -> Result<Vec<String>, JournalError> {
        let read = || {
            let sql = "SELECT DISTINCT folder FROM exports
                       WHERE folder IS NOT NULL AND recipient = ?1 ORDER BY folder";
            let mut query = self.connection.prepare_cached(sql)?;
            let rows = query.query_map([recipient.to_string()], |row| row.get(0))?;
            rows.collect()
        };
        self.done(read())
    }

    /// The keys of a recipient that were given to a folder.
    ///
    /// # Errors
    /// [`JournalError::Key`], and those of the database.
    pub fn exports_in(
        &self,
        folder: &str,
        recipient: Fingerprint,
    ) -> Result<Vec<Exported>, JournalError> {
        let read = || {
            let sql = "SELECT slot, entry, blob FROM exports
                       WHERE folder = ?1 AND recipient = ?2 ORDER BY unit, slot";
            let mut query = self.connection.prepare_cached(sql)?;
            let rows = query.query_map([folder, &recipient.to_string()], |row| {
                Ok((
                    row.get::<_, u16>(0)?,
                    row.get::<_, String>(1)?,
                    row.get::<_, Vec<u8>>(2)?,
                ))
            })?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        };
        let exported = |(slot, entry, blob): (u16, String, Vec<u8>)| {
            let entry = serde_json::from_str(&entry).map_err(|_| JournalError::Key { slot })?;
            Ok(Exported {
                entry,
                blob,
                recipient,
            })
        };
        self.done(read())?.into_iter().map(exported).collect()
    }

    /// A folder was written: a recipient's keys are there, and no longer here.
    ///
    /// # Errors
    /// Those of the database.
    pub fn exported(&self, folder: &str, recipient: Fingerprint) -> Result<(), JournalError> {
        self.change("exported", |transaction| {
            let removed = execute(
                transaction,
                "DELETE FROM exports WHERE folder = ?1 AND recipient = ?2",
                [folder, &recipient.to_string()],
            );
            self.done(removed).map(|_| ())
        })
    }

    /// The keys of devices that were done, and that wait for other backends than this one.
    ///
    /// # Errors
    /// Those of the database.
    pub fn waiting_for_others(
        &self,
        backend: Option<Fingerprint>,
    ) -> Result<Vec<Waiting>, JournalError> {
        let read = || {
            let sql = "SELECT recipient, count(*) AS keys FROM exports JOIN units USING (unit)
                       WHERE step = 'done' AND (recipient IS NULL OR recipient IS NOT ?1)
                       GROUP BY recipient ORDER BY recipient";
            let mut query = self.connection.prepare_cached(sql)?;
            let backend = backend.map(|backend| backend.to_string());
            let rows = query.query_map([backend], |row| {
                let recipient: Option<String> = row.get("recipient")?;
                let recipient = recipient.map(|_| names::fingerprint(row, "recipient"));
                let keys: i64 = row.get("keys")?;
                Ok(Waiting {
                    recipient: recipient.transpose()?,
                    keys: u64::try_from(keys).unwrap_or_default(),
                })
            })?;
            rows.collect()
        };
        self.done(read())
    }
}
