//! Where the blocks of PEM (RFC 7468) are in a file. Text around them is passed over, as certificates often have some.

/// What begins a block (RFC 7468 §2).
const BEGIN: &[u8] = b"-----BEGIN ";

/// The blocks in a file, each from its opening to its closing line; nothing for one that is not closed.
pub(crate) fn blocks(bytes: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    positions(bytes, BEGIN).map(|start| block(bytes.get(start..)?))
}

/// The block at the beginning of `bytes`. What follows the closing line is none of its.
fn block(bytes: &[u8]) -> Option<&[u8]> {
    const END: &[u8] = b"-----END ";
    const DASHES: &[u8] = b"-----";
    let end = positions(bytes, END).next()? + END.len();
    let close = end + positions(bytes.get(end..)?, DASHES).next()? + DASHES.len();
    bytes.get(..close)
}

/// Whether `wanted` stands anywhere in `bytes`.
pub(crate) fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    positions(bytes, wanted).next().is_some()
}

/// Where `wanted` stands in `bytes`.
fn positions<'b>(bytes: &'b [u8], wanted: &'b [u8]) -> impl Iterator<Item = usize> + 'b {
    bytes
        .windows(wanted.len())
        .enumerate()
        .filter(move |(_, window)| *window == wanted)
        .map(|(position, _)| position)
}
