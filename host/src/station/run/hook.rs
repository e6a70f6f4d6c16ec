//! The hook: a program of the plant that is called before and after each device, for a label printer or an MES.
//!
//! It gets one JSON object on its standard input, and no shell is between. Its time is bounded: when it is over, the program ends with
//! all that it has started. What it prints is read to its end, and the last of it shown if it fails.
//!
//! It must never see the PIN of the token: the variable that holds it is taken out of its environment. And it decides nothing but
//! whether a device is begun: what the station believes is what the device has signed.

use std::ffi::OsString;
use std::io::{self, PipeReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

#[cfg(windows)]
use process_wrap::std::JobObject;
#[cfg(unix)]
use process_wrap::std::ProcessGroup;
use process_wrap::std::{ChildWrapper, CommandWrap};

use crate::station::plan::HookPlan;

/// How much of what a program prints is kept: the last of it, in bytes.
const KEPT: usize = 2_000;

/// How often it is looked whether a program that has closed its output has ended.
const LOOK: Duration = Duration::from_millis(5);

/// When a hook is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Before anything is sent to a device that would change it.
    Before,
    /// When it is over, however it ended.
    After,
}

impl Moment {
    /// Its name in events.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::After => "after",
        }
    }
}

/// Why a hook has failed.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// It did not start.
    #[error("the hook {} does not start: {source}", program.display())]
    NotStarted {
        /// The program.
        program: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// It was not over in time.
    #[error("the hook {} was not over after {} s, and was ended{}", program.display(), allowed.as_secs(), said(.output))]
    TimedOut {
        /// The program.
        program: PathBuf,
        /// How long it may take.
        allowed: Duration,
        /// The last that it printed.
        output: String,
    },
    /// It said that it failed.
    #[error("the hook {} failed ({status}){}", program.display(), said(.output))]
    Failed {
        /// The program.
        program: PathBuf,
        /// How it ended.
        status: ExitStatus,
        /// The last that it printed.
        output: String,
    },
    /// The operating system lost it.
    #[error("what became of the hook {} is not known: {source}", program.display())]
    Lost {
        /// The program.
        program: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

fn said(output: &str) -> String {
    match output {
        "" => String::new(),
        output => format!("; it said: {output}"),
    }
}

impl HookError {
    /// The next move, for a person.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::NotStarted { .. } => {
                "see whether the program under [hook] may be run: `keyferry station check`"
            }
            Self::TimedOut { .. } => {
                "see what the program waits for, or give it more seconds under [hook]"
            }
            Self::Failed { .. } => "run the program by hand, with the event on its standard input",
            Self::Lost { .. } => "run the plan again",
        }
    }
}

/// A hook that can be called.
#[derive(Clone, Debug)]
pub struct Hook {
    /// What the plan says of it.
    pub plan: HookPlan,
    /// The program.
    pub program: PathBuf,
    /// The folder that it works in.
    pub folder: PathBuf,
    /// Variables of the environment that it does not get.
    pub withheld: Vec<OsString>,
}

impl Hook {
    /// Finds the program: a bare name as a shell does; a path from the plan's folder, which is also where it will work.
    ///
    /// # Errors
    /// A reason in words.
    pub fn find(plan: &HookPlan, folder: &Path) -> Result<Self, String> {
        let shown = plan.program.path.display();
        let folder = match folder.as_os_str().is_empty() {
            true => Path::new("."),
            false => folder,
        };
        let folder = std::path::absolute(folder).map_err(|error| format!("{shown}: {error}"))?;
        let program = which::which_in(&plan.program.path, std::env::var_os("PATH"), &folder)
            .map_err(|_| format!("there is no program {shown}, or it may not be run"))?;
        Ok(Self {
            plan: plan.clone(),
            program,
            folder,
            withheld: Vec::new(),
        })
    }

