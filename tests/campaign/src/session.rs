//! One session as a station has it: a greeting, an order with five keys, its receipt and its proofs. The station is the host's own
//! [`Session`] and [`flow`], the device the firmware's own [`Device`] with 2 KiB of receive memory; between them is a bad line.
//!
//! The caller makes its calls once. What the line does to them, host and device must cope with, or say by its name.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use keyferry::device::DeviceError;
use keyferry::device::flow::{self, Proofs, Shipment};
use keyferry::device::port::Port;
use keyferry::device::session::{Greeting, Nonces, Session};
use keyferry::device::verify::{Statement, fingerprint};
use keyferry_firmware::device::{Device, Work};
use keyferry_protocol::identity::{Challenge, Signature};
use keyferry_protocol::link::Millis;
use keyferry_protocol::message::{Reply, Request};
use keyferry_protocol::receipt::State;
use keyferry_protocol::suite::UnwrapAlgorithm;
use keyferry_tests::desk::{Desk, Flash, OnDesk};
use keyferry_tests::line::{Counts, Machine, Nanos, Way, World};
use keyferry_tests::software::{
    SoftAuthority, SoftKey, aes_key, hmac_key, p256_key, proof_is_right, rsa_key, wrap,
};

use crate::eavesdrop::{Eavesdropper, Tally};
use crate::plan::{Dice, Length, Plan, UP, settings};

/// The device's number.
const DEVICE: u8 = 1;

/// Virtual milliseconds after which a session counts as hung: more than all its timers together.
const LIMIT: Millis = 10 * 60 * 1000;

/// Calls of the port after which a session counts as hung, even if time stands still.
const CALLS: u64 = 20_000_000;

/// Everything that the sessions of a campaign share: a device that is enrolled, and keys wrapped for it.
pub struct Bench {
    flash: Flash,
    authority: SoftAuthority,
    statement: Statement,
    keys: [SoftKey; 5],
    shipment: Shipment,
}

/// What a session without faults takes.
#[derive(Clone, Copy, Debug)]
pub struct Clean {
    /// From the first byte until the caller has the verified receipt.
    pub time: Nanos,
    /// Characters on the wire until the session was closed.
    pub length: Length,
    /// Bytes of order, receipt, their signatures, and the blobs: what no link could leave out.
    pub bare: u64,
}

/// How a session ended for the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Keys injected, receipt verified, proofs right.
    Done,
    /// A typed error, by its name.
    Error(String),
    /// It did not end within ten minutes of virtual time.
    Hung,
    /// Station and device do not agree, or something was delivered that nobody sent.
    Broken(String),
}

/// What became of one session.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// For the caller.
    pub ending: Ending,
    /// Nanoseconds from the first byte to the end of the caller's last call.
    pub time: Nanos,
    /// What the device's last word was, by its name.
    pub device: String,
    /// What the line did.
    pub counts: Counts,
    /// What came through it.
    pub tally: Tally,
    /// Bytes of orders, receipts, their signatures, and blobs that were handed to the link.
    pub bare: u64,
    /// Every frame, if somebody wants to know.
    pub trace: String,
}

impl Default for Bench {
    fn default() -> Self {
        Self::new()
    }
}

impl Bench {
    /// Enrols the device. Takes some seconds.
    ///
    /// # Panics
    /// If a device that has no trouble does not let itself be enrolled.
    #[must_use]
    pub fn new() -> Self {
        let authority = SoftAuthority::new(0);
        let device = OnDesk::start(Desk::new(DEVICE, 32));
        let mut session = Session::open(device.port()).expect("it answers");
        let nonce = Challenge([9; 32]);
        let unwrap = UnwrapAlgorithm::P256;
        let statement = flow::enroll(&mut session, &authority, unwrap, nonce, &mut |_| {})
            .expect("a blank device is enrolled");
        drop(session);
        let keys = [
            aes_key(16, 1),
            aes_key(32, 2),
            hmac_key(3),
            p256_key(4),
            rsa_key(5),
        ];
        let shipment = wrap(&statement, &keys, 1);
        Self {
            flash: device.stop(),
            authority,
            statement,
            keys,
            shipment,
        }
    }

    /// The session without faults.
    ///
    /// # Panics
    /// If it fails.
    #[must_use]
    pub fn clean(&self, seed: u64) -> Clean {
        let outcome = self.run(&Plan::default(), seed, 0, false);
        assert_eq!(outcome.ending, Ending::Done, "on a good line");
        let before = crate::plan::CHATTER.len() as u64;
        Clean {
            time: outcome.time,
            length: Length {
                down: outcome.counts.down.characters,
                up: outcome.counts.up.characters - before,
            },
            bare: outcome.bare,
        }
    }

