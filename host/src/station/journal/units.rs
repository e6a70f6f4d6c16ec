//! Units: one device's way through a station, step by step.

use keyferry_protocol::identity::DeviceId;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, named_params};

use super::{Journal, JournalError, RunId, execute, now};
use crate::station::registry::names;
use crate::station::{Exported, KeyCard, Target};

/// How far a unit has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// The device is there; nothing was sent that changes it but its enrolment.
    Begun,
    /// It was believed.
    Trusted,
    /// Its keys are made or found; no order carries them.
    Prepared,
    /// An order with its keys was signed, and may have left.
    Ordered,
    /// It has said, signed, that the order was applied; the proofs are still to be verified.
    Arrived,
    /// All its keys are proved.
    Proved,
    /// An order to lock it may have left.
    Locking,
    /// All that the plan asks for is done.
    Done,
    /// It was given up: what is written as the reason.
    Failed,
}

impl Step {
    pub(super) const ALL: [Self; 9] = [
        Self::Begun,
        Self::Trusted,
        Self::Prepared,
        Self::Ordered,
        Self::Arrived,
        Self::Proved,
        Self::Locking,
        Self::Done,
        Self::Failed,
    ];

    /// The name in the file and in output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::Trusted => "trusted",
            Self::Prepared => "prepared",
            Self::Ordered => "ordered",
            Self::Arrived => "arrived",
            Self::Proved => "proved",
            Self::Locking => "locking",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }

    /// The steps from which a unit may come to this one.
    const fn after(self) -> &'static [Self] {
        match self {
            Self::Begun => &[],
            // Believed again after a stop.
            Self::Trusted => &[Self::Begun, Self::Trusted],
            // The order was not applied: its keys are still good.
            Self::Prepared => &[Self::Trusted, Self::Prepared, Self::Ordered],
            // Made again with another challenge.
            Self::Ordered => &[Self::Prepared, Self::Ordered],
            Self::Arrived => &[Self::Ordered, Self::Arrived],
            // Proved before this unit: there is only a lock to be set.
            Self::Proved => &[Self::Trusted, Self::Prepared, Self::Ordered, Self::Arrived],
            Self::Locking => &[Self::Proved, Self::Locking],
            Self::Done => &[Self::Proved, Self::Locking],
            Self::Failed => &[
                Self::Begun,
                Self::Trusted,
                Self::Prepared,
                Self::Ordered,
                Self::Arrived,
                Self::Proved,
                Self::Locking,
            ],
        }
    }
}

/// A unit's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UnitId(pub(super) i64);

/// A unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Its number.
    pub id: UnitId,
    /// The device.
    pub device: DeviceId,
    /// The port that it was last seen on.
    pub port: String,
    /// The nest of that port.
    pub nest: String,
    /// The serial number of its label.
    pub serial: Option<String>,
    /// How far it came.
    pub step: Step,
    /// Why it was given up.
    pub reason: Option<String>,
}

impl Unit {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: UnitId(row.get("unit")?),
            device: names::device(row, "device")?,
            port: row.get("port")?,
            nest: row.get("nest")?,
            serial: row.get("serial")?,
            step: names::named(row, "step", &Step::ALL, Step::name)?,
            reason: row.get("reason")?,
        })
    }
}

/// A device that a station begins with.
#[derive(Clone, Copy, Debug)]
pub struct NewUnit<'a> {
    /// The run.
    pub run: RunId,
    /// The device, as it says.
    pub device: DeviceId,
    /// Its port.
    pub port: &'a str,
    /// Its nest.
    pub nest: &'a str,
    /// The serial number of its label.
    pub serial: Option<&'a str>,
}

/// A device's unit that is under way.
const UNDER_WAY: &str = "SELECT * FROM units WHERE device = ?1 AND step NOT IN ('done', 'failed')";

impl Journal {
    /// The unit of a device that is under way.
    ///
    /// # Errors
    /// Those of the database; so in all functions here.
    pub fn under_way(&self, device: DeviceId) -> Result<Option<Unit>, JournalError> {
        let read = |connection: &Connection| {
            let mut query = connection.prepare_cached(UNDER_WAY)?;
            query.query_row([device.to_string()], Unit::read).optional()
        };
        self.done(read(&self.connection))
    }

