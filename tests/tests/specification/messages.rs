//! Section 3: every message, its number, its fields, and an example of its bytes.

use std::fs;

use keyferry_protocol::attributes::Attributes;
use keyferry_protocol::identity::{Challenge, DeviceId, Digest, Fingerprint, Hint, Signature};
use keyferry_protocol::message::{Hello, Progress, Reply, Request, SlotInfo, Task};
use keyferry_protocol::receipt::{Refusal, State};

use super::{between, numbered, table};

const SIGNATURE: Signature = Signature {
    r: [0x51; 32],
    s: [0x52; 32],
};

const SECOND: Signature = Signature {
    r: [0x53; 32],
    s: [0x54; 32],
};

fn requests() -> Vec<(&'static str, Vec<u8>)> {
    let all = [
        Request::Hello { min: 0, max: 1 },
        Request::Order {
            signature: SIGNATURE,
            second: Some(SECOND),
            order: b"order",
        },
        Request::Blob { bytes: b"blob" },
        Request::Status {
            order: Digest([0xd0; 32]),
            nonce: Challenge([0x9c; 32]),
        },
        Request::List,
        Request::Echo {
            bytes: &[0xee; 130],
        },
        Request::Certificate,
        Request::Rate { baud: 921_600 },
        Request::Failed,
    ];
    let name = |request: &Request<'_>| match request {
        Request::Hello { .. } => "Hello",
        Request::Order { .. } => "Order",
        Request::Blob { .. } => "Blob",
        Request::Status { .. } => "Status",
        Request::List => "List",
        Request::Echo { .. } => "Echo",
        Request::Certificate => "Certificate",
        Request::Rate { .. } => "Rate",
        Request::Failed => "Failed",
    };
    all.iter()
        .map(|one| (name(one), one.encode(&mut [0; 512]).expect("room").to_vec()))
        .collect()
}

fn hello() -> Hello<'static> {
    Hello {
        version: 0,
        device: DeviceId([0xd1; 16]),
        identity: Fingerprint([0x1d; 32]),
        authority: Hint([0xa0; 4]),
        state: State::Provisioned,
        certified: true,
        counter: 0x0102_0304,
        challenge: Challenge([0xc4; 32]),
        board: "board",
        firmware: "0.1.0",
    }
}

fn replies() -> Vec<(&'static str, Vec<u8>)> {
    let slot = SlotInfo {
        slot: 0x0102,
        version: 0x0304_0506,
        attributes: Attributes {
            key_type: 0x2400,
            bits: 128,
            usage: 0x300,
            algorithm: 0x04c0_1000,
            lifetime: 1,
        },
        label: "key".try_into().expect("a label"),
    };
    let mut room = [0; SlotInfo::MAX_LENGTH];
    let table = slot.encode(&mut room).expect("room").repeat(2);
    let progress = Progress {
        task: Task::Prove,
        done: 1,
        total: 0x0203,
    };
    let all = [
        Reply::Hello(hello()),
        Reply::Progress(progress),
        Reply::Receipt {
            signature: SIGNATURE,
            receipt: b"receipt",
        },
        Reply::Refused(Refusal::Sequence),
        Reply::Status {
            signature: SIGNATURE,
            status: b"status",
        },
        Reply::Slots { table: &table },
        Reply::Echo {
            bytes: &[0xee; 130],
        },
        Reply::Certificate {
            bytes: b"certificate",
        },
        Reply::Rate { baud: 921_600 },
        Reply::Failed,
    ];
    let name = |reply: &Reply<'_>| match reply {
        Reply::Hello(_) => "Hello",
        Reply::Progress(_) => "Progress",
        Reply::Receipt { .. } => "Receipt",
        Reply::Refused(_) => "Refused",
        Reply::Status { .. } => "Status",
        Reply::Slots { .. } => "Slots",
        Reply::Echo { .. } => "Echo",
        Reply::Certificate { .. } => "Certificate",
        Reply::Rate { .. } => "Rate",
        Reply::Failed => "Failed",
    };
    all.iter()
        .map(|one| (name(one), one.encode(&mut [0; 512]).expect("room").to_vec()))
        .collect()
}

/// Takes a varint from the front.
fn varint(bytes: &mut &[u8]) -> usize {
    let mut value = 0;
    for place in 0.. {
        let byte = take(bytes, 1)[0];
        value |= usize::from(byte & 0x7f) << (7 * place);
        if byte < 0x80 {
            break;
        }
    }
    value
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (taken, rest) = bytes
        .split_at_checked(count)
        .expect("the message is shorter than the table says");
    *bytes = rest;
    taken
}

