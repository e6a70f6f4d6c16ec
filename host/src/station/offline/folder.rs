//! The folder of a batch: `batch.json` and its signature, a file for each order, and in `receipts` a file for each answer.
//!
//! The folder appears complete or not at all. Later only receipts are added to it, each whole and on the disk before anybody says so.

use std::collections::HashSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::answer::check_answer;
use super::batch::{BATCH, Batch, BatchOrder, MAXIMUM_BATCH};
use super::error::OfflineError;
use super::order_file::{DetachedOrder, MAXIMUM_ORDER_FILE};
use super::receipt_file::{self, MAXIMUM_RECEIPT_FILE};
use crate::device::verify::{SignedReceipt, digest};
use crate::export::{
    ExportError, Folder, MAXIMUM_SIGNATURE, Trust, read_file, signature_path, sync_folder,
};

/// The folder with the receipts, in that of the batch.
pub const RECEIPTS: &str = "receipts";

/// A batch whose manifest was believed.
#[derive(Debug)]
pub struct BatchFolder {
    path: PathBuf,
    batch: Batch,
}

impl BatchFolder {
    /// Writes a batch: `orders` in the order of the manifest, `signature` in DER over `manifest`.
    ///
    /// # Errors
    /// [`ExportError::FolderExists`], [`ExportError::Write`].
    pub fn write(
        path: &Path,
        orders: &[(String, &[u8])],
        manifest: &[u8],
        signature: &[u8],
    ) -> Result<(), ExportError> {
        let folder = Folder::begin(path)?;
        for (name, bytes) in orders {
            folder.add(name, bytes)?;
        }
        folder.finish_as(BATCH, manifest, signature)
    }

    /// Reads the manifest and believes it for the reason that is given. There must be no order in the folder that it does not name.
    ///
    /// # Errors
    /// As [`Batch::read`]; [`ExportError::Incomplete`], [`ExportError::Stray`], [`ExportError::Read`].
    pub fn open(path: &Path, trust: Trust<'_>) -> Result<Self, ExportError> {
        let manifest = path.join(BATCH);
        let document = read_file(&manifest, MAXIMUM_BATCH)?
            .ok_or_else(|| ExportError::Incomplete(BATCH.into()))?;
        let of_signature = signature_path(&manifest);
        let signature = read_file(&of_signature, MAXIMUM_SIGNATURE)?;
        let batch = Batch::read(&document, signature.as_deref(), trust)?;
        let named: HashSet<String> = batch.orders.iter().map(BatchOrder::file_name).collect();
        let failed = |source| ExportError::Read {
            path: path.into(),
            source,
        };
        for entry in path.read_dir().map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let name = name.to_string_lossy();
            if name.ends_with(".order") && !name.starts_with('.') && !named.contains(&*name) {
                return Err(ExportError::Stray(name.into_owned()));
            }
        }
        Ok(Self {
            path: path.into(),
            batch,
        })
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the manifest says.
    #[must_use]
    pub const fn batch(&self) -> &Batch {
        &self.batch
    }

    /// Reads an order and checks that it is the one that was signed for.
    ///
    /// # Errors
    /// [`ExportError::Incomplete`], [`ExportError::OtherBlob`], [`ExportError::Read`]; as [`DetachedOrder::read`];
    /// [`OfflineError::BadOrder`] if manifest and order do not agree.
    pub fn order(&self, entry: &BatchOrder) -> Result<DetachedOrder, OfflineError> {
        let name = entry.file_name();
        let document = read_file(&self.path.join(&name), MAXIMUM_ORDER_FILE)?
            .ok_or_else(|| ExportError::Incomplete(name.clone()))?;
        let found = digest(&document);
        if found != entry.file {
            return Err(OfflineError::OtherFile {
                name,
                expected: entry.file,
                found,
            });
        }
        let order = DetachedOrder::read(&document)?;
        let bad = |reason| OfflineError::BadOrder {
            device: entry.device,
            reason,
        };
        if !order.is_signed_by(self.batch.authority.spki_der()) {
            return Err(bad("it is not signed by the batch's authority"));
        }
        let contradiction = entry.contradiction(&order.header, &order.body()?, &order.digest());
        match contradiction {
            Some(reason) => Err(bad(reason)),
            None => Ok(order),
        }
    }

