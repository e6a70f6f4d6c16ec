//! A root key in a page of flash, for parts that have neither fuses nor a secure element: made at the first start from the entropy
//! source, and the same ever after.
//!
//! Such a key is as well protected as the page is, and no better: whoever reads the flash reads it. A board locks the page after the
//! key has been read, closes its debug port, and says [`SourceClass::Software`](keyferry_protocol::receipt::SourceClass::Software).
//!
//! The page holds lines of 32 bytes, each programmed once: the key, its complement, and marks, which are programmed when both are complete.
//! Power may fail at any word, and a word on which it failed may read differently at each start, so one mark is no proof of anything;
//! the key is given out only when three are complete. A mark on which power has failed is passed over.
//!
//! | key and complement | complete marks | |
//! | --- | --- | --- |
//! | fit | three or more | the key counts |
//! | fit | one or two | more are programmed; the key counts |
//! | fit | none | no key was ever given out: the page is erased, and a key made |
//! | do not fit | fewer than three | the same |
//! | do not fit | three or more | the flash is damaged: the source fails, and no other key takes its place |
//!
//! A key that was given out can be lost to power cuts only if three of them fall on marks at the first starts, and all three words read
//! complete once and incomplete later.

use embedded_storage::nor_flash::NorFlash;

use crate::platform::{RootKey, SourceFailed};
use crate::wipe::Secret;

/// Length of a line in bytes; a word of the flash must divide it.
const LINE: usize = 32;

/// What the marks hold. Words that no half-done programming or erasing gives.
const MARK: [u8; LINE] = *b"keyferry root key page complete.";

/// Where the lines are, from the page's beginning.
const KEY: u32 = 0;
const COMPLEMENT: u32 = LINE as u32;
const MARKS: u32 = 2 * LINE as u32;

/// Lines for marks.
const ROOM: u32 = 12;

/// Marks that make a key count.
const ENOUGH: u32 = 3;

/// Reads the root key from the first page of `flash`, or makes one there. `entropy` is asked only to make one.
///
/// # Errors
/// [`SourceFailed`] if the flash or the entropy source fails, or the page is damaged. `key` must then not be used.
pub fn load_or_make<F: NorFlash>(
    flash: &mut F,
    key: &mut RootKey,
    mut entropy: impl FnMut(&mut [u8]) -> Result<(), SourceFailed>,
) -> Result<(), SourceFailed> {
    const {
        assert!(
            LINE.is_multiple_of(F::WRITE_SIZE) && LINE.is_multiple_of(F::READ_SIZE),
            "a line is made of whole words"
        );
        assert!(
            F::ERASE_SIZE >= MARKS as usize + ROOM as usize * LINE,
            "the lines fit into a page"
        );
    }
    let mut line = Secret::<LINE>::zeroed();
    let mut complement = Secret::<LINE>::zeroed();
    let fit = read(flash, KEY, key).is_ok()
        && read(flash, COMPLEMENT, &mut complement).is_ok()
        && key
            .expose()
            .iter()
            .zip(complement.expose())
            .all(|(byte, complement)| *byte == !*complement);
    let mut complete = 0;
    for place in places() {
        // A word that cannot be read, for its error correction says so, is neither erased nor complete.
        complete += u32::from(read(flash, place, &mut line).is_ok() && *line.expose() == MARK);
    }
    match (fit, complete) {
        (true, ENOUGH..) => return Ok(()),
        (false, ENOUGH..) => return Err(SourceFailed),
        (true, 1..) => {}
        (true, 0) | (false, _) => {
            make(flash, key, &mut complement, &mut entropy)?;
            complete = 0;
        }
    }
    for place in places() {
        let erased = read(flash, place, &mut line).is_ok() && *line.expose() == [0xff; LINE];
        complete += u32::from(erased && write(flash, place, &MARK).is_ok());
        if complete >= ENOUGH {
            return Ok(());
        }
    }
    Err(SourceFailed)
}

/// Where marks may be.
fn places() -> impl Iterator<Item = u32> {
    (0..ROOM).map(|number| MARKS + number * LINE as u32)
}

