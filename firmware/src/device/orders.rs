//! Which orders pass. The checks stand in the order that SPEC.md gives them, and no private-key operation happens before
//! signature and address are known to be right.

use heapless::Vec;
use keyferry_protocol::MAX_ENTRIES;
use keyferry_protocol::identity::{Digest, Fingerprint, Signature, p256_spki};
use keyferry_protocol::message::Request;
use keyferry_protocol::order::{
    self, Freshness, Header, Kind, MAX_COUNTER_STEP, MAX_RECOVERED_COUNTER, View,
};
use keyferry_protocol::receipt::{Refusal, State};
use sha2::{Digest as _, Sha256};

use super::Device;
use super::enroll::Wanted;
use super::memory::Memory;
use crate::fmt::info;
use crate::keys;
use crate::platform::{Mark, Platform, Status, Stretch};
use crate::store::{ItemId, Store};

/// An order that is authentic, for this device, fresh, and allowed in its state.
#[derive(Clone, Copy)]
pub(super) struct Accepted {
    pub(super) digest: Digest,
    pub(super) header: Header,
}

/// The table of SPEC.md, section 4: whether this kind of order is allowed in this state.
#[must_use]
pub const fn allowed(kind: Kind, state: State) -> bool {
    match state {
        // With the authority's key in it.
        State::Quarantined => match kind {
            Kind::Wipe => true,
            Kind::Enroll
            | Kind::Inject
            | Kind::Prove
            | Kind::Remove
            | Kind::Rotate
            | Kind::Lock => false,
        },
        State::Blank => match kind {
            Kind::Enroll => true,
            Kind::Inject | Kind::Prove | Kind::Remove | Kind::Rotate | Kind::Lock | Kind::Wipe => {
                false
            }
        },
        State::Enrolled | State::Provisioned => match kind {
            Kind::Enroll | Kind::Inject | Kind::Prove | Kind::Remove | Kind::Lock => true,
            Kind::Rotate | Kind::Wipe => true,
        },
        State::Locked => match kind {
            Kind::Enroll | Kind::Prove | Kind::Wipe => true,
            Kind::Inject | Kind::Remove | Kind::Rotate | Kind::Lock => false,
        },
    }
}

/// What it takes to tell whether an order is authentic.
struct Judge<'d, P: Platform> {
    platform: &'d mut P,
    store: &'d mut Store<P::Flash>,
    memory: &'d Memory,
    /// Whether the order is the last one applied.
    again: bool,
}

impl<P: Platform, const RX: usize, const OUT: usize> Device<P, RX, OUT> {
    // Not part of its caller's frame, which the scrubbing afterwards does not reach.
    #[inline(never)]
    pub(super) fn take_order(&mut self) {
        self.show(Status::Busy);
        match self.judge() {
            // It is not for this device: it leaves no trace, nor is it worth a signature.
            Err(refusal) => self.refuse(refusal),
            Ok(None) => self.answer_stored_receipt(),
            Ok(Some(order)) => {
                let done = self
                    .admit(&order.header)
                    .and_then(|()| self.perform(&order));
                if let Err(refusal) = done {
                    self.answer_refusal(&order, refusal);
                }
            }
        }
    }

    /// Judges the order at the front of the link where it lies. One that is authentic ends the one that is under way, and its body takes
    /// that one's place. `None` if it was done before.
    #[inline(never)]
    fn judge(&mut self) -> Result<Option<Accepted>, Refusal> {
        let message = self.link.front().map_or(&[][..], |front| front.bytes);
        let Ok(Request::Order {
            signature,
            second,
            order: bytes,
        }) = Request::decode(message)
        else {
            return Err(Refusal::Malformed);
        };
        let digest = Digest(Sha256::digest(bytes).into());
        let again = self.memory.last_order == digest && digest != Digest::ZERO;
        let mut judge = Judge {
            platform: &mut self.platform,
            store: &mut self.store,
            memory: &self.memory,
            again,
        };
        if again && judge.outlived_its_authority(bytes, second.as_ref()) {
            return Ok(None);
        }
        judge.platform.measure(Mark::Begins(Stretch::Verify));
        let authentic = judge.authenticate(bytes, &signature, second.as_ref());
        judge.platform.measure(Mark::Ends(Stretch::Verify));
        let (header, body) = authentic?;
        if again {
            return Ok(None);
        }
        self.order_length = body.len();
        self.order
            .get_mut(..body.len())
            .ok_or(Refusal::Malformed)?
            .copy_from_slice(body);
        self.drop_job();
        Ok(Some(Accepted { digest, header }))
    }

