//! What a device must show: the model's side of the campaign.

use keyferry::device::flow::{self, Demand};
use keyferry::device::session::Session;
use keyferry::device::verify::{self, Standing, Statement};
use keyferry_protocol::identity::{Challenge, Fingerprint, Hint};
use keyferry_protocol::message::SlotInfo;
use keyferry_protocol::proof::Proof;
use keyferry_protocol::receipt::State;
use keyferry_protocol::suite::UnwrapAlgorithm;
use keyferry_tests::software::{SoftAuthority, SoftKey, aes_key, proof_is_right, wrap};

/// A device's state, as far as anybody can see it.
#[derive(Clone)]
pub(crate) struct Model {
    pub(crate) state: State,
    pub(crate) counter: u32,
    /// Whom the device obeys, by number; nobody in particular if it is blank.
    pub(crate) authority: Option<u8>,
    /// The keys: slot, version, key.
    pub(crate) keys: Vec<(u16, u32, SoftKey)>,
}

/// What a device shows without being asked for more than a greeting and its slots.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    state: State,
    counter: u32,
    authority: Hint,
    has_identity: bool,
    slots: Vec<SlotInfo>,
}

impl Model {
    /// What the device must show.
    pub(crate) fn shown(&self) -> Shown {
        let authority = self.authority.map_or(Hint::ZERO, |number| {
            verify::fingerprint(&public_key(number)).hint()
        });
        let info = |(slot, version, key): &(u16, u32, SoftKey)| SlotInfo {
            slot: *slot,
            version: *version,
            attributes: key.attributes,
            label: format!("key {slot}").as_str().try_into().expect("short"),
        };
        Shown {
            state: self.state,
            counter: self.counter,
            authority,
            has_identity: !matches!(self.state, State::Blank | State::Quarantined),
            slots: self.keys.iter().map(info).collect(),
        }
    }
}

fn public_key(authority: u8) -> Vec<u8> {
    use flow::Authority as _;
    SoftAuthority::new(authority).public_key().to_vec()
}

/// What it does show.
pub(crate) fn look(session: &mut Session) -> Shown {
    let slots = match session.greeting().state {
        // Nobody can vouch for what is in them.
        State::Quarantined => Vec::new(),
        State::Blank | State::Enrolled | State::Provisioned | State::Locked => {
            flow::list(session).expect("a device lists its slots")
        }
    };
    let greeting = session.greeting();
    Shown {
        state: greeting.state,
        counter: greeting.counter,
        authority: greeting.authority,
        has_identity: greeting.identity != Fingerprint::ZERO,
        slots,
    }
}

/// The statement as of this session: for orders to the device as it is now.
pub(crate) fn at_present(statement: &Statement, session: &Session) -> Statement {
    let greeting = session.greeting();
    Statement {
        standing: Standing {
            state: greeting.state,
            counter: greeting.counter,
            challenge: greeting.challenge,
        },
        ..statement.clone()
    }
}

/// The device must be one that can be provisioned: its keys prove themselves, or it is enrolled anew, and takes another key. Each
/// receipt is verified. `statement` is of the keys that the device has, if it has any.
pub(crate) fn go_on(
    session: &mut Session,
    model: &Model,
    statement: Option<&Statement>,
    told: &str,
) {
    let authority = SoftAuthority::new(model.authority.unwrap_or(5));
    let challenge = Challenge([4; 32]);
    let mut statement = match statement {
        Some(statement) => at_present(statement, session),
        None => flow::enroll(
            session,
            &authority,
            UnwrapAlgorithm::P256,
            Challenge([8; 32]),
            &mut |_| {},
        )
        .unwrap_or_else(|error| panic!("{told}: a blank device can be enrolled: {error}")),
    };
    if !model.keys.is_empty() {
        let demands: Vec<Demand> = model
            .keys
            .iter()
            .map(|(slot, _, key)| (*slot, Proof::strongest(&key.attributes)).into())
            .collect();
        let proofs = flow::prove(
            session,
            &authority,
            &statement,
            &demands,
            challenge,
            &mut |_| {},
        )
        .unwrap_or_else(|error| panic!("{told}: the keys prove themselves: {error}"));
        for ((_, _, key), report) in model.keys.iter().zip(&proofs.reports) {
            assert!(proof_is_right(key, report, &proofs.order, &challenge));
        }
        statement.standing = proofs.standing;
    }
    let key = aes_key(32, 77);
    let mut shipment = wrap(&statement, std::slice::from_ref(&key), 1);
    for parcel in &mut shipment.parcels {
        parcel.slot = 9;
    }
    let proofs = flow::inject(
        session,
        &authority,
        &statement,
        &shipment,
        challenge,
        &mut |_| {},
    )
    .unwrap_or_else(|error| panic!("{told}: another key can be injected: {error}"));
    assert!(proof_is_right(
        &key,
        &proofs.reports[0],
        &proofs.order,
        &challenge
    ));
}
