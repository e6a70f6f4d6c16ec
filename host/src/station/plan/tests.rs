//! What plans are read as, and what is told of wrong ones.

use super::*;

const WHOLE: &str = r#"
[station]
name = "sensor line"
journal = "station.journal"
registry = "plant.db"
audit = "line.audit"

[hsm]
token = "pkcs11:token=line"
authority = "authority"
audit-key = "audit"
keep-under = "keeper"

[certificates]
key = "ca"
ca = "ca.pem"
organization = "ACME"

[devices]
allow-test-devices = true
serials = true

[enrolment]
policy = "serial-list"
serials = "serials.txt"
unwrap = "p-256"

[visit]
policy = "allowlist"
allowlist = "allowed.csv"

[order]
version = 3
suites = ["ecdh-p256-x963-sha256", "ecdh-p256-null"]
minimum-proof = "challenge"

[[key]]
slot = 0
from = "token"
key = "fleet"
use = "gcm"

[[key]]
slot = 15
from = "fresh"
label = "own"
type = "hmac-256"

[[key]]
slot = 3
from = "master"
master = "field"
label = "service"
type = "aes-128"
export = true

[backend]
key = "backend.pem"
fingerprint = "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8"
folder = "out"
sign-with = "manifests"

[after]
lock = true

[hook]
program = "print-label"
arguments = ["--size", "2", "--copies", "2"]
seconds = 5
before = "fail"
after = "warn"

[limits]
devices = 100
failures-in-a-row = 3
at-once = 8
registry-wait = 60

[[port]]
port = "/dev/ttyUSB0"
nest = "A1"

[[port]]
port = "tcp:localhost:4000"
nest = "A2"

[[watch]]
ports = "nests/*"

[[watch]]
ports = "ttyACM?"
"#;

const SMALL: &str = r#"
[station]
name = "desk"
journal = "j"
registry = "r"
[hsm]
token = "pkcs11:token=desk"
authority = "authority"
[visit]
policy = "open"
[[key]]
slot = 0
from = "token"
key = "sensor"
"#;

fn wrong(text: &str) -> Vec<(usize, usize, String)> {
    let error = Plan::read("plan.toml", text.as_bytes()).expect_err("it is wrong");
    for mistake in &error.mistakes {
        assert!(!mistake.what.hint().is_empty());
    }
    let mistakes = error.mistakes.iter();
    mistakes
        .map(|it| (it.place.line, it.place.column, it.what.to_string()))
        .collect()
}

#[test]
fn all_of_a_plan_is_read() {
    let plan = Plan::read("plan.toml", WHOLE.as_bytes()).unwrap();
    assert_eq!(plan.name, "sensor line");
    assert_eq!(plan.journal, PathBuf::from("station.journal"));
    assert_eq!(plan.hsm.keep_under.as_deref(), Some("keeper"));
    assert_eq!(plan.certificates.unwrap().organization.unwrap(), "ACME");
    assert!(plan.allow_test_devices && !plan.allow_development && plan.serials && plan.lock);
    assert!(matches!(plan.enrolment, Some(EnrolmentPlan::SerialList(_))));
    assert!(matches!(plan.visit, VisitPlan::Allowlist(_)));
    assert_eq!(plan.unwrap, UnwrapAlgorithm::P256);
    assert_eq!((plan.version, plan.minimum_proof), (3, Level::Challenge));
    assert_eq!(
        plan.suites,
        [Suite::EcdhP256X963Sha256, Suite::EcdhP256Null]
    );
    assert_eq!(plan.keys.len(), 3);
    assert!(plan.keys[2].export && !plan.keys[1].export);
    assert_eq!(plan.backend.unwrap().fingerprint.0[0], 0x5e);
    assert_eq!(plan.keys[0].device_use, Some(DeviceUse::Gcm));
    assert_eq!(
        plan.keys[1].source,
        KeySource::Fresh {
            label: "own".into(),
            key_type: KeyType::Secret { bits: 256 }
        }
    );
    let hook = plan.hook.unwrap();
    assert_eq!(hook.arguments, ["--size", "2", "--copies", "2"]);
    assert_eq!(
        (hook.seconds, hook.before, hook.after),
        (5, Some(OnFailure::Fail), Some(OnFailure::Warn))
    );
    let limits = Limits {
        devices: Some(100),
        failures_in_a_row: Some(3),
        at_once: 8,
        registry_wait: Duration::from_secs(60),
    };
    assert_eq!(plan.limits, limits);
    assert_eq!(plan.ports[1].nest, "A2");
    let [nests, listed] = &plan.watch[..] else {
        panic!("{:?}", plan.watch);
    };
    assert_eq!(nests.folder.as_deref(), Some(std::path::Path::new("nests")));
    assert_eq!(listed.folder, None);
    assert!(listed.fits("ttyACM3") && !listed.fits("ttyACM10"));
}