    /// Freshness, counter, state. The challenge is used up here, whatever comes after.
    fn admit(&mut self, header: &Header) -> Result<(), Refusal> {
        if self.random.is_none() {
            return Err(self.unready);
        }
        let quarantined = self.memory.state == State::Quarantined;
        let fresh = match header.freshness {
            Freshness::Challenge(challenge) => challenge == self.challenge,
            // What a quarantined device's counter was it cannot know.
            Freshness::Detached { .. } if quarantined => false,
            Freshness::Detached { below } => self.memory.counter < below,
        };
        self.renew_challenge();
        if !fresh {
            return Err(Refusal::Stale);
        }
        // Whoever talks to the device now knows its counter; only an order prepared earlier may leave some out.
        let furthest = match header.freshness {
            Freshness::Challenge(_) => 1,
            Freshness::Detached { .. } => MAX_COUNTER_STEP,
        };
        // The station knows better what it was, but must leave some.
        let furthest = if quarantined {
            MAX_RECOVERED_COUNTER
        } else {
            furthest
        };
        let step = header.counter.checked_sub(self.memory.counter);
        if !step.is_some_and(|step| (1..=furthest).contains(&step)) {
            return Err(Refusal::Counter);
        }
        if !allowed(header.kind, self.memory.state) {
            return Err(Refusal::State);
        }
        info!("order admitted: kind {=u8}", header.kind as u8);
        Ok(())
    }

    // What each kind of order needs of the stack is in a frame of its own, not all of it in one.
    #[inline(never)]
    fn perform(&mut self, order: &Accepted) -> Result<(), Refusal> {
        // What is small is copied out of the order's bytes; keys and proofs are looked up there when it is their turn.
        match self.view(order.header.kind)? {
            View::Enroll(enroll) => {
                let wanted = Wanted {
                    authority: key(enroll.authority)?,
                    nonce: enroll.nonce,
                    unwrap: enroll.unwrap,
                };
                if self.no_keys() {
                    self.begin_enroll(order, &wanted)
                } else {
                    self.restate(order, wanted.nonce)
                }
            }
            View::Inject(_) => self.begin_inject(order),
            View::Prove(_) => self.begin_prove(order),
            View::Remove(slots) => {
                let slots: Vec<u8, MAX_ENTRIES> =
                    Vec::from_slice(slots).map_err(|_| Refusal::Malformed)?;
                self.remove(order, &slots)
            }
            View::Rotate(rotate) => {
                let authority = key(rotate.authority)?;
                self.rotate(order, &authority)
            }
            View::Lock => self.lock(order),
            View::Wipe => self.wipe_device(order),
            View::Recover(_) if self.memory.state == State::Quarantined => self.recover(order),
            View::Recover(_) => Err(Refusal::State),
        }
    }

    fn view(&self, kind: Kind) -> Result<View<'_>, Refusal> {
        view(&self.order[..self.order_length], kind)
    }

    /// The device's memory once this order is applied.
    pub(super) fn after(&self, order: &Accepted) -> Memory {
        Memory {
            counter: order.header.counter,
            last_order: order.digest,
            ..self.memory.clone()
        }
    }
}

