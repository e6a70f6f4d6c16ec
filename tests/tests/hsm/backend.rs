//! Folders of device keys for a backend: OpenSSL verifies and opens them, and whatever is altered, exchanged or missing is
//! refused.

use keyferry::hsm::{DeviceContext, Diversification, KeyType};
use keyferry_protocol::identity::DeviceId;
use keyferry_protocol::suite::Suite;
use keyferry_tests::derivation::derive;
use keyferry_tests::openssl::{
    Private, cut_at_der_length, make_p256, make_rsa, open_blob, openssl, public_of,
};
use keyferry_tests::strict;
use keyferry_tests::tokens::{Kind, Scratch, in_own_process_with};
use serde_json::Value;

use crate::derive::import_master;
use crate::{open, public_key};

const DEVICES: [&str; 3] = [
    "00000000000000000000000000000001",
    "00000000000000000000000000000002",
    "0123456789abcdef0123456789abcdef",
];

/// A token with a signer and a master key, and a backend with an RSA key.
struct Line {
    scratch: Scratch,
    kek: String,
    fingerprint: String,
}

impl Line {
    fn new() -> Self {
        Self::on(Scratch::new("line"))
    }

    fn on(scratch: Scratch) -> Self {
        let create = ["key", "create", "--label"];
        for label in ["signer", "rogue"] {
            scratch.done([&create[..], &[label, "--type", "p-256", "--usage", "sign"]].concat());
            let out = format!("{label}.pem");
            scratch.done(["key", "public", "--label", label, "--out", &out]);
        }
        scratch.done(
            [
                &create[..],
                &["master", "--type", "aes-256", "--usage", "derive"],
            ]
            .concat(),
        );
        let (_, kek) = make_rsa(&scratch, "kek", 2048);
        let fingerprint = public_key(&kek).fingerprint().to_string();
        Self {
            scratch,
            kek,
            fingerprint,
        }
    }

    /// The arguments that make a folder for these devices.
    fn arguments<'a>(
        &'a self,
        out: &'a str,
        devices: &[&'a str],
        rest: &[&'a str],
    ) -> Vec<&'a str> {
        let mut all = vec![
            "key",
            "for-devices",
            "--slot",
            "3",
            "--label",
            "cloud",
            "--out",
            out,
        ];
        all.extend(["--backend", &self.kek, "--fingerprint", &self.fingerprint]);
        all.extend(devices.iter().flat_map(|device| ["--device", device]));
        all.extend(rest);
        all
    }

    fn make(&self, out: &str, rest: &[&str]) -> Value {
        self.scratch.done(self.arguments(out, &DEVICES, rest))
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.scratch.path(name)).unwrap()
    }

    fn write(&self, name: &str, content: &[u8]) {
        std::fs::write(self.scratch.path(name), content).unwrap();
    }

    fn manifest(&self, folder: &str) -> Value {
        serde_json::from_slice(&self.read(&format!("{folder}/manifest.json"))).unwrap()
    }

    fn refused(&self, folder: &str, rest: &[&str], error: &str) {
        let verify = ["key", "verify-export", folder, "--signer", "signer.pem"];
        self.scratch
            .refused(&[&verify[..], rest].concat(), 5, error, " ");
    }

    /// Expects a refusal while one file of the folder `out` has another content.
    fn refused_with(&self, name: &str, content: &[u8], error: &str) {
        let name = format!("out/{name}");
        let before = self.read(&name);
        assert_ne!(before, content, "{name} is to be another file");
        self.write(&name, content);
        self.refused("out", &[], error);
        self.write(&name, &before);
    }

    fn genuine(&self, folder: &str) -> Value {
        let verify = ["key", "verify-export", folder, "--signer", "signer.pem"];
        let mut command = self.scratch.command();
        // Public keys are enough: there is no token.
        command.env_remove("KEYFERRY_TOKEN").args(verify);
        command.args(["--recipient", &self.fingerprint]);
        keyferry_tests::command::done(&mut command)
    }

    /// No folder of this name, and nothing under a temporary one.
    fn nothing_written(&self, folder: &str) {
        for entry in std::fs::read_dir(self.scratch.path("")).unwrap() {
            let name = entry.unwrap().file_name().to_string_lossy().into_owned();
            assert!(name != folder && !name.contains(".keyferry-"), "{name}");
        }
    }
}