#[test]
fn what_is_not_said_is_closed() {
    let plan = Plan::read("plan.toml", SMALL.as_bytes()).unwrap();
    assert!(plan.enrolment.is_none() && plan.ports.is_empty());
    assert!(!plan.allow_test_devices && !plan.allow_development && !plan.serials && !plan.lock);
    assert_eq!((plan.version, plan.minimum_proof), (1, Level::CheckValue));
    assert_eq!(plan.suites, Suite::ALL);
    assert!(plan.hook.is_none());
    // With the mark that some editors put before the text.
    let marked = format!("\u{feff}{SMALL}");
    assert!(Plan::read("plan.toml", marked.as_bytes()).is_ok());
}

#[test]
fn every_mistake_is_told_at_once_with_its_place() {
    let text = r#"[station]
name = "line"
jurnal = "j"
registry = 7
[hsm]
token = "line"
authority = "authority"
[enrolment]
policy = "open"
serials = "s.txt"
[visit]
policy = "registri"
[order]
version = 0
suites = ["rsa-oaep-sha1", "rsa-oaep-sha1", "rsa"]
[[key]]
slot = 16
from = "token"
[[key]]
slot = 1
from = "fresh"
label = "own"
type = "aes-128"
use = "ecdsa"
[[key]]
slot = 1
from = "token"
key = "a"
type = "aes-128"
[port]
port = "x"
[nonsense]
"#;
    let found = wrong(text);
    let places: Vec<_> = found
        .iter()
        .map(|(line, column, _)| (*line, *column))
        .collect();
    let expected = [
        (1, 2),   // no journal
        (3, 1),   // jurnal
        (4, 12),  // 7
        (6, 9),   // no URI
        (10, 1),  // serials
        (12, 10), // registri
        (14, 11), // 0
        (15, 28), // twice
        (15, 45), // rsa
        (16, 1),  // no key
        (17, 8),  // 16
        (21, 1),  // no keep-under
        (24, 1),  // ecdsa
        (26, 1),  // slot 1
        (29, 1),  // type
        (30, 2),  // [port]
        (32, 2),  // nonsense
    ];
    assert_eq!(places, expected, "{found:#?}");
    let said = |line: usize, words: &str| {
        let mut all = found.iter();
        assert!(
            all.any(|(at, _, what)| *at == line && what.contains(words)),
            "{line}: {words}: {found:#?}"
        );
    };
    said(1, "[station] has no 'journal'");
    said(3, "did you mean 'journal'?");
    said(4, "'registry' is a whole number, and should be a string");
    said(10, "'serials' has no meaning with policy = \"open\"");
    said(12, "did you mean 'registry'?");
    said(24, "no device uses a key of type aes-128 for ecdsa");
    said(26, "a key for slot 1 is there already, on line 20");
}

