//! Orders and what comes of them. Each function makes one order, has it witnessed, delivers it, has the receipt witnessed, and
//! verifies it. An order whose answer was lost is sent again: the device does it once and answers with the receipt it stored. One
//! that the device has lost, it is restarted say, is made anew with another challenge. So a caller sees nothing of a lost session.

mod orders;

use keyferry_protocol::identity::{Challenge, DeviceId, Digest, Fingerprint, Signature};
use keyferry_protocol::message::{Reply, Request, SlotInfo};
use keyferry_protocol::order::{Address, Kind};
use keyferry_protocol::proof::Proof;
use keyferry_protocol::receipt::{Refusal, State};
use keyferry_protocol::suite::UnwrapAlgorithm;

pub use orders::{
    Authority, Demand, Parcel, Shipment, SignedOrder, Terms, enroll_order, inject_order,
    lock_order, prove_order, recover_order, remove_order, rotate_order, wipe_order,
};

use super::DeviceError;
use super::session::{OnProgress, Session};
use super::verify::{self, SignedReceipt, SlotReport, Standing, Statement};

/// A verified receipt with proofs still to be checked against the HSM.
#[derive(Clone, Debug)]
pub struct Proofs {
    /// The order that asked; goes into every proof.
    pub order: Digest,
    /// The challenge that goes into every proof.
    pub challenge: Challenge,
    /// What the device reports.
    pub reports: Vec<SlotReport>,
    /// Where the device stands now.
    pub standing: Standing,
}

/// Address of a device whose statement is known.
#[must_use]
pub fn address(device: &Statement) -> Address {
    Address {
        device: device.device,
        identity: verify::fingerprint(&device.identity_key),
        unwrap: verify::fingerprint(&device.unwrap_key),
    }
}

/// The terms of an order to a device that the station talks to.
///
/// # Errors
/// As [`Terms::now`].
pub fn terms(device: &Statement, audit_head: Digest) -> Result<Terms, DeviceError> {
    Terms::now(address(device), &device.standing, audit_head)
}

/// What a receipt message holds.
fn receipt(message: &[u8]) -> Result<SignedReceipt, DeviceError> {
    match Reply::decode(message) {
        Ok(Reply::Receipt { signature, receipt }) => Ok(SignedReceipt {
            bytes: receipt.to_vec(),
            signature,
        }),
        Ok(Reply::Refused(refusal)) => Err(DeviceError::Refused {
            refusal,
            signed: false,
        }),
        Ok(_) | Err(_) => Err(DeviceError::Unexpected),
    }
}

/// Bytes of blobs in one message; with what stands before them they must fit into a message of the link.
const BLOBS_IN_MESSAGE: usize = 65_000;

/// Bytes of a receipt, about.
const USUAL_RECEIPT: usize = 600;

/// How often an order is sent again after its answer was lost, and a question asked again.
const TRIES_AGAIN: usize = 3;

/// How often an order is made again, with another challenge, after the device has lost it.
pub const ORDERS_AGAIN: usize = 3;

/// Delivers an order and has its receipt witnessed. Also says whether the order had to be sent again.
///
/// # Errors
/// [`DeviceError`].
pub fn carry_out<'a>(
    session: &mut Session,
    order: &SignedOrder,
    blobs: impl Iterator<Item = &'a Vec<u8>> + Clone,
    on_progress: &mut OnProgress<'_>,
) -> Result<(SignedReceipt, bool), DeviceError> {
    let (receipt, again) = carry(session, order, blobs, on_progress);
    Ok((receipt?, again))
}

