//! The bytes of every signed layout, frozen: `vectors/*.hex` must decode to these values and these values encode to them.
//! A new file may be added with a new format version; an old one never changes after its release.

use heapless::{String, Vec};
use keyferry_protocol::attributes::{Attributes, LIFETIME_PERSISTENT, algorithm, key_type, usage};
use keyferry_protocol::identity::{Challenge, DeviceId, Digest, Fingerprint, Signature};
use keyferry_protocol::order::{
    self, Address, BlobRef, BlobRole, Body, Enroll, Entry, Freshness, Header, Inject, Kind,
    ProofRequest, Prove, Recover, Remove, Rotate, View,
};
use keyferry_protocol::proof::{Proof, proof_input};
use keyferry_protocol::receipt::{
    self, Flavour, MAX_RECEIPT, Outcome, Recovered, Refusal, SlotReport, SourceClass, State,
    Statement, Status, Voucher, Writer, voucher_input,
};
use keyferry_protocol::suite::{Suite, UnwrapAlgorithm};
use keyferry_protocol::{DecodeError, MAX_MESSAGE};

fn vector(name: &str, encoded: &[u8]) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("vectors")
        .join(name)
        .with_extension("hex");
    let frozen = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}\n{}", path.display(), hex::encode(encoded)));
    assert_eq!(
        hex::encode(encoded),
        frozen.trim(),
        "{} is frozen",
        path.display()
    );
}

fn address() -> Address {
    Address {
        device: DeviceId([0xd1; 16]),
        identity: Fingerprint([0x1d; 32]),
        unwrap: Fingerprint([0x0a; 32]),
    }
}

fn attributes() -> Attributes {
    Attributes {
        key_type: key_type::AES,
        bits: 256,
        usage: usage::SIGN_MESSAGE | usage::VERIFY_MESSAGE,
        algorithm: algorithm::CMAC,
        lifetime: LIFETIME_PERSISTENT,
    }
}

fn entry(slot: u16, kek: u8) -> Entry {
    Entry {
        slot,
        version: 3,
        attributes: attributes(),
        label: String::try_from("telemetry").unwrap(),
        proof: Proof::Cmac,
        kek,
        blob: BlobRef {
            length: 40,
            digest: Digest([0xb1; 32]),
        },
    }
}

fn inject(keks: usize, entries: &[Entry]) -> Inject {
    Inject {
        challenge: Challenge([0xc4; 32]),
        certificate: None,
        keks: (0..keks)
            .map(|_| BlobRef {
                length: 256,
                digest: Digest([0x7e; 32]),
            })
            .collect(),
        entries: entries.iter().cloned().collect(),
        questions: Vec::new(),
    }
}

/// A certificate, and a key that is asked to decrypt.
fn inject_with_question() -> Inject {
    let asked = Entry {
        attributes: Attributes {
            usage: usage::ENCRYPT | usage::DECRYPT,
            algorithm: algorithm::GCM,
            ..attributes()
        },
        proof: Proof::Decryption,
        ..entry(0, 0)
    };
    Inject {
        certificate: Some(BlobRef {
            length: 460,
            digest: Digest([0xce; 32]),
        }),
        questions: [0x91; 60].into_iter().collect(),
        ..inject(1, &[asked])
    }
}

