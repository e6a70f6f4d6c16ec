//! One receipt as a file, format `keyferry-receipt-1`: the device's answer exactly as it came.

use keyferry_protocol::identity::{DeviceId, Digest, Signature};
use serde::{Deserialize, Serialize};

use crate::device::verify::SignedReceipt;
use crate::export::wire::named;
use crate::export::{ExportError, Trust, read_document, write_document};

/// Longest file with a receipt that is read or written, in bytes: a message of 2048 bytes in hexadecimal digits, and what is beside.
pub const MAXIMUM_RECEIPT_FILE: usize = 16 * 1024;

/// The format's name.
const FORMAT: &str = "keyferry-receipt-1";

/// The file's fields. Device and order stand there for people; what counts is in the receipt, which is signed.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReceiptFile {
    format: String,
    #[serde(with = "named")]
    device: DeviceId,
    #[serde(with = "named")]
    order: Digest,
    #[serde(with = "named")]
    receipt: Vec<u8>,
    #[serde(with = "named")]
    signature: Signature,
}

/// The file: JSON with two spaces of indentation and a newline at the end.
pub(super) fn to_json(
    device: DeviceId,
    order: Digest,
    receipt: &SignedReceipt,
) -> Result<Vec<u8>, ExportError> {
    let file = ReceiptFile {
        format: FORMAT.into(),
        device,
        order,
        receipt: receipt.bytes.clone(),
        signature: receipt.signature,
    };
    write_document(&file, MAXIMUM_RECEIPT_FILE)
}

/// Reads a file. Nothing in it is believed yet.
pub(super) fn read(document: &[u8]) -> Result<SignedReceipt, ExportError> {
    let trust = Trust::Unauthenticated;
    let file: ReceiptFile = read_document(document, None, trust, FORMAT, MAXIMUM_RECEIPT_FILE)?;
    Ok(SignedReceipt {
        bytes: file.receipt,
        signature: file.signature,
    })
}