/// As [`carry_out`]; says also of an order that failed whether it had to be sent again.
fn carry<'a>(
    session: &mut Session,
    order: &SignedOrder,
    blobs: impl Iterator<Item = &'a Vec<u8>> + Clone,
    on_progress: &mut OnProgress<'_>,
) -> (Result<SignedReceipt, DeviceError>, bool) {
    let mut again = false;
    let device = session.greeting().device;
    let mut answer = deliver(session, order, blobs.clone(), on_progress);
    // After a lost answer nobody knows whether the order was done. The device does: the same order is done if it was not, and
    // answered from the store if it was.
    for _ in 0..TRIES_AGAIN {
        let lost = match answer {
            Err(lost) if lost.is_lost_answer() => lost,
            Ok(_) | Err(_) => break,
        };
        answer = match greet_again(session, device) {
            Ok(()) => {
                again = true;
                deliver(session, order, blobs.clone(), on_progress)
            }
            Err(_) => Err(lost),
        };
    }
    let receipt = answer.and_then(|message| {
        let receipt = receipt(&message)?;
        session.witness_receipt(&order.digest(), &receipt)?;
        Ok(receipt)
    });
    (receipt, again)
}

/// Makes an order for an enrolled device and carries it out; again with another challenge, if the device says, signed, that it has lost
/// it. The others have the same counter, so one of them is done at most, whatever is still on its way.
fn order<'a>(
    session: &mut Session,
    device: &Statement,
    kind: Kind,
    blobs: impl Iterator<Item = &'a Vec<u8>> + Clone,
    on_progress: &mut OnProgress<'_>,
    make: &dyn Fn(Terms) -> Result<SignedOrder, DeviceError>,
) -> Result<(Digest, SignedReceipt), DeviceError> {
    let address = address(device);
    let mut standing = device.standing;
    for _ in 0..=ORDERS_AGAIN {
        let order =
            session.witness_order(&mut |head| make(Terms::now(address, &standing, head)?))?;
        let digest = order.digest();
        let (receipt, again) = carry_out(session, &order, blobs.clone(), on_progress)?;
        match verify::refused(&receipt, device, &digest, kind) {
            // The device has another challenge by now, and has done nothing since it gave the one in the order: it was reset, whether
            // that was noticed on the line or not.
            Some((Refusal::Stale, now)) if now.counter == standing.counter => standing = now,
            // Something was done since, by whomever: it may have been this.
            Some((Refusal::Stale, _)) if again => {
                return Err(DeviceError::Restarted {
                    port: session.port_name(),
                });
            }
            Some(_) | None => return Ok((digest, receipt)),
        }
    }
    Err(DeviceError::NotDone {
        port: session.port_name(),
    })
}

/// Enrols a blank device, or has an enrolled one state itself anew: either way ends in a fresh, verified statement.
///
/// # Errors
/// [`DeviceError`].
pub fn enroll(
    session: &mut Session,
    authority: &dyn Authority,
    unwrap: UnwrapAlgorithm,
    nonce: Challenge,
    on_progress: &mut OnProgress<'_>,
) -> Result<Statement, DeviceError> {
    for _ in 0..=ORDERS_AGAIN {
        let greeting = session.greeting().clone();
        let order = session
            .witness_order(&mut |head| enroll_order(authority, &greeting, unwrap, nonce, head))?;
        let (receipt, again) = carry(session, &order, [].iter(), on_progress);
        // A device without keys cannot sign that it has lost the order, and what else says so is not known yet. If it is a lie, the
        // next order fails, or has the device state itself.
        let lost = match &receipt {
            Ok(receipt) => verify::refusal_of(receipt) == Some(Refusal::Stale),
            Err(error) => matches!(
                error,
                DeviceError::Refused {
                    refusal: Refusal::Stale,
                    ..
                }
            ),
        };
        if again && lost {
            greet_again(session, greeting.device)?;
            continue;
        }
        return verify::statement(
            &receipt?,
            greeting.device,
            &order.digest(),
            nonce,
            verify::fingerprint(authority.public_key()),
        );
    }
    Err(DeviceError::NotDone {
        port: session.port_name(),
    })
}

