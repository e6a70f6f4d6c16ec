//! The board as the firmware sees it.

use keyferry_firmware::Platform;
use keyferry_firmware::device::Millis;
use keyferry_firmware::keys::p256;
use keyferry_firmware::platform::{Description, RootKey, SourceFailed};
use keyferry_firmware::protocol::MAX_VENDOR_CERTIFICATE;
use keyferry_firmware::protocol::identity::{DeviceId, Signature};
use keyferry_firmware::protocol::receipt::{SourceClass, VOUCHER_LENGTH};
use keyferry_firmware::protocol::suite::UnwrapAlgorithm;
use keyferry_firmware::rng::Drbg;
use keyferry_firmware::wipe::Secret;

use crate::arguments::Arguments;
use crate::entropy::Entropy;
use crate::{Chip, Host};

/// A chip with what the emulator's command line says it is.
pub struct Board<C, H> {
    arguments: Arguments,
    entropy: Entropy,
    chip: C,
    host: H,
}

impl<C: Chip, H: Host> Board<C, H> {
    /// The board that these arguments describe.
    pub fn new(chip: C, host: H, arguments: Arguments) -> Self {
        Self {
            entropy: Entropy::new(arguments.entropy),
            arguments,
            chip,
            host,
        }
    }
}

impl<C: Chip, H: Host> Platform for Board<C, H> {
    #[cfg(not(feature = "flash-faults"))]
    type Flash = C::Flash;
    #[cfg(feature = "flash-faults")]
    type Flash = crate::faults::FaultyFlash<C::Flash, crate::semihosting::JournalFile>;

    #[cfg(not(feature = "flash-faults"))]
    fn take_flash(&mut self) -> C::Flash {
        self.chip.flash()
    }

    #[cfg(feature = "flash-faults")]
    fn take_flash(&mut self) -> Self::Flash {
        crate::faults::FaultyFlash::new(
            self.chip.flash(),
            crate::semihosting::JournalFile::open(self.arguments.journal()),
            self.arguments.stop(),
        )
    }

    fn device_id(&self) -> DeviceId {
        self.arguments.device_id
    }

    fn root_key(&mut self, key: &mut RootKey) -> Result<(), SourceFailed> {
        let path = self.arguments.fuse().ok_or(SourceFailed)?;
        self.host.read_whole(path, key.expose_mut())
    }

    fn entropy(&mut self, out: &mut [u8]) -> Result<(), SourceFailed> {
        self.entropy.fill(&mut self.host, out)
    }

    fn description(&self) -> Description {
        Description {
            board: C::NAME,
            firmware: env!("CARGO_PKG_VERSION"),
            development: true,
            rng: SourceClass::Test,
            root_key: SourceClass::Test,
        }
    }

    fn early_unwrap_key(&self) -> Option<UnwrapAlgorithm> {
        self.arguments.early
    }

    fn line_rates(&self) -> &'static [u32] {
        C::RATES
    }

    fn vendor_certificate<'a>(
        &mut self,
        room: &'a mut [u8; MAX_VENDOR_CERTIFICATE],
    ) -> Result<Option<&'a [u8]>, SourceFailed> {
        let path = match (
            self.arguments.vendor_certificate(),
            self.arguments.vendor_key(),
        ) {
            (Some(path), Some(_)) => path,
            (None, None) => return Ok(None),
            (Some(_), None) | (None, Some(_)) => return Err(SourceFailed),
        };
        let length = self.host.read_file(path, room)?;
        room.get(..length)
            .filter(|certificate| !certificate.is_empty())
            .map(Some)
            .ok_or(SourceFailed)
    }

    fn vendor_sign(
        &mut self,
        message: &[u8; VOUCHER_LENGTH],
        random: &mut Drbg,
    ) -> Result<Signature, SourceFailed> {
        let path = self.arguments.vendor_key().ok_or(SourceFailed)?;
        let mut key = Secret::<32>::zeroed();
        self.host.read_whole(path, key.expose_mut())?;
        p256::sign(key.expose(), message, random).map_err(|_| SourceFailed)
    }

    fn provisioning_strap(&mut self) -> bool {
        self.arguments.strap
    }

    fn feed_watchdog(&mut self) -> Option<Millis> {
        self.chip.feed_watchdog()
    }

    fn has_led(&self) -> bool {
        C::HAS_LED
    }

    fn light(&mut self, lit: bool) {
        #[cfg(target_os = "none")]
        if self.arguments.log_led {
            defmt::info!("LED {=bool}", lit);
        }
        self.chip.light(lit);
    }

    #[cfg(feature = "measure")]
    fn measure(&mut self, mark: keyferry_firmware::platform::Mark) {
        self.chip.measure(mark);
    }
}
