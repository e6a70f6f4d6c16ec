//! A PKCS#11 module that stands in front of a real one and fails on request: sessions that die, a token that is pulled, a PIN
//! about to lock. Whatever it does not spoil, the real module does. `faults` says how to ask.

#![allow(
    unsafe_code,
    non_snake_case,
    clippy::too_many_arguments,
    reason = "it speaks PKCS#11's own interface"
)]

mod faults;
mod real;

use std::ffi::c_void;
use std::sync::OnceLock;

use cryptoki_sys::*;

use faults::{before, before_mechanism, faults, is_locked, is_removed, is_replaced, note_pin};
use real::{functions, open_sessions};

/// The module's door (PKCS#11 v3.1 §5.4.4).
///
/// # Safety
/// `list` must be a place for one pointer, or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetFunctionList(list: *mut *mut CK_FUNCTION_LIST) -> CK_RV {
    static LIST: OnceLock<CK_FUNCTION_LIST> = OnceLock::new();
    let real = match functions() {
        Ok(real) => real,
        Err(value) => return value,
    };
    if list.is_null() {
        return CKR_ARGUMENTS_BAD;
    }
    let own = LIST.get_or_init(|| {
        let mut own = *real;
        own.C_GetFunctionList = Some(C_GetFunctionList);
        forwarded(&mut own);
        own.C_GetSlotList = Some(C_GetSlotList);
        own.C_GetTokenInfo = Some(C_GetTokenInfo);
        own.C_GetMechanismInfo = Some(C_GetMechanismInfo);
        own.C_OpenSession = Some(C_OpenSession);
        own.C_CloseSession = Some(C_CloseSession);
        own.C_Login = Some(C_Login);
        if faults().unwraps_another {
            own.C_UnwrapKey = Some(unwraps_another);
        }
        if faults().verifies_no_mac {
            own.C_Verify = Some(verifies_no_mac);
        }
        own
    });
    // SAFETY: the caller gives a place for one pointer. Nobody may write through it (PKCS#11 v3.1 §3.6).
    unsafe { *list = std::ptr::from_ref(own).cast_mut() };
    CKR_OK
}

/// Calls the real function.
macro_rules! call {
    ($name:ident($($argument:expr),*)) => {
        match functions() {
            // SAFETY: the arguments are the caller's own, or as good.
            Ok(CK_FUNCTION_LIST { $name: Some(function), .. }) => unsafe { function($($argument),*) },
            Ok(_) => CKR_FUNCTION_NOT_SUPPORTED,
            Err(value) => value,
        }
    };
}

/// Functions that are counted, and then done by the real module.
macro_rules! forward {
    ($($name:ident($session:ident: CK_SESSION_HANDLE $(; $mechanism:ident)? $(, $argument:ident: $type:ty)*);)+) => {
        $(
            unsafe extern "C" fn $name(
                $session: CK_SESSION_HANDLE
                $(, $mechanism: *mut CK_MECHANISM)?
                $(, $argument: $type)*
            ) -> CK_RV {
                let _calling = match forward!(@before $name $($mechanism)?) {
                    Ok(calling) => calling,
                    Err(value) => return value,
                };
                let $session = match real::session($session) {
                    Ok(session) => session,
                    Err(value) => return value,
                };
                call!($name($session $(, $mechanism)? $(, $argument)*))
            }
        )+

        fn forwarded(list: &mut CK_FUNCTION_LIST) {
            $(list.$name = Some($name);)+
        }
    };
    (@before $name:ident) => { before(stringify!($name)) };
    (@before $name:ident $mechanism:ident) => {
        // SAFETY: the caller gives a mechanism or nothing.
        match unsafe { $mechanism.as_ref() } {
            Some(mechanism) => before_mechanism(stringify!($name), mechanism.mechanism),
            None => before(stringify!($name)),
        }
    };
}