/// Opens a new session with the same device.
fn greet_again(session: &mut Session, device: DeviceId) -> Result<(), DeviceError> {
    session.greet_again()?;
    if session.greeting().device == device {
        Ok(())
    } else {
        Err(DeviceError::Unexpected)
    }
}

/// Asks something that changes nothing; again in a new session, if the session is lost.
fn ask(session: &mut Session, request: &Request<'_>) -> Result<Vec<u8>, DeviceError> {
    let device = session.greeting().device;
    let mut answer = session.exchange(request, &mut |_| {});
    for _ in 0..TRIES_AGAIN {
        let lost = match answer {
            Err(lost) if lost.is_lost_answer() => lost,
            Ok(_) | Err(_) => break,
        };
        answer = match greet_again(session, device) {
            Ok(()) => session.exchange(request, &mut |_| {}),
            Err(_) => Err(lost),
        };
    }
    answer
}

/// Injects a shipment: one order, its blobs, one receipt.
///
/// # Errors
/// [`DeviceError`].
pub fn inject(
    session: &mut Session,
    authority: &dyn Authority,
    device: &Statement,
    shipment: &Shipment,
    challenge: Challenge,
    on_progress: &mut OnProgress<'_>,
) -> Result<Proofs, DeviceError> {
    let blobs: Vec<_> = shipment.blobs().collect();
    let make = |terms| inject_order(authority, terms, shipment, challenge);
    let (digest, receipt) = order(
        session,
        device,
        Kind::Inject,
        blobs.iter().copied(),
        on_progress,
        &make,
    )?;
    injected(&receipt, device, &digest, shipment, challenge)
}

/// Verifies the receipt of an `Inject`.
///
/// # Errors
/// [`DeviceError::Untrusted`], [`DeviceError::Refused`].
pub fn injected(
    receipt: &SignedReceipt,
    device: &Statement,
    order: &Digest,
    shipment: &Shipment,
    challenge: Challenge,
) -> Result<Proofs, DeviceError> {
    let (standing, reports) = verify::slots(receipt, device, order, Kind::Inject)?;
    let asked = shipment
        .parcels
        .iter()
        .map(|parcel| (parcel.slot, parcel.proof));
    check_reports(&reports, asked)?;
    let as_ordered = reports
        .iter()
        .zip(&shipment.parcels)
        .all(|(report, parcel)| {
            report.version == parcel.version && report.attributes == parcel.attributes
        });
    if !as_ordered {
        return Err(DeviceError::Untrusted {
            reason: "the receipt reports other versions or attributes than the order gave",
        });
    }
    Ok(Proofs {
        order: *order,
        challenge,
        reports,
        standing,
    })
}

/// Sends an order and its blobs behind it, and gives back the message that answers them.
///
/// # Errors
/// [`DeviceError`].
pub fn deliver<'a>(
    session: &mut Session,
    order: &SignedOrder,
    blobs: impl Iterator<Item = &'a Vec<u8>>,
    on_progress: &mut OnProgress<'_>,
) -> Result<Vec<u8>, DeviceError> {
    let stream: Vec<u8> = blobs.flatten().copied().collect();
    let all = order.bytes.len() + stream.len() + USUAL_RECEIPT;
    session.hasten(u64::try_from(all).unwrap_or(u64::MAX))?;
    if let Some(early) = session.send(&order.request(), on_progress)? {
        return Ok(early);
    }
    // A message can be longer than all blobs of most orders together.
    for bytes in stream.chunks(BLOBS_IN_MESSAGE) {
        if let Some(early) = session.send(&Request::Blob { bytes }, on_progress)? {
            return Ok(early);
        }
    }
    session.answer(on_progress)
}

/// A missing, extra or weaker proof than demanded fails the device.
fn check_reports(
    reports: &[SlotReport],
    asked: impl Iterator<Item = (u16, Proof)>,
) -> Result<(), DeviceError> {
    let reported = reports.iter().map(|report| (report.slot, report.proof));
    if reported.eq(asked) {
        Ok(())
    } else {
        Err(DeviceError::Untrusted {
            reason: "the receipt does not report what the order asked for",
        })
    }
}

