//! For whom keys are wrapped, and which, and how many.

use keyferry::device::flow::{Terms, enroll_order};
use keyferry::device::session::Greeting;
use keyferry::device::verify::{Standing, Statement, fingerprint};
use keyferry::error::{Exit, Failure};
use keyferry::hsm::KeySpec;
use keyferry::station::{Hsm, JobError, KeyCard, Recipient};
use keyferry_protocol::identity::{Challenge, DeviceId, Digest, Fingerprint, Hint};
use keyferry_protocol::receipt::State;
use keyferry_protocol::suite::{Suite, UnwrapAlgorithm};
use keyferry_tests::broker::{Broker, FakeDevice};
use keyferry_tests::software::SoftAuthority;

use crate::{OPEN, token};

pub(crate) fn recipient(statement: &Statement) -> Recipient<'_> {
    Recipient {
        statement,
        certificate: None,
    }
}

/// What a device with these keys greets with.
pub(crate) fn greeting(device: DeviceId, identity: Fingerprint) -> Greeting {
    Greeting {
        device,
        identity,
        authority: Hint::ZERO,
        state: State::Blank,
        counter: 0,
        challenge: Challenge([5; 32]),
        certified: false,
        board: String::new(),
        firmware: String::new(),
    }
}

/// Has the broker sign an `Enroll`, and the fake answer it.
pub(crate) fn enroll(hsm: &dyn Hsm, fake: &FakeDevice, identity: Fingerprint) -> Statement {
    let order = enroll_order(
        hsm.authority(),
        &greeting(fake.id(), identity),
        UnwrapAlgorithm::P256,
        Challenge([9; 32]),
        Digest::ZERO,
    )
    .unwrap();
    fake.answer(&order.bytes)
}

pub(crate) fn card(hsm: &dyn Hsm, label: &str) -> KeyCard {
    hsm.key(&KeySpec::label(label), None).unwrap()
}

pub(crate) fn suite(hsm: &dyn Hsm, statement: &Statement) -> Suite {
    let offered = hsm.suites().unwrap();
    let mut both = statement
        .suites
        .iter()
        .filter(|suite| offered.contains(suite));
    *both.next().unwrap()
}

pub(crate) fn wrap(hsm: &dyn Hsm, statement: &Statement, card: &KeyCard) -> Result<(), JobError> {
    let suite = suite(hsm, statement);
    hsm.wrap(recipient(statement), suite, &[card]).map(|_| ())
}

/// Expects a refusal by policy in these words.
pub(crate) fn refused<T: std::fmt::Debug>(result: Result<T, impl Into<Failure>>, words: &str) {
    let failure: Failure = result.expect_err("it is refused").into();
    assert_eq!(failure.exit(), Exit::Policy, "{failure}");
    assert!(failure.to_string().contains(words), "{failure}");
    assert!(failure.hint().is_some(), "{failure}");
}

