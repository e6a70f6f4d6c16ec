//! PKCS#11 modules: each is loaded and initialised once and kept for the process, as `C_Initialize` is per process.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Function, Pkcs11};
use cryptoki::error::{Error, Rv, RvError};
use cryptoki::slot::Slot;
use cryptoki_sys::{
    CK_EFFECTIVELY_INFINITE, CK_FUNCTION_LIST, CK_MECHANISM_INFO, CK_MECHANISM_TYPE,
    CK_SESSION_HANDLE, CK_TOKEN_INFO, CK_ULONG, CK_UNAVAILABLE_INFORMATION,
    CKF_PROTECTED_AUTHENTICATION_PATH, CKF_TOKEN_INITIALIZED, CKF_USER_PIN_COUNT_LOW,
    CKF_USER_PIN_FINAL_TRY, CKF_USER_PIN_INITIALIZED, CKF_USER_PIN_LOCKED, CKF_WRITE_PROTECTED,
};

use super::failure;
use crate::hsm::error::HsmError;

/// What is known about the user PIN of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinState {
    /// There is one, and nothing is wrong with it.
    Ready,
    /// There is none yet.
    NotSet,
    /// At least one wrong PIN was given since the last right one.
    TriesUsed,
    /// The next wrong PIN locks it.
    LastTry,
    /// Too many wrong PINs were given.
    Locked,
}

impl PinState {
    /// The name used in output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::NotSet => "not-set",
            Self::TriesUsed => "tries-used",
            Self::LastTry => "last-try",
            Self::Locked => "locked",
        }
    }
}

/// A token as its module describes it (`CK_TOKEN_INFO`).
#[derive(Clone, Debug)]
pub struct TokenInfo {
    /// Its label.
    pub label: String,
    /// Its serial number: with the module, what names it for certain.
    pub serial: String,
    /// Who made it.
    pub manufacturer: String,
    /// Its model.
    pub model: String,
    /// The slot it is in now. Slot numbers change; never name a token by one.
    pub slot: u64,
    /// Whether it has been initialised.
    pub initialized: bool,
    /// The state of the user PIN.
    pub pin: PinState,
    /// Whether the PIN is entered at the token itself (`CKF_PROTECTED_AUTHENTICATION_PATH`).
    pub pin_pad: bool,
    /// Whether nothing on it can be changed (`CKF_WRITE_PROTECTED`).
    pub write_protected: bool,
    /// How many sessions a process can have at once, where the token says so and there is a limit.
    pub session_limit: Option<usize>,
    /// How many sessions this process has open with it (`ulSessionCount`), where the token says so.
    pub sessions: Option<usize>,
}

/// A loaded and initialised module.
pub(in crate::hsm) struct Module {
    path: PathBuf,
    context: Pkcs11,
    functions: CK_FUNCTION_LIST,
    /// What it was initialised with.
    reserved: Option<String>,
    /// Keeps `functions` callable.
    _library: cryptoki_sys::Pkcs11,
}

/// Modules by path. They are never unloaded: other parts of the process may have open sessions.
static MODULES: Mutex<BTreeMap<PathBuf, Arc<Module>>> = Mutex::new(BTreeMap::new());

impl Module {
    /// Loads and initialises the module at `path`, or gives the one that is loaded already. A bare file name is looked up
    /// where the system looks for libraries. `reserved` goes to `C_Initialize` (`pReserved`, PKCS#11 v3.1 §5.4.1), once for the
    /// process.
    pub(in crate::hsm) fn load(path: &Path, reserved: Option<&str>) -> Result<Arc<Self>, HsmError> {
        // Never in the folder where the command happens to run: who can write there would get the PIN.
        let bare = path.components().count() == 1;
        let name = match path.canonicalize() {
            _ if bare => path.to_path_buf(),
            Ok(found) => found,
            Err(_) => {
                return Err(HsmError::ModuleNotFound { path: path.into() });
            }
        };
        let mut modules = MODULES.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(module) = modules.get(&name) {
            return match reserved {
                Some(_) if module.reserved.as_deref() != reserved => {
                    Err(HsmError::ModuleInitialized { path: path.into() })
                }
                Some(_) | None => Ok(Arc::clone(module)),
            };
        }
        let module = Arc::new(Self::initialize(&name, reserved).map_err(|reason| {
            HsmError::ModuleNotLoadable {
                path: path.into(),
                reason,
            }
        })?);
        modules.insert(name, Arc::clone(&module));
        Ok(module)
    }

