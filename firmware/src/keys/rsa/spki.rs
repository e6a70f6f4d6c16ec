//! The public key of an RSA key as `SubjectPublicKeyInfo` in DER (RFC 8017 A.1.1, RFC 3279 §2.3.1).

use zeroize::Zeroize as _;

use super::key::modulus;
use super::{InvalidKey, Parts};

/// Longest `SubjectPublicKeyInfo` in bytes: a 4096-bit modulus and an exponent of five bytes with its sign.
pub const SPKI_LENGTH_MAX: usize = 552;

/// `AlgorithmIdentifier { rsaEncryption, NULL }`.
pub(crate) const ALGORITHM: [u8; 15] = [
    0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00,
];

/// Bytes of a header with a length of two bytes: tag, 0x82, length.
const HEADER: usize = 4;

/// Writes the `SubjectPublicKeyInfo` of the key with these secret bytes, and gives its length: 294, 422 or 550 for the
/// exponent 65537.
///
/// # Errors
/// [`InvalidKey`] if the bytes are no RSA key or `out` is shorter than the structure.
pub fn public_spki(secret: &[u8], out: &mut [u8]) -> Result<usize, InvalidKey> {
    let parts = Parts::read(secret)?;
    let mut primes = parts.primes()?;
    let n = modulus(&primes[0], &primes[1]);
    primes.zeroize();
    // The top bit is set, so that the INTEGER needs a sign byte.
    let modulus = n?.to_be_bytes();
    let exponent = parts.e.to_be_bytes();
    let leading = exponent.iter().take_while(|byte| **byte == 0).count();
    let exponent = &exponent[leading..];
    let sign = exponent[0] >> 7;
    let exponent_length = exponent.len() + usize::from(sign);

    // Every length up to here is public, and from 256 to 65535, so that each header has the same form.
    let integer_n = 1 + modulus.len();
    let sequence = HEADER + integer_n + 2 + exponent_length;
    let bit_string = 1 + HEADER + sequence;
    let whole = ALGORITHM.len() + HEADER + bit_string;

    let total = HEADER + whole;
    let mut writer = Writer {
        out: out.get_mut(..total).ok_or(InvalidKey)?,
        at: 0,
    };
    writer.header(0x30, whole);
    writer.bytes(&ALGORITHM);
    writer.header(0x03, bit_string);
    writer.bytes(&[0]);
    writer.header(0x30, sequence);
    writer.header(0x02, integer_n);
    writer.bytes(&[0]);
    writer.bytes(&modulus);
    writer.bytes(&[0x02, exponent_length as u8]);
    writer.bytes(&[0][..usize::from(sign)]);
    writer.bytes(exponent);
    Ok(total)
}

/// Appends to a buffer that the caller has made exactly long enough.
struct Writer<'a> {
    out: &'a mut [u8],
    at: usize,
}

impl Writer<'_> {
    fn bytes(&mut self, bytes: &[u8]) {
        self.out[self.at..][..bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }

    fn header(&mut self, tag: u8, length: usize) {
        let [high, low] = (length as u16).to_be_bytes();
        self.bytes(&[tag, 0x82, high, low]);
    }
}