    /// The session with this number on a line with these faults.
    ///
    /// # Panics
    /// If the station's flow does: that is what a campaign is to find out.
    #[must_use]
    pub fn run(&self, plan: &Plan, seed: u64, number: u64, trace: bool) -> Outcome {
        let mut dice = Dice::new(seed, number, 2);
        let ear = Arc::new(Mutex::new(if trace {
            Eavesdropper::tracing()
        } else {
            Eavesdropper::default()
        }));
        let flash = self.flash.clone();
        let heard = Arc::clone(&ear);
        let settings = settings(plan.faults.clone(), dice.any());
        let world = World::new(&settings, move |old: Option<Observed>| {
            let (flash, now) = match old {
                None => (flash.clone(), 0),
                Some(old) => (old.device.into_flash(), old.now),
            };
            lock(&heard).restarted(now);
            Observed {
                device: Device::new(Desk::with_flash(DEVICE, flash)),
                ear: Arc::clone(&heard),
                now,
            }
        });
        world.pass(UP);
        for reset in &plan.resets {
            world.reset_after(*reset);
        }
        let guard = Arc::new(Mutex::new(false));
        let port = Guarded {
            port: world.port(),
            world: world.clone(),
            ear: Arc::clone(&ear),
            calls: 0,
            hung: Arc::clone(&guard),
        };
        let begun = world.now();
        let mut challenge = Challenge::ZERO;
        dice.fill(&mut challenge.0);
        let nonces = move || dice.any() as u32;
        let mut ended = begun;
        let result = self.call(Box::new(port), Box::new(nonces), challenge, || {
            ended = world.now();
        });
        // The device hears that the session is over, or not.
        world.pass(UP);
        let flash = world
            .machine(|machine| machine.device.flash().clone())
            .expect("the device is there");
        let hung = *guard.lock().unwrap_or_else(PoisonError::into_inner);
        let ending = if hung {
            Ending::Hung
        } else {
            self.judge(result, flash)
        };
        let mut ear = lock(&ear);
        Outcome {
            ending,
            time: ended - begun,
            device: last_word(&ear),
            counts: world.counts(),
            tally: ear.tally(),
            bare: bare(&ear),
            trace: ear.take_trace(),
        }
    }

    /// What the caller does, once.
    fn call(
        &self,
        port: Box<dyn Port>,
        nonces: Nonces,
        challenge: Challenge,
        ended: impl FnOnce(),
    ) -> Result<(Greeting, Proofs), DeviceError> {
        let inject = |session: &mut Session| {
            let mut device = self.statement.clone();
            device.standing.challenge = session.greeting().challenge;
            let nobody = &mut |_| {};
            flow::inject(
                session,
                &self.authority,
                &device,
                &self.shipment,
                challenge,
                nobody,
            )
        };
        let mut session = match Session::open_with_nonces(port, nonces) {
            Ok(session) => session,
            Err(error) => {
                ended();
                return Err(error);
            }
        };
        let proofs = inject(&mut session);
        ended();
        Ok((session.greeting().clone(), proofs?))
    }

    /// Whether what the station believes is so.
    fn judge(&self, result: Result<(Greeting, Proofs), DeviceError>, flash: Flash) -> Ending {
        let broken = |what: &str| Ending::Broken(what.to_owned());
        let device = OnDesk::start(Desk::with_flash(DEVICE, flash));
        let mut session = match Session::open(device.port()) {
            Ok(session) => session,
            Err(error) => return Ending::Broken(format!("the device is no use any more: {error}")),
        };
        let slots = match flow::list(&mut session) {
            Ok(slots) => slots,
            Err(error) => return Ending::Broken(format!("the device is no use any more: {error}")),
        };
        let now = session.greeting();
        let applied = now.counter == self.statement.standing.counter + 1;
        let untouched = now.counter == self.statement.standing.counter;
        let held = if applied { self.keys.len() } else { 0 };
        if !(applied || untouched) || slots.len() != held {
            return broken("the order was done in part");
        }
        let (greeting, proofs) = match result {
            Ok(done) => done,
            Err(error) if applied && !error.leaves_order_open() => {
                return Ending::Broken(format!("done, although the station has: {}", name(&error)));
            }
            Err(error) => return Ending::Error(name(&error)),
        };
        if !applied || now.state != State::Provisioned {
            return broken("not done, although the station believes it");
        }
        if proofs.standing.counter != now.counter || proofs.standing.state != now.state {
            return broken("the receipt tells another standing");
        }
        let right =
            |(key, report): (_, _)| proof_is_right(key, report, &proofs.order, &proofs.challenge);
        if proofs.reports.len() != self.keys.len()
            || !self.keys.iter().zip(&proofs.reports).all(right)
        {
            return broken("a proof is wrong");
        }
        if greeting.device != now.device
            || greeting.identity != fingerprint(&self.statement.identity_key)
            || greeting.authority != self.statement.authority.hint()
            || (greeting.board, greeting.firmware) != (now.board.clone(), now.firmware.clone())
        {
            return broken("the greeting was not what the device said");
        }
        Ending::Done
    }
}