    fn initialize(path: &Path, reserved: Option<&str>) -> Result<Self, String> {
        let context = Pkcs11::new(path).map_err(|error| match error {
            Error::LibraryLoading(reason) => reason.to_string(),
            Error::MissingSymbol(name) => format!("it has no {name}"),
            other => failure(&other).to_string(),
        })?;
        // SAFETY: `path` was just loaded as a PKCS#11 module; loading it again gives the same library.
        let library =
            unsafe { cryptoki_sys::Pkcs11::new(path) }.map_err(|reason| reason.to_string())?;
        let get_list = library
            .C_GetFunctionList
            .as_ref()
            .map_err(|_| "it has no C_GetFunctionList".to_owned())?;
        let mut list = std::ptr::null_mut();
        // SAFETY: C_GetFunctionList writes one pointer, and may be called before C_Initialize (PKCS#11 v3.1 §5.4.4).
        let value = unsafe { get_list(&raw mut list) };
        Rv::from(value)
            .into_result(Function::GetFunctionList)
            .map_err(|error| failure(&error).to_string())?;
        if list.is_null() {
            return Err("C_GetFunctionList gave nothing".into());
        }
        // SAFETY: the pointer is not null and C_GetFunctionList succeeded, so it names the module's list, which lives as
        // long as the library.
        let functions = unsafe { *list };
        let string = reserved
            .map(CString::new)
            .transpose()
            .map_err(|_| "init-reserved has a zero byte".to_owned())?;
        let flags = CInitializeFlags::OS_LOCKING_OK;
        let arguments = match &string {
            // SAFETY: the module reads a zero-terminated string during C_Initialize; it lives until the end of this function.
            Some(string) => unsafe {
                CInitializeArgs::new_with_reserved(flags, NonNull::from(string.as_c_str()).cast())
            },
            None => CInitializeArgs::new(flags),
        };
        match context.initialize(arguments) {
            Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => Ok(Self {
                path: path.into(),
                context,
                functions,
                reserved: reserved.map(str::to_owned),
                _library: library,
            }),
            Err(error) => Err(failure(&error).to_string()),
        }
    }

    /// The path the module was loaded from.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn context(&self) -> &Pkcs11 {
        &self.context
    }

    /// The module's functions, for those few that are called directly.
    pub(super) fn functions(&self) -> &CK_FUNCTION_LIST {
        &self.functions
    }

    /// The tokens of this module, initialised or not.
    pub(in crate::hsm) fn tokens(&self) -> Result<Vec<TokenInfo>, HsmError> {
        let slots = self
            .context
            .get_slots_with_token()
            .map_err(|error| failure(&error))?;
        slots.into_iter().map(|slot| self.token(slot)).collect()
    }

    /// Describes the token in a slot.
    pub(super) fn token(&self, slot: Slot) -> Result<TokenInfo, HsmError> {
        let mut info = CK_TOKEN_INFO::default();
        let missing = || failure(&Error::NullFunctionPointer);
        let get = { self.functions.C_GetTokenInfo }.ok_or_else(missing)?;
        // SAFETY: the function comes from the initialised module, and writes one CK_TOKEN_INFO.
        let value = unsafe { get(slot.into(), &raw mut info) };
        Rv::from(value)
            .into_result(Function::GetTokenInfo)
            .map_err(|error| failure(&error))?;
        let text = |bytes: &[u8]| {
            String::from_utf8_lossy(bytes)
                .trim_end_matches([' ', '\0'])
                .to_owned()
        };
        let flags = info.flags;
        let pin = if flags & CKF_USER_PIN_LOCKED != 0 {
            PinState::Locked
        } else if flags & CKF_USER_PIN_FINAL_TRY != 0 {
            PinState::LastTry
        } else if flags & CKF_USER_PIN_COUNT_LOW != 0 {
            PinState::TriesUsed
        } else if flags & CKF_USER_PIN_INITIALIZED == 0 {
            PinState::NotSet
        } else {
            PinState::Ready
        };
        Ok(TokenInfo {
            label: text(&info.label),
            serial: text(&info.serialNumber),
            manufacturer: text(&info.manufacturerID),
            model: text(&info.model),
            slot: slot.id(),
            initialized: flags & CKF_TOKEN_INITIALIZED != 0,
            pin,
            pin_pad: flags & CKF_PROTECTED_AUTHENTICATION_PATH != 0,
            write_protected: flags & CKF_WRITE_PROTECTED != 0,
            session_limit: number(info.ulMaxSessionCount)
                .filter(|_| info.ulMaxSessionCount != CK_EFFECTIVELY_INFINITE),
            sessions: number(info.ulSessionCount),
        })
    }

    /// Closes a session by its number. One that is closed already is just as well.
    pub(super) fn close_session(&self, session: CK_SESSION_HANDLE) {
        if let Some(close) = { self.functions.C_CloseSession } {
            // SAFETY: the function comes from the initialised module, and takes a number that it checks (PKCS#11 v3.1 §5.6.2).
            let _ = unsafe { close(session) };
        }
    }

    /// What the token in this slot says about a mechanism, if it knows the id. An id that is listed proves nothing; one that is
    /// not listed need not be tried.
    pub(super) fn mechanism(
        &self,
        slot: Slot,
        mechanism: CK_MECHANISM_TYPE,
    ) -> Option<CK_MECHANISM_INFO> {
        let mut info = CK_MECHANISM_INFO::default();
        let get = { self.functions.C_GetMechanismInfo }?;
        // SAFETY: the function comes from the initialised module, and writes one CK_MECHANISM_INFO.
        let value = unsafe { get(slot.into(), mechanism, &raw mut info) };
        (Rv::from(value) == Rv::Ok).then_some(info)
    }
}

/// A number in the description of a token, if it says one.
fn number(value: CK_ULONG) -> Option<usize> {
    let known = value != CK_UNAVAILABLE_INFORMATION;
    usize::try_from(value).ok().filter(|_| known)
}