/// Takes a field as the table describes it: a name, then its type between backticks, or a type of its own.
fn field(description: &str, bytes: &mut &[u8]) {
    let description = description.split(':').next().unwrap_or_default().trim();
    let kind = description.split('`').nth(1).unwrap_or(description);
    if let Some(inner) = kind.strip_prefix("option of ") {
        match take(bytes, 1)[0] {
            0 => {}
            1 => field(inner, bytes),
            other => panic!("{other} in an option"),
        }
    } else if let Some(count) = kind
        .strip_prefix('[')
        .and_then(|kind| kind.strip_suffix(']'))
    {
        take(bytes, count.parse().expect("a length"));
    } else if let Some(inner) = kind.strip_prefix("list of (") {
        panic!("a list inside a list: {inner}");
    } else {
        match kind {
            "u8" | "bool" => _ = take(bytes, 1),
            "u16le" => _ = take(bytes, 2),
            "u32le" => _ = take(bytes, 4),
            "bytes" | "str" => {
                let length = varint(bytes);
                take(bytes, length);
            }
            "state" | "task" | "refusal" => _ = varint(bytes),
            "attributes" => fields(&between("Crypto API 1.1: ", ". Which kind"), bytes),
            other => panic!("no type '{other}' in section 1"),
        }
    }
}

fn fields(description: &str, bytes: &mut &[u8]) {
    if let Some(inner) = description.strip_prefix("list of (") {
        let inner = inner.strip_suffix(')').expect("the list ends");
        for _ in 0..varint(bytes) {
            fields(inner, bytes);
        }
        return;
    }
    // Beside `Hello`'s versions, what follows a colon or "at most" is said of a field and is none.
    for one in description.split(", ").filter(|one| !one.is_empty()) {
        if !one.starts_with("at most") {
            field(one, bytes);
        }
    }
}

fn agree(after: &str, messages: &[(&str, Vec<u8>)]) {
    let rows = table(after, &["number", "name", "fields"]);
    assert_eq!(
        rows.len(),
        messages.len(),
        "a message that only one of both knows"
    );
    for (row, (name, encoded)) in rows.iter().zip(messages) {
        assert_eq!(row[1], *name);
        let mut rest = encoded.as_slice();
        assert_eq!(row[0].parse(), Ok(varint(&mut rest)), "{name}");
        fields(&row[2], &mut rest);
        assert!(rest.is_empty(), "{name} is longer than the table says");
    }
}

#[test]
fn the_requests_are_those_of_the_table() {
    agree("Station to device (`Request`):", &requests());
}

#[test]
fn the_replies_are_those_of_the_table() {
    agree("Device to station (`Reply`):", &replies());
}

/// `vectors/messages.hex`: one message a line, with its direction and name.
#[test]
fn the_example_of_each_message_has_its_bytes() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../protocol/vectors/messages.hex"
    );
    let text = fs::read_to_string(path).expect("the examples");
    let line =
        |way: &str, (name, bytes): &(&str, Vec<u8>)| format!("{way} {name} {}", hex::encode(bytes));
    let code: Vec<String> = requests()
        .iter()
        .map(|one| line("Request", one))
        .chain(replies().iter().map(|one| line("Reply", one)))
        .collect();
    assert_eq!(text.lines().collect::<Vec<_>>(), code);
}

/// The orders of fields of one length cannot be told by lengths: the greeting's are compared by their values.
#[test]
fn the_greetings_fields_stand_in_the_order_of_the_table() {
    let rows = table(
        "Device to station (`Reply`):",
        &["number", "name", "fields"],
    );
    let (mut bytes, value) = (vec![0], hello());
    for one in rows[0][2].split(", ") {
        match one.split('`').next().unwrap_or_default().trim() {
            "version" => bytes.push(value.version),
            "device id" => bytes.extend(value.device.0),
            "identity fingerprint" => bytes.extend(value.identity.0),
            "authority hint" => bytes.extend(value.authority.0),
            "state" => bytes.push(2),
            "certified" => bytes.push(1),
            "counter" => bytes.extend(value.counter.to_le_bytes()),
            "challenge" => bytes.extend(value.challenge.0),
            "board" => bytes.extend(b"\x05board"),
            "firmware" => bytes.extend(b"\x050.1.0"),
            other => panic!("no field '{other}'"),
        }
    }
    assert_eq!(replies()[0].1, bytes);
}

