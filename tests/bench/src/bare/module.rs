//! The module's functions, and a session for them.

use std::path::Path;
use std::ptr::null_mut;

use anyhow::{Context as _, Result, bail, ensure};
use cryptoki_sys::{
    CK_ATTRIBUTE, CK_FUNCTION_LIST, CK_OBJECT_CLASS, CK_OBJECT_HANDLE, CK_RV, CK_SESSION_HANDLE,
    CK_SLOT_ID, CK_TOKEN_INFO, CKA_CLASS, CKA_LABEL, CKF_RW_SESSION, CKF_SERIAL_SESSION, CKR_OK,
};

use super::length;

/// Most slots that are looked at; SoftHSM has one for each token and an empty one.
const SLOTS: usize = 16;

/// An initialised module, and a session with one token.
pub(super) struct Module {
    pub(super) functions: CK_FUNCTION_LIST,
    pub(super) session: CK_SESSION_HANDLE,
    /// Keeps `functions` callable.
    _library: cryptoki_sys::Pkcs11,
}

impl Module {
    /// Opens a session with the token of this label. The process must have initialised the module and logged in.
    ///
    /// # Errors
    /// If the module or the token does not do as it should.
    pub(super) fn open(path: &Path, token: &str) -> Result<Self> {
        // SAFETY: this process uses the library as a PKCS#11 module already; loading it again gives the same one.
        let library = unsafe { cryptoki_sys::Pkcs11::new(path) }?;
        let get = library.C_GetFunctionList.as_ref();
        let get = get.ok().context("C_GetFunctionList")?;
        let mut list = null_mut();
        // SAFETY: C_GetFunctionList writes one pointer.
        let value = unsafe { get(&raw mut list) };
        ensure!(value == CKR_OK && !list.is_null(), "C_GetFunctionList");
        let mut module = Self {
            // SAFETY: C_GetFunctionList succeeded and gave a list, which lives as long as the library.
            functions: unsafe { *list },
            session: 0,
            _library: library,
        };
        let slot = module.slot(token)?;
        let mut session = 0;
        let open = module.functions.C_OpenSession;
        // SAFETY: the session handle is one CK_ULONG; no callback is registered.
        module.done("C_OpenSession", unsafe {
            open.context("C_OpenSession")?(
                slot,
                CKF_SERIAL_SESSION | CKF_RW_SESSION,
                null_mut(),
                None,
                &raw mut session,
            )
        })?;
        module.session = session;
        Ok(module)
    }

    /// The slot with the token of this label.
    fn slot(&self, token: &str) -> Result<CK_SLOT_ID> {
        let mut slots = [0; SLOTS];
        let mut count = length(&slots);
        let list = self.functions.C_GetSlotList;
        // SAFETY: `slots` has room for as many numbers as `count` says.
        self.done("C_GetSlotList", unsafe {
            list.context("C_GetSlotList")?(1, slots.as_mut_ptr(), &raw mut count)
        })?;
        let describe = self.functions.C_GetTokenInfo;
        for slot in &slots[..usize::try_from(count)?] {
            let mut info = CK_TOKEN_INFO::default();
            // SAFETY: C_GetTokenInfo writes one CK_TOKEN_INFO.
            self.done("C_GetTokenInfo", unsafe {
                describe.context("C_GetTokenInfo")?(*slot, &raw mut info)
            })?;
            if String::from_utf8_lossy(&{ info.label }).trim_end() == token {
                return Ok(*slot);
            }
        }
        bail!("there is no token '{token}'")
    }

    /// The object of this class and label.
    ///
    /// # Errors
    /// If there is none.
    pub(super) fn find(&self, class: CK_OBJECT_CLASS, label: &str) -> Result<CK_OBJECT_HANDLE> {
        let wanted = [
            CK_ATTRIBUTE {
                type_: CKA_CLASS,
                pValue: (&raw const class).cast_mut().cast(),
                ulValueLen: super::ulong(size_of_val(&class)),
            },
            CK_ATTRIBUTE {
                type_: CKA_LABEL,
                pValue: label.as_ptr().cast_mut().cast(),
                ulValueLen: length(label.as_bytes()),
            },
        ];
        let init = self.functions.C_FindObjectsInit;
        // SAFETY: the template points to `class` and `label`, which live until the call returns, and are only read.
        self.done("C_FindObjectsInit", unsafe {
            init.context("C_FindObjectsInit")?(
                self.session,
                wanted.as_ptr().cast_mut(),
                length(&wanted),
            )
        })?;
        let (mut found, mut count) = ([0; 1], 0);
        let find = self.functions.C_FindObjects;
        // SAFETY: there is room for one handle, which is what the call is told.
        let result = self.done("C_FindObjects", unsafe {
            find.context("C_FindObjects")?(
                self.session,
                found.as_mut_ptr(),
                length(&found),
                &raw mut count,
            )
        });
        let end = self.functions.C_FindObjectsFinal;
        // SAFETY: the session is open.
        self.done("C_FindObjectsFinal", unsafe {
            end.context("C_FindObjectsFinal")?(self.session)
        })?;
        result?;
        ensure!(count == 1, "there is no key '{label}'");
        Ok(found[0])
    }

    /// Turns a return value into a result.
    pub(super) fn done(&self, function: &str, value: CK_RV) -> Result<()> {
        ensure!(value == CKR_OK, "{function} returned {value:#x}");
        Ok(())
    }
}
