//! The attacker has opened a device and read its identity key, and now answers for it: his receipts are signed as they should be, and
//! say what he likes. What he does not have are the keys that he claims to have stored.

use std::sync::{Arc, Mutex};

use keyferry::device::flow::Authority as _;
use keyferry::device::port::Port;
use keyferry::station::registry::{Registry, SlotState};
use keyferry_protocol::attributes::usage;
use keyferry_protocol::identity::{DeviceId, Signature};
use keyferry_protocol::message::Reply;
use keyferry_protocol::proof::Proof;
use keyferry_protocol::receipt::{self, Body, SlotReport};
use keyferry_tests::desk::{Desk, OnDesk};
use keyferry_tests::mitm::{Mitm, replies, reply};
use keyferry_tests::relay::Relay;

use crate::cable::forged;
use crate::line::Line;

const NUMBER: u8 = 90;

/// The slots of a receipt, as the attacker likes them.
type Claim = fn(&mut heapless::Vec<SlotReport<'_>, 16>);

/// A port to the device on which every receipt that reports slots says `claim`, signed by the device's own key.
fn answering(device: &OnDesk, claim: Claim) -> Box<dyn Port> {
    let stolen = device.stolen_identity(NUMBER).unwrap();
    let hands = replies(move |answer, message| {
        let Reply::Receipt { receipt, .. } = answer else {
            return;
        };
        if !matches!(receipt::decode(receipt), Ok((_, Body::Slots(_)))) {
            return;
        }
        let receipt = forged(receipt, |_, body| {
            if let Body::Slots(slots) = body {
                claim(slots);
            }
        });
        let signature = Signature::from_bytes(&stolen.sign(&receipt).unwrap());
        *message = reply(&Reply::Receipt {
            signature,
            receipt: &receipt,
        });
    });
    Box::new(Mitm::new(device.port(), hands))
}

const WRONG: (i32, &str) = (1, "proof of slot 0 is wrong");
const NOT_ASKED: (i32, &str) = (4, "does not report what the order asked for");

/// What he claims, and how the command ends.
const CLAIMS: [(&str, Claim, (i32, &str)); 9] = [
    ("all zero", |slots| slots[0].value = &[0; 16], WRONG),
    (
        "a value of his own",
        |slots| slots[0].value = b"as good as proved",
        WRONG,
    ),
    ("absent", |slots| slots[0].value = &[], WRONG),
    (
        "the proof of another key",
        |slots| slots[0].value = slots[1].value,
        WRONG,
    ),
    (
        "a check value in place of a signature",
        |slots| {
            slots[0].proof = Proof::CheckValue;
            slots[0].value = &slots[0].value[..5];
        },
        NOT_ASKED,
    ),
    (
        "no proof",
        |slots| {
            slots[0].proof = Proof::None;
            slots[0].value = &[];
        },
        NOT_ASKED,
    ),
    ("another slot", |slots| slots[0].slot = 9, NOT_ASKED),
    ("one slot too few", |slots| slots.truncate(1), NOT_ASKED),
    ("nothing at all", |slots| slots.clear(), NOT_ASKED),
];

const KEYS: [&str; 4] = ["--key", "mac@0", "--key", "other@1"];
const REGISTRY: [&str; 2] = ["--policy", "registry"];

/// A line, and a device on the desk that it has enrolled.
fn enrolled() -> (Line, OnDesk) {
    let line = Line::new("line");
    let device = OnDesk::start(Desk::new(NUMBER, 32));
    let cable = Relay::to(device.port());
    line.done(
        "enroll",
        cable.path(),
        &["--policy", "open", "--unwrap", "p-256"],
    );
    (line, device)
}

/// SPEC: M-24, M-26
#[test]
fn a_forged_proof_is_never_taken_for_one_however_well_the_receipt_is_signed() {
    let (line, device) = enrolled();
    let mut wrapped = 0;
    // At injection: the keys are in the device, and still nobody believes it.
    for (what, claim, (code, words)) in CLAIMS {
        wrapped += 2;
        let cable = Relay::to(answering(&device, claim));
        let version = (wrapped / 2).to_string();
        let more = [&REGISTRY[..], &["--version", &version], &KEYS].concat();
        println!("{what}");
        line.refused("inject", cable.path(), &more, code, words);
        let [all, proved, failed, open] = line.tally();
        assert_eq!((all, proved), (wrapped, 0), "{what}");
        assert_eq!(failed + open, wrapped, "{what}");
        // Nor does the registry hope any longer, once a proof was wrong.
        let registry = Registry::open_existing(line.file("registry.db").as_ref()).unwrap();
        let slots = registry.slots(DeviceId([NUMBER; 16])).unwrap();
        let state = if (code, words) == WRONG {
            SlotState::Failed
        } else {
            SlotState::Pending
        };
        let version = u32::try_from(wrapped / 2).unwrap();
        let mut slots = slots.iter().filter(|slot| slot.version == version);
        assert!(slots.all(|slot| slot.state == state), "{what}");
    }
    // And on a later visit, over keys that are there and right.
    let cable = Relay::to(device.port());
    let more = [&REGISTRY[..], &["--version", "50"], &KEYS].concat();
    line.done("inject", cable.path(), &more);
    drop(cable);
    let [_, proved, ..] = line.tally();
    for (what, claim, (code, words)) in [CLAIMS[0], CLAIMS[3], CLAIMS[5]] {
        println!("later: {what}");
        let cable = Relay::to(answering(&device, claim));
        let more = [&REGISTRY[..], &KEYS].concat();
        line.refused("prove", cable.path(), &more, code, words);
        assert_eq!(line.tally()[1], proved);
    }
}

/// SPEC: M-24, M-26
#[test]
fn other_attributes_or_versions_than_ordered_are_not_accepted() {
    let (line, device) = enrolled();
    let claims: [Claim; 2] = [
        |slots| slots[0].attributes.usage |= usage::EXPORT,
        |slots| slots[1].version += 1,
    ];
    for claim in claims {
        let cable = Relay::to(answering(&device, claim));
        let version = if line.tally()[0] == 0 { "1" } else { "5" };
        let more = [&REGISTRY[..], &["--version", version], &KEYS].concat();
        let words = "other versions or attributes";
        line.refused("inject", cable.path(), &more, 4, words);
        assert_eq!(line.tally()[1], 0);
    }
}

/// The device made the proof itself, for an order of before.
///
/// SPEC: M-24
#[test]
fn a_proof_of_an_earlier_challenge_is_refused() {
    let (line, device) = enrolled();
    let tape: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
    let kept = tape.clone();
    let recording = replies(move |answer, _| {
        if let Reply::Receipt { receipt, .. } = answer
            && let Ok((_, Body::Slots(slots))) = receipt::decode(receipt)
        {
            let values = slots.iter().map(|slot| slot.value.to_vec());
            *kept.lock().unwrap() = values.collect();
        }
    });
    let cable = Relay::to(Box::new(Mitm::new(device.port(), recording)));
    line.done("inject", cable.path(), &[&REGISTRY[..], &KEYS].concat());
    drop(cable);
    let old = tape.lock().unwrap().clone();
    assert_eq!(old.len(), 2);
    let stolen = device.stolen_identity(NUMBER).unwrap();
    let hands = replies(move |answer, message| {
        let Reply::Receipt { receipt, .. } = answer else {
            return;
        };
        let Ok((header, Body::Slots(slots))) = receipt::decode(receipt) else {
            return;
        };
        let mut out = [0; receipt::MAX_RECEIPT];
        let mut writer = receipt::Writer::new(&header, &mut out).unwrap();
        writer.slot_count(slots.len(), &mut out).unwrap();
        for (slot, value) in slots.iter().zip(&old) {
            let slot = SlotReport { value, ..*slot };
            writer.slot(&slot, &mut out).unwrap();
        }
        let receipt = &out[..writer.length()];
        let signature = Signature::from_bytes(&stolen.sign(receipt).unwrap());
        *message = reply(&Reply::Receipt { signature, receipt });
    });
    let cable = Relay::to(Box::new(Mitm::new(device.port(), hands)));
    let more = [&REGISTRY[..], &KEYS].concat();
    line.refused("prove", cable.path(), &more, WRONG.0, WRONG.1);
    drop(cable);
    // Asked without him, the same device proves the same keys.
    let cable = Relay::to(device.port());
    line.done("prove", cable.path(), &more);
}