    /// All units that are under way: as many as devices were plugged in when a station ended at most.
    ///
    /// # Errors
    /// Those of the database.
    pub fn all_under_way(&self) -> Result<Vec<Unit>, JournalError> {
        self.units(
            "SELECT * FROM units WHERE step NOT IN ('done', 'failed') ORDER BY unit",
            [],
        )
    }

    /// The units that were last seen in a run.
    ///
    /// # Errors
    /// Those of the database.
    pub fn units_of(&self, run: RunId) -> Result<Vec<Unit>, JournalError> {
        self.units(
            "SELECT * FROM units WHERE run = ?1 ORDER BY unit",
            [run.to_string()],
        )
    }

    /// How many units of a device were done.
    ///
    /// # Errors
    /// Those of the database.
    pub fn times_done(&self, device: DeviceId) -> Result<u64, JournalError> {
        let count = self.connection.query_row(
            "SELECT count(*) FROM units WHERE device = ?1 AND step = 'done'",
            [device.to_string()],
            |row| row.get::<_, i64>(0),
        );
        Ok(u64::try_from(self.done(count)?).unwrap_or_default())
    }

    fn units(
        &self,
        sql: &str,
        parameters: impl rusqlite::Params,
    ) -> Result<Vec<Unit>, JournalError> {
        let read = || {
            let mut query = self.connection.prepare_cached(sql)?;
            let rows = query.query_map(parameters, Unit::read)?;
            rows.collect()
        };
        self.done(read())
    }

    /// Begins with a device, or goes on with its unit that is under way, wherever it is plugged in now.
    ///
    /// # Errors
    /// [`JournalError::Clock`], and those of the database.
    pub fn begin(&self, new: &NewUnit<'_>) -> Result<Unit, JournalError> {
        self.change(Step::Begun.name(), |transaction| {
            let (run, device, now) = (new.run.to_string(), new.device.to_string(), now()?);
            let found = execute(
                transaction,
                // A label goes with what was believed: until then the one that was scanned last counts.
                "UPDATE units SET run = ?1, port = ?2, nest = ?3, updated_at = ?4,
                    serial = CASE WHEN step = 'begun' AND serial IS NOT NULL THEN coalesce(?6, serial) ELSE serial END
                 WHERE device = ?5 AND step NOT IN ('done', 'failed')",
                (&run, new.port, new.nest, &now, &device, new.serial),
            );
            if self.done(found)? == 0 {
                let inserted = execute(
                transaction,
                    "INSERT INTO units (run, device, port, nest, serial, step, begun_at, updated_at)
                     VALUES (:run, :device, :port, :nest, :serial, 'begun', :now, :now)",
                    named_params! {
                        ":run": run,
                        ":device": device,
                        ":port": new.port,
                        ":nest": new.nest,
                        ":serial": new.serial,
                        ":now": now,
                    },
                );
                self.done(inserted)?;
            }
            let mut query = self.done(transaction.prepare_cached(UNDER_WAY))?;
            let unit = self.done(query.query_row([device], Unit::read))?;
            // Whoever is there only says that it is this device: a label is not written beside a unit that began without one.
            Ok(Unit {
                serial: unit.serial.or_else(|| new.serial.map(str::to_owned)),
                ..unit
            })
        })
    }

    /// Takes a unit one step further.
    pub(super) fn step(
        &self,
        transaction: &Transaction<'_>,
        UnitId(unit): UnitId,
        to: Step,
        reason: Option<&str>,
    ) -> Result<(), JournalError> {
        let from: Vec<_> = to
            .after()
            .iter()
            .map(|step| format!("'{}'", step.name()))
            .collect();
        let changed = execute(
            transaction,
            // The names are ours.
            &format!(
                "UPDATE units SET step = ?1, reason = ?2, updated_at = ?3 WHERE unit = ?4 AND step IN ({})",
                from.join(", ")
            ),
            (to.name(), reason, now()?, unit),
        );
        match self.done(changed)? {
            0 => Err(JournalError::OutOfStep {
                unit,
                step: to.name(),
            }),
            _ => Ok(()),
        }
    }

    fn take(&self, unit: UnitId, to: Step) -> Result<(), JournalError> {
        self.change(to.name(), |transaction| {
            self.step(transaction, unit, to, None)
        })
    }

