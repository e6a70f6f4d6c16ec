//! The login. It belongs to process and token and ends with the token's last session, so an anchor session holds it while any
//! connection to that token is open. Network HSMs drop connections and tokens forget logins: the PIN is kept as long as the
//! login, so that it can be renewed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use cryptoki::error::{Error, RvError};
use cryptoki::session::{Session, SessionState, UserType};
use cryptoki::slot::Slot;
use cryptoki_sys::CK_SESSION_HANDLE;
use secrecy::SecretString;

use super::failure;
use super::module::{Module, PinState, TokenInfo};
use crate::hsm::error::HsmError;
use crate::hsm::pin::Credentials;

/// One login to a token.
pub(super) struct Login {
    module: Arc<Module>,
    slot: Slot,
    token: TokenInfo,
    credentials: Credentials,
    state: Mutex<State>,
}

struct State {
    /// Never used for anything; it closes when the last connection is gone, which logs out.
    anchor: Session,
    /// Counts renewals. The names of objects are good for one login.
    epoch: u64,
    /// The first of the logins whose sessions were not all lost since: their numbers are still theirs.
    numbered: u64,
    /// Whether the token tells by a session's state that the process is logged in.
    telling: bool,
    /// Sessions that nobody uses at the moment.
    free: Vec<Session>,
    /// The token refused the PIN that it took before. It must not be sent again.
    refused: bool,
    /// The same of the PIN that single keys ask for.
    key_pin_refused: bool,
}

/// A session and the login it was opened under.
pub(super) struct Opened {
    pub(super) session: Session,
    pub(super) epoch: u64,
    pub(super) telling: bool,
}

/// The logins of this process, by module and slot.
static LOGINS: Mutex<BTreeMap<(PathBuf, u64), Weak<Login>>> = Mutex::new(BTreeMap::new());

impl Login {
    /// Logs in to the token, unless the process is logged in already.
    pub(super) fn of(
        module: &Arc<Module>,
        token: &TokenInfo,
        credentials: &Credentials,
    ) -> Result<Arc<Self>, HsmError> {
        let slot = Slot::try_from(token.slot).map_err(|error| failure(&error))?;
        let mut logins = LOGINS.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (module.path().to_path_buf(), token.slot);
        if let Some(login) = logins.get(&key).and_then(Weak::upgrade) {
            return Ok(login);
        }
        let (anchor, telling) = open_anchor(module, slot, token, credentials)?;
        let login = Arc::new(Self {
            module: Arc::clone(module),
            slot,
            token: token.clone(),
            credentials: credentials.clone(),
            state: Mutex::new(State {
                anchor,
                telling,
                epoch: 0,
                numbered: 0,
                free: Vec::new(),
                refused: false,
                key_pin_refused: false,
            }),
        });
        logins.insert(key, Arc::downgrade(&login));
        Ok(login)
    }

    pub(super) fn module(&self) -> &Module {
        &self.module
    }

    pub(super) fn slot(&self) -> Slot {
        self.slot
    }

    /// The PIN for keys that ask for one at each use: that of the login, unless there is another. Nothing if it is entered at the
    /// token.
    pub(super) fn key_pin(&self) -> Option<&SecretString> {
        let Credentials { key_pin, pin, .. } = &self.credentials;
        key_pin.as_ref().or(pin.as_ref())
    }

    pub(super) fn key_pin_refused(&self) -> bool {
        self.state().key_pin_refused
    }

    pub(super) fn refuse_key_pin(&self) {
        self.state().key_pin_refused = true;
    }

    /// How often the login was renewed.
    pub(super) fn epoch(&self) -> u64 {
        self.state().epoch
    }

    /// A session under this login: one that is free, or a new one.
    pub(super) fn session(&self) -> Result<Opened, HsmError> {
        let mut state = self.state();
        let telling = state.telling;
        while let Some(session) = state.free.pop() {
            if !is_lost(&session, telling) {
                return Ok(state.opened(session));
            }
        }
        let session = open_session(&self.module, self.slot, &self.token)?;
        Ok(state.opened(session))
    }

    /// A session in place of one that was lost and had this number, under a new login if that was lost too.
    ///
    /// The old one is closed before, because a server that starts anew gives out the same numbers again; and for the same reason only while
    /// its number is its own: once somebody was quicker, it may be his.
    pub(super) fn renew(&self, old: CK_SESSION_HANDLE, epoch: u64) -> Result<Opened, HsmError> {
        let mut state = self.state();
        if epoch >= state.numbered {
            self.module.close_session(old);
        }
        if is_lost(&state.anchor, state.telling) {
            self.renew_login(&mut state)?;
        }
        let session = open_session(&self.module, self.slot, &self.token)?;
        Ok(state.opened(session))
    }

    /// The error that says that the token is away, if it is: asked what it is, it does not answer.
    pub(super) fn is_gone(&self) -> Option<HsmError> {
        match self.module.token(self.slot) {
            Err(HsmError::Token { function, code }) => Some(HsmError::TokenGone {
                token: self.token.label.clone(),
                function,
                code,
            }),
            Ok(_) | Err(_) => None,
        }
    }

