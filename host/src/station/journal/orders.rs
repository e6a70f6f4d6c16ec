//! Orders that may have left, and what is known of them.

use keyferry_protocol::identity::Digest;
use keyferry_protocol::order::{self, Kind};
use rusqlite::{OptionalExtension, Transaction};

use super::{Journal, JournalError, Step, UnitId, execute, now};
use crate::device::verify::digest;
use crate::station::registry::names;

/// An order that may have left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// SHA-256 of it.
    pub digest: Digest,
    /// What it asks for.
    pub kind: Kind,
    /// The device's counter once it is applied.
    pub counter: u32,
}

impl Journal {
    /// An order was signed and is about to leave. One for a device without a unit under way, or that only asks, is nobody's here.
    ///
    /// # Errors
    /// As [`Journal::trusted`].
    pub fn ordered(&self, bytes: &[u8]) -> Result<(), JournalError> {
        let Ok((header, _)) = order::decode(bytes) else {
            return Ok(());
        };
        let changes = match header.kind {
            Kind::Inject | Kind::Lock => true,
            Kind::Enroll | Kind::Prove | Kind::Remove | Kind::Rotate | Kind::Wipe => false,
        };
        if !changes {
            return Ok(());
        }
        let Some(unit) = self.under_way(header.device)? else {
            return Ok(());
        };
        self.change(Step::Ordered.name(), |transaction| {
            if header.kind == Kind::Inject {
                self.step(transaction, unit.id, Step::Ordered, None)?;
            }
            let inserted = execute(
                transaction,
                "INSERT INTO orders (digest, unit, kind, counter, state, made_at)
                 VALUES (?1, ?2, ?3, ?4, 'sent', ?5)",
                (
                    digest(bytes).to_string(),
                    unit.id.0,
                    header.kind.name(),
                    header.counter,
                    now()?,
                ),
            );
            self.done(inserted).map(|_| ())
        })
    }

    /// The orders of a unit of which it is not known whether they were applied, the newest first.
    ///
    /// # Errors
    /// Those of the database.
    pub fn sent(&self, unit: UnitId) -> Result<Vec<Sent>, JournalError> {
        let read = || {
            let mut query = self.connection.prepare_cached(
                "SELECT digest, kind, counter FROM orders WHERE unit = ?1 AND state = 'sent'
                 ORDER BY counter DESC, rowid DESC",
            )?;
            let rows = query.query_map([unit.0], |row| {
                Ok(Sent {
                    digest: names::digest(row, "digest")?,
                    kind: names::kind(row, "kind")?,
                    counter: row.get("counter")?,
                })
            })?;
            rows.collect()
        };
        self.done(read())
    }

    /// Whether this is one of the unit's orders, whatever became of it.
    ///
    /// # Errors
    /// Those of the database.
    pub fn is_of(&self, unit: UnitId, order: &Digest) -> Result<bool, JournalError> {
        let sql = "SELECT count(*) FROM orders WHERE unit = ?1 AND digest = ?2";
        let found = self
            .connection
            .query_row(sql, (unit.0, order.to_string()), |row| row.get::<_, i64>(0));
        Ok(self.done(found)? > 0)
    }

    /// It is certain that one of the unit's orders was applied, or that none was: its keys have arrived, or wait for another order.
    ///
    /// # Errors
    /// As [`Journal::trusted`].
    pub fn settled(&self, unit: UnitId, applied: Option<&Digest>) -> Result<(), JournalError> {
        let to = match applied {
            Some(_) => Step::Arrived,
            None => Step::Prepared,
        };
        self.change("settled", |transaction| {
            self.step(transaction, unit, to, None)?;
            self.orders_are(transaction, unit, applied)
        })
    }

    fn orders_are(
        &self,
        transaction: &Transaction<'_>,
        unit: UnitId,
        applied: Option<&Digest>,
    ) -> Result<(), JournalError> {
        let applied = applied.map(Digest::to_string);
        let changed = execute(
            transaction,
            "UPDATE orders SET state = CASE WHEN digest = ?1 THEN 'applied' ELSE 'not-applied' END
             WHERE unit = ?2 AND state = 'sent'",
            (applied, unit.0),
        );
        self.done(changed).map(|_| ())
    }

    /// All proofs were verified; the keys came with this order, where that is known.
    ///
    /// # Errors
    /// As [`Journal::trusted`].
    pub fn proved(&self, unit: UnitId) -> Result<(), JournalError> {
        self.change(Step::Proved.name(), |transaction| {
            self.drop_unsent(transaction, unit)?;
            self.step(transaction, unit, Step::Proved, None)?;
            // Made again with other challenges, at most one was applied: the last.
            let sql = "SELECT digest FROM orders WHERE unit = ?1 AND state = 'sent'
                 ORDER BY counter DESC, rowid DESC LIMIT 1";
            let mut query = self.done(transaction.prepare_cached(sql))?;
            let last = query
                .query_row([unit.0], |row| names::digest(row, "digest"))
                .optional();
            let last = self.done(last)?;
            self.orders_are(transaction, unit, last.as_ref())
        })
    }
}
