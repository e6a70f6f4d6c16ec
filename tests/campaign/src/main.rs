//! The campaign's program: see the library.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::Parser;
use keyferry_campaign::campaign::{self, CHECKED, Row, Size};
use keyferry_campaign::session::Bench;
use serde_json::{Value, json};

/// Seconds of real time without a session that ended: then the program itself hangs, which no virtual limit would find.
const STANDSTILL: u64 = 300;

/// Sessions and long streams over bad lines, in virtual time.
#[derive(Parser)]
struct Arguments {
    /// Chooses among all campaigns.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Sessions, spread over the bit error rates 1e-6, 1e-5, 1e-4 and 1e-3.
    #[arg(long, default_value_t = 10_000)]
    sessions: u64,
    /// Long streams through the link alone, spread likewise; without this, one for each 50 sessions.
    #[arg(long)]
    streams: Option<u64>,
    /// How many run at the same time.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// One JSON object a line on stdout; the last one has "ok".
    #[arg(long)]
    json: bool,
    /// Only the session with this number.
    #[arg(long, value_name = "NUMBER")]
    only: Option<u64>,
    /// With `--only`: every frame, with its time in milliseconds.
    #[arg(long, requires = "only")]
    trace: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let ok = match arguments.only {
        Some(number) => one(&arguments, number)?,
        None => all(&arguments)?,
    };
    Ok(if ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Writes a row: for programs on stdout, for people on stderr.
fn tell(json: bool, row: &Value) -> anyhow::Result<()> {
    if json {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{row}")?;
        out.flush()?;
        return Ok(());
    }
    let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
    let word = match row["ok"].as_bool() {
        None => "",
        Some(true) => "ok",
        Some(false) => "missed",
    };
    let mut line = format!(
        "{word:>9}  {:<32} {} {}",
        text("case"),
        row["value"],
        text("metric")
    );
    if !row["target"].is_null() {
        line += &format!(" (target: {} {})", text("bound"), row["target"]);
    }
    let known = ["case", "metric", "value", "target", "bound", "ok"];
    for (name, value) in row.as_object().into_iter().flatten() {
        if !known.contains(&name.as_str()) {
            line += &format!("\n{:>13}{name}: {value}", "");
        }
    }
    eprintln!("{line}");
    Ok(())
}

fn all(arguments: &Arguments) -> anyhow::Result<bool> {
    let size = Size {
        seed: arguments.seed,
        sessions: arguments.sessions,
        streams: arguments.streams.unwrap_or(arguments.sessions / 50),
        messages: keyferry_campaign::stream::LONG,
        jobs: arguments.jobs,
    };
    let ended = Arc::new(AtomicU64::new(0));
    watch(Arc::clone(&ended));
    let (mut missed, mut held) = (0, 0);
    let mut failed = None;
    campaign::run(
        &size,
        |Row(row)| {
            missed += u64::from(row["ok"] == json!(false));
            held += u64::from(row["ok"] == json!(true));
            if let Err(error) = tell(arguments.json, &row) {
                failed = Some(error);
            }
        },
        || {
            ended.fetch_add(1, Ordering::Relaxed);
        },
    );
    if let Some(error) = failed {
        return Err(error);
    }
    let ok = missed == 0 && held > 0;
    let seed = size.seed;
    if arguments.json {
        let last = json!({
            "seed": seed, "checked": CHECKED, "targets_held": held, "targets_missed": missed, "ok": ok,
        });
        tell(true, &last)?;
    } else {
        eprintln!("seed {seed}: {held} targets held, {missed} missed");
    }
    Ok(ok)
}

/// Ends the program if nothing goes on.
fn watch(ended: Arc<AtomicU64>) {
    std::thread::spawn(move || {
        let mut last = 0;
        loop {
            std::thread::sleep(Duration::from_secs(STANDSTILL));
            let now = ended.load(Ordering::Relaxed);
            if now == last {
                eprintln!("nothing goes on after {now} runs: a session hangs in real time");
                std::process::exit(1);
            }
            last = now;
        }
    });
}

fn one(arguments: &Arguments, number: u64) -> anyhow::Result<bool> {
    let bench = Bench::new();
    let clean = bench.clean(arguments.seed);
    let plan = campaign::session_plan(arguments.seed, number, &clean);
    let outcome = bench.run(&plan, arguments.seed, number, arguments.trace);
    eprint!("{}", outcome.trace);
    let ms = |time: u64| time as f64 / 1e6;
    let row = json!({
        "session": number,
        "plan": format!("{plan:?}"),
        "ending": format!("{:?}", outcome.ending),
        "ms": ms(outcome.time),
        "clean_ms": ms(clean.time),
        "device_said_last": outcome.device,
        "wrong_bytes": outcome.tally.wrong,
        "counts": outcome.counts.to_json(),
        "ok": outcome.ending == keyferry_campaign::session::Ending::Done,
    });
    println!(
        "{}",
        if arguments.json {
            row.to_string()
        } else {
            format!("{row:#}")
        }
    );
    Ok(row["ok"] == json!(true))
}