fn orders() -> std::vec::Vec<(&'static str, Header, Body<'static>)> {
    let fresh = Freshness::Challenge(Challenge([0xcc; 32]));
    let header = |kind| Header::new(kind, address(), fresh, 0x0102_0304);
    let with_suite = Header {
        suite: Some(Suite::RsaOaepSha1),
        freshness: Freshness::Detached { below: 500 },
        audit_head: Digest([0xa0; 32]),
        ..header(Kind::Inject)
    };
    let enroll = Enroll {
        authority: &[0x30; 91],
        nonce: Challenge([0x9c; 32]),
        unwrap: UnwrapAlgorithm::P256,
    };
    let slots: Vec<ProofRequest, 16> = [
        (1, Proof::Cmac),
        (4, Proof::RsaPkcs1Sha256),
        (5, Proof::Agreement),
    ]
    .into_iter()
    .map(|(slot, proof)| ProofRequest { slot, proof })
    .collect();
    let prove = Prove {
        challenge: Challenge([0xc4; 32]),
        slots,
        questions: [0x04; 65].into_iter().collect(),
    };
    let remove = Remove {
        slots: [1, 7].into_iter().collect(),
    };
    let rotate = Rotate {
        authority: &[0x30; 91],
    };
    let recover = Recover {
        authority: &[0x30; 91],
    };
    vec![
        ("order-enroll", header(Kind::Enroll), Body::Enroll(enroll)),
        (
            "order-inject",
            with_suite,
            Body::Inject(inject(1, &[entry(2, 0), entry(3, 0)])),
        ),
        (
            "order-inject-certificate",
            with_suite,
            Body::Inject(inject_with_question()),
        ),
        ("order-prove", header(Kind::Prove), Body::Prove(prove)),
        ("order-remove", header(Kind::Remove), Body::Remove(remove)),
        ("order-rotate", header(Kind::Rotate), Body::Rotate(rotate)),
        ("order-lock", header(Kind::Lock), Body::Lock),
        ("order-wipe", header(Kind::Wipe), Body::Wipe),
        (
            "order-wipe-quarantined",
            header(Kind::Wipe),
            Body::Recover(recover),
        ),
    ]
}

#[test]
fn orders_have_their_frozen_bytes() {
    for (name, header, body) in orders() {
        let mut buffer = [0; MAX_MESSAGE];
        let bytes = order::encode(header, &body, &mut buffer).unwrap();
        vector(name, bytes);
        assert_eq!(order::decode(bytes).unwrap(), (header, body));
    }
}

#[test]
fn receipts_have_their_frozen_bytes() {
    let header = |kind, outcome| receipt::Header {
        tag: receipt::TAG,
        format: receipt::FORMAT,
        kind,
        device: DeviceId([0xd1; 16]),
        identity: Fingerprint([0x1d; 32]),
        order: Digest([0x0d; 32]),
        outcome,
        state: State::Provisioned,
        counter: 7,
        challenge: Challenge([0xcc; 32]),
    };
    let mut buffer = [0; MAX_RECEIPT];

    let refused = header(Kind::Inject, Outcome::Refused(Refusal::Unwrap));
    let writer = Writer::new(&refused, &mut buffer).unwrap();
    let bytes = &buffer[..writer.length()];
    vector("receipt-refused", bytes);
    assert_eq!(
        receipt::decode(bytes).unwrap(),
        (refused, receipt::Body::Empty)
    );

    let statement = Statement {
        nonce: Challenge([0x9c; 32]),
        identity_key: &[0x30; 91],
        unwrap_key: &[0x31; 294],
        suites: [Suite::RsaOaepSha256, Suite::RsaOaepSha1]
            .into_iter()
            .collect(),
        board: "mps2-an386",
        firmware: "0.1.0",
        flavour: Flavour::Development,
        rng: SourceClass::Test,
        root_key: SourceClass::Software,
        authority: Fingerprint([0xaa; 32]),
        epoch: 2,
        voucher: Some(Voucher {
            certificate: &[0x30; 400],
            signature: Signature::from_bytes(&[0x5e; 64]),
        }),
    };
    let enrolled = header(Kind::Enroll, Outcome::Applied);
    let mut writer = Writer::new(&enrolled, &mut buffer).unwrap();
    writer.statement(&statement, &mut buffer).unwrap();
    let bytes = &buffer[..writer.length()];
    vector("receipt-enroll", bytes);
    assert_eq!(
        receipt::decode(bytes).unwrap(),
        (enrolled, receipt::Body::Statement(statement))
    );

    let report = SlotReport {
        slot: 2,
        version: 3,
        attributes: attributes(),
        proof: Proof::Cmac,
        value: &[0x3a; 16],
    };
    let injected = header(Kind::Inject, Outcome::Applied);
    let mut writer = Writer::new(&injected, &mut buffer).unwrap();
    writer.slot_count(1, &mut buffer).unwrap();
    let before = writer.length();
    writer.slot(&report, &mut buffer).unwrap();
    assert!(writer.length() - before <= receipt::slot_report_length(16));
    assert!(before <= receipt::MAX_HEADER + 1);
    let bytes = &buffer[..writer.length()];
    vector("receipt-inject", bytes);
    let reports = [report].into_iter().collect();
    assert_eq!(
        receipt::decode(bytes).unwrap(),
        (injected, receipt::Body::Slots(reports))
    );

    let recovered = Recovered { key: &[0x30; 91] };
    let anew = receipt::Header {
        state: State::Blank,
        ..header(Kind::Wipe, Outcome::Applied)
    };
    let mut writer = Writer::new(&anew, &mut buffer).unwrap();
    writer.recovered(&recovered, &mut buffer).unwrap();
    let bytes = &buffer[..writer.length()];
    vector("receipt-wipe-quarantined", bytes);
    assert_eq!(
        receipt::decode(bytes).unwrap(),
        (anew, receipt::Body::Recovered(recovered))
    );

    let status = Status {
        tag: receipt::STATUS_TAG,
        format: receipt::FORMAT,
        device: DeviceId([0xd1; 16]),
        identity: Fingerprint([0x1d; 32]),
        order: Digest([0x0d; 32]),
        nonce: Challenge([0x9c; 32]),
        applied: true,
        state: State::Provisioned,
        counter: 7,
    };
    let bytes = status.encode(&mut buffer).unwrap();
    vector("status", bytes);
    assert_eq!(Status::decode(bytes).unwrap(), status);

    let input = proof_input(&Digest([0x0d; 32]), 0x0102, &Challenge([0xc4; 32]));
    vector("proof-input", &input);

    let input = voucher_input(
        &DeviceId([0xd1; 16]),
        &Challenge([0x9c; 32]),
        &Fingerprint([0x1d; 32]),
        &Fingerprint([0x0a; 32]),
    );
    vector("voucher-input", &input);
}

