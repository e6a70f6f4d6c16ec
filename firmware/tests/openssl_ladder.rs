//! Proofs with a question, against OpenSSL and pyca/cryptography: agreement, and decryption with each algorithm.

mod common;

use common::{OpenSsl, answer, input, key};
use keyferry_firmware::keys::UseFailed;
use keyferry_firmware::keys::p256;
use keyferry_protocol::attributes::{KeyKind, algorithm};
use keyferry_protocol::identity::p256_spki;
use keyferry_protocol::proof::Proof;

const MESSAGE: [u8; 32] = *b"what the authority alone can ask";
const FRONT: [u8; 16] = [0xff; 16];

/// HMAC-SHA-256 over the proof input under the message in the question, by OpenSSL.
fn expected(openssl: &OpenSsl, message: &[u8]) -> Vec<u8> {
    openssl.write("input", &input());
    openssl.run(&format!(
        "mac -digest SHA256 -macopt hexkey:{} -binary -in input HMAC",
        hex::encode(message)
    ))
}

fn secrets() -> impl Iterator<Item = Vec<u8>> {
    [16_u8, 24, 32]
        .into_iter()
        .map(|length| (length..2 * length).collect())
}

#[test]
fn agreement_is_what_openssl_derives() {
    let openssl = OpenSsl::new();
    for name in ["device", "station"] {
        openssl.run(&format!(
            "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out {name}.pem"
        ));
        openssl.run(&format!(
            "pkey -in {name}.pem -pubout -outform DER -out {name}.pub"
        ));
    }
    openssl.run("pkcs8 -topk8 -nocrypt -in device.pem -outform DER -out device.der");
    // The scalar's place in the PKCS#8 form that OpenSSL writes; that it is the key's is checked.
    let scalar: [u8; 32] = openssl.read("device.der")[36..68].try_into().unwrap();
    let spki = p256::public_spki(&scalar).unwrap();
    assert_eq!(spki, openssl.read("device.pub")[..]);

    openssl.run("pkeyutl -derive -inkey station.pem -peerkey device.pub -peerform DER -out shared");
    openssl.write("input", &input());
    let expected = openssl.run(&format!(
        "mac -cipher AES-256-CBC -macopt hexkey:{} -binary -in input CMAC",
        hex::encode(openssl.read("shared"))
    ));
    let station = openssl.read("station.pub");
    let point = p256_spki::to_point(&station).unwrap().to_vec();
    let device = key(KeyKind::P256, algorithm::ECDH, &scalar);
    let made = answer(Proof::Agreement, device, &point).unwrap();
    assert_eq!(made, expected);

    let mut off = point.clone();
    *off.last_mut().unwrap() ^= 1;
    let mut compressed = point[..33].to_vec();
    compressed[0] = 2 | point[64] & 1;
    let infinity = vec![0; 65];
    let mut hybrid = point.clone();
    hybrid[0] = 6 | point[64] & 1;
    for bad in [
        off,
        compressed,
        infinity,
        hybrid,
        point[..64].to_vec(),
        Vec::new(),
    ] {
        let refused = answer(Proof::Agreement, device, &bad);
        assert_eq!(refused, Err(UseFailed::Failed), "{}", hex::encode(bad));
    }
}

#[test]
fn ctr_and_cbc_questions_of_openssl_are_answered() {
    let openssl = OpenSsl::new();
    openssl.write("message", &MESSAGE);
    let expected = expected(&openssl, &MESSAGE);
    for secret in secrets() {
        for (mode, algorithm) in [("ctr", algorithm::CTR), ("cbc", algorithm::CBC_NO_PADDING)] {
            // A counter block of ones only: the carry must go through all 128 bits.
            let ciphertext = openssl.run(&format!(
                "enc -e -aes-{}-{mode} -nopad -K {} -iv {} -in message",
                secret.len() * 8,
                hex::encode(&secret),
                hex::encode(FRONT)
            ));
            let question = [&FRONT[..], &ciphertext].concat();
            let asked = key(KeyKind::Aes(secret.len()), algorithm, &secret);
            assert_eq!(
                answer(Proof::Decryption, asked, &question).unwrap(),
                expected
            );
            // Another bit, another answer; another length, none.
            let mut other = question.clone();
            other[20] ^= 1;
            assert_ne!(answer(Proof::Decryption, asked, &other).unwrap(), expected);
            for length in [0, 16, 47] {
                let refused = answer(Proof::Decryption, asked, &question[..length]);
                assert_eq!(refused, Err(UseFailed::Failed));
            }
        }
    }
}