/// A field by its name, and its bytes.
type Named = (&'static str, Vec<u8>);

/// The same of the other messages: the bytes of each field by its name, put together in the order of the table.
#[test]
fn the_fields_of_all_messages_stand_in_the_order_of_the_table() {
    let signature = |value: &Signature| [value.r, value.s].concat();
    let counted = |bytes: &[u8]| {
        assert!(bytes.len() < 128, "a length of one byte");
        [&[bytes.len() as u8], bytes].concat()
    };
    let echo = [&[0x82, 0x01], &[0xee; 130][..]].concat();
    let one = [
        &[0x02, 0x01, 0x06, 0x05, 0x04, 0x03][..],
        &[0x00, 0x24, 128, 0, 0x00, 0x03, 0, 0],
        &[0x00, 0x10, 0xc0, 0x04, 1, 0, 0, 0],
        b"\x03key",
    ]
    .concat();
    let named: Vec<(&str, Vec<Named>)> = vec![
        ("Request Hello", vec![("min", vec![0]), ("max", vec![1])]),
        (
            "Request Order",
            vec![
                ("signature", signature(&SIGNATURE)),
                ("second signature", [vec![1], signature(&SECOND)].concat()),
                ("order", counted(b"order")),
            ],
        ),
        ("Request Blob", vec![("bytes", counted(b"blob"))]),
        (
            "Request Status",
            vec![("order digest", vec![0xd0; 32]), ("nonce", vec![0x9c; 32])],
        ),
        ("Request List", vec![]),
        ("Request Echo", vec![("bytes", echo.clone())]),
        ("Request Certificate", vec![]),
        (
            "Request Rate",
            vec![("baud", 921_600_u32.to_le_bytes().to_vec())],
        ),
        ("Request Failed", vec![]),
        (
            "Reply Progress",
            vec![
                ("task", vec![Task::Prove as u8]),
                ("done", vec![1, 0]),
                ("total", vec![3, 2]),
            ],
        ),
        (
            "Reply Receipt",
            vec![
                ("signature", signature(&SIGNATURE)),
                ("receipt", counted(b"receipt")),
            ],
        ),
        (
            "Reply Refused",
            vec![("refusal", vec![Refusal::Sequence as u8])],
        ),
        (
            "Reply Status",
            vec![
                ("signature", signature(&SIGNATURE)),
                ("status", counted(b"status")),
            ],
        ),
        (
            "Reply Slots",
            vec![("bytes", counted(&[&one[..], &one].concat()))],
        ),
        ("Reply Echo", vec![("bytes", echo)]),
        (
            "Reply Certificate",
            vec![("bytes", counted(b"certificate"))],
        ),
        (
            "Reply Rate",
            vec![("baud", 921_600_u32.to_le_bytes().to_vec())],
        ),
        ("Reply Failed", vec![]),
    ];
    let mut compared = 0;
    for (way, after, messages) in [
        ("Request", "Station to device (`Request`):", requests()),
        ("Reply", "Device to station (`Reply`):", replies()),
    ] {
        for (row, (name, encoded)) in table(after, &["number", "name", "fields"])
            .iter()
            .zip(messages)
        {
            let title = format!("{way} {name}");
            if title == "Reply Hello" {
                // See above.
                continue;
            }
            let (_, values) = named
                .iter()
                .find(|(other, _)| *other == title)
                .unwrap_or_else(|| panic!("no fields of {title}"));
            // What follows a colon explains; a list is one field.
            let text = row[2].split(':').next().unwrap_or_default();
            let names: Vec<&str> = if text.starts_with("list of") {
                vec![text]
            } else {
                text.split(", ")
                    .filter(|one| !one.is_empty() && !one.starts_with("at most"))
                    .map(|one| one.split('`').next().unwrap_or_default().trim())
                    .collect()
            };
            assert_eq!(
                names,
                values.iter().map(|(name, _)| *name).collect::<Vec<_>>()
            );
            let mut bytes = vec![row[0].parse().expect("a number")];
            bytes.extend(values.iter().flat_map(|(_, value)| value.clone()));
            assert_eq!(encoded, bytes, "{title}");
            compared += 1;
        }
    }
    assert_eq!(compared, named.len());
}

#[test]
fn the_tasks_have_the_numbers_of_the_list() {
    let tasks = [
        (Task::GenerateUnwrapKey, "generate unwrap key"),
        (Task::Unwrap, "unwrap"),
        (Task::Prove, "prove"),
    ];
    let code = tasks.map(|(task, words)| (task as usize, words.to_owned()));
    assert_eq!(numbered("Tasks: ", ". States"), code);
}
