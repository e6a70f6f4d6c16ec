//! Nordic's nRF52840 DK: its interrupts, clock and drivers. What it rests on, and what it does not protect, is in the package's
//! `README.md`.
//!
//! Built and linked, not run here: no such board was at hand.
#![no_std]

mod authority;
mod clock;
mod debug_port;
mod entropy;
mod interrupt;
mod nvmc;
mod pins;
mod uarte;
mod watchdog;

use defmt_rtt as _;
use keyferry_board::turn::{FRAME, RECEIVED, turn};
use keyferry_board::uart::Uart;
use keyferry_board::wire::Wire;
use keyferry_firmware::Platform;
use keyferry_firmware::device::{Device, Millis};
use keyferry_firmware::platform::{Description, RootKey, SourceFailed};
use keyferry_firmware::protocol::identity::{DeviceId, Fingerprint};
use keyferry_firmware::protocol::receipt::SourceClass;
use keyferry_firmware::protocol::suite::UnwrapAlgorithm;
use keyferry_firmware::root_page;
use nrf52840_pac::{ACL, FICR, Peripherals};

use crate::clock::Rtc;
use crate::entropy::Entropy;
use crate::nvmc::{Area, ROOT, STORE};
use crate::uarte::Uarte0;

/// The board.
struct Dk {
    id: DeviceId,
    entropy: Entropy,
    /// The page of the root key, until the key has been read.
    root: Option<Area>,
    acl: ACL,
    /// The debug port is closed to everybody, or not.
    closed: bool,
    strap: bool,
}

/// Switches everything on, and serves the line for ever.
pub fn run() -> ! {
    // SAFETY: nobody else has the peripherals: this is called once, first of all.
    let (mut core, chip) = unsafe { (cortex_m::Peripherals::steal(), Peripherals::steal()) };
    keyferry_board::guard::start(&mut core);
    watchdog::start(&chip.WDT);
    let closed = debug_port::settle(&chip.NVMC, &chip.UICR, &chip.FICR);
    #[cfg(feature = "rsa-suites")]
    keyferry_board::heap::start();
    clock::start(&chip.CLOCK, &chip.RTC1);
    let strap = pins::start(&chip.P0);
    uarte::connect(&chip.P0, &chip.PPI, &chip.TIMER1, &chip.UARTE0);
    let uart = Uart::<Uarte0>::start();
    interrupt::enable(&mut core);

    let board = Dk {
        id: device_id(&chip.FICR),
        entropy: Entropy::start(chip.RNG),
        root: Some(Area::new(ROOT)),
        acl: chip.ACL,
        closed,
        strap,
    };
    defmt::info!(
        "keyferry {=str} on {=str}, device {=[u8]:02x}, debug port closed: {=bool}",
        board.description().firmware,
        board.description().board,
        board.id.0,
        closed
    );
    let mut wire = Wire::<_, Rtc>::new(uart, |_| ());
    // On this stack, which is never left: a static cell would need room for the device twice while it moves there.
    let mut device: Device<_, RECEIVED, FRAME> = Device::new(board);
    let Ok(never) = turn(&mut wire, &mut device);
    match never {}
}

/// `nrf52840` and the chip's own number, FICR's `DEVICEID`, 8 bytes that the factory has drawn at random.
fn device_id(ficr: &FICR) -> DeviceId {
    let mut id = DeviceId(*b"nrf52840\0\0\0\0\0\0\0\0");
    let numbers = [
        ficr.deviceid[1].read().bits(),
        ficr.deviceid[0].read().bits(),
    ];
    let (words, _) = id.0[8..].as_chunks_mut();
    for (word, number) in words.iter_mut().zip(numbers) {
        *word = number.to_be_bytes();
    }
    id
}

impl Platform for Dk {
    type Flash = Area;

    fn take_flash(&mut self) -> Area {
        Area::new(STORE)
    }

    fn device_id(&self) -> DeviceId {
        self.id
    }

    fn root_key(&mut self, key: &mut RootKey) -> Result<(), SourceFailed> {
        // Once: then the page can no longer be read.
        let mut page = self.root.take().ok_or(SourceFailed)?;
        let result = root_page::load_or_make(&mut page, key, |out| self.entropy.fill(out));
        nvmc::lock(&self.acl, &ROOT);
        result
    }

    fn entropy(&mut self, out: &mut [u8]) -> Result<(), SourceFailed> {
        self.entropy.fill(out)
    }

    fn description(&self) -> Description {
        Description {
            board: "nrf52840-dk",
            firmware: env!("CARGO_PKG_VERSION"),
            development: authority::PINNED.is_none(),
            rng: SourceClass::Hardware,
            // A page of flash. With the debug port open anybody can read it.
            root_key: if self.closed {
                SourceClass::Software
            } else {
                SourceClass::Test
            },
        }
    }

    fn pinned_authority(&self) -> Option<Fingerprint> {
        authority::PINNED
    }

    fn early_unwrap_key(&self) -> Option<UnwrapAlgorithm> {
        // The search takes most of a minute here.
        cfg!(feature = "rsa-generation").then_some(UnwrapAlgorithm::Rsa2048)
    }

    fn line_rates(&self) -> &'static [u32] {
        uarte::RATES
    }

    fn provisioning_strap(&mut self) -> bool {
        self.strap
    }

    fn feed_watchdog(&mut self) -> Option<Millis> {
        Some(watchdog::feed())
    }

    fn has_led(&self) -> bool {
        true
    }

    fn light(&mut self, lit: bool) {
        pins::light(lit);
    }
}