/// AES-GCM by pyca/cryptography, since the `openssl` command does not offer it.
fn gcm(secret: &[u8], nonce: &[u8; 12], message: &[u8], aad: &[u8]) -> Vec<u8> {
    const SCRIPT: &str = "import sys; from cryptography.hazmat.primitives.ciphers.aead import AESGCM; \
        k, n, m, a = (bytes.fromhex(x) for x in sys.argv[1:]); \
        sys.stdout.write(AESGCM(k).encrypt(n, m, a).hex())";
    let output = std::process::Command::new("/usr/bin/python3")
        .args(["-I", "-c", SCRIPT])
        .args([secret, nonce, message, aad].map(hex::encode))
        .output()
        .expect("/usr/bin/python3 is not there: run cargo xtask setup");
    assert!(
        output.status.success(),
        "is python3-cryptography there? {}",
        String::from_utf8_lossy(&output.stderr)
    );
    hex::decode(output.stdout).expect("hexadecimal")
}

#[test]
fn gcm_questions_are_answered_only_if_they_are_authentic() {
    let openssl = OpenSsl::new();
    let expected = expected(&openssl, &MESSAGE);
    for (secret, nonce) in secrets().zip([[0; 12], [0x5a; 12], [0xff; 12]]) {
        let question = [&nonce[..], &gcm(&secret, &nonce, &MESSAGE, b"")].concat();
        let asked = key(KeyKind::Aes(secret.len()), algorithm::GCM, &secret);
        assert_eq!(
            answer(Proof::Decryption, asked, &question).unwrap(),
            expected
        );
        let mut bad: Vec<Vec<u8>> = (0..question.len())
            .map(|at| {
                let mut altered = question.clone();
                altered[at] ^= 0x80 >> (at % 8);
                altered
            })
            .collect();
        bad.push(question[..59].to_vec());
        bad.push([&question[..], &[0]].concat());
        bad.push([&nonce[..], &gcm(&secret, &nonce, &MESSAGE, b"more")].concat());
        bad.push([&nonce[..], &gcm(&secret, &nonce, &MESSAGE[..31], b"")].concat());
        for bad in bad {
            let refused = answer(Proof::Decryption, asked, &bad);
            assert_eq!(refused, Err(UseFailed::Failed));
        }
    }
}

#[test]
fn a_key_answers_only_with_the_algorithm_it_is_for() {
    let question = [0; 60];
    for secret in secrets() {
        let kind = KeyKind::Aes(secret.len());
        for algorithm in [
            algorithm::NONE,
            algorithm::CMAC,
            algorithm::CCM,
            algorithm::RSA_OAEP_SHA256,
        ] {
            let refused = answer(Proof::Decryption, key(kind, algorithm, &secret), &question);
            assert_eq!(refused, Err(UseFailed::Unsupported));
        }
    }
    let rsa = key(KeyKind::Rsa(256), algorithm::RSA_PKCS1V15_SHA256, &[1; 260]);
    let refused = answer(Proof::Decryption, rsa, &[1; 256]);
    assert_eq!(refused, Err(UseFailed::Unsupported));
}

#[cfg(feature = "rsa")]
#[test]
fn an_oaep_question_of_openssl_is_answered() {
    use keyferry_firmware::keys::{rsa, secret_length};
    use keyferry_firmware::unwrap::open_key;

    let openssl = OpenSsl::new();
    openssl.run("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out target.pem");
    openssl.run("pkcs8 -topk8 -nocrypt -in target.pem -outform DER -out target.der");
    openssl.run("pkey -in target.pem -pubout -outform DER -out target.pub");
    // Through the device's own unwrapping, which is how a key gets its secret bytes.
    let kind = KeyKind::Rsa(256);
    let (kek, sent) = common::any_kek();
    let mut blob = openssl.kwp(&sent, &openssl.read("target.der"));
    let length = open_key(&kek, kind, &mut blob).unwrap();
    let secret = blob[..length].to_vec();
    assert_eq!(length, secret_length(kind));
    assert!(rsa::private_key(&secret).is_ok());

    let expected = expected(&openssl, &MESSAGE);
    let target = key(kind, algorithm::RSA_OAEP_SHA256, &secret);
    let ask = |message: &[u8], hash: &str| {
        openssl.write("message", message);
        openssl.run(&format!(
            "pkeyutl -encrypt -pubin -inkey target.pub -keyform DER -pkeyopt rsa_padding_mode:oaep \
             -pkeyopt rsa_oaep_md:{hash} -pkeyopt rsa_mgf1_md:{hash} -in message"
        ))
    };
    let question = ask(&MESSAGE, "sha256");
    assert_eq!(
        answer(Proof::Decryption, target, &question).unwrap(),
        expected
    );
    let mut altered = question.clone();
    altered[100] ^= 1;
    for bad in [
        altered,
        ask(&MESSAGE, "sha1"),
        ask(&MESSAGE[..31], "sha256"),
        ask(&[MESSAGE, MESSAGE].concat(), "sha256"),
        ask(b"", "sha256"),
        question[1..].to_vec(),
        vec![0xff; 256],
        vec![0; 256],
    ] {
        let refused = answer(Proof::Decryption, target, &bad);
        assert_eq!(refused, Err(UseFailed::Failed));
    }
}