const AES: [&str; 4] = ["--type", "aes-256", "--sign-with", "signer"];

fn with<'a>(rest: &[&'a str]) -> Vec<&'a str> {
    [&AES[..], rest].concat()
}

fn file(device: &str) -> String {
    format!("{device}-3.backend")
}

fn suites(kind: Kind) -> &'static [Suite] {
    match kind {
        Kind::SoftHsm => &[Suite::RsaOaepSha1],
        Kind::Nss | Kind::Kryoptic => &[Suite::RsaOaepSha256, Suite::RsaOaepSha1],
    }
}

/// Derived keys: OpenSSL verifies the manifest and opens each blob, and what comes out is what Python computes.
#[test]
fn derived_keys_are_what_the_backend_computes() {
    for kind in Kind::ALL {
        let name = "backend::derived_keys_are_what_the_backend_computes";
        in_own_process_with(name, &[(kind, "line")], |scratch| {
            let clear = import_master(scratch, "imported", 256);
            let token = open(scratch);
            let before = (
                token.session_objects().unwrap(),
                token.keys().unwrap().len(),
            );
            drop(token);
            derived_keys(kind, scratch, &clear);
            let token = open(scratch);
            // The signers, and the master and receiver of this test, are all that is there.
            assert_eq!(token.session_objects().unwrap(), before.0);
            assert_eq!(token.keys().unwrap().len(), before.1 + 1);
        });
    }
}

fn derived_keys(kind: Kind, scratch: &Scratch, clear: &[u8]) {
    let create = ["key", "create", "--label", "signer", "--type", "p-256"];
    scratch.done([&create[..], &["--usage", "sign"]].concat());
    scratch.done(["key", "public", "--label", "signer", "--out", "signer.pem"]);
    let (private, kek) = make_rsa(scratch, "kek", 2048);
    let (device_private, device_public) = make_p256(scratch, "device");
    let fingerprint = public_key(&kek).fingerprint().to_string();
    let with_key = format!("{}={device_public}", DEVICES[0]);
    for (key_type, name) in [
        (KeyType::Aes { bits: 128 }, "aes-128"),
        (KeyType::Aes { bits: 256 }, "aes-256"),
        (KeyType::Secret { bits: 256 }, "hmac-256"),
    ] {
        for suite in suites(kind) {
            let out = format!("{name}-{suite}");
            let common = [
                "key",
                "for-devices",
                "--slot",
                "3",
                "--label",
                "cloud",
                "--out",
                &out,
            ];
            let keys = ["--version", "7", "--type", name, "--master", "imported"];
            let backend = ["--backend", &kek, "--fingerprint", &fingerprint];
            let rest = ["--sign-with", "signer", "--suite", suite.name()];
            let devices = ["--device", &with_key, "--device", DEVICES[1]];
            let all = [&common[..], &keys, &backend, &rest, &devices].concat();
            let last = scratch.done(all);
            assert_eq!(
                (&last["keys"], &last["for_devices"]),
                (&2.into(), &1.into())
            );
            let path = |file: &str| scratch.path(&out).join(file).display().to_string();
            let (document, signature) = (path("manifest.json"), path("manifest.json.sig"));
            let verify = ["dgst", "-sha256", "-verify", "signer.pem", "-signature"];
            let signer = scratch.path("signer.pem").display().to_string();
            let verify = verify.map(|word| if word == "signer.pem" { &signer } else { word });
            let said = openssl(&[&verify[..], &[&signature, &document]].concat(), b"");
            assert_eq!(said.trim_ascii(), b"Verified OK");
            let verify = ["key", "verify-export", &out, "--signer", "signer.pem"];
            scratch.done([&verify[..], &["--recipient", &fingerprint]].concat());

            let manifest: Value =
                serde_json::from_slice(&std::fs::read(document).unwrap()).unwrap();
            assert_eq!(manifest["format"], "keyferry-backend-1");
            assert_eq!(manifest["recipient"]["fingerprint"], fingerprint);
            for (device, entry) in DEVICES.iter().zip(manifest["keys"].as_array().unwrap()) {
                assert_eq!(entry["device"], *device);
                assert_eq!(entry["version"], 7);
                assert_eq!(entry["label"], "cloud");
                assert_eq!(entry["master"]["label"], "imported");
                assert_eq!(entry["blob"]["suite"], suite.name());
                let way: Diversification = entry["made"].as_str().unwrap().parse().unwrap();
                assert_eq!(way == Diversification::CounterKdf, kind == Kind::Kryoptic);
                let mut id = DeviceId::ZERO;
                hex::decode_to_slice(device, &mut id.0).unwrap();
                let context = DeviceContext {
                    device: id,
                    slot: 3,
                    version: 7,
                };
                let expected = derive(way, clear, &context, key_type);
                let blob = std::fs::read(path(&file(device))).unwrap();
                assert_eq!(
                    open_blob(scratch, *suite, &private, &blob),
                    expected,
                    "{kind}"
                );
                assert_eq!(
                    strict::open_secret(*suite, &private, &blob),
                    Ok(expected.clone())
                );
                let for_device = &entry["for_device"];
                assert_eq!(for_device.is_null(), *device != DEVICES[0]);
                if let Some(file) = for_device["file"].as_str() {
                    assert_eq!(file, format!("{device}-3.device"));
                    let blob = std::fs::read(path(file)).unwrap();
                    let recipient = public_key(&device_public).fingerprint().to_string();
                    assert_eq!(for_device["recipient"]["fingerprint"], recipient);
                    // Tokens that do better take the suite with a KDF here, which nobody but a device opens in these tests.
                    if for_device["blob"]["suite"] == "ecdh-p256-null" {
                        let suite = Suite::EcdhP256Null;
                        let found = open_blob(scratch, suite, &device_private, &blob);
                        assert_eq!(found, expected, "{kind}");
                    }
                }
            }
            std::fs::remove_dir_all(scratch.path(&out)).unwrap();
        }
    }
}