#[test]
fn cut_or_altered_fronts_are_typed_errors() {
    // Miri takes a thousand times as long.
    let step = if cfg!(miri) { 61 } else { 1 };
    for (_, header, body) in orders() {
        let mut buffer = [0; MAX_MESSAGE];
        let bytes = order::encode(header, &body, &mut buffer).unwrap().to_vec();
        for end in (0..bytes.len()).step_by(step) {
            match order::decode(&bytes[..end]) {
                Err(_) => {}
                // Without the key it is the order for a device that is not quarantined, and the signature of another.
                Ok((_, Body::Wipe)) => assert!(matches!(body, Body::Recover(_)), "cut at {end}"),
                Ok(_) => panic!("cut at {end}"),
            }
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert_eq!(order::decode(&longer), Err(DecodeError::Malformed));
        let mut tag = bytes.clone();
        tag[3] ^= 1;
        assert_eq!(order::decode(&tag), Err(DecodeError::WrongTag));
        let mut format = bytes.clone();
        format[16] = 2;
        assert_eq!(order::decode(&format), Err(DecodeError::UnknownFormat(2)));
        // Whatever a flipped bit makes of it, decoding must not panic.
        for position in (0..bytes.len()).step_by(step) {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[position] ^= 1 << bit;
                let _ = order::decode(&flipped);
            }
        }
    }
}

/// What the blobs of this order carry, one after the other.
fn roles(inject: Inject) -> Result<std::vec::Vec<BlobRole>, DecodeError> {
    let mut header = Header::new(Kind::Inject, address(), Freshness::Detached { below: 9 }, 1);
    header.suite = Some(Suite::EcdhP256Null);
    let mut buffer = [0; 2 * MAX_MESSAGE];
    let body = Body::Inject(inject);
    let bytes = order::encode(header, &body, &mut buffer).unwrap();
    assert_eq!(
        order::decode(bytes).map(|_| ()),
        order::view(bytes).map(|_| ())
    );
    let View::Inject(view) = order::view(bytes)?.1 else {
        panic!("it is an Inject");
    };
    assert_eq!(view.blob(view.blob_count()), None);
    Ok((0..view.blob_count())
        .map(|index| view.blob(index).unwrap().0)
        .collect())
}

