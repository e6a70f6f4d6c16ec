//! Books that have grown for years.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Result, ensure};
use keyferry::device::verify::Statement;
use keyferry::station::policy::Trust;
use keyferry::station::registry::{Enrolled, Recorded, Registry};
use keyferry_protocol::identity::DeviceId;
use keyferry_tests::audited::{Invented, Station};
use keyferry_tests::long_log::write_long;
use keyferry_tests::tokens::Scratch;
use rusqlite::Connection;
use sha2::{Digest as _, Sha256};

use super::child::run_command;
use super::{BENCH, median};
use crate::rows::Row;

/// Devices in a registry at first, and later.
const SIZES: [u32; 2] = [1_000, 1_000_000];
/// How many are written and looked up at each size, by turns; their median counts.
const PROBES: u32 = 500;
/// The width of steps from one probe to the next: the golden section of a million, and prime to both sizes, so that no place is come to twice.
const SPREAD: u32 = 618_033;
/// Grown a thousandfold, it may cost so many times as much.
const TARGET: f64 = 2.0;

/// Jobs in an audit log, seven records each, at first and later.
const JOBS: [u32; 2] = [1_429, 142_900];
/// Devices that these go to by turns.
const DEVICES: u8 = 200;
/// The memory for the long log may be so many times that for the short one.
const CONSTANT: f64 = 1.1;

/// What an insert and a look-up cost in a small and in a large registry.
///
/// Both are open at once and asked by turns: what else the machine does meets both alike.
///
/// # Errors
/// If the registry does not do as it should.
pub(super) fn registry() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let model = model(&folder.path().join("model.audit"));
    let mut books = Vec::new();
    for size in SIZES {
        let path = folder.path().join(format!("{size}.db"));
        fill(&path, &model, size)?;
        books.push(Book::open(&path, size)?);
    }
    for probe in 0..PROBES {
        for book in &mut books {
            book.probe(&model, probe)?;
        }
    }
    let mut costs = Vec::new();
    for book in books {
        let (insert, find) = (median(book.inserts), median(book.finds));
        let opened = book.opened;
        for (what, cost) in [("open", opened), ("insert", insert), ("look-up", find)] {
            let case = format!("registry-{}/{what}", book.size);
            Row::new(BENCH, case, "seconds", cost).print()?;
        }
        costs.push((insert, find));
    }
    let [(insert, find), (grown_insert, grown_find)] = costs[..] else {
        anyhow::bail!("two sizes");
    };
    for (what, ratio) in [
        ("insert", grown_insert / insert),
        ("look-up", grown_find / find),
    ] {
        Row::new(BENCH, format!("registry-grown/{what}"), "ratio", ratio)
            .at_most(TARGET)
            .cause("the pages wanted are no longer in the connection's cache")
            .print()?;
    }
    Ok(())
}

/// The statement that all devices' are made from.
fn model(log: &Path) -> Statement {
    let station = Station::new(log);
    let device = Invented::new(7);
    device.enroll(&station, device.blank())
}

/// How far apart the ids of so many devices are.
const fn gap(size: u32) -> u32 {
    u32::MAX / size
}

fn id(number: u32) -> DeviceId {
    let mut id = DeviceId::ZERO;
    id.0[12..].copy_from_slice(&number.to_be_bytes());
    id
}

/// Has the registry write one device, and copies it until there are so many, each with an order and a key, without waiting for the disk
/// at each.
fn fill(path: &Path, model: &Statement, size: u32) -> Result<()> {
    let registry = Registry::open(path)?;
    registry.enrolled(&Enrolled {
        statement: &variant(model, 0),
        trust: &trust(),
        serial: None,
    })?;
    drop(registry);
    let connection = Connection::open(path)?;
    // The registry sets these anew when it is opened. `cache_size` is in KiB: keys come in no order.
    connection.pragma_update(None, "journal_mode", "OFF")?;
    connection.pragma_update(None, "synchronous", "OFF")?;
    connection.pragma_update(None, "foreign_keys", "OFF")?;
    connection.pragma_update(None, "cache_size", -1_000_000)?;
    let texts = |sql: &str| -> Result<Vec<String>> {
        let mut query = connection.prepare(sql)?;
        let rows = query.query_map([], |row| row.get(0))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    };
    let columns = texts("SELECT name FROM pragma_table_info('devices')")?;
    let value = |column: &String| match column.as_str() {
        "device" => "printf('%032x', n * ?2)".to_owned(),
        "identity" | "unwrap" => "lower(hex(randomblob(32)))".to_owned(),
        "serial" => "printf('SN-%d', n)".to_owned(),
        other => format!("model.{other}"),
    };
    let values: Vec<_> = columns.iter().map(value).collect();
    let transaction = connection.unchecked_transaction()?;
    transaction.execute(
        &format!(
            "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?1)
             INSERT INTO devices ({}) SELECT {} FROM numbers, devices AS model WHERE model.device = ?3",
            columns.join(", "),
            values.join(", ")
        ),
        (size - 1, gap(size), id(0).to_string()),
    )?;
    // Made anew at the end, in one go.
    let indices = texts("SELECT sql FROM sqlite_schema WHERE type = 'index' AND sql NOTNULL")?;
    for name in texts("SELECT name FROM sqlite_schema WHERE type = 'index' AND sql NOTNULL")? {
        transaction.execute(&format!("DROP INDEX {name}"), [])?;
    }
    transaction.execute(
        "INSERT INTO orders SELECT lower(hex(randomblob(32))) AS digest, device, identity, 'inject', 2, 0, '', 'applied', enrolled_at,
         enrolled_at FROM devices ORDER BY digest",
        [],
    )?;
    transaction.execute(
        "INSERT INTO slots SELECT device, identity, 0, 1, 'fleet', 'aes-256', 9216, 256, 0, 0, 1, 'cmac', 'proved', digest, made_at, 0
         FROM orders ORDER BY identity",
        [],
    )?;
    for index in indices {
        transaction.execute(&index, [])?;
    }
    transaction.commit()?;
    for table in ["devices", "orders", "slots"] {
        let sql = format!("SELECT count(*) FROM {table}");
        let count: u32 = connection.query_row(&sql, [], |row| row.get(0))?;
        ensure!(count == size, "{count} {table}");
    }
    drop(connection);
    // What was not waited for must not be in the way of what is.
    Ok(fs::File::open(path)?.sync_all()?)
}

