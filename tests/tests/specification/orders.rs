//! Sections 4 to 7: kinds, states, suites, proofs, refusals.

use keyferry_firmware::device::allowed;
use keyferry_protocol::order::Kind;
use keyferry_protocol::proof::Proof;
use keyferry_protocol::receipt::{Refusal, State};
use keyferry_protocol::suite::{Suite, UnwrapAlgorithm};

use super::{numbered, table};

const KINDS: [Kind; 7] = [
    Kind::Enroll,
    Kind::Inject,
    Kind::Prove,
    Kind::Remove,
    Kind::Rotate,
    Kind::Lock,
    Kind::Wipe,
];

const STATES: [State; 5] = [
    State::Blank,
    State::Enrolled,
    State::Provisioned,
    State::Locked,
    State::Quarantined,
];

#[test]
fn the_kinds_of_order_have_the_numbers_of_the_table() {
    let listed: Vec<(usize, String)> = table("## 4. Orders", &["kind", "body"])
        .iter()
        .flat_map(|row| row[0].split(", "))
        .map(|one| {
            let (number, name) = one.split_once(' ').expect("number and name");
            (number.parse().expect("a number"), name.to_lowercase())
        })
        .collect();
    assert_eq!(
        listed,
        KINDS.map(|kind| (kind as usize, kind.name().to_owned()))
    );
}

// SPEC: M-28
#[test]
fn a_kind_is_allowed_where_the_table_says() {
    let heading: Vec<&str> = [""].into_iter().chain(STATES.map(State::name)).collect();
    let mut seen = Vec::new();
    for row in table("## 4. Orders", &heading) {
        for name in row[0].split(", ") {
            let kind = KINDS
                .into_iter()
                .find(|kind| kind.name() == name.to_lowercase())
                .unwrap_or_else(|| panic!("no kind {name}"));
            for (state, cell) in STATES.into_iter().zip(&row[1..]) {
                assert_eq!(
                    allowed(kind, state),
                    !cell.is_empty(),
                    "{name} when {}",
                    state.name()
                );
            }
            seen.push(kind);
        }
    }
    assert_eq!(seen.len(), KINDS.len());
    assert!(KINDS.iter().all(|kind| seen.contains(kind)));
}

#[test]
fn the_suites_and_unwrap_keys_have_the_numbers_of_the_lists() {
    let suites = numbered("Suites: ", ". |");
    assert_eq!(
        suites,
        Suite::ALL.map(|suite| (suite as usize, suite.name().to_owned()))
    );
    let keys = numbered("unwrap key kind (", ")");
    let code = [
        UnwrapAlgorithm::Rsa2048,
        UnwrapAlgorithm::Rsa3072,
        UnwrapAlgorithm::Rsa4096,
        UnwrapAlgorithm::P256,
    ];
    assert_eq!(keys, code.map(|key| (key as usize, key.name().to_owned())));
}

#[test]
fn the_proofs_have_the_numbers_names_and_levels_of_the_table() {
    let heading = [
        "kind",
        "for keys whose attributes say",
        "question",
        "value",
        "level",
    ];
    let mut listed: Vec<(String, String)> = table("## 6. Proofs", &heading)
        .into_iter()
        .map(|row| (row[0].clone(), row[4].clone()))
        .collect();
    // One kind has a row for each kind of key.
    listed.dedup();
    let code = Proof::ALL.map(|proof| {
        let kind = format!("{} {}", proof as usize, proof.name());
        (kind, proof.level().name().to_owned())
    });
    assert_eq!(listed, code);
}

#[test]
fn the_refusals_have_the_numbers_of_the_list() {
    let code = [
        Refusal::Malformed,
        Refusal::UnknownVersion,
        Refusal::BadSignature,
        Refusal::WrongAddress,
        Refusal::Stale,
        Refusal::Counter,
        Refusal::State,
        Refusal::Suite,
        Refusal::Attributes,
        Refusal::SlotTaken,
        Refusal::VersionRollback,
        Refusal::StoreFull,
        Refusal::Unwrap,
        Refusal::SlotEmpty,
        Refusal::Entropy,
        Refusal::Storage,
        Refusal::TooLong,
        Refusal::Sequence,
        Refusal::Unsupported,
    ];
    let listed = numbered("Refusals: ", ". ## 8");
    assert_eq!(listed, code.map(|one| (one as usize, format!("{one:?}"))));
}

#[test]
fn the_states_have_the_numbers_of_the_list() {
    let listed = numbered("States: ", ". - **");
    assert_eq!(
        listed,
        STATES.map(|state| (state as usize, state.name().to_owned()))
    );
}