forward! {
    C_GetSessionInfo(session: CK_SESSION_HANDLE, info: *mut CK_SESSION_INFO);
    C_Logout(session: CK_SESSION_HANDLE);
    C_CreateObject(session: CK_SESSION_HANDLE, template: *mut CK_ATTRIBUTE, count: CK_ULONG, object: *mut CK_OBJECT_HANDLE);
    C_DestroyObject(session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE);
    C_GetAttributeValue(session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE, template: *mut CK_ATTRIBUTE, count: CK_ULONG);
    C_SetAttributeValue(session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE, template: *mut CK_ATTRIBUTE, count: CK_ULONG);
    C_FindObjectsInit(session: CK_SESSION_HANDLE, template: *mut CK_ATTRIBUTE, count: CK_ULONG);
    C_FindObjects(session: CK_SESSION_HANDLE, objects: *mut CK_OBJECT_HANDLE, limit: CK_ULONG, count: *mut CK_ULONG);
    C_FindObjectsFinal(session: CK_SESSION_HANDLE);
    C_EncryptInit(session: CK_SESSION_HANDLE; mechanism, key: CK_OBJECT_HANDLE);
    C_Encrypt(session: CK_SESSION_HANDLE, input: *mut CK_BYTE, length: CK_ULONG, output: *mut CK_BYTE, size: *mut CK_ULONG);
    C_DecryptInit(session: CK_SESSION_HANDLE; mechanism, key: CK_OBJECT_HANDLE);
    C_Decrypt(session: CK_SESSION_HANDLE, input: *mut CK_BYTE, length: CK_ULONG, output: *mut CK_BYTE, size: *mut CK_ULONG);
    C_SignInit(session: CK_SESSION_HANDLE; mechanism, key: CK_OBJECT_HANDLE);
    C_Sign(session: CK_SESSION_HANDLE, input: *mut CK_BYTE, length: CK_ULONG, output: *mut CK_BYTE, size: *mut CK_ULONG);
    C_VerifyInit(session: CK_SESSION_HANDLE; mechanism, key: CK_OBJECT_HANDLE);
    C_Verify(session: CK_SESSION_HANDLE, input: *mut CK_BYTE, length: CK_ULONG, signature: *mut CK_BYTE, size: CK_ULONG);
    C_GenerateKey(session: CK_SESSION_HANDLE; mechanism, template: *mut CK_ATTRIBUTE, count: CK_ULONG, key: *mut CK_OBJECT_HANDLE);
    C_GenerateKeyPair(session: CK_SESSION_HANDLE; mechanism, public: *mut CK_ATTRIBUTE, public_count: CK_ULONG, private: *mut CK_ATTRIBUTE, private_count: CK_ULONG, public_key: *mut CK_OBJECT_HANDLE, private_key: *mut CK_OBJECT_HANDLE);
    C_WrapKey(session: CK_SESSION_HANDLE; mechanism, wrapping: CK_OBJECT_HANDLE, key: CK_OBJECT_HANDLE, output: *mut CK_BYTE, size: *mut CK_ULONG);
    C_UnwrapKey(session: CK_SESSION_HANDLE; mechanism, unwrapping: CK_OBJECT_HANDLE, input: *mut CK_BYTE, length: CK_ULONG, template: *mut CK_ATTRIBUTE, count: CK_ULONG, key: *mut CK_OBJECT_HANDLE);
    C_DeriveKey(session: CK_SESSION_HANDLE; mechanism, base: CK_OBJECT_HANDLE, template: *mut CK_ATTRIBUTE, count: CK_ULONG, key: *mut CK_OBJECT_HANDLE);
}

/// Says of everything as short as a CMAC (AES's block, 16 bytes) that it is wrong.
unsafe extern "C" fn verifies_no_mac(
    session: CK_SESSION_HANDLE,
    input: *mut CK_BYTE,
    length: CK_ULONG,
    signature: *mut CK_BYTE,
    size: CK_ULONG,
) -> CK_RV {
    // SAFETY: these are the caller's own.
    match unsafe { C_Verify(session, input, length, signature, size) } {
        CKR_OK if size == 16 => CKR_SIGNATURE_INVALID,
        value => value,
    }
}

/// Makes a new P-256 key where one was to be unwrapped; unwraps everything else.
unsafe extern "C" fn unwraps_another(
    session: CK_SESSION_HANDLE,
    mechanism: *mut CK_MECHANISM,
    unwrapping: CK_OBJECT_HANDLE,
    input: *mut CK_BYTE,
    length: CK_ULONG,
    template: *mut CK_ATTRIBUTE,
    count: CK_ULONG,
    key: *mut CK_OBJECT_HANDLE,
) -> CK_RV {
    // SAFETY: the caller gives `count` attributes, each with as many bytes as it says.
    let is_private = unsafe { std::slice::from_raw_parts(template, count as usize) }
        .iter()
        .any(|one| {
            one.type_ == CKA_CLASS
                // SAFETY: CKA_CLASS is a CK_ULONG (PKCS#11 v3.1 §4.2).
                && unsafe { *one.pValue.cast::<CK_ULONG>() } == CKO_PRIVATE_KEY
        });
    let session = match real::session(session) {
        Ok(session) => session,
        Err(value) => return value,
    };
    if !is_private {
        return call!(C_UnwrapKey(
            session, mechanism, unwrapping, input, length, template, count, key
        ));
    }
    let mut curve = [
        0x06_u8, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07,
    ];
    let mut on_token: CK_BBOOL = CK_FALSE;
    let mut public = [
        CK_ATTRIBUTE {
            type_: CKA_EC_PARAMS,
            pValue: curve.as_mut_ptr().cast(),
            ulValueLen: curve.len() as CK_ULONG,
        },
        CK_ATTRIBUTE {
            type_: CKA_TOKEN,
            pValue: (&raw mut on_token).cast(),
            ulValueLen: 1,
        },
    ];
    let mut generate = CK_MECHANISM {
        mechanism: CKM_EC_KEY_PAIR_GEN,
        pParameter: std::ptr::null_mut(),
        ulParameterLen: 0,
    };
    let mut public_key: CK_OBJECT_HANDLE = 0;
    call!(C_GenerateKeyPair(
        session,
        &raw mut generate,
        public.as_mut_ptr(),
        public.len() as CK_ULONG,
        template,
        count,
        &raw mut public_key,
        key
    ))
}

