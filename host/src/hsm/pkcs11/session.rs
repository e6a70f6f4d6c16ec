//! Sessions: each connection has one of its own, and replaces it when the token has lost it.

use std::cell::{Cell, Ref, RefCell};
use std::mem::ManuallyDrop;
use std::sync::Arc;

use cryptoki::object::ObjectHandle;
use cryptoki::session::Session;
use cryptoki::slot::Slot;

use super::login::{Login, Opened, forget, is_lost};
use super::module::{Module, TokenInfo};
use super::objects::KeyHandle;
use crate::hsm::error::HsmError;
use crate::hsm::pin::Credentials;

/// The login of a session that is closed.
const NO_LOGIN: u64 = u64::MAX;

/// A session of its own with a token the process is logged in to. For one thread at a time; others get their own with
/// [`Connection::another`].
pub(in crate::hsm) struct Connection {
    login: Arc<Login>,
    session: ManuallyDrop<RefCell<Session>>,
    /// The login that the session belongs to.
    epoch: Cell<u64>,
    telling: bool,
    /// Whether an operation is under way that will be done again as a whole if the session is lost.
    busy: Cell<bool>,
    /// How many objects somebody holds that would be lost with the session.
    objects: Cell<usize>,
    /// Whether the session has seen nothing but success, and leaves no operation unfinished.
    clean: Cell<bool>,
}

/// Marks the time in which an operation will be done again if the session is lost.
pub(in crate::hsm) struct Busy<'c>(&'c Cell<bool>);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

impl Connection {
    /// Logs in to the token, unless the process is logged in already, and opens a session.
    pub(in crate::hsm) fn open(
        module: &Arc<Module>,
        token: &TokenInfo,
        credentials: &Credentials,
    ) -> Result<Self, HsmError> {
        Self::under(Login::of(module, token, credentials)?)
    }

    /// Takes a further session under the same login.
    pub(in crate::hsm) fn another(&self) -> Result<Self, HsmError> {
        Self::under(Arc::clone(&self.login))
    }

    fn under(login: Arc<Login>) -> Result<Self, HsmError> {
        let Opened {
            session,
            epoch,
            telling,
        } = login.session()?;
        Ok(Self {
            login,
            session: ManuallyDrop::new(RefCell::new(session)),
            epoch: Cell::new(epoch),
            telling,
            busy: Cell::new(false),
            objects: Cell::new(0),
            clean: Cell::new(true),
        })
    }

    /// Begins an operation that can be done again as a whole. Nothing if it is part of one that can, or if somebody holds an
    /// object that a new session would not have.
    pub(in crate::hsm) fn begin(&self) -> Option<Busy<'_>> {
        if self.objects.get() > 0 || self.busy.replace(true) {
            return None;
        }
        Some(Busy(&self.busy))
    }

    /// Whether the session or the login is lost. The token is asked, because tokens differ in how they fail then.
    pub(in crate::hsm) fn is_lost(&self) -> bool {
        self.is_outdated() || is_lost(&self.session(), self.telling)
    }

    /// Whether another connection has logged in anew since. A server that has started again gives the old numbers of sessions and
    /// objects to others, so nothing may be done with them.
    pub(in crate::hsm) fn is_outdated(&self) -> bool {
        self.epoch.get() != self.login.epoch()
    }

    /// As [`Connection::is_lost`], after a failure: nobody else shall get the session, in whatever state it is.
    pub(in crate::hsm) fn is_lost_after_failure(&self) -> bool {
        self.clean.set(false);
        self.is_lost()
    }

    /// What there is to say of a token that is away although its sessions last: SoftHSM's, whose files are gone, then only finds no objects.
    pub(in crate::hsm) fn token_is_gone(&self) -> Option<HsmError> {
        self.login.is_gone()
    }

    /// Takes a new session in place of a lost one, and logs in again if that is lost too.
    pub(in crate::hsm) fn renew(&self) -> Result<(), HsmError> {
        let (old, before) = (self.session().handle(), self.epoch.replace(NO_LOGIN));
        let Opened { session, epoch, .. } = self.login.renew(old, before)?;
        forget(self.session.replace(session));
        self.epoch.set(epoch);
        self.clean.set(true);
        Ok(())
    }

    /// Whether this still names an object: it was found under the login that the session belongs to.
    pub(in crate::hsm) fn knows(&self, key: KeyHandle) -> bool {
        key.1 == self.epoch.get() && !self.is_outdated()
    }

    /// What the token calls an object, with the login for which that is good.
    pub(super) fn named(&self, object: ObjectHandle) -> KeyHandle {
        KeyHandle(object, self.epoch.get())
    }

    /// Whether a token that tells so says that the process is not logged in.
    pub(super) fn is_logged_out(&self) -> bool {
        self.telling && is_lost(&self.session(), self.telling)
    }

    /// How many objects somebody holds that end with the session.
    pub(super) fn objects(&self) -> &Cell<usize> {
        &self.objects
    }

    pub(super) fn login(&self) -> &Login {
        &self.login
    }

    pub(super) fn module(&self) -> &Module {
        self.login.module()
    }

    pub(super) fn slot(&self) -> Slot {
        self.login.slot()
    }

    pub(super) fn session(&self) -> Ref<'_, Session> {
        self.session.borrow()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // SAFETY: nobody uses the field after this; the connection is being dropped, and its other fields do not refer to it.
        let session = unsafe { ManuallyDrop::take(&mut self.session) };
        self.login
            .give_back(session.into_inner(), self.epoch.get(), self.clean.get());
    }
}