/// Has slots proved.
///
/// # Errors
/// [`DeviceError`].
pub fn prove(
    session: &mut Session,
    authority: &dyn Authority,
    device: &Statement,
    demands: &[Demand],
    challenge: Challenge,
    on_progress: &mut OnProgress<'_>,
) -> Result<Proofs, DeviceError> {
    let make = |terms| prove_order(authority, terms, demands, challenge);
    let none = [].iter();
    let (digest, receipt) = order(session, device, Kind::Prove, none, on_progress, &make)?;
    let (standing, reports) = verify::slots(&receipt, device, &digest, Kind::Prove)?;
    check_reports(
        &reports,
        demands.iter().map(|demand| (demand.slot, demand.proof)),
    )?;
    Ok(Proofs {
        order: digest,
        challenge,
        reports,
        standing,
    })
}

/// Carries out an order of which the receipt says only that it was applied.
fn simple(
    session: &mut Session,
    device: &Statement,
    kind: Kind,
    on_progress: &mut OnProgress<'_>,
    make: &dyn Fn(Terms) -> Result<SignedOrder, DeviceError>,
) -> Result<Standing, DeviceError> {
    let (digest, receipt) = order(session, device, kind, [].iter(), on_progress, make)?;
    verify::done(&receipt, device, &digest, kind)
}

/// Takes keys out of slots.
///
/// # Errors
/// [`DeviceError`].
pub fn remove(
    session: &mut Session,
    authority: &dyn Authority,
    device: &Statement,
    slots: &[u8],
    on_progress: &mut OnProgress<'_>,
) -> Result<Standing, DeviceError> {
    let make = |terms| remove_order(authority, terms, slots);
    simple(session, device, Kind::Remove, on_progress, &make)
}

/// Locks the device.
///
/// # Errors
/// [`DeviceError`].
pub fn lock(
    session: &mut Session,
    authority: &dyn Authority,
    device: &Statement,
    on_progress: &mut OnProgress<'_>,
) -> Result<Standing, DeviceError> {
    let make = |terms| lock_order(authority, terms);
    simple(session, device, Kind::Lock, on_progress, &make)
}

/// Wipes the device.
///
/// # Errors
/// [`DeviceError`].
pub fn wipe(
    session: &mut Session,
    authority: &dyn Authority,
    device: &Statement,
    on_progress: &mut OnProgress<'_>,
) -> Result<Standing, DeviceError> {
    let make = |terms| wipe_order(authority, terms);
    simple(session, device, Kind::Wipe, on_progress, &make)
}

/// Wipes a quarantined device. It has no key left that anybody knows, so its receipt says that it has begun anew and cannot prove it
/// ([`verify::recovered`]). `counter` as in [`recover_order`].
///
/// # Errors
/// [`DeviceError`]; [`DeviceError::Unexpected`] if it does not greet as a blank device with this counter afterwards.
pub fn recover(
    session: &mut Session,
    authority: &dyn Authority,
    counter: u32,
    on_progress: &mut OnProgress<'_>,
) -> Result<(), DeviceError> {
    let greeting = session.greeting().clone();
    let order =
        session.witness_order(&mut |head| recover_order(authority, &greeting, counter, head))?;
    let (receipt, _) = carry(session, &order, [].iter(), on_progress);
    verify::recovered(&receipt?, greeting.device, &order.digest())?;
    greet_again(session, greeting.device)?;
    let now = session.greeting();
    if now.state == State::Blank && now.counter == counter {
        Ok(())
    } else {
        Err(DeviceError::Unexpected)
    }
}

/// Hands the device over to a new authority.
///
/// # Errors
/// [`DeviceError`].
pub fn rotate(
    session: &mut Session,
    authority: &dyn Authority,
    new: &dyn Authority,
    device: &Statement,
    on_progress: &mut OnProgress<'_>,
) -> Result<Standing, DeviceError> {
    let make = |terms| rotate_order(authority, new, terms);
    simple(session, device, Kind::Rotate, on_progress, &make)
}