/// SPEC: M-20
#[test]
fn blobs_follow_in_the_order_that_the_layout_says() {
    assert_eq!(
        roles(inject(2, &[entry(0, 0), entry(1, 0), entry(2, 1)])).unwrap(),
        [
            BlobRole::Kek(0),
            BlobRole::Entry(0),
            BlobRole::Entry(1),
            BlobRole::Kek(1),
            BlobRole::Entry(2)
        ]
    );
    assert_eq!(
        roles(inject_with_question()).unwrap(),
        [BlobRole::Certificate, BlobRole::Kek(0), BlobRole::Entry(0)]
    );
    let only_certificate = Inject {
        certificate: inject_with_question().certificate,
        ..inject(0, &[])
    };
    assert_eq!(roles(only_certificate).unwrap(), [BlobRole::Certificate]);
    let mut short = inject_with_question();
    short.questions.pop();
    let mut long = inject_with_question();
    long.questions.push(0).unwrap();
    let mut unasked = inject(1, &[entry(0, 0)]);
    unasked.questions.push(0).unwrap();
    let mut empty = inject_with_question();
    empty.certificate = Some(BlobRef {
        length: 0,
        digest: Digest::ZERO,
    });
    let forbidden = Entry {
        proof: Proof::HmacSha256,
        ..entry(0, 0)
    };
    for wrong in [
        short,
        long,
        unasked,
        empty,
        inject(0, &[]),
        inject(1, &[]),
        inject(2, &[entry(0, 0)]),
        inject(1, &[entry(0, 1)]),
        inject(2, &[entry(0, 1), entry(1, 0)]),
        inject(1, &[entry(0, 0), entry(0, 0)]),
        inject(1, &[entry(16, 0)]),
        inject(1, &[forbidden]),
    ] {
        assert_eq!(roles(wrong), Err(DecodeError::Malformed));
    }
}

#[test]
fn proofs_are_permitted_and_ranked_by_their_attributes() {
    let strongest = |key_type, bits, usage, algorithm| {
        let attributes = Attributes {
            key_type,
            bits,
            usage,
            algorithm,
            lifetime: LIFETIME_PERSISTENT,
        };
        let proof = Proof::strongest(&attributes);
        assert!(proof.permitted(attributes.kind().unwrap(), &attributes));
        proof
    };
    let (sign, decrypt) = (usage::SIGN_MESSAGE, usage::DECRYPT);
    let (aes, rsa, p256) = (
        key_type::AES,
        key_type::RSA_KEY_PAIR,
        key_type::ECC_SECP_R1_KEY_PAIR,
    );
    for (expected, found) in [
        (Proof::Cmac, strongest(aes, 256, sign, algorithm::CMAC)),
        (Proof::CheckValue, strongest(aes, 256, 0, algorithm::CMAC)),
        (
            Proof::Decryption,
            strongest(aes, 128, decrypt, algorithm::GCM),
        ),
        (
            Proof::Decryption,
            strongest(aes, 128, decrypt, algorithm::CTR),
        ),
        (
            Proof::CheckValue,
            strongest(aes, 128, decrypt, algorithm::CCM),
        ),
        (
            Proof::HmacSha256,
            strongest(key_type::HMAC, 256, sign, algorithm::HMAC_SHA256),
        ),
        (
            Proof::None,
            strongest(key_type::RAW_DATA, 256, usage::EXPORT, algorithm::NONE),
        ),
        (
            Proof::EcdsaP256Sha256,
            strongest(p256, 256, sign, algorithm::ECDSA_SHA256),
        ),
        (
            Proof::Agreement,
            strongest(p256, 256, usage::DERIVE, algorithm::ECDH),
        ),
        (Proof::None, strongest(p256, 256, sign, algorithm::ECDH)),
        (
            Proof::RsaPkcs1Sha256,
            strongest(rsa, 2048, sign, algorithm::RSA_PKCS1V15_SHA256),
        ),
        (
            Proof::Decryption,
            strongest(rsa, 2048, decrypt, algorithm::RSA_OAEP_SHA256),
        ),
        (
            Proof::None,
            strongest(rsa, 2048, sign, algorithm::RSA_OAEP_SHA256),
        ),
    ] {
        assert_eq!(expected, found);
    }
}