    /// Calls it with this event, and waits until it is over: it has ended, and nothing that it has started holds its output.
    ///
    /// # Errors
    /// [`HookError`].
    pub fn call(&self, event: &str) -> Result<(), HookError> {
        let allowed = Duration::from_secs(self.plan.seconds.into());
        let deadline = Instant::now() + allowed;
        let (mut child, output) = self.start(event).map_err(|source| HookError::NotStarted {
            program: self.program.clone(),
            source,
        })?;
        let lost = |source| HookError::Lost {
            program: self.program.clone(),
            source,
        };
        match output.wait(&mut *child, deadline) {
            Ok(Some(status)) if status.success() => Ok(()),
            Ok(Some(status)) => Err(HookError::Failed {
                program: self.program.clone(),
                status,
                output: output.text(),
            }),
            Ok(None) => {
                end(&mut *child).map_err(lost)?;
                Err(HookError::TimedOut {
                    program: self.program.clone(),
                    allowed,
                    output: output.text(),
                })
            }
            Err(source) => {
                // The first error is the one to tell of.
                let _ = end(&mut *child);
                Err(lost(source))
            }
        }
    }

    fn start(&self, event: &str) -> io::Result<(Box<dyn ChildWrapper>, Output)> {
        let (reader, writer) = io::pipe()?;
        let mut command = Command::new(&self.program);
        command
            .args(&self.plan.arguments)
            .current_dir(&self.folder)
            .stdin(Stdio::piped())
            .stdout(writer.try_clone()?)
            .stderr(writer);
        for name in &self.withheld {
            command.env_remove(name);
        }
        let mut command = CommandWrap::from(command);
        // What it starts ends with it, and Ctrl-C at the station's terminal is for the station.
        #[cfg(unix)]
        command.wrap(ProcessGroup::leader());
        #[cfg(windows)]
        command.wrap(JobObject);
        let output = Output::of(reader)?;
        let mut child = command.spawn()?;
        // It holds the writing end of the pipe: without this there is no end of the output.
        drop(command);
        if let Some(mut input) = child.stdin().take() {
            let event = format!("{event}\n");
            // In a thread, as a program need not read. One that does not is not wrong: the error says nothing.
            let write = move || drop(input.write_all(event.as_bytes()));
            if let Err(error) = thread::Builder::new().spawn(write) {
                end(&mut *child)?;
                return Err(error);
            }
        }
        Ok((child, output))
    }
}

/// Ends a program and all that it has started, and waits for it.
fn end(child: &mut dyn ChildWrapper) -> io::Result<()> {
    // It may have ended by itself just now.
    let killed = child.start_kill();
    if child.try_wait()?.is_none() {
        killed?;
        child.wait()?;
    }
    Ok(())
}

/// What a program prints.
struct Output {
    last: Arc<Mutex<Vec<u8>>>,
    ended: mpsc::Receiver<()>,
}

impl Output {
    fn of(mut reader: PipeReader) -> io::Result<Self> {
        let last = Arc::new(Mutex::new(Vec::new()));
        let (sender, ended) = mpsc::channel();
        let kept = Arc::clone(&last);
        // Not waited for: where something that was started holds the pipe for ever, only this thread does.
        thread::Builder::new().spawn(move || {
            let mut buffer = [0; KEPT];
            while let Ok(length @ 1..) = reader.read(&mut buffer) {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.extend_from_slice(&buffer[..length]);
                let surplus = kept.len().saturating_sub(KEPT);
                kept.drain(..surplus);
            }
            // Nobody may be waiting any more.
            let _ = sender.send(());
        })?;
        Ok(Self { last, ended })
    }

    /// How the program ended, once its output has; none if that is not so in time.
    fn wait(
        &self,
        child: &mut dyn ChildWrapper,
        deadline: Instant,
    ) -> io::Result<Option<ExitStatus>> {
        let left = || deadline.saturating_duration_since(Instant::now());
        if self.ended.recv_timeout(left()) == Err(RecvTimeoutError::Timeout) {
            return Ok(None);
        }
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(Some(status));
            }
            if left().is_zero() {
                return Ok(None);
            }
            thread::sleep(LOOK.min(left()));
        }
    }

    /// The last of it, fit for a terminal and a line.
    fn text(&self) -> String {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&last);
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let text = lines.collect::<Vec<_>>().join(" / ");
        text.replace(char::is_control, "?")
    }
}