unsafe extern "C" fn C_GetSlotList(
    with_token: CK_BBOOL,
    slots: *mut CK_SLOT_ID,
    count: *mut CK_ULONG,
) -> CK_RV {
    let value = call!(C_GetSlotList(with_token, slots, count));
    // SAFETY: the caller gives a place for the number, or nothing.
    if let (true, Some(count)) = (is_removed() && with_token != 0, unsafe { count.as_mut() }) {
        *count = 0;
    }
    value
}

unsafe extern "C" fn C_GetTokenInfo(slot: CK_SLOT_ID, info: *mut CK_TOKEN_INFO) -> CK_RV {
    if is_removed() {
        return CKR_TOKEN_NOT_PRESENT;
    }
    let value = call!(C_GetTokenInfo(slot, info));
    // SAFETY: the caller gives a place for the answer, or nothing.
    if let (CKR_OK, Some(info)) = (value, unsafe { info.as_mut() }) {
        info.flags |= faults().flags();
        if is_replaced() {
            info.label = [b' '; 32];
            info.label[..5].copy_from_slice(b"other");
            info.serialNumber = *b"another one     ";
        }
        if let Some(limit) = faults().sessions {
            info.ulMaxSessionCount = limit as CK_ULONG;
        }
    }
    value
}

unsafe extern "C" fn C_GetMechanismInfo(
    slot: CK_SLOT_ID,
    mechanism: CK_MECHANISM_TYPE,
    info: *mut CK_MECHANISM_INFO,
) -> CK_RV {
    if is_removed() {
        CKR_TOKEN_NOT_PRESENT
    } else if faults().lacks(mechanism) {
        CKR_MECHANISM_INVALID
    } else {
        call!(C_GetMechanismInfo(slot, mechanism, info))
    }
}

unsafe extern "C" fn C_OpenSession(
    slot: CK_SLOT_ID,
    flags: CK_FLAGS,
    application: *mut c_void,
    notify: CK_NOTIFY,
    session: *mut CK_SESSION_HANDLE,
) -> CK_RV {
    let Ok(_calling) = before("C_OpenSession") else {
        return CKR_TOKEN_NOT_PRESENT;
    };
    if faults()
        .sessions
        .is_some_and(|limit| open_sessions() >= limit)
    {
        return CKR_SESSION_COUNT;
    }
    if faults().write_protected && flags & CKF_RW_SESSION != 0 {
        return CKR_TOKEN_WRITE_PROTECTED;
    }
    let value = call!(C_OpenSession(slot, flags, application, notify, session));
    // SAFETY: the caller gives a place for the answer, or nothing.
    if let (CKR_OK, Some(session)) = (value, unsafe { session.as_mut() }) {
        *session = real::opened(*session, slot);
    }
    value
}

unsafe extern "C" fn C_CloseSession(session: CK_SESSION_HANDLE) -> CK_RV {
    let _calling = match before("C_CloseSession") {
        Ok(calling) => calling,
        Err(value) => return value,
    };
    let value = match real::session(session) {
        Ok(session) => call!(C_CloseSession(session)),
        Err(value) => value,
    };
    if value == CKR_OK {
        real::closed(session);
    }
    value
}

unsafe extern "C" fn C_Login(
    session: CK_SESSION_HANDLE,
    user: CK_USER_TYPE,
    pin: *mut CK_UTF8CHAR,
    length: CK_ULONG,
) -> CK_RV {
    let _calling = match before("C_Login") {
        Ok(calling) => calling,
        Err(value) => return value,
    };
    if is_locked() {
        return CKR_PIN_LOCKED;
    }
    let mut typed;
    let (pin, length) = if faults().pin_pad {
        if !pin.is_null() {
            // Nobody may send a PIN past the pad.
            return CKR_ARGUMENTS_BAD;
        }
        typed = std::env::var("KEYFERRY_SHIM_PIN")
            .unwrap_or_default()
            .into_bytes();
        (typed.as_mut_ptr(), typed.len() as CK_ULONG)
    } else {
        (pin, length)
    };
    let value = match real::session(session) {
        Ok(session) => call!(C_Login(session, user, pin, length)),
        Err(value) => value,
    };
    if matches!(value, CKR_OK | CKR_PIN_INCORRECT) {
        note_pin(value == CKR_OK);
    }
    value
}