#[test]
fn a_statement_that_answers_no_order_of_the_broker_is_refused() {
    let scratch = token();
    let broker = Broker::start(&scratch, &OPEN);
    let hsm = broker.client();
    let sensor = card(&hsm, "sensor");
    let fake = FakeDevice::new(1);
    let authority = fingerprint(hsm.authority().public_key());

    let invented = fake.state(Digest([1; 32]), Challenge([9; 32]), authority, 1);
    refused(wrap(&hsm, &invented, &sensor), "no recent order");

    // The order is the broker's, the nonce is not.
    let honest = enroll(&hsm, &fake, Fingerprint::ZERO);
    let stale = fake.state(honest.order, Challenge([8; 32]), authority, 1);
    refused(wrap(&hsm, &stale, &sensor), "no recent order");

    // The order was for another device.
    let other = FakeDevice::new(2);
    let moved = other.state(honest.order, honest.nonce, authority, 1);
    refused(wrap(&hsm, &moved, &sensor), "no recent order");

    let foreign = fingerprint(keyferry::device::flow::Authority::public_key(
        &SoftAuthority::new(7),
    ));
    let theirs = fake.state(honest.order, honest.nonce, foreign, 1);
    refused(wrap(&hsm, &theirs, &sensor), "obeys authority");

    let counts = broker.counts();
    assert_eq!(counts["refused"], 4);
    assert_eq!(counts["keys_wrapped"], 0);
    // Only now: the same device, as its order wants it. The policy here is `open`.
    wrap(&hsm, &honest, &sensor).unwrap();
    let verdicts: Vec<_> = broker
        .log()
        .iter()
        .filter(|line| line["request"] == "wrap")
        .map(|line| line["verdict"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        verdicts,
        ["refused", "refused", "refused", "refused", "granted"]
    );
}

#[test]
fn an_altered_statement_is_refused() {
    let scratch = token();
    let broker = Broker::start(&scratch, &OPEN);
    let hsm = broker.client();
    let sensor = card(&hsm, "sensor");
    let honest = enroll(&hsm, &FakeDevice::new(1), Fingerprint::ZERO);
    for position in 0..honest.receipt.bytes.len() {
        // A seeded sample of bits would do as well; this is one of each byte.
        let mut altered = honest.clone();
        altered.receipt.bytes[position] ^= 1 << (position % 8);
        refused(
            wrap(&hsm, &altered, &sensor),
            "the statement does not verify",
        );
    }
    let mut altered = honest.clone();
    altered.receipt.signature.s[31] ^= 1;
    refused(
        wrap(&hsm, &altered, &sensor),
        "the statement does not verify",
    );
    assert_eq!(broker.counts()["keys_wrapped"], 0);
}

#[test]
fn the_broker_goes_by_its_own_policies_whatever_the_station_thinks() {
    let scratch = token();
    let expected = FakeDevice::new(1);
    let identity = expected.identity().to_string();
    // Enrolment is somebody else's; only one device may visit.
    let broker = Broker::start(
        &scratch,
        &["--identity", &identity, "--allow-key", "sensor"],
    );
    let hsm = broker.client();
    let sensor = card(&hsm, "sensor");

    let blank = enroll(&hsm, &expected, Fingerprint::ZERO);
    refused(wrap(&hsm, &blank, &sensor), "no enrolment policy");
    refused(hsm.enrolled(recipient(&blank)), "no enrolment policy");

    let attacker = FakeDevice::new(2).posing_as(expected.id());
    let posed = enroll(&hsm, &attacker, attacker.identity());
    refused(wrap(&hsm, &posed, &sensor), "not");
    let unasked = enroll(&hsm, &attacker, expected.identity());
    refused(wrap(&hsm, &unasked, &sensor), "no recent order");

    let right = enroll(&hsm, &expected, expected.identity());
    wrap(&hsm, &right, &sensor).unwrap();
    assert_eq!(broker.counts()["devices"], 1);
}

#[test]
fn a_registry_of_the_broker_remembers_who_was_enrolled() {
    let scratch = token();
    let arguments = [
        "--enroll-policy",
        "open",
        "--visit-policy",
        "registry",
        "--registry",
        "broker.db",
        "--allow-key",
        "sensor",
    ];
    let fake = FakeDevice::new(1);
    let statement = {
        let broker = Broker::start(&scratch, &arguments);
        let hsm = broker.client();
        let visiting = enroll(&hsm, &fake, fake.identity());
        refused(
            wrap(&hsm, &visiting, &card(&hsm, "sensor")),
            "not in the registry",
        );
        let statement = enroll(&hsm, &fake, Fingerprint::ZERO);
        hsm.enrolled(recipient(&statement)).unwrap();
        statement
    };
    // Another broker has asked nothing yet, and knows the keys all the same.
    let broker = Broker::start(&scratch, &arguments);
    let hsm = broker.client();
    wrap(&hsm, &statement, &card(&hsm, "sensor")).unwrap();
    // Another key for the same id is not the same device, also where a blank one could be enrolled.
    let attacker = FakeDevice::new(2).posing_as(fake.id());
    let posed = enroll(&hsm, &attacker, Fingerprint::ZERO);
    refused(
        wrap(&hsm, &posed, &card(&hsm, "sensor")),
        "was enrolled with identity key",
    );
    refused(
        hsm.enrolled(recipient(&posed)),
        "was enrolled with identity key",
    );
}

#[test]
fn only_allowed_keys_and_uses_are_given_out() {
    let scratch = token();
    let broker = Broker::start(&scratch, &OPEN);
    let hsm = broker.client();
    refused(
        hsm.key(&KeySpec::label("secret"), None),
        "does not give out key 'secret'",
    );
    refused(
        hsm.key(&KeySpec::label("no such key"), None),
        "does not give out",
    );
    refused(
        hsm.key(&KeySpec::label("authority"), None),
        "does not give out",
    );
    let data = Some(keyferry::hsm::DeviceUse::Data);
    refused(hsm.key(&KeySpec::label("telemetry"), data), "for data");
    // What it may do anyway may be said.
    let cmac = Some(keyferry::hsm::DeviceUse::Cmac);
    hsm.key(&KeySpec::label("sensor"), cmac).unwrap();

    let statement = enroll(&hsm, &FakeDevice::new(1), Fingerprint::ZERO);
    let mut forged = card(&hsm, "sensor");
    forged.label = "secret".to_owned();
    refused(
        wrap(&hsm, &statement, &forged),
        "does not give out key 'secret'",
    );
    let mut widened = card(&hsm, "telemetry");
    widened.attributes.usage |= keyferry_protocol::attributes::usage::EXPORT;
    refused(wrap(&hsm, &statement, &widened), "other attributes");
    let mut unproved = card(&hsm, "sensor");
    unproved.proof = keyferry_protocol::proof::Proof::None;
    refused(
        wrap(&hsm, &statement, &unproved),
        "other attributes, or another proof",
    );
    refused(hsm.ask(&forged), "does not give out");
    assert_eq!(broker.counts()["keys_wrapped"], 0);
}

#[test]
fn nothing_but_proofs_is_verified() {
    let scratch = token();
    let broker = Broker::start(&scratch, &OPEN);
    let hsm = broker.client();
    let sensor = card(&hsm, "sensor");
    let asked = keyferry::hsm::Asked::default();
    let value = [0; 16];
    refused(
        hsm.verify(&sensor, &asked, b"pay 100", &value),
        "no proof of a device",
    );
    let mut input = [0; keyferry_protocol::proof::INPUT_LENGTH];
    refused(
        hsm.verify(&sensor, &asked, &input, &value),
        "no proof of a device",
    );
    input[..16].copy_from_slice(&keyferry_protocol::proof::TAG);
    assert!(!hsm.verify(&sensor, &asked, &input, &value).unwrap());
}

#[test]
fn limits_are_kept() {
    let scratch = token();
    let limits = ["--max-wraps", "3", "--max-devices", "2"];
    let broker = Broker::start(&scratch, &[&OPEN[..], &limits].concat());
    let hsm = broker.client();
    let sensor = card(&hsm, "sensor");
    let statements: Vec<_> = (1..=3)
        .map(|number| enroll(&hsm, &FakeDevice::new(number), Fingerprint::ZERO))
        .collect();
    wrap(&hsm, &statements[0], &sensor).unwrap();
    wrap(&hsm, &statements[1], &sensor).unwrap();
    refused(wrap(&hsm, &statements[2], &sensor), "limit of 2 devices");
    let suite = suite(&hsm, &statements[0]);
    let two = [&sensor, &card(&hsm, "telemetry")];
    refused(
        hsm.wrap(recipient(&statements[0]), suite, &two),
        "limit of 3 wrapped keys",
    );
    wrap(&hsm, &statements[0], &sensor).unwrap();
    refused(
        wrap(&hsm, &statements[0], &sensor),
        "limit of 3 wrapped keys",
    );
    assert_eq!(broker.counts()["keys_wrapped"], 3);
}

/// Terms for an order to the device that has stated itself.
pub(crate) fn terms(statement: &Statement) -> Terms {
    let standing = Standing {
        state: State::Enrolled,
        counter: 1,
        challenge: Challenge([7; 32]),
    };
    Terms::now(
        keyferry::device::flow::address(statement),
        &standing,
        Digest::ZERO,
    )
    .unwrap()
}