/// Fresh private keys: a strict importer takes them from tokens that wrap as they should, and SoftHSM's are refused here, not
/// there.
#[test]
fn private_keys_are_fit_for_strict_importers() {
    for kind in Kind::ALL {
        let line = Line::on(Scratch::of(kind, "line"));
        for name in ["p-256", "rsa-2048"] {
            let rest = ["--type", name, "--fresh", "--sign-with", "signer"];
            let arguments = line.arguments("out", &DEVICES[..1], &rest);
            let allowed = [&arguments[..], &["--allow-zero-tail"]].concat();
            if kind == Kind::SoftHsm {
                let error = format!("puts zeros behind key 'cloud' (type {name})");
                line.scratch
                    .refused(&arguments, 5, &error, "--allow-zero-tail");
                line.nothing_written("out");
                line.scratch.done(allowed);
            } else {
                line.scratch.done(arguments);
            }
            let entry = &line.manifest("out")["keys"][0];
            assert_eq!(entry["made"], "fresh");
            assert!(entry["master"].is_null());
            let tail = if kind == Kind::SoftHsm {
                "zeros"
            } else {
                "none"
            };
            assert_eq!(entry["blob"]["tail"], tail);
            let suite: Suite = entry["blob"]["suite"].as_str().unwrap().parse().unwrap();
            assert_eq!(suite, suites(kind)[0], "{kind}");
            let blob = line.read(&format!("out/{}", file(DEVICES[0])));
            let private = line.kek.replace(".pem", ".key");
            let opened = open_blob(&line.scratch, suite, &private, &blob);
            let public = public_of(Private::Pkcs8(cut_at_der_length(&opened)));
            let pem = entry["public_key"].as_str().unwrap();
            line.write("entry.pem", pem.as_bytes());
            let named = public_key(&line.scratch.path("entry.pem").display().to_string());
            assert_eq!(named.spki_der(), public, "{kind}");
            let tail = if kind == Kind::SoftHsm {
                strict::Tail::Cut
            } else {
                strict::Tail::Refuse
            };
            let strictly = strict::open_private(suite, &private, &blob, tail).unwrap();
            assert_eq!(strictly.spki, public, "{kind}");
            line.genuine("out");
            std::fs::remove_dir_all(line.scratch.path("out")).unwrap();
        }
    }
}