/// Erases the page, and makes a key, without marks.
fn make<F: NorFlash>(
    flash: &mut F,
    key: &mut RootKey,
    complement: &mut RootKey,
    entropy: &mut impl FnMut(&mut [u8]) -> Result<(), SourceFailed>,
) -> Result<(), SourceFailed> {
    entropy(key.expose_mut())?;
    for (complement, byte) in complement.expose_mut().iter_mut().zip(key.expose()) {
        *complement = !*byte;
    }
    flash
        .erase(0, F::ERASE_SIZE as u32)
        .map_err(|_| SourceFailed)?;
    write(flash, KEY, key.expose())?;
    write(flash, COMPLEMENT, complement.expose())
}

fn read<F: NorFlash>(
    flash: &mut F,
    offset: u32,
    line: &mut Secret<LINE>,
) -> Result<(), SourceFailed> {
    flash
        .read(offset, line.expose_mut())
        .map_err(|_| SourceFailed)
}

/// Programs a line, and reads it back.
fn write<F: NorFlash>(flash: &mut F, offset: u32, line: &[u8; LINE]) -> Result<(), SourceFailed> {
    flash.write(offset, line).map_err(|_| SourceFailed)?;
    let mut back = Secret::zeroed();
    read(flash, offset, &mut back)?;
    if back.expose() == line {
        Ok(())
    } else {
        Err(SourceFailed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::nor_fake::{Cut, NorFake};

    type Flash = NorFake<4, 4096>;

    /// A start of the device: the key that it gets, if it gets one. Each start's entropy is different.
    fn start(flash: &mut Flash, entropy: &mut u8) -> Option<[u8; 32]> {
        let mut key = Secret::zeroed();
        let made = load_or_make(flash, &mut key, |out| {
            *entropy += 1;
            out.fill(*entropy);
            Ok(())
        });
        made.is_ok().then_some(*key.expose())
    }

    #[test]
    fn a_key_is_made_once_and_stays() {
        let (mut flash, mut entropy) = (Flash::new(1), 0);
        assert_eq!(start(&mut flash, &mut entropy), Some([1; 32]));
        for _ in 0..3 {
            assert_eq!(start(&mut flash, &mut entropy), Some([1; 32]));
        }
        assert_eq!(entropy, 1, "entropy is asked for once");
    }

    #[test]
    fn whenever_power_fails_a_key_that_was_given_out_stays_and_none_is_lost() {
        let mut cuts = 0;
        for cut in Cut::ALL {
            // Twice: the first cut in the first start, the second in any later one.
            for first in 0..42 {
                for second in (0..42).step_by(3) {
                    let (mut flash, mut entropy) = (Flash::new(1), 0);
                    let mut given = None;
                    for at in [first, second, first] {
                        flash.cut_after(at, cut);
                        let got = start(&mut flash, &mut entropy);
                        assert!(given.is_none() || got.is_none() || got == given);
                        given = given.or(got);
                        cuts += u32::from(got.is_none());
                        flash.power_on(u64::from(entropy) + first * 41 + second);
                    }
                    for _ in 0..4 {
                        let got = start(&mut flash, &mut entropy);
                        assert!(got.is_some(), "{cut:?} {first} {second}");
                        assert!(given.is_none() || got == given, "{cut:?} {first} {second}");
                        given = got;
                        flash.power_on(u64::from(entropy) + first * 41 + second);
                    }
                }
            }
        }
        assert!(cuts > 1_000, "{cuts}");
    }

    #[test]
    fn a_damaged_page_gives_no_key_and_no_other_takes_its_place() {
        let (mut flash, mut entropy) = (Flash::new(1), 0);
        start(&mut flash, &mut entropy);
        flash.corrupt(5, 0x40);
        for _ in 0..2 {
            assert_eq!(start(&mut flash, &mut entropy), None);
        }
        assert_eq!(entropy, 1);
    }

    #[test]
    fn without_entropy_there_is_no_key() {
        let mut flash = Flash::new(1);
        let mut key = Secret::zeroed();
        let made = load_or_make(&mut flash, &mut key, |_| Err(SourceFailed));
        assert_eq!(made, Err(SourceFailed));
        assert_eq!(start(&mut flash, &mut 6), Some([7; 32]));
    }
}