    /// The receipt for an order, if there is one. It answers the order: that was verified.
    ///
    /// # Errors
    /// [`OfflineError::BadReceipt`] if what is there does not; [`ExportError::Read`].
    pub fn receipt(
        &self,
        entry: &BatchOrder,
        order: &DetachedOrder,
    ) -> Result<Option<SignedReceipt>, OfflineError> {
        let path = self.path.join(RECEIPTS).join(entry.receipt_name());
        let Some(document) = read_file(&path, MAXIMUM_RECEIPT_FILE)? else {
            return Ok(None);
        };
        let bad = |reason| OfflineError::BadReceipt {
            device: entry.device,
            path: path.clone(),
            reason,
        };
        let receipt = receipt_file::read(&document).map_err(|error| bad(error.to_string()))?;
        check_answer(order, &receipt).map_err(|error| bad(error.to_string()))?;
        Ok(Some(receipt))
    }

    /// The receipt in which the device refused an order, if one was kept and it is the device's. Nothing depends on it but what is
    /// known of the order.
    ///
    /// # Errors
    /// [`ExportError::Read`].
    pub fn refusal(
        &self,
        entry: &BatchOrder,
        order: &DetachedOrder,
    ) -> Result<Option<SignedReceipt>, OfflineError> {
        let path = self.path.join(RECEIPTS).join(entry.refusal_name());
        let Some(document) = read_file(&path, MAXIMUM_RECEIPT_FILE)? else {
            return Ok(None);
        };
        let receipt = receipt_file::read(&document).ok();
        Ok(receipt.filter(|receipt| {
            check_answer(order, receipt).is_err_and(|error| error.is_signed_refusal())
        }))
    }

    /// Keeps a receipt. When this comes back, it is on the disk.
    ///
    /// # Errors
    /// [`OfflineError::AlreadyDelivered`] if one is there; [`ExportError::Write`].
    pub fn keep(&self, entry: &BatchOrder, receipt: &SignedReceipt) -> Result<(), OfflineError> {
        let device = entry.device;
        match self.store(entry, &entry.receipt_name(), receipt, false) {
            Err(ExportError::Write { source, .. })
                if source.kind() == std::io::ErrorKind::AlreadyExists =>
            {
                Err(OfflineError::AlreadyDelivered { device })
            }
            result => Ok(result?),
        }
    }

    /// Keeps a receipt in which the device refused the order, in place of an earlier one.
    ///
    /// # Errors
    /// [`ExportError::Write`].
    pub fn keep_refusal(
        &self,
        entry: &BatchOrder,
        receipt: &SignedReceipt,
    ) -> Result<(), OfflineError> {
        Ok(self.store(entry, &entry.refusal_name(), receipt, true)?)
    }

    fn store(
        &self,
        entry: &BatchOrder,
        name: &str,
        receipt: &SignedReceipt,
        replace: bool,
    ) -> Result<(), ExportError> {
        let bytes = receipt_file::to_json(entry.device, entry.order, receipt)?;
        let folder = self.path.join(RECEIPTS);
        let path = folder.join(name);
        let failed = |source| ExportError::Write {
            path: path.clone(),
            source,
        };
        match std::fs::create_dir(&folder) {
            Ok(()) => sync_folder(&self.path).map_err(failed)?,
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(error)),
        }
        let mut file = temporary(&folder).map_err(failed)?;
        file.write_all(&bytes)
            .and_then(|()| file.as_file().sync_all())
            .map_err(failed)?;
        let persisted = if replace {
            file.persist(&path)
        } else {
            file.persist_noclobber(&path)
        };
        persisted.map_err(|error| failed(error.error))?;
        sync_folder(&folder).map_err(failed)
    }
}

/// A temporary file with the permissions of any new file: a receipt is signed, not secret.
fn temporary(folder: &Path) -> std::io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".keyferry-");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(folder)
}
