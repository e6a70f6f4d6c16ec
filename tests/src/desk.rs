//! A whole device in this process: the firmware library on a strict NOR flash in memory, and a port that leads to it.
//! Time is virtual: it passes only while both ends wait.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use keyferry::device::port::Port;
use keyferry_firmware::Platform;
use keyferry_firmware::device::{Device, Operations, Work};
use keyferry_firmware::platform::{Description, RootKey, SourceFailed};
use keyferry_firmware::rng::Drbg;
use keyferry_firmware::store::nor_fake::NorFake;
use keyferry_firmware::store::{ItemId, Store};
use keyferry_protocol::MAX_VENDOR_CERTIFICATE;
use keyferry_protocol::identity::{DeviceId, Fingerprint, Signature};
use keyferry_protocol::link::Millis;
use keyferry_protocol::receipt::{SourceClass, VOUCHER_LENGTH};

use crate::software::SoftAuthority;

/// The flash of the desk's device: words of 4 bytes, pages of 2 KiB.
pub type Flash = NorFake<4, 2048>;

/// How the entropy source behaves.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Entropy {
    /// It gives the same bytes at every start.
    Stuck,
    /// It reports a failure.
    Fails,
}

/// The fuses of the board with this number.
const fn fuses(number: u8) -> [u8; 32] {
    [number ^ 0x5a; 32]
}

/// A board in memory.
pub struct Desk {
    id: DeviceId,
    flash: Option<Flash>,
    root: Option<[u8; 32]>,
    entropy: Entropy,
    /// The authority compiled into the image, if any.
    pub pinned: Option<Fingerprint>,
    /// Whether the image is a development image, as it is at first.
    pub development: bool,
    /// Whether the board lets itself be wiped, as it does at first.
    pub allows_wipe: bool,
    /// Line rates that the board can switch to, in baud; none at first.
    pub rates: &'static [u32],
    /// The vendor key and its certificate, if the board has them.
    pub vendor: Option<([u8; 32], Vec<u8>)>,
}

impl Desk {
    /// The board with this number, with `pages` pages of erased flash.
    #[must_use]
    pub fn new(number: u8, pages: usize) -> Self {
        Self::with_flash(number, Flash::new(pages))
    }

    /// The board with this number and this flash.
    #[must_use]
    pub fn with_flash(number: u8, flash: Flash) -> Self {
        Self {
            id: DeviceId([number; 16]),
            flash: Some(flash),
            root: Some(fuses(number)),
            entropy: Entropy::Stuck,
            pinned: None,
            development: true,
            allows_wipe: true,
            rates: &[],
            vendor: None,
        }
    }

    /// The same board with another entropy source.
    #[must_use]
    pub fn entropy(mut self, entropy: Entropy) -> Self {
        self.entropy = entropy;
        self
    }

    /// The same board with a production image.
    #[must_use]
    pub fn production(mut self) -> Self {
        self.development = false;
        self
    }

    /// The same board with unreadable fuses.
    #[must_use]
    pub fn without_root_key(mut self) -> Self {
        self.root = None;
        self
    }
}

impl Platform for Desk {
    type Flash = Flash;

    fn take_flash(&mut self) -> Flash {
        self.flash.take().unwrap_or_else(|| Flash::new(0))
    }

    fn device_id(&self) -> DeviceId {
        self.id
    }

    fn root_key(&mut self, key: &mut RootKey) -> Result<(), SourceFailed> {
        *key.expose_mut() = self.root.ok_or(SourceFailed)?;
        Ok(())
    }

    fn entropy(&mut self, out: &mut [u8]) -> Result<(), SourceFailed> {
        match self.entropy {
            Entropy::Stuck => out.fill(0x11),
            Entropy::Fails => return Err(SourceFailed),
        }
        Ok(())
    }

    fn description(&self) -> Description {
        Description {
            board: "desk",
            firmware: "0.0.0",
            development: self.development,
            rng: SourceClass::Test,
            root_key: SourceClass::Test,
        }
    }

    fn pinned_authority(&self) -> Option<Fingerprint> {
        self.pinned
    }

