//! What a signed answer is worth. The one place where the station verifies a device.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use keyferry_protocol::attributes::Attributes;
use keyferry_protocol::identity::{Challenge, DeviceId, Digest, Fingerprint, Signature, p256_spki};
use keyferry_protocol::order::Kind;
use keyferry_protocol::proof::Proof;
use keyferry_protocol::receipt::{
    self, Body, Flavour, Header, Outcome, Refusal, SourceClass, State,
};
use keyferry_protocol::suite::Suite;
use p256::ecdsa::signature::Verifier;
use sha2::{Digest as _, Sha256};

use super::DeviceError;
use super::session::printable;

/// SHA-256 of a public key's `SubjectPublicKeyInfo` DER.
#[must_use]
pub fn fingerprint(spki: &[u8]) -> Fingerprint {
    Fingerprint(Sha256::digest(spki).into())
}

/// SHA-256 of an order's bytes.
#[must_use]
pub fn digest(bytes: &[u8]) -> Digest {
    Digest(Sha256::digest(bytes).into())
}

/// Whether `signature` is that of the P-256 key in `spki` (91 bytes DER) over SHA-256 of `message`.
///
/// Flow, registry and audit log each ask this of the same receipt, since none of them takes another's word; what was valid a moment ago is not
/// computed again.
#[must_use]
pub fn signature_is_valid(spki: &[u8], message: &[u8], signature: &Signature) -> bool {
    let name = name_of(spki, message, signature);
    if valid().contains(&name) {
        return true;
    }
    let is_valid = is_valid(spki, message, signature);
    if is_valid {
        let mut valid = valid();
        if valid.len() == REMEMBERED {
            valid.pop_front();
        }
        valid.push_back(name);
    }
    is_valid
}

fn is_valid(spki: &[u8], message: &[u8], signature: &Signature) -> bool {
    let Some(point) = p256_spki::to_point(spki) else {
        return false;
    };
    let Ok(key) = p256::ecdsa::VerifyingKey::from_sec1_bytes(point) else {
        return false;
    };
    p256::ecdsa::Signature::from_scalars(signature.r, signature.s)
        .is_ok_and(|signature| key.verify(message, &signature).is_ok())
}

/// How many valid signatures are remembered: a few of each device that a station has at once.
const REMEMBERED: usize = 1024;

/// Of the last signatures that were valid, what [`name_of`] gives.
static VALID: Mutex<VecDeque<[u8; 32]>> = Mutex::new(VecDeque::new());

fn valid() -> MutexGuard<'static, VecDeque<[u8; 32]>> {
    // Whoever panicked has put a whole name in or none.
    VALID.lock().unwrap_or_else(PoisonError::into_inner)
}

/// SHA-256 of all that decides whether a signature is valid; key and signature first, for their lengths are fixed.
fn name_of(spki: &[u8], message: &[u8], signature: &Signature) -> [u8; 32] {
    let mut name = Sha256::new();
    for part in [
        Sha256::digest(spki).as_slice(),
        &signature.r,
        &signature.s,
        message,
    ] {
        name.update(part);
    }
    name.finalize().into()
}

/// A receipt exactly as it came. Anyone can verify it later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedReceipt {
    /// The receipt's bytes.
    pub bytes: Vec<u8>,
    /// The identity key's signature over them.
    pub signature: Signature,
}

/// What a vendor key says for a device: see [`receipt::Voucher`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voucher {
    /// The vendor key's certificate, X.509 in DER. Nothing is checked yet.
    pub certificate: Vec<u8>,
    /// Its signature over the [`receipt::voucher_input`].
    pub signature: Signature,
}

