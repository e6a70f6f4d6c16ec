//! Keys of devices that a backend is to have as well. They stand here wrapped for it from before the device gets them until they are
//! in a folder whose manifest is signed: so the backend has exactly the keys of the devices that were done, each once.

use rusqlite::Transaction;

use super::{Journal, JournalError, UnitId, execute};
use crate::station::Exported;

impl Journal {
    /// Keeps what is to be exported of a unit, instead of what was kept before.
    pub(super) fn keep_exports(
        &self,
        transaction: &Transaction<'_>,
        unit: UnitId,
        exports: &[Exported],
    ) -> Result<(), JournalError> {
        self.drop_exports(transaction, unit)?;
        for export in exports {
            let slot = export.entry.slot;
            let entry = serde_json::to_string(&export.entry);
            let entry = entry.map_err(|_| JournalError::Key { slot })?;
            let inserted = execute(
                transaction,
                "INSERT INTO exports (unit, slot, entry, blob) VALUES (?1, ?2, ?3, ?4)",
                (unit.0, slot, entry, &export.blob),
            );
            self.done(inserted)?;
        }
        Ok(())
    }

    /// The device has not got these keys.
    pub(super) fn drop_exports(
        &self,
        transaction: &Transaction<'_>,
        unit: UnitId,
    ) -> Result<(), JournalError> {
        let removed = execute(transaction, "DELETE FROM exports WHERE unit = ?1", [unit.0]);
        self.done(removed).map(|_| ())
    }

    /// Gives the keys of devices that were done to a folder that is about to be written, `most` of them at most, and says how many.
    ///
    /// # Errors
    /// Those of the database; so in all functions here.
    pub fn claim_exports(&self, folder: &str, most: usize) -> Result<usize, JournalError> {
        self.change("claimed", |transaction| {
            let changed = execute(
                transaction,
                "UPDATE exports SET folder = ?1 WHERE rowid IN
                 (SELECT exports.rowid FROM exports JOIN units USING (unit)
                  WHERE folder IS NULL AND step = 'done' ORDER BY unit, slot LIMIT ?2)",
                (folder, i64::try_from(most).unwrap_or(i64::MAX)),
            );
            self.done(changed)
        })
    }

    /// The folders that keys were given to, and that may not have been written.
    ///
    /// # Errors
    /// Those of the database.
    pub fn claimed_folders(&self) -> Result<Vec<String>, JournalError> {
        let read = || {
            let sql =
                "SELECT DISTINCT folder FROM exports WHERE folder IS NOT NULL ORDER BY folder";
            let mut query = self.connection.prepare_cached(sql)?;
            let rows = query.query_map([], |row| row.get(0))?;
            rows.collect()
        };
        self.done(read())
    }

    /// The keys that were given to a folder.
    ///
    /// # Errors
    /// [`JournalError::Key`], and those of the database.
    pub fn exports_in(&self, folder: &str) -> Result<Vec<Exported>, JournalError> {
        let read = || {
            let sql = "SELECT slot, entry, blob FROM exports WHERE folder = ?1 ORDER BY unit, slot";
            let mut query = self.connection.prepare_cached(sql)?;
            let rows = query.query_map([folder], |row| {
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
            Ok(Exported { entry, blob })
        };
        self.done(read())?.into_iter().map(exported).collect()
    }

    /// A folder was written: its keys are there, and no longer here.
    ///
    /// # Errors
    /// Those of the database.
    pub fn exported(&self, folder: &str) -> Result<(), JournalError> {
        self.change("exported", |transaction| {
            let removed = execute(
                transaction,
                "DELETE FROM exports WHERE folder = ?1",
                [folder],
            );
            self.done(removed).map(|_| ())
        })
    }
}