impl<P: Platform> Judge<'_, P> {
    fn no_keys(&self) -> bool {
        self.memory.identity == Fingerprint::ZERO
    }

    /// Whether the last order applied is one that the authority of now cannot vouch for. A `Wipe` has taken the authority
    /// away, or may have; a `Rotate` has replaced it, and is vouched for by the second signature. Both were verified whole
    /// when they were applied, and the digest says that these are the same bytes.
    fn outlived_its_authority(&mut self, bytes: &[u8], second: Option<&Signature>) -> bool {
        if self.no_keys() {
            return true;
        }
        let rotated =
            matches!(order::decode_header(bytes), Ok((header, _)) if header.kind == Kind::Rotate);
        let mut stored = [0; p256_spki::LENGTH];
        let authority = self.store.public(ItemId::AUTHORITY, &mut stored);
        match (authority, second) {
            (Ok(Some(authority)), Some(second)) => {
                rotated && keys::p256::verify(authority, bytes, second)
            }
            (Ok(_) | Err(_), _) => false,
        }
    }

    /// Signature and address: what fails here is answered unsigned and leaves no trace.
    #[inline(never)]
    fn authenticate<'a>(
        &mut self,
        bytes: &'a [u8],
        signature: &Signature,
        second: Option<&Signature>,
    ) -> Result<(Header, &'a [u8]), Refusal> {
        let quarantined = self.memory.state == State::Quarantined;
        let decoded = order::view(bytes).map_err(|error| match error {
            keyferry_protocol::DecodeError::UnknownFormat(_) => Refusal::UnknownVersion,
            keyferry_protocol::DecodeError::Malformed
            | keyferry_protocol::DecodeError::WrongTag => Refusal::Malformed,
        });
        let mut stored = [0; p256_spki::LENGTH];
        let authority = if self.no_keys() {
            // A blank device takes the authority from the order itself, unless it knows whom to obey: from before a `Wipe`, or
            // from its image.
            match &decoded {
                Ok((_, View::Enroll(enroll))) if !quarantined => {
                    let pinned = match self.memory.authority {
                        Fingerprint::ZERO => self.platform.pinned_authority(),
                        known => Some(known),
                    };
                    if pinned.is_some_and(|pinned| pinned != keys::fingerprint(enroll.authority)) {
                        return Err(Refusal::BadSignature);
                    }
                    enroll.authority
                }
                // Whom it obeyed it cannot know, but for what its image says. Without that it takes anybody, as it did when its flash
                // was new: whoever can bring it here could have erased its flash as well.
                Ok((_, View::Recover(recover))) if quarantined => {
                    let pinned = self.platform.pinned_authority();
                    if pinned.is_some_and(|pinned| pinned != keys::fingerprint(recover.authority)) {
                        return Err(Refusal::BadSignature);
                    }
                    recover.authority
                }
                Ok(_) => return Err(Refusal::State),
                Err(refusal) => return Err(*refusal),
            }
        } else {
            match self.store.public(ItemId::AUTHORITY, &mut stored) {
                Ok(Some(spki)) => spki,
                Ok(None) | Err(_) => return Err(Refusal::Storage),
            }
        };
        if !keys::p256::verify(authority, bytes, signature) {
            return Err(Refusal::BadSignature);
        }
        let (header, view) = decoded?;
        if let View::Enroll(enroll) = &view
            && enroll.authority != authority
        {
            return Err(Refusal::BadSignature);
        }
        if let View::Rotate(rotate) = &view {
            // The new authority's word that it wants the device, and that it is a key at all.
            if !second.is_some_and(|second| keys::p256::verify(rotate.authority, bytes, second)) {
                return Err(Refusal::BadSignature);
            }
        } else if second.is_some() {
            return Err(Refusal::Malformed);
        }
        let (_, body) = order::decode_header(bytes).map_err(|_| Refusal::Malformed)?;
        // The `Enroll` that made the keys names none, and is for this device all the same.
        if self.again {
            return Ok((header, body));
        }
        // Who asks for the keys cannot name them. The identity key is in the greeting, so that the order is for this device alone.
        let unwrap = match header.kind {
            Kind::Enroll => Fingerprint::ZERO,
            Kind::Inject | Kind::Prove | Kind::Remove | Kind::Rotate | Kind::Lock | Kind::Wipe => {
                self.memory.unwrap
            }
        };
        if header.device != self.platform.device_id()
            || header.identity != self.memory.identity
            || header.unwrap != unwrap
        {
            return Err(Refusal::WrongAddress);
        }
        Ok((header, body))
    }
}

/// Looks at the body of an order that was accepted.
pub(super) fn view(order: &[u8], kind: Kind) -> Result<View<'_>, Refusal> {
    View::read(kind, order).map_err(|_| Refusal::Malformed)
}

/// An authority's key. It has verified a signature by now, so it is as long as one.
fn key(spki: &[u8]) -> Result<[u8; p256_spki::LENGTH], Refusal> {
    spki.try_into().map_err(|_| Refusal::Malformed)
}