/// A device as its own verified statement describes it.
#[derive(Clone, Debug)]
pub struct Statement {
    /// Its id.
    pub device: DeviceId,
    /// Its identity key, `SubjectPublicKeyInfo` DER.
    pub identity_key: Vec<u8>,
    /// Its unwrap key, `SubjectPublicKeyInfo` DER.
    pub unwrap_key: Vec<u8>,
    /// The suites it allows, strongest first.
    pub suites: Vec<Suite>,
    /// The board's name.
    pub board: String,
    /// The firmware's version.
    pub firmware: String,
    /// How the firmware was built.
    pub flavour: Flavour,
    /// Where its randomness comes from.
    pub rng: SourceClass,
    /// Where its root key comes from.
    pub root_key: SourceClass,
    /// The authority it obeys.
    pub authority: Fingerprint,
    /// How often its authority was handed over.
    pub epoch: u32,
    /// What a vendor key says for it; still to be verified by an enrolment policy.
    pub voucher: Option<Voucher>,
    /// The nonce of the order that asked.
    pub nonce: Challenge,
    /// The order that asked.
    pub order: Digest,
    /// The receipt it was read from.
    pub receipt: SignedReceipt,
    /// Its state, counter and next challenge, from the same receipt.
    pub standing: Standing,
}

/// What changes from receipt to receipt.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// The device's state.
    pub state: State,
    /// Its counter.
    pub counter: u32,
    /// The challenge for the next order.
    pub challenge: Challenge,
}

/// One slot as a verified receipt reports it.
#[derive(Clone, Debug)]
pub struct SlotReport {
    /// Slot number.
    pub slot: u16,
    /// Key version.
    pub version: u32,
    /// Attributes as stored.
    pub attributes: Attributes,
    /// The kind of proof.
    pub proof: Proof,
    /// The proof, still to be verified by the HSM or with the public key.
    pub value: Vec<u8>,
}

const fn untrusted<T>(reason: &'static str) -> Result<T, DeviceError> {
    Err(DeviceError::Untrusted { reason })
}

/// Verifies a receipt: signature, then that it answers this order of this device.
fn authentic<'a>(
    SignedReceipt { bytes, signature }: &'a SignedReceipt,
    identity_key: &[u8],
    device: DeviceId,
    order: &Digest,
    kind: Kind,
) -> Result<(Header, Body<'a>), DeviceError> {
    if !signature_is_valid(identity_key, bytes, signature) {
        return untrusted("the receipt's signature is not the device's");
    }
    let Ok((header, body)) = receipt::decode(bytes) else {
        return untrusted("the receipt does not decode");
    };
    if header.device != device || header.identity != fingerprint(identity_key) {
        return untrusted("the receipt is another device's");
    }
    if header.order != *order || header.kind != kind {
        return untrusted("the receipt answers another order");
    }
    Ok((header, body))
}

/// Verifies a receipt, and that the order was applied.
fn verified<'a>(
    receipt: &'a SignedReceipt,
    identity_key: &[u8],
    device: DeviceId,
    order: &Digest,
    kind: Kind,
) -> Result<(Header, Body<'a>), DeviceError> {
    let (header, body) = authentic(receipt, identity_key, device, order, kind)?;
    match header.outcome {
        Outcome::Applied => Ok((header, body)),
        Outcome::Refused(refusal) => Err(DeviceError::Refused {
            refusal,
            signed: true,
        }),
    }
}

const fn standing(header: &Header) -> Standing {
    Standing {
        state: header.state,
        counter: header.counter,
        challenge: header.challenge,
    }
}

/// The refusal that a receipt states, signed or not: good for choosing the next question, for nothing else.
#[must_use]
pub fn refusal_of(receipt: &SignedReceipt) -> Option<Refusal> {
    match receipt::decode(&receipt.bytes) {
        Ok((header, _)) => match header.outcome {
            Outcome::Refused(refusal) => Some(refusal),
            Outcome::Applied => None,
        },
        Err(_) => None,
    }
}

/// The device that a receipt says it is of, signed or not.
#[must_use]
pub fn receipt_device(receipt: &SignedReceipt) -> Option<DeviceId> {
    receipt::decode(&receipt.bytes)
        .ok()
        .map(|(header, _)| header.device)
}

