//! Signatures and MACs, called directly: a key with `CKA_ALWAYS_AUTHENTICATE` wants its PIN between `C_SignInit` and `C_Sign`, where the
//! safe wrapper leaves no room.

use cryptoki::context::Function;
use cryptoki::error::{Error, Rv, RvError};
use cryptoki::session::UserType;
use cryptoki_sys::{CK_BYTE, CK_MECHANISM};
use secrecy::SecretString;

use super::failure;
use super::objects::KeyHandle;
use super::operations::{SignMechanism, sign_mechanism, ulong};
use super::session::Connection;
use crate::hsm::error::HsmError;

/// Longest signature that is taken, in bytes: that of RSA-16384.
const MAXIMUM_SIGNATURE: usize = 2048;

/// How a token asks for the PIN of one key.
pub(in crate::hsm) enum KeyPin {
    /// The login is enough.
    NotAsked,
    /// Before each use (`CKA_ALWAYS_AUTHENTICATE`); the key's name, for an error.
    EachUse(String),
}

impl Connection {
    /// Signs, or makes a MAC, with a key that the login is enough for.
    pub(in crate::hsm) fn sign(
        &self,
        mechanism: SignMechanism,
        key: KeyHandle,
        data: &[u8],
    ) -> Result<Vec<u8>, HsmError> {
        self.sign_with_pin(mechanism, key, data, &KeyPin::NotAsked)
    }

    /// Signs, or makes a MAC.
    pub(in crate::hsm) fn sign_with_pin(
        &self,
        mechanism: SignMechanism,
        key: KeyHandle,
        data: &[u8],
        pin: &KeyPin,
    ) -> Result<Vec<u8>, HsmError> {
        let missing = || failure(&Error::NullFunctionPointer);
        let functions = self.module().functions();
        let sign_init = { functions.C_SignInit }.ok_or_else(missing)?;
        let sign = { functions.C_Sign }.ok_or_else(missing)?;
        let mechanism = sign_mechanism(mechanism);
        let mut ck_mechanism = CK_MECHANISM::from(&mechanism);
        let session = self.session().handle();
        // SAFETY: the function comes from the initialised module the session belongs to; the mechanism, which points into
        // `mechanism`, lives until the call returns.
        let value = unsafe { sign_init(session, &raw mut ck_mechanism, key.0.handle()) };
        Rv::from(value)
            .into_result(Function::SignInit)
            .map_err(|error| failure(&error))?;
        if let KeyPin::EachUse(label) = pin {
            self.authenticate_for(label)?;
        }
        let mut data = data.to_vec();
        let mut signature: Vec<CK_BYTE> = vec![0; MAXIMUM_SIGNATURE];
        let lengths = ulong(data.len()).and_then(|data| Ok((data, ulong(MAXIMUM_SIGNATURE)?)));
        let (data_length, mut length) = lengths.map_err(|error| failure(&error))?;
        // SAFETY: as above; `data` and `signature` have the lengths given, and the module writes at most `length` bytes
        // (PKCS#11 v3.1 §5.2).
        let value = unsafe {
            sign(
                session,
                data.as_mut_ptr(),
                data_length,
                signature.as_mut_ptr(),
                &raw mut length,
            )
        };
        Rv::from(value)
            .into_result(Function::Sign)
            .map_err(|error| failure(&error))?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > MAXIMUM_SIGNATURE {
            return Err(failure(&Error::InvalidValue));
        }
        signature.truncate(length);
        Ok(signature)
    }

    /// Gives the PIN for the operation that was just begun (`CKU_CONTEXT_SPECIFIC`, PKCS#11 v3.1 §5.6.8). One that was refused is
    /// not sent again.
    fn authenticate_for(&self, label: &str) -> Result<(), HsmError> {
        let refused = || HsmError::KeyPinIncorrect {
            label: label.into(),
        };
        let login = self.login();
        if login.key_pin_refused() {
            return Err(refused());
        }
        let pin: Option<&SecretString> = login.key_pin();
        match self.session().login(UserType::ContextSpecific, pin) {
            // NSS 3.87 keeps the attribute and asks for nothing.
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(()),
            Err(Error::Pkcs11(
                RvError::PinIncorrect
                | RvError::PinInvalid
                | RvError::PinLenRange
                | RvError::PinLocked,
                _,
            )) => {
                login.refuse_key_pin();
                Err(refused())
            }
            Err(error) => Err(failure(&error)),
        }
    }
}
