//! What a board must offer. Everything else in this crate is portable.

use embedded_storage::nor_flash::NorFlash;
use keyferry_protocol::MAX_VENDOR_CERTIFICATE;
use keyferry_protocol::identity::{DeviceId, Fingerprint, Signature};
use keyferry_protocol::receipt::{SourceClass, VOUCHER_LENGTH};
use keyferry_protocol::suite::UnwrapAlgorithm;

use crate::device::Millis;
use crate::rng::Drbg;
use crate::wipe::Secret;

/// The key all stored keys are encrypted under, 32 bytes from fuses or the board.
pub type RootKey = Secret<32>;

/// A board, as the firmware sees it.
pub trait Platform {
    /// The flash area that belongs to the key store, and to nothing else. See [`crate::store`] for the sizes it needs.
    type Flash: NorFlash;

    /// Gives the flash area away; called once, at start.
    fn take_flash(&mut self) -> Self::Flash;

    /// The device's id, the same at every start.
    fn device_id(&self) -> DeviceId;

    /// Fills `key` with the root key, the same at every start.
    ///
    /// # Errors
    /// [`SourceFailed`] if the fuses cannot be read.
    fn root_key(&mut self, key: &mut RootKey) -> Result<(), SourceFailed>;

    /// Fills `out` from the entropy source.
    ///
    /// # Errors
    /// [`SourceFailed`] if the source reports an error or a failed health test. The firmware then refuses to go on.
    fn entropy(&mut self, out: &mut [u8]) -> Result<(), SourceFailed>;

    /// What this board and build are, for the signed statement.
    fn description(&self) -> Description;

    /// The authority compiled into a production image. `None` on development boards: the first `Enroll` pins one.
    fn pinned_authority(&self) -> Option<Fingerprint> {
        None
    }

    /// Whether a signed `Wipe` may destroy the device's keys and empty it. A board that must never lose its keys says no;
    /// the order is then refused with [`keyferry_protocol::receipt::Refusal::Unsupported`].
    fn allows_wipe(&self) -> bool {
        true
    }

    /// The unwrap key that a device without keys makes while nobody asks it for anything, so that its `Enroll` need not wait for it: the
    /// search for an RSA key takes a slow part up to a minute. `None`: a key is made when an `Enroll` asks for it.
    ///
    /// The search needs the heap that it needs in an `Enroll`, and [`crate::device::Device::work`] has no rest before it is over.
    fn early_unwrap_key(&self) -> Option<UnwrapAlgorithm> {
        None
    }

    /// The certificate of a key that was in the device before its enrolment, X.509 in DER, written to the front of `room`.
    /// `None` where there is no such key.
    ///
    /// # Errors
    /// [`SourceFailed`] if there is one and it cannot be read. The enrolment is then refused.
    fn vendor_certificate<'a>(
        &mut self,
        room: &'a mut [u8; MAX_VENDOR_CERTIFICATE],
    ) -> Result<Option<&'a [u8]>, SourceFailed> {
        let _ = room;
        Ok(None)
    }

    /// Signs a voucher with that key: ECDSA P-256 over SHA-256 of `message`. A secure element does it by itself; a board that
    /// has the key in memory may use [`crate::keys::p256::sign`], which `random` hedges. Asked only where there is a
    /// [`Self::vendor_certificate`].
    ///
    /// # Errors
    /// [`SourceFailed`] if the key cannot be used. The enrolment is then refused.
    fn vendor_sign(
        &mut self,
        message: &[u8; VOUCHER_LENGTH],
        random: &mut Drbg,
    ) -> Result<Signature, SourceFailed> {
        let _ = (message, random);
        Err(SourceFailed)
    }

    /// The line rates that the board can switch to, in baud, besides the base rate that it begins with: of those in
    /// [`keyferry_protocol::link::rates::ALL`]. A board that names some watches [`crate::device::Device::rate`].
    fn line_rates(&self) -> &'static [u32] {
        &[]
    }

    /// Whether the device may answer the line: a strap or a button that only the line's fixture sets. Read once, at start. A device
    /// that may not answer lets all bytes pass; it can be used by its application.
    fn provisioning_strap(&mut self) -> bool {
        true
    }

    /// Feeds the watchdog, where the board has one, and tells in how many milliseconds it must be fed again if it runs also while the
    /// board sleeps. Called before each bounded piece of work; the longest is one private-key operation of RSA or the test of one
    /// candidate in its key generation, see `cargo xtask bench firmware`.
    fn feed_watchdog(&mut self) -> Option<Millis> {
        None
    }

    /// Tells what the device is doing now, for boards that show more than one LED can. Called when it changes.
    fn show(&mut self, status: Status) {
        let _ = status;
    }

    /// Whether there is a status LED. The device then asks to be called when the LED is to change: see [`crate::led`].
    fn has_led(&self) -> bool {
        false
    }

    /// Switches the status LED.
    fn light(&mut self, lit: bool) {
        let _ = lit;
    }

    /// Where a board measures what work costs, its meter: see [`Stretch`]. Other boards do nothing, and the calls
    /// vanish.
    fn measure(&mut self, mark: Mark) {
        let _ = mark;
    }
}

/// The begin or the end of a stretch of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// It begins.
    Begins(Stretch),
    /// It ends.
    Ends(Stretch),
}

/// A stretch of work.
///
/// [`Self::Kek`] and [`Self::Key`] touch what an attacker would like to know: whether the KEK opened, and why a key did not. What they
/// cost must not depend on it; `cargo xtask bench leakage` measures. The others are for `cargo xtask bench firmware`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stretch {
    /// From the power-on to the device's readiness: the scan of the store, and the random generator.
    Boot,
    /// An order is decoded, and its signature and address are verified.
    Verify,
    /// From one feeding of the watchdog to the end of the work that follows.
    Fed,
    /// One step of an order under way. Those that follow are parts of it.
    Step,
    /// A step in the making of the unwrap key.
    Generate,
    /// The private-key operation on a KEK's blob, to the KEK: the right one or the one that stands in for it.
    Kek,
    /// The unwrapping of a key, until it has opened or not, and the device knows which.
    Key,
    /// A proof is made.
    Proof,
    /// A receipt is signed.
    Sign,
    /// An order's last words are written, and all of it is made durable.
    Store,
}

/// A source of randomness, the root key or the vendor key failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceFailed;

/// What a board and build are.
#[derive(Clone, Copy, Debug)]
pub struct Description {
    /// The board's name, at most 32 bytes.
    pub board: &'static str,
    /// The firmware's version, at most 32 bytes.
    pub firmware: &'static str,
    /// Whether this is a development image (pins whichever authority enrols it first).
    pub development: bool,
    /// Where the randomness comes from.
    pub rng: SourceClass,
    /// Where the root key comes from.
    pub root_key: SourceClass,
}

/// What the device is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Waiting for a station, or for what one that has greeted wants.
    Idle,
    /// An order is under way.
    Busy,
    /// The last order was applied, and there are keys. Until the next greeting.
    Done,
    /// The last order was refused, or the station has given the device up; until the next greeting. Or the device can do no order: its entropy
    /// source or root key failed.
    Failed,
    /// The key store is quarantined: see [`crate::store::Condition`].
    Quarantined,
    /// The provisioning strap is not set: no station gets an answer.
    Silent,
}