#[test]
fn fresh_keys_differ_and_attributes_are_the_devices() {
    let line = Line::new();
    let last = line.make("out", &with(&["--fresh"]));
    assert_eq!((&last["keys"], &last["made"]), (&3.into(), &"fresh".into()));
    let manifest = line.manifest("out");
    let private = line.kek.replace(".pem", ".key");
    let mut keys: Vec<_> = DEVICES
        .iter()
        .map(|device| line.read(&format!("out/{}", file(device))))
        .map(|blob| open_blob(&line.scratch, Suite::RsaOaepSha1, &private, &blob))
        .collect();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), DEVICES.len());
    assert!(keys.iter().all(|key| key.len() == 32));
    let attributes = &manifest["keys"][0]["attributes"];
    assert_eq!(attributes["type"], "2400");
    assert_eq!(attributes["bits"], 256);
    assert_eq!(attributes["algorithm"], "03c00200");
    // Only the signers and the master are on the token.
    assert_eq!(line.scratch.done(["key", "list"])["keys"], 3);
}

#[test]
fn what_is_altered_or_exchanged_is_refused() {
    let line = Line::new();
    line.make("out", &with(&["--master", "master"]));
    line.make("other", &with(&["--master", "master", "--version", "2"]));
    let text = String::from_utf8(line.read("out/manifest.json")).unwrap();
    let altered = "the document's signature is wrong: it was altered after it was signed";
    // Two entries exchanged, as they stand.
    let mut manifest: Value = serde_json::from_str(&text).unwrap();
    manifest["keys"].as_array_mut().unwrap().swap(0, 1);
    let exchanged = serde_json::to_vec_pretty(&manifest).unwrap();
    line.refused_with("manifest.json", &exchanged, altered);
    // The devices of two entries exchanged, line by line.
    let exchanged = text
        .replace(DEVICES[0], "!")
        .replace(DEVICES[1], DEVICES[0])
        .replace('!', DEVICES[1]);
    line.refused_with("manifest.json", exchanged.as_bytes(), altered);
    for (from, to) in [
        ("\"usage\": \"00000c00\"", "\"usage\": \"00000f00\""),
        ("\"slot\": 3", "\"slot\": 4"),
        ("\"version\": 1", "\"version\": 2"),
        ("\"tail\": \"none\"", "\"tail\": \"zeros\""),
        (
            "\"made\": \"aes-ecb-encrypt-data\"",
            "\"made\": \"sp800-108-counter\"",
        ),
    ] {
        assert!(text.contains(from), "{from}");
        let edited = text.replacen(from, to, 1);
        line.refused_with("manifest.json", edited.as_bytes(), altered);
    }
    for length in [0, 1, text.len() / 2, text.len() - 1] {
        line.refused_with("manifest.json", &text.as_bytes()[..length], altered);
    }
    // Two blobs exchanged, and one of another folder.
    let [one, two] = [DEVICES[0], DEVICES[1]].map(file);
    let before = [&one, &two].map(|name| line.read(&format!("out/{name}")));
    line.write(&format!("out/{one}"), &before[1]);
    line.write(&format!("out/{two}"), &before[0]);
    let error = format!("the blob of '{one}' is not the one that was signed for");
    line.refused("out", &[], &error);
    line.write(&format!("out/{one}"), &before[0]);
    line.write(&format!("out/{two}"), &before[1]);
    line.refused_with(&one, &line.read(&format!("other/{one}")), &error);
    let longer = [&before[0][..], b"!"].concat();
    line.refused_with(&one, &longer, "has 297 bytes where 296 were signed for");
    line.refused_with(
        &one,
        &before[0][1..],
        "has 295 bytes where 296 were signed for",
    );
    // The manifest of another folder, genuine, with its signature.
    let genuine = ["manifest.json", "manifest.json.sig"].map(|name| {
        let name = format!("out/{name}");
        let content = line.read(&name);
        line.write(&name, &line.read(&name.replace("out", "other")));
        (name, content)
    });
    line.refused("out", &[], &error);
    for (name, content) in &genuine {
        line.write(name, content);
    }
    // Something that the manifest does not name, and something missing.
    line.write("out/more.backend", &before[0]);
    line.refused("out", &[], "'more.backend' does not belong to the folder");
    std::fs::remove_file(line.scratch.path("out/more.backend")).unwrap();
    for name in [&one, "manifest.json"] {
        let path = line.scratch.path(&format!("out/{name}"));
        let content = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        line.refused("out", &[], &format!("'{name}' is not there"));
        std::fs::write(&path, content).unwrap();
    }
    // Another recipient was expected.
    let (_, someone) = make_rsa(&line.scratch, "someone", 2048);
    let someone = public_key(&someone).fingerprint().to_string();
    let error = format!(
        "this was wrapped for the key {}, not for {someone}",
        line.fingerprint
    );
    line.refused("out", &["--recipient", &someone], &error);
    // Nothing of all this was left behind.
    assert_eq!(line.genuine("out")["keys"], 3);
}

