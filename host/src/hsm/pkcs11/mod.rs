//! The one place that speaks PKCS#11: its only business is to turn what the token's intent-level interface asks into calls.
//!
//! Nothing outside this folder imports `cryptoki` or `cryptoki-sys`, and nothing here decides what a key may be used for.
//! Four functions are called directly, because the safe wrapper around them is wrong for real tokens: `C_WrapKey` (it is
//! called twice there, and the second length is not looked at), `C_UnwrapKey` and `C_GetMechanismInfo` (ids unknown to the wrapper are
//! dropped) and `C_GetTokenInfo` (numbers that do not parse fail the whole call).

#![allow(
    unsafe_code,
    reason = "a few functions of the module are called directly, and its configuration is passed as a C string"
)]

mod login;
mod module;
mod objects;
mod operations;
mod session;
mod signing;
mod trying;
mod unwrapping;

pub use module::{PinState, TokenInfo};
pub use trying::Versions;

pub(super) use module::Module;
pub(super) use objects::{KeyHandle, Object, Query};
pub(super) use operations::{
    CipherMechanism, Direction, EcdhDerivation, SessionObject, SignMechanism, WrapMechanism,
    WrapOutcome,
};
pub(super) use session::Connection;
pub(super) use signing::KeyPin;
pub(super) use unwrapping::Incoming;

use cryptoki::error::Error;

use super::error::HsmError;

/// Names the function that failed and its return value, in the specification's own words and nothing more.
fn failure(error: &Error) -> HsmError {
    match error {
        Error::Pkcs11(value, function) => HsmError::Token {
            function: format!("C_{function:?}"),
            code: return_value_name(&format!("{value:?}")),
        },
        Error::NullFunctionPointer => HsmError::Token {
            function: "a function of the module".into(),
            code: "it is missing".into(),
        },
        Error::LibraryLoading(_)
        | Error::NotSupported
        | Error::TryFromInt(_)
        | Error::TryFromSlice(_)
        | Error::ParseInt(_)
        | Error::Utf8(_)
        | Error::NulError(_)
        | Error::MissingSymbol(_)
        | Error::InvalidValue
        | Error::PinNotSet => HsmError::Token {
            function: "a function of the module".into(),
            code: "its output is malformed".into(),
        },
    }
}

/// `PinIncorrect` becomes `CKR_PIN_INCORRECT`; the value of a vendor's own code stays behind its name.
fn return_value_name(variant: &str) -> String {
    let (name, value) = variant.split_at(variant.find('(').unwrap_or(variant.len()));
    let mut text = String::from("CKR");
    for letter in name.chars() {
        if letter.is_uppercase() {
            text.push('_');
        }
        text.push(letter.to_ascii_uppercase());
    }
    text + value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn return_values_get_their_names_of_the_specification() {
        assert_eq!(return_value_name("PinIncorrect"), "CKR_PIN_INCORRECT");
        assert_eq!(
            return_value_name("VendorDefined(2147483649)"),
            "CKR_VENDOR_DEFINED(2147483649)"
        );
    }
}