/// Verifies the statement of an `Enroll`: it is signed by the identity key it names, and answers this order and nonce.
///
/// # Errors
/// [`DeviceError::Untrusted`], [`DeviceError::Refused`].
pub fn statement(
    receipt: &SignedReceipt,
    device: DeviceId,
    order: &Digest,
    nonce: Challenge,
    authority: Fingerprint,
) -> Result<Statement, DeviceError> {
    let statement = stated(receipt, device)?;
    if statement.order != *order {
        return untrusted("the receipt answers another order");
    }
    if statement.nonce != nonce {
        return untrusted("the statement is not fresh");
    }
    if statement.authority != authority {
        return untrusted("the statement names another authority");
    }
    Ok(statement)
}

/// Verifies a statement that was kept: it is this device's, signed by the identity key it names. Whether it is fresh, and under
/// the right authority, is for the caller to say.
///
/// # Errors
/// [`DeviceError::Untrusted`], [`DeviceError::Refused`].
pub fn stated(receipt: &SignedReceipt, device: DeviceId) -> Result<Statement, DeviceError> {
    // The key stands in what it signs; whether it is the right device's is for enrolment and visit policy to say.
    let Ok((claimed, body)) = receipt::decode(&receipt.bytes) else {
        return untrusted("the statement does not decode");
    };
    let identity_key = match (claimed.outcome, &body) {
        (_, Body::Statement(statement)) => statement.identity_key,
        (Outcome::Refused(refusal), Body::Empty | Body::Slots(_) | Body::Recovered(_)) => {
            return Err(DeviceError::Refused {
                refusal,
                signed: false,
            });
        }
        (Outcome::Applied, Body::Empty | Body::Slots(_) | Body::Recovered(_)) => {
            return untrusted("the receipt holds no statement");
        }
    };
    let order = claimed.order;
    let (header, body) = verified(receipt, identity_key, device, &order, Kind::Enroll)?;
    let Body::Statement(statement) = body else {
        return untrusted("the receipt holds no statement");
    };
    Ok(Statement {
        device,
        identity_key: identity_key.to_vec(),
        unwrap_key: statement.unwrap_key.to_vec(),
        suites: statement.suites.iter().copied().collect(),
        board: printable(statement.board),
        firmware: printable(statement.firmware),
        flavour: statement.flavour,
        rng: statement.rng,
        root_key: statement.root_key,
        authority: statement.authority,
        epoch: statement.epoch,
        voucher: statement.voucher.map(|voucher| Voucher {
            certificate: voucher.certificate.to_vec(),
            signature: voucher.signature,
        }),
        nonce: statement.nonce,
        order,
        receipt: receipt.clone(),
        standing: standing(&header),
    })
}

/// Verifies the receipt of an `Inject` or a `Prove`.
///
/// # Errors
/// [`DeviceError::Untrusted`], [`DeviceError::Refused`].
pub fn slots(
    receipt: &SignedReceipt,
    device: &Statement,
    order: &Digest,
    kind: Kind,
) -> Result<(Standing, Vec<SlotReport>), DeviceError> {
    let (header, body) = verified(receipt, &device.identity_key, device.device, order, kind)?;
    let Body::Slots(reports) = body else {
        return untrusted("the receipt reports no slots");
    };
    let reports = reports
        .iter()
        .map(|report| SlotReport {
            slot: report.slot,
            version: report.version,
            attributes: report.attributes,
            proof: report.proof,
            value: report.value.to_vec(),
        })
        .collect();
    Ok((standing(&header), reports))
}

/// Verifies a receipt that says only that the order was applied.
///
/// # Errors
/// [`DeviceError::Untrusted`], [`DeviceError::Refused`].
pub fn done(
    receipt: &SignedReceipt,
    device: &Statement,
    order: &Digest,
    kind: Kind,
) -> Result<Standing, DeviceError> {
    let (header, _) = verified(receipt, &device.identity_key, device.device, order, kind)?;
    Ok(standing(&header))
}

