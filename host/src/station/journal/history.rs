//! What runs came to: each end of a device at a nest, and when it came to which step. Only reports read it; no decision rests on it.

use std::time::{Duration, SystemTime};

use der::DateTime;
use keyferry_protocol::identity::DeviceId;
use rusqlite::{Params, Row, named_params};

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

/// One start of a station.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Its name.
    pub name: String,
    /// The plan's name.
    pub plan: String,
    /// When it began, RFC 3339 in UTC.
    pub begun: String,
    /// When it ended; it has not if the station was killed, or is at work.
    pub ended: Option<String>,
}

impl Run {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            name: row.get("run")?,
            plan: row.get("plan")?,
            begun: row.get("begun_at")?,
            ended: row.get("ended_at")?,
        })
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// The one run whose name begins with these digits; without digits, the last run.
    Run(&'a str),
    /// All that ended since then, in whatever run: a shift.
    Since(SystemTime),
}

/// Runs, and what ended in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// The runs, in the order in which they began.
    pub runs: Vec<Run>,
    /// From when on, RFC 3339 in UTC, where not all of the runs is meant.
    pub since: Option<String>,
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

    /// The last runs, in the order in which they began.
    ///
    /// # Errors
    /// Those of the database.
    pub fn runs(&self, at_most: u32) -> Result<Vec<Run>, JournalError> {
        let sql =
            "SELECT * FROM (SELECT *, rowid FROM runs ORDER BY rowid DESC LIMIT ?1) ORDER BY rowid";
        self.done(self.read(sql, [at_most], Run::read))
    }

    /// What runs came to.
    ///
    /// # Errors
    /// [`JournalError::NoRun`], [`JournalError::SeveralRuns`], [`JournalError::Clock`], and those of the database.
    pub fn history(&self, wanted: Wanted<'_>) -> Result<History, JournalError> {
        match wanted {
            Wanted::Run(digits) => {
                let run = self.run(digits)?;
                let of = [&run.name];
                Ok(History {
                    endings: self.done(self.endings("run = ?1", of))?,
                    steps: self.done(self.steps("run = ?1", of))?,
                    runs: vec![run],
                    since: None,
                })
            }
            Wanted::Since(time) => {
                let text = DateTime::from_system_time(time).map_err(|_| JournalError::Clock)?;
                let since = text.to_string();
                let sql = "SELECT * FROM runs WHERE begun_at >= ?1
                     OR run IN (SELECT run FROM endings WHERE ended_at >= ?1) ORDER BY rowid";
                let milliseconds = text.unix_duration().as_millis();
                let milliseconds = i64::try_from(milliseconds).unwrap_or(i64::MAX);
                Ok(History {
                    runs: self.done(self.read(sql, [&since], Run::read))?,
                    endings: self.done(self.endings("ended_at >= ?1", [&since]))?,
                    steps: self.done(self.steps("at_ms >= ?1", [milliseconds]))?,
                    since: Some(since),
                })
            }
        }
    }

    fn run(&self, digits: &str) -> Result<Run, JournalError> {
        let named = || JournalError::NoRun {
            run: digits.to_owned(),
        };
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(named());
        }
        let sql = "SELECT * FROM runs WHERE substr(run, 1, length(?1)) = lower(?1)
             ORDER BY begun_at DESC, rowid DESC LIMIT 2";
        let mut found = self.done(self.read(sql, [digits], Run::read))?.into_iter();
        let last = found.next().ok_or_else(named)?;
        if found.next().is_some() && !digits.is_empty() {
            return Err(JournalError::SeveralRuns {
                digits: digits.to_owned(),
            });
        }
        Ok(last)
    }

    fn read<T>(
        &self,
        sql: &str,
        of: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Vec<T>> {
        let mut query = self.connection.prepare(sql)?;
        query.query_map(of, read)?.collect()
    }

    /// `which` is a condition of ours.
    fn endings(&self, which: &str, of: impl Params) -> rusqlite::Result<Vec<Ending>> {
        let sql = format!("SELECT * FROM endings WHERE {which} ORDER BY number");
        self.read(&sql, of, Ending::read)
    }

    /// A unit that went on in another run counts where it ended: its time at rest between them is in no run's step.
    fn steps(&self, which: &str, of: impl Params) -> rusqlite::Result<Vec<(Step, Vec<Duration>)>> {
        let sql =
            format!("SELECT run, unit, step, at_ms FROM steps WHERE {which} ORDER BY unit, number");
        let rows = self.read(&sql, of, |row| {
            let step = names::named(row, "step", &Step::ALL, Step::name)?;
            let unit = (row.get::<_, String>("run")?, row.get::<_, i64>("unit")?);
            Ok((unit, step, row.get::<_, i64>("at_ms")?))
        })?;
        let mut times: Vec<(Step, Vec<Duration>)> = Vec::new();
        let mut before: Option<((String, i64), i64)> = None;
        for (unit, step, at) in rows {
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
