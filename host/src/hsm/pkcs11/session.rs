//! Sessions and the login. A login belongs to process and token and ends with the token's last session, so an anchor session
//! holds it while any connection to that token is open.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use cryptoki::error::{Error, RvError};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use secrecy::SecretString;

use super::failure;
use super::module::{Module, PinState, TokenInfo};
use crate::hsm::error::HsmError;

/// One login, and the session that keeps it.
struct Login {
    module: Arc<Module>,
    slot: Slot,
    /// Never used for anything; it closes when the last connection is gone, which logs out.
    _anchor: Mutex<Session>,
}

/// The logins of this process, by module and slot.
static LOGINS: Mutex<BTreeMap<(PathBuf, u64), Weak<Login>>> = Mutex::new(BTreeMap::new());

/// A session of its own with a token the process is logged in to. For one thread at a time; others get their own with
/// [`Connection::another`].
pub(in crate::hsm) struct Connection {
    login: Arc<Login>,
    session: Session,
}

impl Connection {
    /// Logs in to the token, unless the process is logged in already, and opens a session.
    pub(in crate::hsm) fn open(
        module: &Arc<Module>,
        token: &TokenInfo,
        pin: &SecretString,
    ) -> Result<Self, HsmError> {
        let slot = Slot::try_from(token.slot).map_err(|error| failure(&error))?;
        let mut logins = LOGINS.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (module.path().to_path_buf(), token.slot);
        let login = match logins.get(&key).and_then(Weak::upgrade) {
            Some(login) => login,
            None => {
                let anchor = open_session(module, slot)?;
                log_in(&anchor, module, token, pin)?;
                let login = Arc::new(Login {
                    module: Arc::clone(module),
                    slot,
                    _anchor: Mutex::new(anchor),
                });
                logins.insert(key, Arc::downgrade(&login));
                login
            }
        };
        let session = open_session(module, slot)?;
        Ok(Self { login, session })
    }

    /// Opens a further session under the same login.
    pub(in crate::hsm) fn another(&self) -> Result<Self, HsmError> {
        Ok(Self {
            login: Arc::clone(&self.login),
            session: open_session(&self.login.module, self.login.slot)?,
        })
    }

    pub(super) fn module(&self) -> &Module {
        &self.login.module
    }

    pub(super) fn slot(&self) -> Slot {
        self.login.slot
    }

    pub(super) fn session(&self) -> &Session {
        &self.session
    }
}

/// Opens a session that may change the token, or else one that may not.
fn open_session(module: &Module, slot: Slot) -> Result<Session, HsmError> {
    match module.context().open_rw_session(slot) {
        Err(Error::Pkcs11(RvError::TokenWriteProtected, _)) => {
            module.context().open_ro_session(slot)
        }
        result => result,
    }
    .map_err(|error| failure(&error))
}

fn log_in(
    session: &Session,
    module: &Module,
    token: &TokenInfo,
    pin: &SecretString,
) -> Result<(), HsmError> {
    let Err(error) = session.login(UserType::User, Some(pin)) else {
        return Ok(());
    };
    let Error::Pkcs11(value, _) = &error else {
        return Err(failure(&error));
    };
    let label = token.label.clone();
    match value {
        RvError::UserAlreadyLoggedIn => Ok(()),
        RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange => {
            // Asked again, because this wrong PIN may have used up the last try but one.
            let now = module.tokens().unwrap_or_default();
            let state = now
                .iter()
                .find(|other| other.slot == token.slot)
                .map_or(token.pin, |other| other.pin);
            Err(match state {
                PinState::Locked => HsmError::PinLocked { token: label },
                PinState::Ready | PinState::NotSet | PinState::TriesUsed | PinState::LastTry => {
                    HsmError::PinIncorrect {
                        token: label,
                        last_try: state == PinState::LastTry,
                    }
                }
            })
        }
        RvError::PinLocked => Err(HsmError::PinLocked { token: label }),
        RvError::UserPinNotInitialized => Err(HsmError::PinNotSet { token: label }),
        _ => Err(failure(&error)),
    }
}
