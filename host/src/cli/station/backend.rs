//! What a backend gets: its key, and the key that signs for it.

use std::path::PathBuf;
use std::sync::Mutex;

use keyferry_protocol::suite::Suite;

use super::files::Loaded;
use crate::cli::output::counted;
use crate::cli::{Context, fields};
use crate::error::Failure;
use crate::export::{ExportError, Signer, sign};
use crate::hsm::{KeyInfo, KeySpec, PublicKey, Token};
use crate::station::journal::{RunId, Waiting};
use crate::station::plan::BackendPlan;
use crate::station::run::{Manifests, write_exports};
use crate::station::{Backend, Records};

/// Writes the folders for a backend.
pub(super) struct Exporter {
    backend: Backend,
    folder: PathBuf,
    token: Token,
    key: KeyInfo,
}

impl Exporter {
    /// Finds out how keys travel to the backend, and the key that signs.
    ///
    /// # Errors
    /// [`Failure::NoCommonSuite`], [`Failure::Hsm`], [`Failure::Export`].
    pub(super) fn open(
        loaded: &Loaded,
        token: &Token,
        plan: &BackendPlan,
        key: &PublicKey,
    ) -> Result<Self, Failure> {
        let supported = token.supported_suites()?;
        let mut fitting = Suite::ALL.into_iter();
        let suite = fitting.find(|suite| key.key_type().fits(*suite) && supported.contains(suite));
        let suite = suite.ok_or_else(|| Failure::NoCommonSuite {
            token: token.label().into(),
            recipient: key.key_type().to_string(),
            supported,
        })?;
        let signing = token.with_pair(token.key(&KeySpec::label(&plan.sign_with))?)?;
        if let Some(flag) = signing.beyond_signing() {
            let label = signing.name();
            return Err(ExportError::NotSignOnly { label, flag }.into());
        }
        Ok(Self {
            backend: Backend {
                key: key.clone(),
                suite,
                allow_zero_tail: plan.allow_zero_tail,
            },
            folder: loaded.path(&plan.folder),
            token: token.another_session()?,
            key: signing,
        })
    }

    /// For whom keys are wrapped.
    pub(super) const fn backend(&self) -> &Backend {
        &self.backend
    }

    /// Writes the folders; gives how many keys are in them.
    ///
    /// # Errors
    /// [`Failure::Job`], [`Failure::Hsm`], [`Failure::Export`].
    pub(super) fn write(
        &self,
        context: &Context,
        records: &Mutex<Records>,
        run: RunId,
    ) -> Result<usize, Failure> {
        let public = self.key.public_key()?;
        let signer = Signer::new(public)?;
        let manifests = Manifests {
            folder: &self.folder,
            recipient: &self.backend.key,
            signer: &signer,
            fingerprint: public.fingerprint(),
            sign: &|document| sign(&self.token, &self.key, document),
        };
        let written = write_exports(records, run, &manifests, &mut |path, keys| {
            let folder = path.display().to_string();
            context.note(&format!(
                "{} for the backend in {folder}",
                counted(keys as u64, "key")
            ));
            context.event(fields! { "event" => "exported", "folder" => folder, "keys" => keys });
        });
        Ok(written?)
    }
}

/// Says how many keys wait in the journal for other backends than the plan's: they are not written by this run.
pub(super) fn warn_of_waiting(context: &Context, waiting: &[Waiting]) {
    for Waiting { recipient, keys } in waiting {
        let keys = counted(*keys, "key");
        let text = match recipient {
            Some(recipient) => format!(
                "not exported: {keys} in the journal, wrapped for another backend (fingerprint {recipient}): run a plan that names it"
            ),
            None => format!(
                "not exported: {keys} in the journal, kept by an earlier version that did not write down for which backend: run the very plan with which they were made"
            ),
        };
        context.warn(&text);
    }
}