    /// The device was believed.
    ///
    /// # Errors
    /// [`JournalError::OutOfStep`], and those of the database; so in all functions below.
    pub fn trusted(&self, unit: UnitId) -> Result<(), JournalError> {
        self.take(unit, Step::Trusted)
    }

    /// The device's keys are made or found. They are kept until the unit ends; what is exported of them until it is.
    ///
    /// # Errors
    /// As [`Journal::trusted`], and [`JournalError::Key`].
    pub fn prepared(
        &self,
        unit: UnitId,
        targets: &[Target],
        exports: &[Exported],
    ) -> Result<(), JournalError> {
        self.change(Step::Prepared.name(), |transaction| {
            self.step(transaction, unit, Step::Prepared, None)?;
            self.forget(transaction, unit)?;
            self.keep_exports(transaction, unit, exports)?;
            for Target { key, slot } in targets {
                let card = serde_json::to_string(key);
                let card = card.map_err(|_| JournalError::Key { slot: *slot })?;
                let inserted = execute(
                    transaction,
                    "INSERT INTO keys (unit, slot, card) VALUES (?1, ?2, ?3)",
                    (unit.0, slot, card),
                );
                self.done(inserted)?;
            }
            Ok(())
        })
    }

    /// The keys that were kept, in the order of their slots.
    ///
    /// # Errors
    /// [`JournalError::Key`], and those of the database.
    pub fn targets(&self, unit: UnitId) -> Result<Vec<Target>, JournalError> {
        let read = || {
            let sql = "SELECT slot, card FROM keys WHERE unit = ?1 ORDER BY slot";
            let mut query = self.connection.prepare_cached(sql)?;
            let rows = query.query_map([unit.0], |row| {
                Ok((row.get::<_, u16>(0)?, row.get::<_, String>(1)?))
            })?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        };
        let target = |(slot, card): (u16, String)| {
            let key: KeyCard =
                serde_json::from_str(&card).map_err(|_| JournalError::Key { slot })?;
            Ok(Target { key, slot })
        };
        self.done(read())?.into_iter().map(target).collect()
    }

    /// The device is about to be locked.
    ///
    /// # Errors
    /// As [`Journal::trusted`].
    pub fn locking(&self, unit: UnitId) -> Result<(), JournalError> {
        self.take(unit, Step::Locking)
    }

    /// All is done. What was kept of the keys goes.
    ///
    /// # Errors
    /// As [`Journal::trusted`].
    pub fn finished(&self, unit: UnitId) -> Result<(), JournalError> {
        self.end(unit, Step::Done, None)
    }

    /// The unit is given up: none of its orders was applied, or its keys are not the right ones.
    ///
    /// # Errors
    /// As [`Journal::trusted`].
    pub fn failed(&self, unit: UnitId, reason: &str) -> Result<(), JournalError> {
        self.end(unit, Step::Failed, Some(reason))
    }

    fn end(&self, unit: UnitId, to: Step, reason: Option<&str>) -> Result<(), JournalError> {
        self.change(to.name(), |transaction| {
            self.step(transaction, unit, to, reason)?;
            match to {
                Step::Failed => self.drop_exports(transaction, unit)?,
                Step::Done => {
                    self.drop_replaced(transaction, unit)?;
                    self.drop_untaken(transaction, unit)?;
                }
                Step::Begun
                | Step::Trusted
                | Step::Prepared
                | Step::Ordered
                | Step::Arrived
                | Step::Proved
                | Step::Locking => {}
            }
            self.forget(transaction, unit)
        })
    }

    /// The unit came to nothing: its device had all that it was begun for. It is as if it had not been begun.
    ///
    /// # Errors
    /// Those of the database.
    pub fn withdrawn(&self, unit: UnitId) -> Result<(), JournalError> {
        self.change("withdrawn", |transaction| {
            self.forget(transaction, unit)?;
            for table in ["exports", "orders", "steps", "units"] {
                let sql = format!("DELETE FROM {table} WHERE unit = ?1");
                let removed = execute(transaction, &sql, [unit.0]);
                self.done(removed)?;
            }
            Ok(())
        })
    }

    fn forget(&self, transaction: &Transaction<'_>, unit: UnitId) -> Result<(), JournalError> {
        let removed = execute(transaction, "DELETE FROM keys WHERE unit = ?1", [unit.0]);
        self.done(removed).map(|_| ())
    }
}
