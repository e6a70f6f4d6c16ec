//! Sections 4 to 7: kinds, states, suites, proofs, refusals.

use keyferry_firmware::device::{JOB_LIMIT, JOB_PATIENCE, allowed};
use keyferry_protocol::attributes::{Attributes, KeyKind, algorithm};
use keyferry_protocol::order::{Kind, MAX_COUNTER_STEP, MAX_LABEL, MAX_RECOVERED_COUNTER};
use keyferry_protocol::proof::Proof;
use keyferry_protocol::receipt::{Refusal, State};
use keyferry_protocol::suite::{Suite, UnwrapAlgorithm};
use keyferry_protocol::{MAX_CERTIFICATE, MAX_MESSAGE, MAX_QUESTIONS, MAX_VENDOR_CERTIFICATE};

use super::{between, integers, numbered, table};

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

/// A question or value as the table has it: fields with their lengths, or so many bytes, the last number counts.
fn length_of(cell: &str, modulus: usize) -> usize {
    let fields: Vec<usize> = cell
        .split("`[")
        .skip(1)
        .map(|field| field.split(']').next().unwrap_or_default())
        .map(|length| length.parse().expect("a length"))
        .collect();
    if !fields.is_empty() {
        return fields.iter().sum();
    }
    if cell.contains("modulus length") {
        return modulus;
    }
    let words: Vec<&str> = cell.split(' ').collect();
    let lengths = words.windows(2).filter(|two| two[1].starts_with("bytes"));
    lengths
        .filter_map(|two| two[0].parse().ok())
        .next_back()
        .unwrap_or(0)
}

#[test]
fn questions_and_values_of_proofs_are_as_long_as_the_table_says() {
    let aes = (KeyKind::Aes(16), 16);
    let rsa = (KeyKind::Rsa(384), 384);
    // In the order of the rows: a key of the kind that the row is about.
    let keys = [
        (aes, 0),
        (aes, algorithm::CMAC),
        ((KeyKind::Secret(32), 32), algorithm::HMAC_SHA256),
        ((KeyKind::P256, 32), algorithm::ECDSA_SHA256),
        (rsa, algorithm::RSA_PKCS1V15_SHA256),
        ((KeyKind::P256, 32), algorithm::ECDH),
        (aes, algorithm::CTR),
        (aes, algorithm::GCM),
        (rsa, algorithm::RSA_OAEP_SHA256),
        (aes, algorithm::CTR),
    ];
    let heading = [
        "kind",
        "for keys whose attributes say",
        "question",
        "value",
        "level",
    ];
    let rows = table("## 6. Proofs", &heading);
    assert_eq!(rows.len(), keys.len());
    let mut value = 0;
    for (row, ((kind, modulus), algorithm)) in rows.iter().zip(keys) {
        let number: usize = row[0].split(' ').next().unwrap().parse().expect("a number");
        let proof = Proof::ALL[number];
        let attributes = Attributes {
            key_type: 0,
            bits: 0,
            usage: 0,
            algorithm,
            lifetime: 1,
        };
        assert_eq!(
            length_of(&row[2], modulus),
            proof.question_length(kind, &attributes),
            "{row:?}"
        );
        if row[3] != "the same" {
            value = length_of(&row[3], modulus);
        }
        assert_eq!(value, proof.length(kind), "{row:?}");
    }
}

#[test]
fn the_limits_in_the_text_are_those_of_the_code() {
    for (from, to, limit) in [
        ("A message has at most", "bytes", MAX_MESSAGE),
        ("label `str` (at most", "bytes", MAX_LABEL),
        ("in its `questions`, at most", "bytes", MAX_QUESTIONS),
        (
            "above the device's by at most",
            ";",
            MAX_COUNTER_STEP as usize,
        ),
        ("Certificate | bytes, at most", ":", MAX_CERTIFICATE),
        ("certificate of at most", "bytes", MAX_VENDOR_CERTIFICATE),
        (
            "That counter MUST be at most",
            "(else",
            MAX_RECOVERED_COUNTER as usize,
        ),
        (
            "no byte of a blob has come for",
            "seconds",
            JOB_PATIENCE as usize / 1_000,
        ),
        (
            "has not come whole within",
            "minutes",
            JOB_LIMIT as usize / 60_000,
        ),
        ("A credit MUST be at most", ".", 32_767),
    ] {
        assert_eq!(integers(&between(from, to)), [limit as u64], "{from}");
    }
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