#[test]
fn signatures_that_are_missing_or_not_the_signers() {
    let line = Line::new();
    line.make("out", &with(&["--master", "master"]));
    let rogue = [
        "--type",
        "aes-256",
        "--sign-with",
        "rogue",
        "--master",
        "master",
    ];
    line.make("rogue", &rogue);
    line.refused("rogue", &[], "the document is signed by ");
    // The rogue's manifest says that it is the signer's.
    let fingerprint = |name: &str| {
        let path = line.scratch.path(name).display().to_string();
        public_key(&path).fingerprint().to_string()
    };
    let text = String::from_utf8(line.read("rogue/manifest.json")).unwrap();
    let forged = text.replace(&fingerprint("rogue.pem"), &fingerprint("signer.pem"));
    line.write("rogue/manifest.json", forged.as_bytes());
    line.refused("rogue", &[], "the document's signature is wrong");
    std::fs::remove_file(line.scratch.path("out/manifest.json.sig")).unwrap();
    line.refused("out", &[], "the document is not signed");
}

/// A manifest that is genuine by its signature is still not followed anywhere.
#[test]
fn a_signed_manifest_cannot_name_files_elsewhere() {
    let line = Line::new();
    line.make("out", &with(&["--fresh"]));
    let (private, public) = make_p256(&line.scratch, "office");
    let text = String::from_utf8(line.read("out/manifest.json")).unwrap();
    let sign = |document: &[u8]| {
        let signature = openssl(&["dgst", "-sha256", "-sign", &private], document);
        line.write("out/manifest.json", document);
        line.write("out/manifest.json.sig", &signature);
    };
    sign(text.as_bytes());
    let verify = ["key", "verify-export", "out", "--signer", &public];
    line.scratch.done(verify);
    let name = file(DEVICES[0]);
    let twice = text.replace(DEVICES[1], DEVICES[0]);
    for (document, error) in [
        (text.replace(&name, "../pin"), "a file has another name"),
        (
            text.replace(&name, &file(DEVICES[1])),
            "a file has another name",
        ),
        (text.replace("\"slot\": 3", "\"slot\": 16"), "no such slot"),
        (twice, "two keys are for the same slot"),
        (text.replace("\"2400\"", "\"1100\""), "attributes and type"),
        (
            text.replace("\"fresh\"", "\"aes-ecb-encrypt-data\""),
            "has a master",
        ),
        (
            text.replace("\"rsa-2048\"", "\"p-256\""),
            "a backend's KEK is an rsa key",
        ),
    ] {
        assert_ne!(document, text);
        sign(document.as_bytes());
        let code = if error.contains("rsa key") { 2 } else { 5 };
        line.scratch.refused(&verify, code, error, " ");
    }
    sign(
        text.replace("\"slot\": 3", "\"slot\": 3, \"more\": 1")
            .as_bytes(),
    );
    line.scratch
        .refused(&verify, 2, "unknown field `more`", " ");
}