/// Checks the receipt of a device that was quarantined and has begun anew: it is whole, and answers this order. The key that signs it is
/// in it, and known to nobody, so it proves neither which device sent it nor that anything was destroyed.
///
/// # Errors
/// [`DeviceError::Untrusted`], [`DeviceError::Refused`].
pub fn recovered(
    receipt: &SignedReceipt,
    device: DeviceId,
    order: &Digest,
) -> Result<Standing, DeviceError> {
    let key = match receipt::decode(&receipt.bytes) {
        Ok((_, Body::Recovered(recovered))) => recovered.key,
        Ok((_, Body::Statement(_) | Body::Slots(_) | Body::Empty)) | Err(_) => {
            return untrusted("the receipt bears no key of its own");
        }
    };
    let (header, _) = verified(receipt, key, device, order, Kind::Wipe)?;
    match header.state {
        State::Blank => Ok(standing(&header)),
        State::Enrolled | State::Provisioned | State::Locked | State::Quarantined => {
            untrusted("the receipt says that the device is not blank")
        }
    }
}

/// What a device has refused an order for, and where it stands, if the receipt is its signed refusal of this order.
#[must_use]
pub fn refused(
    receipt: &SignedReceipt,
    device: &Statement,
    order: &Digest,
    kind: Kind,
) -> Option<(Refusal, Standing)> {
    let answer = authentic(receipt, &device.identity_key, device.device, order, kind);
    match answer.map(|(header, _)| (header.outcome, standing(&header))) {
        Ok((Outcome::Refused(refusal), standing)) => Some((refusal, standing)),
        Ok((Outcome::Applied, _)) | Err(_) => None,
    }
}

/// Verifies a signed status: it is this device's, and answers this question.
///
/// # Errors
/// [`DeviceError::Untrusted`].
pub fn status(
    bytes: &[u8],
    signature: &Signature,
    identity_key: &[u8],
    device: DeviceId,
    order: &Digest,
    nonce: Challenge,
) -> Result<receipt::Status, DeviceError> {
    if !signature_is_valid(identity_key, bytes, signature) {
        return untrusted("the status's signature is not the device's");
    }
    let Ok(status) = receipt::Status::decode(bytes) else {
        return untrusted("the status does not decode");
    };
    if status.device != device || status.identity != fingerprint(identity_key) {
        return untrusted("the status is another device's");
    }
    if status.order != *order || status.nonce != nonce {
        return untrusted("the status answers another question");
    }
    Ok(status)
}

#[cfg(test)]
mod tests {
    use p256::ecdsa::signature::Signer as _;
    use p256::ecdsa::{Signature as Ecdsa, SigningKey};
    use p256::pkcs8::EncodePublicKey as _;

    use super::*;

    #[test]
    fn what_is_remembered_is_good_for_nothing_else() {
        let key = |byte| SigningKey::from_bytes(&[byte; 32].into()).unwrap();
        let public = |key: &SigningKey| key.verifying_key().to_public_key_der().unwrap();
        let sign = |key: &SigningKey, message: &[u8]| {
            let signature: Ecdsa = key.sign(message);
            Signature::from_bytes(&signature.to_bytes().into())
        };
        let (one, other) = (key(1), key(2));
        let spki = public(&one).into_vec();
        let signature = sign(&one, b"message");
        for _ in 0..2 {
            assert!(signature_is_valid(&spki, b"message", &signature));
            assert!(!signature_is_valid(&spki, b"massage", &signature));
            assert!(!signature_is_valid(
                public(&other).as_bytes(),
                b"message",
                &signature
            ));
            assert!(!signature_is_valid(
                &spki,
                b"message",
                &sign(&other, b"message")
            ));
        }
        // More than are remembered; the first is computed again.
        for number in 0..=REMEMBERED {
            let message = number.to_be_bytes();
            assert!(signature_is_valid(&spki, &message, &sign(&one, &message)));
        }
        assert_eq!(valid().len(), REMEMBERED);
        assert!(signature_is_valid(&spki, b"message", &signature));
    }
}