    fn renew_login(&self, state: &mut State) -> Result<(), HsmError> {
        if state.refused {
            return Err(HsmError::PinIncorrect {
                token: self.token.label.clone(),
                last_try: false,
            });
        }
        // The slot may hold another token by now, and that one must not get this PIN.
        let found = self
            .module
            .token(self.slot)
            .map_err(|error| gone(&self.token, error))?;
        if (&found.serial, &found.label) != (&self.token.serial, &self.token.label) {
            return Err(HsmError::TokenReplaced {
                token: self.token.label.clone(),
                found: found.label,
            });
        }
        // Not if the token has only forgotten the login.
        let numbers_are_gone = is_lost(&state.anchor, false);
        for session in state.free.drain(..) {
            close(&self.module, session);
        }
        self.module.close_session(state.anchor.handle());
        let (anchor, _) = open_anchor(&self.module, self.slot, &found, &self.credentials)
            .inspect_err(|error| {
                state.refused = matches!(
                    error,
                    HsmError::PinIncorrect { .. } | HsmError::PinLocked { .. }
                );
            })?;
        forget(std::mem::replace(&mut state.anchor, anchor));
        state.epoch += 1;
        if numbers_are_gone {
            state.numbered = state.epoch;
        }
        Ok(())
    }

    /// Takes a session back that is as good as new. One of an earlier login is long gone, and its number may by now be
    /// another session's.
    pub(super) fn give_back(&self, session: Session, epoch: u64, reusable: bool) {
        let mut state = self.state();
        if epoch != state.epoch {
            forget(session);
        } else if reusable {
            state.free.push(session);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn opened(&self, session: Session) -> Opened {
        Opened {
            session,
            epoch: self.epoch,
            telling: self.telling,
        }
    }
}

/// Opens a session and logs in. Also tells whether the token shows by a session's state that the process is logged in.
fn open_anchor(
    module: &Module,
    slot: Slot,
    token: &TokenInfo,
    credentials: &Credentials,
) -> Result<(Session, bool), HsmError> {
    let mut last_attempt = false;
    loop {
        let anchor = open_session(module, slot, token)?;
        let result = log_in(&anchor, module, token, credentials);
        let telling = is_user(&anchor);
        match result {
            Ok(()) if telling || last_attempt => return Ok((anchor, telling)),
            // Lost before the PIN was looked at, or right afterwards; or the token never tells.
            Ok(()) => close(module, anchor),
            Err(HsmError::Token { .. }) if !last_attempt && is_lost(&anchor, false) => {
                close(module, anchor);
            }
            Err(error) => return Err(error),
        }
        last_attempt = true;
    }
}

/// Whether a session is of no use any more: closed, or not logged in.
pub(super) fn is_lost(session: &Session, telling: bool) -> bool {
    match session.get_session_info() {
        Ok(_) => telling && !is_user(session),
        Err(Error::NullFunctionPointer | Error::Pkcs11(RvError::FunctionNotSupported, _)) => false,
        Err(_) => true,
    }
}

/// Whether the token says that a user is logged in.
fn is_user(session: &Session) -> bool {
    session.get_session_info().is_ok_and(|info| {
        matches!(
            info.session_state(),
            SessionState::RoUser | SessionState::RwUser
        )
    })
}

/// Closes a session by its number now, so that it is not closed later, when the number may be another session's.
pub(super) fn close(module: &Module, session: Session) {
    module.close_session(session.handle());
    forget(session);
}

/// Lets go of a session that is closed already, without closing whatever has its number now.
pub(super) fn forget(session: Session) {
    std::mem::forget(session);
}

/// Opens a session that may change the token, or else one that may not.
fn open_session(module: &Module, slot: Slot, token: &TokenInfo) -> Result<Session, HsmError> {
    match module.context().open_rw_session(slot) {
        Err(Error::Pkcs11(RvError::TokenWriteProtected, _)) => {
            module.context().open_ro_session(slot)
        }
        result => result,
    }
    .map_err(|error| match error {
        Error::Pkcs11(RvError::SessionCount, _) => HsmError::NoSession {
            token: token.label.clone(),
            limit: token.session_limit,
        },
        error => gone(token, failure(&error)),
    })
}

/// Says which token it is that is gone, if that is what an error is about.
fn gone(token: &TokenInfo, error: HsmError) -> HsmError {
    match error {
        HsmError::Token { function, code }
            if matches!(
                code.as_str(),
                "CKR_DEVICE_REMOVED"
                    | "CKR_TOKEN_NOT_PRESENT"
                    | "CKR_TOKEN_NOT_RECOGNIZED"
                    | "CKR_SLOT_ID_INVALID"
                    | "CKR_DEVICE_ERROR"
            ) =>
        {
            HsmError::TokenGone {
                token: token.label.clone(),
                function,
                code,
            }
        }
        other => other,
    }
}

fn log_in(
    session: &Session,
    module: &Module,
    token: &TokenInfo,
    credentials: &Credentials,
) -> Result<(), HsmError> {
    let label = token.label.clone();
    match token.pin {
        PinState::Locked => return Err(HsmError::PinLocked { token: label }),
        PinState::LastTry if !credentials.even_at_last_try => {
            return Err(HsmError::LastTry { token: label });
        }
        PinState::LastTry | PinState::Ready | PinState::NotSet | PinState::TriesUsed => {}
    }
    let pin: Option<&SecretString> = credentials.pin.as_ref();
    let Err(error) = session.login(UserType::User, pin) else {
        return Ok(());
    };
    let Error::Pkcs11(value, _) = &error else {
        return Err(failure(&error));
    };
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
        _ => Err(gone(token, failure(&error))),
    }
}