fn trust() -> Trust {
    Trust {
        policy: "open",
        reason: "it was invented".to_owned(),
    }
}

/// The model with another id and other keys. A registry looks at a key's digest alone.
fn variant(model: &Statement, number: u32) -> Statement {
    let mut statement = model.clone();
    statement.device = id(number);
    let mut digest = Sha256::digest(number.to_be_bytes());
    for key in [&mut statement.identity_key, &mut statement.unwrap_key] {
        let end = key.len() - digest.len();
        key[end..].copy_from_slice(&digest);
        digest = Sha256::digest(digest);
    }
    statement
}

/// A registry of a size, and what it took, in seconds.
struct Book {
    registry: Registry,
    size: u32,
    opened: f64,
    inserts: Vec<f64>,
    finds: Vec<f64>,
}

impl Book {
    fn open(path: &Path, size: u32) -> Result<Self> {
        let begun = Instant::now();
        Ok(Self {
            registry: Registry::open(path)?,
            size,
            opened: begun.elapsed().as_secs_f64(),
            inserts: Vec::new(),
            finds: Vec::new(),
        })
    }

    /// Inserts a device anywhere between the others, and looks up another with its keys.
    fn probe(&mut self, model: &Statement, probe: u32) -> Result<()> {
        let Self { registry, size, .. } = self;
        let place = |number: u32| number * SPREAD % *size * gap(*size);
        let statement = variant(model, place(probe) + 1 + probe);
        let trust = trust();
        let enrolled = Enrolled {
            statement: &statement,
            trust: &trust,
            serial: None,
        };
        let begun = Instant::now();
        let recorded = registry.enrolled(&enrolled)?;
        self.inserts.push(begun.elapsed().as_secs_f64());
        ensure!(recorded == Recorded::New, "{recorded:?}");
        let wanted = id(place(PROBES + probe));
        let begun = Instant::now();
        let found = registry.find(wanted)?;
        let slots = registry.slots(wanted)?;
        self.finds.push(begun.elapsed().as_secs_f64());
        ensure!(found.is_some() && slots.len() == 1, "{wanted} is not found");
        Ok(())
    }
}

/// What it takes to verify a short and a long audit log.
///
/// # Errors
/// If a log does not verify.
pub(super) fn audit(token: &Scratch) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut peaks = Vec::new();
    for jobs in JOBS {
        let path = folder.path().join(format!("{jobs}.audit"));
        let lines = write_long(&path, jobs, DEVICES);
        let verify = ["audit", "verify", &path.display().to_string()];
        let ran = run_command(token, &[], &verify)?.done()?;
        ensure!(ran.last["lines"] == lines, "not all lines: {}", ran.last);
        let case = |what: &str| format!("audit-{lines}/{what}");
        let rate = lines as f64 / ran.spent.wall;
        Row::new(BENCH, case("verify"), "records a second", rate).print()?;
        Row::new(BENCH, case("memory"), "bytes", ran.spent.peak).print()?;
        peaks.push(ran.spent.peak);
        fs::remove_file(path)?;
    }
    let [short, long] = peaks[..] else {
        anyhow::bail!("two logs");
    };
    Row::new(BENCH, "audit-grown/memory", "ratio", long / short)
        .at_most(CONSTANT)
        .cause("what is remembered of devices and orders")
        .print()
}
