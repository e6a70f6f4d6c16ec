//! Why a line breaks the log.

use keyferry_protocol::DecodeError;
use keyferry_protocol::identity::DeviceId;

/// What is wrong with a line. The first one found is told; after it nothing in the log is believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Longer than any line may be.
    #[error("it is longer than {} bytes", super::record::MAXIMUM_LINE)]
    TooLong,
    /// The file ends in the middle of it.
    #[error("it is not finished: a write was interrupted, or the end was cut off")]
    Unfinished,
    /// No record, or one of another version.
    #[error("it is no record of this version: {0}")]
    NotARecord(String),
    /// The same content could be written differently, and this is not how it is written.
    #[error("it is not spelt as records are written")]
    OtherSpelling,
    /// Lines are missing, doubled or exchanged.
    #[error(
        "it has number {found} where {expected} comes next: lines were removed, added or exchanged"
    )]
    Number {
        /// The number that comes next.
        expected: u64,
        /// The number in the line.
        found: u64,
    },
    /// The line before is not the one that this line was written after.
    #[error(
        "it does not continue the line before it: one of the two was altered, removed or exchanged"
    )]
    Previous,
    /// The first line does not open a log.
    #[error("a log begins with 'opened'")]
    NotOpened,
    /// A second beginning.
    #[error("the log is opened a second time")]
    OpenedTwice,
    /// A public key that cannot verify anything.
    #[error("{0} is no P-256 public key")]
    BadKey(&'static str),
    /// The log names another audit key than the auditor gave.
    #[error("the log names another audit key than the one given: it is another log")]
    OtherAuditKey,
    /// A number of keys, or a slot, that no order can carry.
    #[error("the keys it names fit no order")]
    BadKeys,
    /// A name that is in use.
    #[error("its job is under way already")]
    JobTwice,
    /// A name that nothing has.
    #[error("it names a job that is not under way")]
    NoSuchJob,
    /// The order is not the one of the job.
    #[error("the order does not carry the keys that were wrapped for its job")]
    OtherKeys,
    /// The device has not been taken for the right one.
    #[error("device {0} with these keys was not taken for the right one before")]
    NotTrusted(DeviceId),
    /// The bytes of an order do not decode.
    #[error("its order does not decode: {0}")]
    Order(DecodeError),
    /// The line says something else of the order than the order.
    #[error("it says something else of its order than the order itself")]
    OrderFields,
    /// The order was made when the chain had another head.
    #[error("its order names another head of the chain than the line before it gives")]
    OrderHead,
    /// The order is signed by a key that may not.
    #[error("its order is not signed by an authority of this log")]
    OrderSignature,
    /// The order was there before.
    #[error("its order is in the log already")]
    OrderTwice,
    /// A name that nothing has.
    #[error("it answers no open order of this log")]
    NoSuchOrder,
    /// The bytes of a receipt do not decode.
    #[error("its receipt does not decode: {0}")]
    Receipt(DecodeError),
    /// The receipt is not signed by the key that stands beside it.
    #[error("its receipt is not signed by the device's identity key")]
    ReceiptSignature,
    /// The receipt is another device's, or the line says so.
    #[error("its receipt is another device's")]
    OtherDevice,
    /// The receipt answers another order.
    #[error("its receipt answers another order")]
    OtherOrder,
    /// The order was applied before.
    #[error("its order was answered before")]
    AnsweredTwice,
    /// A statement does not answer its order.
    #[error("the device's statement does not answer its order")]
    Statement,
    /// Trust without the statement that it rests on.
    #[error("no statement of device {0} with these keys answers this order")]
    NoStatement(DeviceId),
    /// A proof without a receipt.
    #[error("no receipt in the log says that its order was applied")]
    NotApplied,
    /// A proof that the receipt does not hold, or a weaker one than demanded.
    #[error("the receipt does not hold the proof of slot {0} that was demanded")]
    NotReported(u16),
    /// The key was proved before, or is not the order's.
    #[error("the key of slot {0} is not open")]
    NotOpen(u16),
    /// A certificate that is not what the line says, or not the device's.
    #[error("its certificate {0}")]
    Certificate(&'static str),
    /// The order carries a certificate that was not made for the device.
    #[error("its order carries a certificate that was not written down for the device")]
    OtherCertificate,
    /// A checkpoint of another log.
    #[error("it is a checkpoint of another log")]
    CheckpointLog,
    /// A checkpoint that is not signed by the audit key.
    #[error("it is a checkpoint that the audit key has not signed")]
    CheckpointSignature,
}
