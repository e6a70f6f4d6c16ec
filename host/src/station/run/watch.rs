//! A line that stays: devices are plugged in and pulled out, and each is attended to by itself.
//!
//! A device is attended to once for each time that it is plugged in. One that is done is found so when it comes again; one that has failed
//! is tried again. The line looks at its ports at fixed times: that needs nothing of the operating system, and no device comes
//! or goes faster than a hand does it.

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use super::attend::Shared;
use super::event::{Nest, Outcome, What};
use super::{Line, Stock};
use crate::device::port::Mark;

/// How often it is looked who is there.
const LOOK: Duration = Duration::from_millis(100);

/// In how many looks in a row a port is there before it is opened: the system gives it owner and rights when it has its name already.
const SETTLED: u8 = 2;

/// Why no device is begun any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// Somebody has stopped the line.
    Stopped,
    /// Too many have failed.
    Failures,
    /// There were as many as there may be.
    Devices,
}

impl Closed {
    /// In words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Stopped => "the line was stopped",
            Self::Failures => "too many devices failed one after the other",
            Self::Devices => "the plan allows no more devices in one run",
        }
    }
}

/// A port where something is plugged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plugged {
    /// The nest's name.
    pub nest: String,
    /// The port's name.
    pub port: String,
    /// What is there.
    pub mark: Mark,
}

/// The fixture that devices are plugged into, and the person at it.
pub trait Fixture {
    /// Who is there now; no nest twice, and no port.
    fn look(&mut self) -> Vec<Plugged>;

    /// The serial number that was scanned for the device that is begun at a nest.
    fn serial(&mut self, nest: &str) -> Option<String>;

    /// A device is over.
    fn over(&mut self, outcome: &Outcome);

    /// Every device that is there is over.
    fn waiting(&mut self);
}

/// A nest, from when something is plugged in until it is pulled out and over.
struct Place<'scope> {
    port: String,
    /// What is there now.
    mark: Option<Mark>,
    /// In how many looks in a row; not counted beyond [`SETTLED`].
    looks: u8,
    /// Whether what is there was attended to.
    served: bool,
    work: Option<Work<'scope>>,
}

/// A worker, and the nest that it works at.
struct Work<'scope> {
    nest: Nest,
    thread: ScopedJoinHandle<'scope, Outcome>,
}

impl Work<'_> {
    fn join(self, shared: &Shared<'_>) -> Outcome {
        self.thread.join().unwrap_or_else(|_| {
            let outcome = Outcome::broke_off(&self.nest);
            shared.tell(&self.nest, What::Ended(&outcome));
            outcome
        })
    }
}

impl Place<'_> {
    const fn is_ready(&self) -> bool {
        self.is_unserved() && self.looks >= SETTLED && self.work.is_none()
    }

    const fn is_unserved(&self) -> bool {
        self.mark.is_some() && !self.served
    }
}

/// Wakes the line when a worker is over, even by a fault.
struct Wake {
    sender: mpsc::Sender<String>,
    nest: String,
}

impl Drop for Wake {
    fn drop(&mut self) {
        // The line waits as long as there is a worker.
        let _ = self.sender.send(std::mem::take(&mut self.nest));
    }
}

impl Line<'_> {
    /// Attends to every device that comes, until the line is closed and those that were begun are over. Says why it was closed.
    pub fn watch(&self, stock: &Stock, fixture: &mut dyn Fixture) -> Closed {
        let shared = Shared::new(self, stock, false);
        let (sender, over) = mpsc::channel();
        thread::scope(|scope| {
            let mut places: BTreeMap<String, Place<'_>> = BTreeMap::new();
            let mut working = 0;
            let mut is_waiting = false;
            let mut next = Instant::now();
            loop {
                if next <= Instant::now() {
                    look(&shared, fixture.look(), &mut places);
                    next = Instant::now() + LOOK;
                }
                for (name, place) in &mut places {
                    if !place.is_ready() || working >= self.plan.limits.at_once {
                        continue;
                    }
                    if shared.closed().is_some() {
                        break;
                    }
                    let nest = Nest {
                        name: name.clone(),
                        port: place.port.clone(),
                        serial: fixture.serial(name),
                    };
                    let wake = Wake {
                        sender: sender.clone(),
                        nest: name.clone(),
                    };
                    let shared = &shared;
                    place.served = true;
                    place.work = Some(Work {
                        nest: nest.clone(),
                        thread: scope.spawn(move || {
                            let _wake = wake;
                            shared.attend(&nest)
                        }),
                    });
                    working += 1;
                    is_waiting = false;
                }
                if working == 0 {
                    if let Some(why) = shared.closed() {
                        return why;
                    }
                    if !is_waiting && !places.values().any(Place::is_unserved) {
                        is_waiting = true;
                        fixture.waiting();
                    }
                }
                // In vain when it is time to look again; this function holds a sender.
                let name = over.recv_timeout(next.saturating_duration_since(Instant::now()));
                let place = name.ok().and_then(|name| places.get_mut(&name));
                if let Some(work) = place.and_then(|place| place.work.take()) {
                    working -= 1;
                    fixture.over(&work.join(&shared));
                }
            }
        })
    }
}

/// Compares who is there with who was.
fn look(shared: &Shared<'_>, found: Vec<Plugged>, places: &mut BTreeMap<String, Place<'_>>) {
    let tell = |name: &str, port: &str, what: What<'_>| {
        let nest = Nest {
            name: name.to_owned(),
            port: port.to_owned(),
            serial: None,
        };
        shared.tell(&nest, what);
    };
    let mut found: BTreeMap<_, _> = found.into_iter().map(|it| (it.nest.clone(), it)).collect();
    for (name, place) in &mut *places {
        let now = found.remove(name);
        if place.mark.is_some() && place.mark == now.as_ref().map(|it| it.mark.clone()) {
            place.looks = place.looks.saturating_add(1).min(SETTLED);
            continue;
        }
        if place.mark.take().is_some() {
            tell(name, &place.port, What::Vanished);
        }
        if let Some(now) = now {
            tell(name, &now.port, What::Appeared);
            place.port = now.port;
            place.mark = Some(now.mark);
        }
        (place.looks, place.served) = (1, false);
    }
    places.retain(|_, place| place.mark.is_some() || place.work.is_some());
    for (name, now) in found {
        tell(&name, &now.port, What::Appeared);
        places.insert(
            name,
            Place {
                port: now.port,
                mark: Some(now.mark),
                looks: 1,
                served: false,
                work: None,
            },
        );
    }
}