/// What would fail at every device is a mistake before the first one.
#[test]
fn what_can_never_work_is_a_mistake() {
    let long = "k".repeat(33);
    let found = wrong(&SMALL.replace("\"sensor\"", &format!("\"{long}\"")));
    assert!(found[0].2.contains("1 to 32 bytes"), "{found:?}");
    for nest in ["Row 1", "A,1", "A;1", "A#1", &"n".repeat(17)] {
        let found = wrong(&format!(
            "{SMALL}[[port]]\nport = \"tcp:localhost:4000\"\nnest = \"{nest}\"\n"
        ));
        assert!(
            found[0].2.contains("a nest's name has"),
            "{nest}: {found:?}"
        );
    }
    let unsigned = SMALL.replace("authority = ", "audit-key = \"audit\"\nauthority = ");
    let found = wrong(&unsigned);
    assert!(found[0].2.contains("audit-key needs audit"), "{found:?}");
    let with = |level: &str, key_type: &str, device_use: &str| {
        let text = SMALL.replace(
            "authority = \"authority\"",
            "authority = \"a\"\nkeep-under = \"k\"",
        );
        format!(
            "{text}[order]\nminimum-proof = \"{level}\"\n[[key]]\nslot = 1\nfrom = \"fresh\"\nlabel = \"own\"\n\
             type = \"{key_type}\"\nuse = \"{device_use}\"\n"
        )
    };
    for (level, key_type, device_use) in [
        ("check-value", "hmac-256", "data"),
        ("challenge", "aes-128", "ccm"),
        ("signature", "aes-128", "gcm"),
        ("signature", "p-256", "ecdh"),
        ("signature", "rsa-2048", "rsa-oaep"),
    ] {
        let found = wrong(&with(level, key_type, device_use));
        let words = format!("proves nothing at level {level}");
        assert!(found[0].2.contains(&words), "{device_use}: {found:?}");
    }
    for (level, key_type, device_use) in [
        ("signature", "hmac-256", "hmac-sha256"),
        ("signature", "aes-128", "cmac"),
        ("challenge", "aes-128", "gcm"),
        ("challenge", "p-256", "ecdh"),
        ("check-value", "aes-128", "ccm"),
    ] {
        let text = with(level, key_type, device_use);
        let read = Plan::read("plan.toml", text.as_bytes());
        assert!(read.is_ok(), "{device_use}: {read:?}");
    }
}

#[test]
fn a_text_that_is_no_toml_is_told_by_its_lines() {
    let found = wrong("[station]\nname = \"x\njournal = \n= 3\n");
    let lines: Vec<_> = found.iter().map(|(line, ..)| *line).collect();
    assert!(
        lines.contains(&2) && lines.contains(&3) && lines.contains(&4),
        "{found:?}"
    );
    // Nothing is said to be missing that may be what does not parse.
    assert!(
        found.iter().all(|(.., what)| !what.contains("is missing")),
        "{found:?}"
    );
    assert_eq!(wrong("\u{fffd}")[0].0, 1);
    let long = vec![b'#'; MAXIMUM_PLAN + 1];
    let error = Plan::read("x", &long).unwrap_err();
    assert_eq!(error.mistakes[0].what, What::TooLong { most: MAXIMUM_PLAN });
    let error = Plan::read("x", b"name = \xff").unwrap_err();
    assert_eq!(error.mistakes[0].what, What::NoText);
}

#[test]
fn an_empty_plan_is_told_what_it_needs() {
    let found = wrong("");
    let said: Vec<_> = found.into_iter().map(|(.., what)| what).collect();
    assert_eq!(
        said,
        ["station", "hsm", "visit", "key"].map(|it| format!("the section [{it}] is missing"))
    );
}

#[test]
fn what_is_told_is_bounded_and_fit_for_a_terminal() {
    let text: String = (0..400).map(|n| format!("z{n} = 1\n")).collect();
    let error = Plan::read("x", text.as_bytes()).unwrap_err();
    assert_eq!(error.mistakes.len(), 50);
    assert!(error.more > 300);
    let found = wrong("\"\\u001b[31mred\" = 1\n");
    assert!(
        found.iter().all(|(.., what)| !what.contains('\x1b')),
        "{found:?}"
    );
}

#[test]
fn two_books_need_two_files() {
    let found = wrong(&SMALL.replace("registry = \"r\"", "registry = \"j\""));
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].2, "the file 'j' is there already, on line 4");
}