/// The name of an error for counting.
fn name(error: &DeviceError) -> String {
    match error {
        DeviceError::Open(_) => "open".to_owned(),
        DeviceError::Port { .. } => "port".to_owned(),
        DeviceError::Silent { .. } => "silent".to_owned(),
        DeviceError::Garbage { .. } => "garbage".to_owned(),
        DeviceError::HungUp { .. } => "hung-up".to_owned(),
        DeviceError::Disappeared { .. } => "disappeared".to_owned(),
        DeviceError::Restarted { .. } => "restarted".to_owned(),
        DeviceError::NotDone { .. } => "not-done".to_owned(),
        DeviceError::Version { .. } => "version".to_owned(),
        DeviceError::Refused { refusal, signed } => {
            let word = if *signed { "signed" } else { "unsigned" };
            format!("refused {word}: {refusal:?}")
        }
        DeviceError::Untrusted { reason } => format!("untrusted: {reason}"),
        DeviceError::Unexpected => "unexpected".to_owned(),
        DeviceError::TooLong => "too-long".to_owned(),
        DeviceError::CounterSpent => "counter-spent".to_owned(),
        DeviceError::Witness(_) | DeviceError::Unwitnessed(_) => "witness".to_owned(),
        DeviceError::Authority(_) => "authority".to_owned(),
    }
}

/// The name of the last answer of the device.
fn last_word(ear: &Eavesdropper) -> String {
    let mut last = "nothing".to_owned();
    for message in ear.messages(Way::Up) {
        last = match Reply::decode(&message) {
            Ok(Reply::Progress(_)) => continue,
            Ok(Reply::Hello(_)) => "greeting".to_owned(),
            Ok(Reply::Receipt { .. }) => "receipt".to_owned(),
            Ok(Reply::Refused(refusal)) => format!("refused: {refusal:?}"),
            Ok(_) => "other".to_owned(),
            Err(_) => "malformed".to_owned(),
        };
    }
    last
}

/// Bytes of orders, receipts, their signatures, and blobs.
fn bare(ear: &Eavesdropper) -> u64 {
    let down = ear.messages(Way::Down);
    let down = down.iter().map(|message| match Request::decode(message) {
        Ok(Request::Order { order, .. }) => order.len() + Signature::LENGTH,
        Ok(Request::Blob { bytes }) => bytes.len(),
        Ok(_) | Err(_) => 0,
    });
    let up = ear.messages(Way::Up);
    let up = up.iter().map(|message| match Reply::decode(message) {
        Ok(Reply::Receipt { receipt, .. }) => receipt.len() + Signature::LENGTH,
        Ok(_) | Err(_) => 0,
    });
    down.chain(up).map(|count| count as u64).sum()
}

fn lock(ear: &Arc<Mutex<Eavesdropper>>) -> MutexGuard<'_, Eavesdropper> {
    ear.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The device, with somebody who listens on its pins.
struct Observed {
    device: Device<Desk>,
    ear: Arc<Mutex<Eavesdropper>>,
    now: Nanos,
}

impl Machine for Observed {
    fn clock(&mut self, now: Nanos) {
        self.now = now;
    }

    fn receive(&mut self, bytes: &[u8], now: Millis) {
        lock(&self.ear).gets(Way::Down, bytes, self.now);
        self.device.receive(bytes, now);
    }

    fn work(&mut self, now: Millis) -> Work {
        self.device.work(now)
    }

    fn transmit(&mut self, now: Millis) -> &[u8] {
        self.device.transmit(now)
    }

    fn transmitted(&mut self, count: usize, now: Millis) {
        let sent = self.device.transmit(now);
        let sent = &sent[..count.min(sent.len())];
        lock(&self.ear).sends(Way::Up, sent, self.now);
        self.device.transmitted(count, now);
    }
}

/// The station's port, with somebody who listens, and a limit on time and calls.
struct Guarded {
    port: Box<dyn Port>,
    world: World<Observed>,
    ear: Arc<Mutex<Eavesdropper>>,
    calls: u64,
    hung: Arc<Mutex<bool>>,
}

impl Guarded {
    fn check(&mut self) -> io::Result<()> {
        self.calls += 1;
        if self.calls > CALLS || self.port.now() > LIMIT {
            *self.hung.lock().unwrap_or_else(PoisonError::into_inner) = true;
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(())
    }
}

impl Port for Guarded {
    fn name(&self) -> &str {
        self.port.name()
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.check()?;
        let count = self.port.write(bytes)?;
        let now = self.world.now();
        lock(&self.ear).sends(Way::Down, &bytes[..count], now);
        Ok(count)
    }

    fn read(&mut self, bytes: &mut [u8], until: Millis) -> io::Result<usize> {
        self.check()?;
        let count = self.port.read(bytes, until.min(LIMIT + 1))?;
        let now = self.world.now();
        lock(&self.ear).gets(Way::Up, &bytes[..count], now);
        Ok(count)
    }

    fn now(&self) -> Millis {
        self.port.now()
    }

    fn set_baud(&mut self, baud: u32) -> io::Result<bool> {
        let now = self.world.now();
        lock(&self.ear).note(now, &format!("-- the station listens at {baud} baud"));
        self.port.set_baud(baud)
    }
}
