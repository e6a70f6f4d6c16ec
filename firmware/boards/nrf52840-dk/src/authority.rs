//! The authority that a product image obeys: the fingerprint in the environment variable `KEYFERRY_AUTHORITY` at its build, 64
//! hexadecimal digits, as `keyferry key public --label …` and `keyferry key list` name it. Without it the image is one for
//! development, and the first enrolment pins an authority.

use keyferry_firmware::protocol::identity::Fingerprint;

/// The authority, if the image has one.
pub(crate) const PINNED: Option<Fingerprint> = match option_env!("KEYFERRY_AUTHORITY") {
    None => None,
    Some(digits) => Some(Fingerprint(parse(digits.as_bytes()))),
};

/// Reads 64 hexadecimal digits; anything else does not compile.
const fn parse(digits: &[u8]) -> [u8; 32] {
    assert!(
        digits.len() == 64,
        "KEYFERRY_AUTHORITY has 64 hexadecimal digits"
    );
    let mut bytes = [0; 32];
    let mut index = 0;
    while index < bytes.len() {
        bytes[index] = digit(digits[2 * index]) << 4 | digit(digits[2 * index + 1]);
        index += 1;
    }
    bytes
}

const fn digit(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        b'A'..=b'F' => digit - b'A' + 10,
        _ => panic!("KEYFERRY_AUTHORITY has hexadecimal digits only"),
    }
}