#[test]
fn what_a_key_needs_is_missed() {
    let key = |more: &str| format!("{SMALL}[[key]]\nslot = 1\nlabel = \"x\"\n{more}");
    let found = wrong(&key(
        "from = \"fresh\"\ntype = \"aes-128\"\nexport = true\n",
    ));
    let said: Vec<_> = found.iter().map(|(.., what)| what.as_str()).collect();
    assert_eq!(
        said,
        [
            "export = true needs the section [backend]",
            "from = \"fresh\" needs keep-under in [hsm]"
        ]
    );
    let found = wrong(&key(
        "from = \"master\"\ntype = \"p-256\"\nmaster = \"m\"\n",
    ));
    assert!(
        found[0].2.contains("AES keys and hmac-256 are derived"),
        "{found:?}"
    );
    let found = wrong(&key("from = \"master\"\ntype = \"aes-128\"\n"));
    assert!(found[0].2.contains("[key] has no 'master'"), "{found:?}");
}

#[test]
fn suites_that_no_key_fits_are_told() {
    let text =
        format!("{SMALL}[enrolment]\npolicy = \"open\"\n[order]\nsuites = [\"ecdh-p256-null\"]\n");
    let found = wrong(&text);
    assert!(
        found[0].2.contains("unwrap key of kind rsa-2048"),
        "{found:?}"
    );
    // Where the kind is a mistake by itself, nothing is said of what would follow from it.
    let found = wrong(&text.replace(
        "policy = \"open\"\n[order]",
        "policy = \"open\"\nunwrap = \"p-265\"\n[order]",
    ));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].2.contains("'unwrap' cannot be"), "{found:?}");
}

#[test]
fn a_hook_is_called_at_some_time() {
    let hook = |more: &str| format!("{SMALL}[hook]\nprogram = \"x\"\n{more}");
    let found = wrong(&hook(""));
    assert!(
        found[0].2.contains("[hook] needs before = \"fail\""),
        "{found:?}"
    );
    assert_eq!(found[0].0, SMALL.lines().count() + 1);
    let found = wrong(&hook(
        "before = \"warm\"\nafter = \"warn\"\nseconds = 0\narguments = \"--all\"\n",
    ));
    let said: Vec<_> = found.iter().map(|(.., what)| what.as_str()).collect();
    assert_eq!(
        said,
        [
            "'before' cannot be 'warm'; did you mean 'warn'?",
            "'seconds' is not from 1 to 3600",
            "'arguments' is a string, and should be a list of strings",
        ]
    );
    let plan = Plan::read("x", hook("after = \"warn\"\n").as_bytes()).unwrap();
    let hook = plan.hook.unwrap();
    assert_eq!((hook.seconds, hook.before), (10, None));
}

#[test]
fn only_names_in_one_folder_are_watched() {
    for (pattern, words) in [
        ("nests/*/port", "only in the last part"),
        ("nests/", "no pattern"),
        ("nests/..", "no pattern"),
        ("nests/[a", "Pattern"),
    ] {
        let found = wrong(&format!("{SMALL}[[watch]]\nports = \"{pattern}\"\n"));
        assert!(found[0].2.contains(words), "{pattern}: {found:?}");
    }
    let found = wrong(&format!(
        "{SMALL}[[watch]]\nports = \"n/*\"\n[[watch]]\nports = \"n/*\"\n"
    ));
    assert!(found[0].2.contains("'n/*' is there already"), "{found:?}");
}

#[test]
fn the_schema_knows_the_same_fields() {
    let schema = schema();
    let plan: toml::Table = toml::from_str(WHOLE).unwrap();
    for (section, value) in &plan {
        let known = &schema["properties"][section];
        let (known, table) = match value {
            toml::Value::Array(all) => (&known["items"], all[0].as_table().unwrap()),
            value => (known, value.as_table().unwrap()),
        };
        for field in table.keys() {
            assert!(known["properties"][field].is_object(), "{section}.{field}");
        }
        for field in known["required"].as_array().unwrap() {
            assert!(
                table.contains_key(field.as_str().unwrap()),
                "{section}: {field}"
            );
        }
    }
    assert_eq!(
        schema["properties"].as_object().unwrap().len(),
        table::SECTIONS.len()
    );
}
