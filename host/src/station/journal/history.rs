//! What a run came to: each end of a device at a nest, and when it came to which step. Only reports read it; no decision rests on it.

use std::time::Duration;

use keyferry_protocol::identity::DeviceId;
use rusqlite::{OptionalExtension, Row, named_params};

use super::units::Step;
use super::{Journal, JournalError, RunId, execute, now};
use crate::station::registry::names;

/// How a device's time at a nest ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It has all that the plan asks for.
    Done,
    /// It had it before.
    Before,
    /// It has not.
    Failed,
    /// It was not begun.
    NotBegun,
}

impl End {
    const ALL: [Self; 4] = [Self::Done, Self::Before, Self::Failed, Self::NotBegun];

    /// The name in the file and in output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Before => "before",
            Self::Failed => "failed",
            Self::NotBegun => "not-begun",
        }
    }
}

/// A device's time at a nest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// The nest.
    pub nest: String,
    /// The device, if it has said who it is.
    pub device: Option<DeviceId>,
    /// The serial number of its label.
    pub serial: Option<String>,
    /// How it ended.
    pub end: End,
    /// Why, where it is not done.
    pub reason: Option<String>,
    /// How long it took.
    pub took: Duration,
}

impl Ending {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let device: Option<String> = row.get("device")?;
        let took: i64 = row.get("took_ms")?;
        Ok(Self {
            nest: row.get("nest")?,
            device: device.map(|_| names::device(row, "device")).transpose()?,
            serial: row.get("serial")?,
            end: names::named(row, "ending", &End::ALL, End::name)?,
            reason: row.get("reason")?,
            took: Duration::from_millis(u64::try_from(took).unwrap_or_default()),
        })
    }
}

/// A run, and all that ended in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// Its name.
    pub run: String,
    /// The plan's name.
    pub plan: String,
    /// When it began, RFC 3339 in UTC.
    pub begun: String,
    /// When it ended; it has not if the station was killed, or is at work.
    pub ended: Option<String>,
    /// In the order in which they ended.
    pub endings: Vec<Ending>,
    /// How long devices took from the step before to this one, for each step that any came to.
    pub steps: Vec<(Step, Vec<Duration>)>,
}

impl Journal {
    /// Writes down how a device's time at a nest ended.
    ///
    /// # Errors
    /// [`JournalError::Clock`], and those of the database.
    pub fn ended(&self, run: RunId, ending: &Ending) -> Result<(), JournalError> {
        self.change("ending", |transaction| {
            let took = i64::try_from(ending.took.as_millis()).unwrap_or(i64::MAX);
            let inserted = execute(
                transaction,
                "INSERT INTO endings (run, nest, device, serial, ending, reason, took_ms, ended_at)
                 VALUES (:run, :nest, :device, :serial, :ending, :reason, :took, :now)",
                named_params! {
                    ":run": run.to_string(),
                    ":nest": ending.nest,
                    ":device": ending.device.map(|device| device.to_string()),
                    ":serial": ending.serial,
                    ":ending": ending.end.name(),
                    ":reason": ending.reason,
                    ":took": took,
                    ":now": now()?,
                },
            );
            self.done(inserted).map(|_| ())
        })
    }

    /// What a run came to, by the first digits of its name, or the last run.
    ///
    /// # Errors
    /// [`JournalError::NoRun`], and those of the database.
    pub fn history(&self, run: Option<&str>) -> Result<History, JournalError> {
        let wanted = run.unwrap_or_default();
        let named = || JournalError::NoRun {
            run: wanted.to_owned(),
        };
        if !wanted.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(named());
        }
        let found = self
            .connection
            .query_row(
                "SELECT run, plan, begun_at, ended_at FROM runs WHERE substr(run, 1, length(?1)) = lower(?1)
                 ORDER BY begun_at DESC, rowid DESC LIMIT 1",
                [wanted],
                |row| {
                    Ok(History {
                        run: row.get(0)?,
                        plan: row.get(1)?,
                        begun: row.get(2)?,
                        ended: row.get(3)?,
                        endings: Vec::new(),
                        steps: Vec::new(),
                    })
                },
            )
            .optional();
        let mut history = self.done(found)?.ok_or_else(named)?;
        history.endings = self.done(self.endings(&history.run))?;
        history.steps = self.done(self.steps(&history.run))?;
        Ok(history)
    }

    fn endings(&self, run: &str) -> rusqlite::Result<Vec<Ending>> {
        let sql = "SELECT * FROM endings WHERE run = ?1 ORDER BY number";
        let mut query = self.connection.prepare(sql)?;
        let rows = query.query_map([run], Ending::read)?;
        rows.collect()
    }

    /// A unit that went on in another run counts where it ended: its time at rest between them is in no run's step.
    fn steps(&self, run: &str) -> rusqlite::Result<Vec<(Step, Vec<Duration>)>> {
        let sql = "SELECT unit, step, at_ms FROM steps WHERE run = ?1 ORDER BY unit, number";
        let mut query = self.connection.prepare(sql)?;
        let rows = query.query_map([run], |row| {
            let step = names::named(row, "step", &Step::ALL, Step::name)?;
            Ok((
                row.get::<_, i64>("unit")?,
                step,
                row.get::<_, i64>("at_ms")?,
            ))
        })?;
        let mut times: Vec<(Step, Vec<Duration>)> = Vec::new();
        let mut before: Option<(i64, i64)> = None;
        for row in rows {
            let (unit, step, at) = row?;
            if let Some((_, since)) = before.filter(|(same, _)| *same == unit) {
                let took = Duration::from_millis(
                    u64::try_from(at.saturating_sub(since)).unwrap_or_default(),
                );
                match times.iter_mut().find(|(known, _)| *known == step) {
                    Some((_, all)) => all.push(took),
                    None => times.push((step, vec![took])),
                }
            }
            before = Some((unit, at));
        }
        times.sort_by_key(|(step, _)| *step);
        Ok(times)
    }
}
