//! EME-OAEP decoding (RFC 8017 §7.1.2 step 3), without branches on what is under the mask.

use sha2::Digest;
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};

/// An encoded message with its mask taken off: EM = 00 ‖ seed ‖ DB, where DB = lHash ‖ 00 … 00 ‖ 01 ‖ M.
pub(crate) struct Unmasked<'a> {
    first: u8,
    label_hash: &'a [u8],
    /// 00 … 00 ‖ 01 ‖ M.
    pub(crate) padded: &'a [u8],
}

impl Unmasked<'_> {
    /// Whether the first byte is right, and the label the empty one.
    pub(crate) fn begins_right<D: Digest>(&self) -> Choice {
        self.first.ct_eq(&0) & self.label_hash.ct_eq(D::digest([]).as_slice())
    }
}

/// Takes the masks off, in place. Nothing if `encoded` is too short for that, which no modulus allowed here is.
pub(crate) fn unmask<D: Digest>(encoded: &mut [u8]) -> Option<Unmasked<'_>> {
    let (first, masked) = encoded.split_first_mut()?;
    let (seed, data) = masked.split_at_mut_checked(<D as Digest>::output_size())?;
    mask::<D>(data, seed);
    mask::<D>(seed, data);
    let (label_hash, padded) = data.split_at_checked(<D as Digest>::output_size())?;
    Some(Unmasked {
        first: *first,
        label_hash,
        padded,
    })
}

/// The message, of whatever length, if the padding is right and `before` says so of what came before. That it is not is known at the end
/// alone.
pub(super) fn decode<D: Digest>(encoded: &mut [u8], before: Choice) -> Option<&[u8]> {
    let unmasked = unmask::<D>(encoded)?;
    let mut valid = before & unmasked.begins_right::<D>();
    let (mut in_filler, mut start) = (Choice::from(1), 0_u32);
    for (after, byte) in (1..).zip(unmasked.padded) {
        let (zero, separator) = (byte.ct_eq(&0), byte.ct_eq(&1));
        start = u32::conditional_select(&start, &after, in_filler & separator);
        valid &= !in_filler | zero | separator;
        in_filler &= zero;
    }
    valid &= !in_filler;
    let message = unmasked.padded.get(start as usize..)?;
    bool::from(valid).then_some(message)
}

/// Removes the mask MGF1 (RFC 8017 B.2.1) of `data` from `seed`, or of `seed` from `data`.
fn mask<D: Digest>(seed: &[u8], data: &mut [u8]) {
    for (counter, chunk) in (0_u32..).zip(data.chunks_mut(<D as Digest>::output_size())) {
        let mask = D::new()
            .chain_update(seed)
            .chain_update(counter.to_be_bytes())
            .finalize();
        for (byte, mask) in chunk.iter_mut().zip(mask) {
            *byte ^= mask;
        }
    }
}
