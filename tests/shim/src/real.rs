//! The real module behind this one.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use cryptoki_sys::{
    CK_FUNCTION_LIST, CK_RV, CK_SESSION_HANDLE, CK_SLOT_ID, CKR_FUNCTION_FAILED, CKR_OK,
    CKR_SESSION_HANDLE_INVALID, Pkcs11,
};

use crate::faults::faults;

/// The real module's path.
const MODULE: &str = "KEYFERRY_SHIM_MODULE";

struct Real {
    list: CK_FUNCTION_LIST,
    /// Keeps the functions callable.
    _library: Pkcs11,
}

static REAL: OnceLock<Result<Real, String>> = OnceLock::new();

/// A session that is open.
struct Open {
    /// What the caller knows it by.
    number: CK_SESSION_HANDLE,
    /// What the real module knows it by.
    session: CK_SESSION_HANDLE,
    slot: CK_SLOT_ID,
}

static OPEN: Mutex<Vec<Open>> = Mutex::new(Vec::new());

fn open() -> MutexGuard<'static, Vec<Open>> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes note of a session that was opened, and says what the caller is to know it by.
pub(crate) fn opened(session: CK_SESSION_HANDLE, slot: CK_SLOT_ID) -> CK_SESSION_HANDLE {
    let mut open = open();
    let number = if faults().renumbers {
        let is_free = |number: &CK_SESSION_HANDLE| open.iter().all(|it| it.number != *number);
        (1..).find(is_free).unwrap_or(session)
    } else {
        session
    };
    open.push(Open {
        number,
        session,
        slot,
    });
    number
}

/// What the real module knows the session by.
pub(crate) fn session(number: CK_SESSION_HANDLE) -> Result<CK_SESSION_HANDLE, CK_RV> {
    if !faults().renumbers {
        return Ok(number);
    }
    let open = open();
    let found = open.iter().find(|it| it.number == number);
    found.map(|it| it.session).ok_or(CKR_SESSION_HANDLE_INVALID)
}

/// Takes note of a session that was closed.
pub(crate) fn closed(number: CK_SESSION_HANDLE) {
    open().retain(|it| it.number != number);
}

/// The real module's functions.
pub(crate) fn functions() -> Result<&'static CK_FUNCTION_LIST, CK_RV> {
    match REAL.get_or_init(load) {
        Ok(real) => Ok(&real.list),
        Err(reason) => {
            eprintln!("keyferry-shim: {MODULE}: {reason}");
            Err(CKR_FUNCTION_FAILED)
        }
    }
}

fn load() -> Result<Real, String> {
    let path = std::env::var_os(MODULE).ok_or("it is not set")?;
    // SAFETY: the test names a PKCS#11 module.
    let library = unsafe { Pkcs11::new(path) }.map_err(|error| error.to_string())?;
    let mut list = std::ptr::null_mut();
    let get = library
        .C_GetFunctionList
        .as_ref()
        .map_err(ToString::to_string)?;
    // SAFETY: C_GetFunctionList writes one pointer.
    let value = unsafe { get(&raw mut list) };
    if value != CKR_OK || list.is_null() {
        return Err(format!("C_GetFunctionList gave {value:#x}"));
    }
    Ok(Real {
        // SAFETY: the call succeeded, so the pointer names the module's list.
        list: unsafe { *list },
        _library: library,
    })
}

/// Closes every session, as the other end of a broken connection does.
pub(crate) fn close_all() {
    let sessions = std::mem::take(&mut *open());
    if let Ok(CK_FUNCTION_LIST {
        C_CloseAllSessions: Some(close),
        ..
    }) = functions()
    {
        for Open { slot, .. } in sessions {
            // SAFETY: a slot of the module.
            unsafe { close(slot) };
        }
    }
}

/// Logs out on every slot.
pub(crate) fn log_out() {
    let sessions = open();
    if let Ok(CK_FUNCTION_LIST {
        C_Logout: Some(log_out),
        ..
    }) = functions()
    {
        for Open { session, .. } in sessions.iter() {
            // SAFETY: a session of the module; where the token is logged out already, it says so.
            unsafe { log_out(*session) };
        }
    }
}

/// How many sessions are open.
pub(crate) fn open_sessions() -> usize {
    open().len()
}