    fn line_rates(&self) -> &'static [u32] {
        self.rates
    }

    fn allows_wipe(&self) -> bool {
        self.allows_wipe
    }

    fn vendor_certificate<'a>(
        &mut self,
        room: &'a mut [u8; MAX_VENDOR_CERTIFICATE],
    ) -> Result<Option<&'a [u8]>, SourceFailed> {
        let Some((_, certificate)) = &self.vendor else {
            return Ok(None);
        };
        let place = room.get_mut(..certificate.len()).ok_or(SourceFailed)?;
        place.copy_from_slice(certificate);
        Ok(Some(place))
    }

    fn vendor_sign(
        &mut self,
        message: &[u8; VOUCHER_LENGTH],
        random: &mut Drbg,
    ) -> Result<Signature, SourceFailed> {
        let (key, _) = self.vendor.as_ref().ok_or(SourceFailed)?;
        keyferry_firmware::keys::p256::sign(key, message, random).map_err(|_| SourceFailed)
    }
}

/// A device that several hands can reach: the port, and the test that looks inside.
#[derive(Clone)]
pub struct OnDesk(Arc<Mutex<Option<Device<Desk>>>>);

impl OnDesk {
    /// Starts the board.
    #[must_use]
    pub fn start(desk: Desk) -> Self {
        Self(Arc::new(Mutex::new(Some(Device::new(desk)))))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Device<Desk>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Private-key operations with the unwrap key since start.
    #[must_use]
    pub fn unwrap_operations(&self) -> u32 {
        self.operations().unwrap
    }

    /// The rate that the device wants the line to run at, in baud.
    #[must_use]
    pub fn rate(&self) -> u32 {
        self.lock().as_ref().map_or(0, Device::rate)
    }

    /// Private-key operations since start.
    #[must_use]
    pub fn operations(&self) -> Operations {
        self.lock()
            .as_ref()
            .map_or_else(Operations::default, Device::operations)
    }

    /// The fingerprint of its unwrap key; zero while it has none, and once it is stopped.
    #[must_use]
    pub fn unwrap_key(&self) -> Fingerprint {
        self.lock()
            .as_ref()
            .map_or(Fingerprint::ZERO, Device::unwrap_key)
    }

    /// Gives the device these bytes at this time and lets it work until it has nothing to do; tells until when it would sleep,
    /// and what it sent. `None` if it was stopped.
    #[must_use]
    pub fn turn(&self, bytes: &[u8], now: Millis) -> Option<(Work, Vec<u8>)> {
        let mut guard = self.lock();
        let device = guard.as_mut()?;
        device.receive(bytes, now);
        let mut sent = Vec::new();
        loop {
            let work = device.work(now);
            let waiting = device.transmit(now);
            let count = waiting.len();
            sent.extend_from_slice(waiting);
            device.transmitted(count, now);
            if count == 0 && work != Work::More {
                return Some((work, sent));
            }
        }
    }

    /// As [`Self::turn`], with a line that takes nothing.
    pub fn stuck_turn(&self, bytes: &[u8], now: Millis) {
        if let Some(device) = self.lock().as_mut() {
            device.receive(bytes, now);
            // As often as a board would while its transmitter is full.
            for _ in 0..100 {
                device.work(now);
            }
        }
    }

    /// Whether an order is under way.
    #[must_use]
    pub fn is_in_the_midst(&self) -> bool {
        self.lock().as_ref().is_some_and(Device::is_busy)
    }

    /// The device's identity key, as somebody gets it who has opened its case and read flash and fuses: `None` while it has none.
    ///
    /// # Panics
    /// If the store does not open.
    #[must_use]
    pub fn stolen_identity(&self, number: u8) -> Option<SoftAuthority> {
        let flash = self.lock().as_ref()?.flash().clone();
        let mut root = RootKey::zeroed();
        *root.expose_mut() = fuses(number);
        let mut secret = [0; 32];
        let stolen = Store::open(flash, root)
            .secret(ItemId::IDENTITY, &mut secret)
            .expect("the store opens")
            .is_some();
        stolen.then(|| SoftAuthority::with_scalar(secret))
    }

    /// The bytes of the flash now.
    #[must_use]
    pub fn flash(&self) -> Vec<u8> {
        self.lock()
            .as_ref()
            .map_or_else(Vec::new, |device| device.flash().bytes().to_vec())
    }

    /// Pulls the plug and gives the flash back.
    #[must_use]
    pub fn stop(&self) -> Flash {
        self.lock()
            .take()
            .map_or_else(|| Flash::new(0), Device::into_flash)
    }

    /// Cuts the power for a moment: the board starts anew, with its number, on the same flash.
    pub fn restart(&self, number: u8) {
        let mut device = self.lock();
        if let Some(running) = device.take() {
            let desk = Desk::with_flash(number, running.into_flash());
            *device = Some(Device::new(desk));
        }
    }

    /// A port that leads to the device.
    #[must_use]
    pub fn port(&self) -> Box<dyn Port> {
        Box::new(DeskPort::new(self.clone(), |_, _| {}))
    }

    /// A port whose bytes pass through `line`, which may change them: it is told the direction and gets each piece.
    #[must_use]
    pub fn port_through(
        &self,
        line: impl FnMut(Direction, &mut Vec<u8>) + Send + 'static,
    ) -> Box<dyn Port> {
        Box::new(DeskPort::new(self.clone(), line))
    }
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the station to the device.
    Down,
    /// From the device to the station.
    Up,
}

struct DeskPort<L> {
    device: OnDesk,
    line: L,
    now: Millis,
}

impl<L: FnMut(Direction, &mut Vec<u8>)> DeskPort<L> {
    fn new(device: OnDesk, line: L) -> Self {
        Self {
            device,
            line,
            now: 0,
        }
    }
}

impl<L: FnMut(Direction, &mut Vec<u8>) + Send> Port for DeskPort<L> {
    fn name(&self) -> &str {
        "desk"
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut carried = bytes.to_vec();
        (self.line)(Direction::Down, &mut carried);
        match self.device.lock().as_mut() {
            Some(device) => {
                device.receive(&carried, self.now);
                Ok(bytes.len())
            }
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn read(&mut self, bytes: &mut [u8], until: Millis) -> io::Result<usize> {
        let mut guard = self.device.lock();
        let Some(device) = guard.as_mut() else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        loop {
            let work = device.work(self.now);
            let waiting = device.transmit(self.now);
            let count = waiting.len().min(bytes.len());
            let mut carried = waiting[..count].to_vec();
            device.transmitted(count, self.now);
            if count > 0 {
                (self.line)(Direction::Up, &mut carried);
                let carried = &carried[..carried.len().min(bytes.len())];
                bytes[..carried.len()].copy_from_slice(carried);
                return Ok(carried.len());
            }
            if let Work::Idle(deadline) = work {
                if self.now >= until {
                    return Ok(0);
                }
                // Neither end has anything to do before.
                self.now = deadline.map_or(until, |deadline| deadline.clamp(self.now + 1, until));
            }
        }
    }

    fn now(&self) -> Millis {
        self.now
    }

    fn set_baud(&mut self, _baud: u32) -> io::Result<bool> {
        Ok(false)
    }
}

/// A port whose bytes pass through a line that may change them.
pub struct Tampered<L> {
    port: Box<dyn Port>,
    line: L,
}

impl<L: FnMut(Direction, &mut [u8]) + Send> Tampered<L> {
    /// Puts `line` before `port`.
    pub fn new(port: Box<dyn Port>, line: L) -> Self {
        Self { port, line }
    }
}

impl<L: FnMut(Direction, &mut [u8]) + Send> Port for Tampered<L> {
    fn name(&self) -> &str {
        self.port.name()
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut carried = bytes.to_vec();
        (self.line)(Direction::Down, &mut carried);
        // All of it: what the line has changed must not pass it twice.
        let mut sent = 0;
        while sent < carried.len() {
            sent += self.port.write(&carried[sent..])?;
        }
        Ok(bytes.len())
    }

    fn read(&mut self, bytes: &mut [u8], until: Millis) -> io::Result<usize> {
        let count = self.port.read(bytes, until)?;
        (self.line)(Direction::Up, &mut bytes[..count]);
        Ok(count)
    }

    fn now(&self) -> Millis {
        self.port.now()
    }

    fn set_baud(&mut self, baud: u32) -> io::Result<bool> {
        self.port.set_baud(baud)
    }
}