/// Whether an order was applied, and where the device stands, signed by its identity key over a nonce of the station's. The
/// standing's challenge is that of the greeting.
///
/// # Errors
/// [`DeviceError`].
pub fn status(
    session: &mut Session,
    identity_key: &[u8],
    order: Digest,
    nonce: Challenge,
) -> Result<(bool, Standing), DeviceError> {
    let (applied, standing, _) = signed_status(session, identity_key, order, nonce)?;
    Ok((applied, standing))
}

/// As [`status`], with what the device has signed, for the books.
///
/// # Errors
/// [`DeviceError`].
pub fn signed_status(
    session: &mut Session,
    identity_key: &[u8],
    order: Digest,
    nonce: Challenge,
) -> Result<(bool, Standing, SignedReceipt), DeviceError> {
    let message = ask(session, &Request::Status { order, nonce })?;
    let challenge = session.greeting().challenge;
    let device = session.greeting().device;
    let (signature, bytes): (Signature, &[u8]) = match Reply::decode(&message) {
        Ok(Reply::Status { signature, status }) => (signature, status),
        Ok(Reply::Refused(refusal)) => {
            return Err(DeviceError::Refused {
                refusal,
                signed: false,
            });
        }
        Ok(_) | Err(_) => return Err(DeviceError::Unexpected),
    };
    let status = verify::status(bytes, &signature, identity_key, device, &order, nonce)?;
    Ok((
        status.applied,
        Standing {
            state: status.state,
            counter: status.counter,
            challenge,
        },
        SignedReceipt {
            bytes: bytes.to_vec(),
            signature,
        },
    ))
}

/// The certificate of the identity key that the device holds, if it has one. Unsigned: it is worth what its own signature is.
///
/// # Errors
/// [`DeviceError`].
pub fn certificate(session: &mut Session) -> Result<Option<Vec<u8>>, DeviceError> {
    let message = ask(session, &Request::Certificate)?;
    match Reply::decode(&message) {
        Ok(Reply::Certificate { bytes }) => Ok(Some(bytes.to_vec())),
        Ok(Reply::Refused(Refusal::SlotEmpty)) => Ok(None),
        Ok(Reply::Refused(refusal)) => Err(DeviceError::Refused {
            refusal,
            signed: false,
        }),
        Ok(_) | Err(_) => Err(DeviceError::Unexpected),
    }
}

/// Has the device show people that the station has given it up. One that refuses shows that as well, and one of an older protocol refuses.
///
/// # Errors
/// [`DeviceError`].
pub fn show_failed(session: &mut Session) -> Result<(), DeviceError> {
    let message = ask(session, &Request::Failed)?;
    match Reply::decode(&message) {
        Ok(Reply::Failed | Reply::Refused(_)) => Ok(()),
        Ok(_) | Err(_) => Err(DeviceError::Unexpected),
    }
}

/// The device's table of slots. Unsigned: for people to look at.
///
/// # Errors
/// [`DeviceError`].
pub fn list(session: &mut Session) -> Result<Vec<SlotInfo>, DeviceError> {
    let message = ask(session, &Request::List)?;
    match Reply::decode(&message) {
        Ok(Reply::Slots { table }) => SlotInfo::table(table)
            .collect::<Result<_, _>>()
            .map_err(|_| DeviceError::Unexpected),
        Ok(Reply::Refused(refusal)) => Err(DeviceError::Refused {
            refusal,
            signed: false,
        }),
        Ok(_) | Err(_) => Err(DeviceError::Unexpected),
    }
}

/// Fingerprint of an authority's key.
#[must_use]
pub fn authority_fingerprint(authority: &dyn Authority) -> Fingerprint {
    verify::fingerprint(authority.public_key())
}