#[test]
fn what_is_asked_for_wrongly() {
    let line = Line::new();
    let refused = |devices: &[&str], rest: &[&str], code, error: &str, hint: &str| {
        let arguments = line.arguments("out", devices, rest);
        line.scratch.refused(&arguments, code, error, hint);
        line.nothing_written("out");
    };
    let one = &DEVICES[..1];
    let derived = with(&["--master", "master"]);
    // A recipient file that was exchanged.
    let (_, someone) = make_rsa(&line.scratch, "someone", 2048);
    let kek = std::fs::read(&line.kek).unwrap();
    std::fs::copy(&someone, &line.kek).unwrap();
    refused(
        one,
        &derived,
        5,
        "the recipient's fingerprint is ",
        "right fingerprint",
    );
    std::fs::write(&line.kek, &kek).unwrap();
    // Devices.
    refused(
        &[],
        &derived,
        2,
        "--device or --devices is missing",
        "--device",
    );
    refused(
        &["12"],
        &derived,
        2,
        "'12' names no device",
        "32 hexadecimal digits",
    );
    let twice = [DEVICES[0], DEVICES[1], DEVICES[0]];
    refused(&twice, &derived, 2, DEVICES[0], "each device once");
    let missing = format!("{}=nowhere.pem", DEVICES[0]);
    refused(&[&missing], &derived, 2, "nowhere.pem cannot be read", "");
    // The signer.
    let unsigned = ["--type", "aes-256", "--master", "master"];
    refused(one, &unsigned, 2, "--sign-with is missing", "--sign-with");
    let by_master = ["--type", "aes-256", "--fresh", "--sign-with", "kek"];
    refused(one, &by_master, 3, "no key 'kek'", "key list");
    // The master and what is derived from it.
    let create = ["key", "create", "--type", "aes-256", "--label"];
    line.scratch
        .done([&create[..], &["signs", "--usage", "derive,sign"]].concat());
    let signs = with(&["--master", "signs"]);
    let error = "key 'signs' cannot be a diversification master (CKA_SIGN is not false)";
    refused(one, &signs, 3, error, "--usage derive");
    let counter = with(&["--master", "master", "--derivation", "sp800-108-counter"]);
    refused(
        one,
        &counter,
        3,
        "sp800-108-counter: no (C_DeriveKey",
        "hsm probe",
    );
    let pair = [
        "--type",
        "p-256",
        "--master",
        "master",
        "--sign-with",
        "signer",
    ];
    refused(one, &pair, 3, "aes or hmac-256 is needed here", "");
    let curve = [
        "--type",
        "p-384",
        "--fresh",
        "--allow-zero-tail",
        "--sign-with",
        "signer",
    ];
    refused(one, &curve, 3, "is of type p-384", "");
    // The backend.
    let (_, curve) = make_p256(&line.scratch, "curve");
    let fingerprint = public_key(&curve).fingerprint().to_string();
    let start = [
        "key",
        "for-devices",
        "--slot",
        "3",
        "--label",
        "cloud",
        "--out",
        "out",
    ];
    let backend = ["--backend", &curve, "--fingerprint", &fingerprint];
    let all = [&start[..], &backend, &["--device", DEVICES[0]], &derived].concat();
    line.scratch
        .refused(&all, 2, "a backend's KEK is an rsa key", "rsa");
    let ecdh = with(&["--fresh", "--suite", "ecdh-p256-null"]);
    refused(
        one,
        &ecdh,
        2,
        "does not work toward a recipient key of type rsa-2048",
        "rsa-oaep",
    );
    // A folder that exists, complete or not, is left as it is.
    line.make("out", &derived);
    let before = line.read("out/manifest.json");
    let again = line.arguments("out", one, &derived);
    line.scratch
        .refused(&again, 2, "out exists already", "name a new folder");
    assert_eq!(line.read("out/manifest.json"), before);
    line.genuine("out");
}

#[test]
fn a_list_of_devices() {
    let line = Line::new();
    let (_, device) = make_p256(&line.scratch, "device");
    let list = format!(
        "# a shift\n\n{}\r\n  {} = {device}\n",
        DEVICES[0], DEVICES[1]
    );
    line.write("list", list.as_bytes());
    let rest = with(&["--fresh", "--devices", "list"]);
    let arguments = line.arguments("out", &DEVICES[2..], &rest);
    let last = line.scratch.done(arguments);
    assert_eq!(
        (&last["keys"], &last["for_devices"]),
        (&3.into(), &1.into())
    );
    line.genuine("out");
    let text = line
        .scratch
        .run(line.arguments("again", &DEVICES[..1], &with(&["--fresh"])));
    assert!(
        text.stderr
            .contains("1 of them are for the backend's eyes only"),
        "{text:?}"
    );
}
