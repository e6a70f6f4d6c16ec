//! The places of the bad run: what is wrong with each device, and the lines to them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use chacha20::ChaCha8Rng;
use chacha20::rand_core::{Rng as _, SeedableRng as _};
use keyferry::device::flow;
use keyferry::device::session::Session;
use keyferry_native::Device;
use keyferry_protocol::identity::{Challenge, DeviceId};
use keyferry_protocol::message::{Reply, Request};
use keyferry_protocol::suite::UnwrapAlgorithm;
use keyferry_tests::board::open_again;
use keyferry_tests::desk::{Direction, Tampered};
use keyferry_tests::mitm::{Fate, Mitm};
use keyferry_tests::relay::Relay;
use keyferry_tests::software::SoftAuthority;
use nix::pty::{OpenptyResult, openpty};
use nix::unistd::ttyname;

/// The chance of each bit on a bad line to arrive inverted.
const BIT_ERRORS: f64 = 1e-5;

/// What is wrong with a device of the bad run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Nothing but its line.
    Good,
    /// It has no power.
    Silent,
    /// It is unplugged when the first piece of its keys is on the way.
    PulledAtKeys,
    /// It is unplugged when it has applied the order and says so.
    PulledAtReceipt,
    /// Nobody expects it.
    Stranger,
    /// It was enrolled elsewhere, and says that it is a device which the registry knows.
    Impostor,
}

impl Kind {
    /// Of the device with this number, counted from 0: one in twenty has no power, one is unplugged, one is not what it should be.
    pub(super) const fn of(number: u16) -> Self {
        let even = (number / 20).is_multiple_of(2);
        match (number % 20, even) {
            (3, _) => Self::Silent,
            (9, true) => Self::PulledAtKeys,
            (9, false) => Self::PulledAtReceipt,
            (14, true) => Self::Stranger,
            (14, false) => Self::Impostor,
            _ => Self::Good,
        }
    }

    /// What the station must say of it.
    pub(super) const fn reason(self) -> Option<&'static str> {
        match self {
            Self::Good => None,
            Self::Silent => Some("no answer from"),
            Self::PulledAtKeys | Self::PulledAtReceipt => Some("disappeared in mid-session"),
            Self::Stranger => Some("is not on the list"),
            Self::Impostor => Some("cannot be trusted"),
        }
    }

    /// Whether it is done once its plug is in again.
    pub(super) const fn will_be_done(self) -> bool {
        matches!(
            self,
            Self::Good | Self::PulledAtKeys | Self::PulledAtReceipt
        )
    }
}

/// Noise on one direction of a line.
struct Noise {
    random: ChaCha8Rng,
    /// Bits that pass before the next one is inverted.
    gap: u64,
    inverted: Arc<AtomicUsize>,
}

impl Noise {
    fn new(seed: u64, inverted: &Arc<AtomicUsize>) -> Self {
        let mut noise = Self {
            random: ChaCha8Rng::seed_from_u64(seed),
            gap: 0,
            inverted: Arc::clone(inverted),
        };
        noise.draw();
        noise
    }

    /// The distance between two events that each bit has the same chance of is distributed geometrically.
    fn draw(&mut self) {
        let unit = ((self.random.next_u64() >> 11) as f64 + 1.0) / (1_u64 << 53) as f64;
        self.gap = (unit.ln() / (-BIT_ERRORS).ln_1p()) as u64;
    }

    fn strike(&mut self, bytes: &mut [u8]) {
        let mut bits = bytes.len() as u64 * 8;
        while self.gap < bits {
            bits -= self.gap + 1;
            let at = bytes.len() as u64 * 8 - 1 - bits;
            bytes[(at / 8) as usize] ^= 1 << (at % 8);
            self.inverted.fetch_add(1, Ordering::Relaxed);
            self.draw();
        }
        self.gap -= bits;
    }
}

/// A pseudo-terminal with nobody at its other end, and its path.
fn silent() -> (OpenptyResult, String) {
    let pair = openpty(None, None).expect("a pseudo-terminal");
    let path = ttyname(&pair.slave).expect("a terminal has a path");
    (pair, path.display().to_string())
}

/// The line to a device: one that is noisy, and whose plug may be pulled. The number chooses the noise.
fn line(device: &Device, number: u16, kind: Kind, inverted: &Arc<AtomicUsize>) -> Relay {
    let mut port = open_again(device.port());
    if matches!(kind, Kind::PulledAtKeys | Kind::PulledAtReceipt) {
        let mut keys = false;
        port = Box::new(Mitm::new(port, move |direction, message: &mut Vec<u8>| {
            let pulled = match direction {
                Direction::Down => {
                    keys |= matches!(Request::decode(message), Ok(Request::Blob { .. }));
                    keys && kind == Kind::PulledAtKeys
                }
                Direction::Up => {
                    keys && matches!(Reply::decode(message), Ok(Reply::Receipt { .. }))
                }
            };
            if pulled { Fate::Cut } else { Fate::Pass }
        }));
    }
    let seed = u64::from(number) * 2;
    let mut down = Noise::new(seed, inverted);
    let mut up = Noise::new(seed + 1, inverted);
    let noisy = Tampered::new(port, move |direction, bytes: &mut [u8]| match direction {
        Direction::Down => down.strike(bytes),
        Direction::Up => up.strike(bytes),
    });
    Relay::to(Box::new(noisy))
}

/// Gives a device an identity that this line has never seen.
fn enroll_elsewhere(device: &Device) {
    let port = open_again(device.port());
    let mut session = Session::open(port).expect("it answers");
    let (authority, nonce) = (SoftAuthority::new(0), Challenge([1; 32]));
    let kind = UnwrapAlgorithm::P256;
    flow::enroll(&mut session, &authority, kind, nonce, &mut |_| {}).expect("it is blank");
}

/// A place of the bad run. What keeps its port alive is held here.
pub(super) struct Place {
    pub(super) kind: Kind,
    /// Who it is, as it says; nobody without power.
    pub(super) id: Option<DeviceId>,
    device: Option<Device>,
    pub(super) port: String,
    _line: Option<Relay>,
    _terminal: Option<OpenptyResult>,
}

impl Place {
    pub(super) fn new(kind: Kind, id: u16, device: Device, inverted: &Arc<AtomicUsize>) -> Self {
        if kind == Kind::Impostor {
            enroll_elsewhere(&device);
        }
        let line = line(&device, id, kind, inverted);
        Self {
            kind,
            id: Some(device_id(id)),
            device: Some(device),
            port: line.path().to_owned(),
            _line: Some(line),
            _terminal: None,
        }
    }

    pub(super) fn silent() -> Self {
        let (terminal, port) = silent();
        Self {
            kind: Kind::Silent,
            id: None,
            device: None,
            port,
            _line: None,
            _terminal: Some(terminal),
        }
    }

    /// The port that it has from now on: a pulled plug goes into another socket, at the end of a good line.
    pub(super) fn port_again(&self) -> &str {
        match (&self.device, self.kind) {
            (Some(device), Kind::PulledAtKeys | Kind::PulledAtReceipt) => device.port(),
            _ => &self.port,
        }
    }
}

/// The id of the device of the fleet with this number.
pub(super) fn device_id(number: u16) -> DeviceId {
    let mut id = DeviceId::ZERO;
    id.0[14..].copy_from_slice(&number.to_be_bytes());
    id
}
