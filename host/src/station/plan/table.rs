//! What a plan may say: every section and field once. The reader, the JSON schema and the errors all come from these tables, so that
//! none of them can say something else than the others.

use std::str::FromStr as _;

use keyferry_protocol::identity::Fingerprint;
use keyferry_protocol::order::MAX_LABEL;
use keyferry_protocol::proof::Level;
use keyferry_protocol::suite::{Suite, UnwrapAlgorithm};
use keyferry_protocol::{MAX_ENTRIES, MAX_SLOTS};

use crate::device::port::Name;
use crate::hsm::{DeviceUse, KeyType, is_uri, parse};
use crate::station::policy::{Enrolment, Visiting};

/// Longest text of a field in characters.
pub(super) const LONGEST: usize = 4096;

/// Most ports of a plan.
pub const MAXIMUM_PORTS: usize = 256;

/// Most files that a field may name.
pub(super) const MAXIMUM_FILES: usize = 32;

/// A table of the plan.
pub(super) struct Section {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) times: Times,
    pub(super) fields: &'static [Field],
}

/// How often a section stands in a plan.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Times {
    /// Exactly once: `[name]`.
    Once,
    /// At most once.
    Maybe,
    /// As `[[name]]`, from `least` to `most` times.
    Many { least: usize, most: usize },
}

/// A field of a section.
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) kind: Kind,
    pub(super) needed: bool,
    /// With which values of another field it has a meaning; with others it is a mistake.
    pub(super) only: Option<Only>,
}

/// See [`Field::only`].
#[derive(Clone, Copy)]
pub(super) struct Only {
    pub(super) field: &'static str,
    pub(super) values: &'static [&'static str],
}

/// What a field holds.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// Words, of at most this many characters.
    Text { most: usize },
    /// Words that have to mean something.
    Checked {
        check: fn(&str) -> Result<(), String>,
        example: &'static str,
    },
    /// A file or folder, seen from the plan's folder.
    Path,
    /// Several files.
    Paths,
    /// One of these names.
    Choice(fn() -> Vec<&'static str>),
    /// Some of these names, each once.
    Choices(fn() -> Vec<&'static str>),
    /// A whole number.
    Number { least: u32, most: u32 },
    /// `true` or `false`.
    Flag,
}

impl Kind {
    /// What it is, for an error.
    pub(super) const fn words(&self) -> &'static str {
        match self {
            Self::Text { .. } | Self::Checked { .. } | Self::Path | Self::Choice(_) => "a string",
            Self::Paths | Self::Choices(_) => "a list of strings",
            Self::Number { .. } => "a whole number",
            Self::Flag => "true or false",
        }
    }
}

const fn field(name: &'static str, kind: Kind, about: &'static str) -> Field {
    Field {
        name,
        about,
        kind,
        needed: false,
        only: None,
    }
}

const fn needed(name: &'static str, kind: Kind, about: &'static str) -> Field {
    Field {
        needed: true,
        ..field(name, kind, about)
    }
}

const fn with(field: Field, name: &'static str, values: &'static [&'static str]) -> Field {
    Field {
        only: Some(Only {
            field: name,
            values,
        }),
        ..field
    }
}

const LABEL: Kind = Kind::Text { most: 255 };

fn uri(text: &str) -> Result<(), String> {
    if !is_uri(text) {
        return Err("it is no PKCS#11 URI".to_owned());
    }
    parse(text).map(|_| ()).map_err(|error| error.to_string())
}

fn port(text: &str) -> Result<(), String> {
    Name::from_str(text)
        .map(|_| ())
        .map_err(|error| error.to_string())
}

fn key_type(text: &str) -> Result<(), String> {
    let taken = |key_type| DeviceUse::ALL.iter().any(|it| it.fits(key_type));
    match KeyType::from_str(text) {
        Ok(key_type) if taken(key_type) => Ok(()),
        Ok(_) | Err(_) => Err(
            "devices take aes-128, -192, -256, hmac-128 to -512, p-256, rsa-2048, -3072, -4096"
                .to_owned(),
        ),
    }
}

fn fingerprint(text: &str) -> Result<(), String> {
    let mut bytes = [0; Fingerprint::LENGTH];
    hex::decode_to_slice(text, &mut bytes)
        .map_err(|_| "a fingerprint has 64 hexadecimal digits".to_owned())
}

fn slot_label(text: &str) -> Result<(), String> {
    if text.is_empty() || text.len() > MAX_LABEL {
        return Err(format!("a slot's label has 1 to {MAX_LABEL} bytes"));
    }
    Ok(())
}

fn uses() -> Vec<&'static str> {
    DeviceUse::ALL.iter().map(|it| it.name()).collect()
}

fn suites() -> Vec<&'static str> {
    Suite::ALL.iter().map(|it| it.name()).collect()
}

fn unwraps() -> Vec<&'static str> {
    UnwrapAlgorithm::ALL.iter().map(|it| it.name()).collect()
}

fn levels() -> Vec<&'static str> {
    // Whoever wants keys that nobody has proved does not want this program.
    let mut levels = Level::ALL.iter().filter(|level| **level != Level::None);
    levels.by_ref().map(|it| it.name()).collect()
}

fn enrolments() -> Vec<&'static str> {
    Enrolment::NAMES.to_vec()
}

fn visits() -> Vec<&'static str> {
    Visiting::NAMES.to_vec()
}

/// Where a key comes from: of the token, the same for every device; or made at random for each.
pub(super) const TOKEN: &str = "token";
/// See [`TOKEN`].
pub(super) const FRESH: &str = "fresh";
/// Or derived for each from a master key of the token.
pub(super) const MASTER: &str = "master";

fn sources() -> Vec<&'static str> {
    vec![TOKEN, FRESH, MASTER]
}

#[allow(clippy::cast_possible_truncation, reason = "16 slots")]
const HIGHEST_SLOT: u32 = MAX_SLOTS as u32 - 1;

/// All sections.
pub(super) const SECTIONS: &[Section] = &[
    Section {
        name: "station",
        about: "The station and its books.",
        times: Times::Once,
        fields: &[
            needed(
                "name",
                Kind::Text { most: 64 },
                "What people call this job. It stands in the journal and on the screen.",
            ),
            needed(
                "journal",
                Kind::Path,
                "The station's journal, always a local file; begun if it is not there. One for each station, not for each plan.",
            ),
            needed(
                "registry",
                Kind::Path,
                "The registry of devices; begun if it is not there.",
            ),
            field(
                "audit",
                Kind::Path,
                "The audit log, begun with `keyferry audit create`.",
            ),
        ],
    },
    Section {
        name: "hsm",
        about: "The token, and the keys on it that work for the station.",
        times: Times::Once,
        fields: &[
            needed(
                "token",
                Kind::Checked {
                    check: uri,
                    example: "pkcs11:token=line?module-path=/usr/lib/softhsm/libsofthsm2.so",
                },
                "PKCS#11 URI of the token. It may say where the PIN is (pin-source), and never holds it.",
            ),
            needed("authority", LABEL, "Label of the key that signs orders."),
            field(
                "audit-key",
                LABEL,
                "Label of the key that signs the audit log: at the beginning and at the end of each run.",
            ),
            field(
                "keep-under",
                LABEL,
                "Label of the AES key that random keys of devices are kept under until they are proved.",
            ),
        ],
    },
    Section {
        name: "certificates",
        about: "Devices get a certificate of their identity key with their keys.",
        times: Times::Maybe,
        fields: &[
            needed("key", LABEL, "Label of the CA's key on the token."),
            needed("ca", Kind::Path, "The CA's certificate, PEM or DER."),
            field(
                "organization",
                Kind::Text { most: 64 },
                "Who makes the devices (O in the subject).",
            ),
        ],
    },
    Section {
        name: "devices",
        about: "What every device must be, whoever it is.",
        times: Times::Maybe,
        fields: &[
            field(
                "allow-test-devices",
                Kind::Flag,
                "Allow devices whose randomness or root key is only a test's, such as emulated ones, and development firmware. Not for real keys.",
            ),
            field(
                "allow-development",
                Kind::Flag,
                "Allow firmware that obeys whichever authority comes first.",
            ),
            field(
                "serials",
                Kind::Flag,
                "Every device needs the serial number of its label, from the file that --serials names.",
            ),
        ],
    },
    Section {
        name: "enrolment",
        about: "Which blank devices may be enrolled. Without it, none.",
        times: Times::Maybe,
        fields: &[
            needed(
                "policy",
                Kind::Choice(enrolments),
                "Why a blank device is trusted.",
            ),
            with(
                needed(
                    "serials",
                    Kind::Path,
                    "The ids that are expected, one a line.",
                ),
                "policy",
                &["serial-list"],
            ),
            with(
                needed(
                    "vendor-ca",
                    Kind::Paths,
                    "Certificates of the vendor's CAs, PEM.",
                ),
                "policy",
                &["vendor-certificate"],
            ),
            field(
                "unwrap",
                Kind::Choice(unwraps),
                "Kind of unwrap key that a blank device makes; rsa-2048 unless it is said.",
            ),
        ],
    },
    Section {
        name: "visit",
        about: "Which enrolled devices are the right ones.",
        times: Times::Once,
        fields: &[
            needed(
                "policy",
                Kind::Choice(visits),
                "Why an enrolled device is taken for the right one.",
            ),
            with(
                needed(
                    "ca",
                    Kind::Paths,
                    "Certificates of CAs that certify identity keys, PEM.",
                ),
                "policy",
                &["certificate"],
            ),
            with(
                needed(
                    "allowlist",
                    Kind::Path,
                    "Id and fingerprint of the identity key of each device, one device a line.",
                ),
                "policy",
                &["allowlist"],
            ),
        ],
    },
    Section {
        name: "order",
        about: "What holds for all keys of the order.",
        times: Times::Maybe,
        fields: &[
            field(
                "version",
                Kind::Number {
                    least: 1,
                    most: u32::MAX,
                },
                "Version of the keys; a higher one replaces a key in its slot; 1 unless it is said.",
            ),
            field(
                "suites",
                Kind::Choices(suites),
                "The suites by which keys may travel; all unless it is said.",
            ),
            field(
                "minimum-proof",
                Kind::Choice(levels),
                "The weakest proof of a key that counts; check-value unless it is said.",
            ),
        ],
    },
    Section {
        name: "key",
        about: "A key for every device. All of them travel in one order.",
        times: Times::Many {
            least: 1,
            most: MAX_ENTRIES,
        },
        fields: &[
            needed(
                "slot",
                Kind::Number {
                    least: 0,
                    most: HIGHEST_SLOT,
                },
                "The slot on the device.",
            ),
            needed(
                "from",
                Kind::Choice(sources),
                "Where the key comes from: token, the same key for every device; fresh, made at random for each; master, derived for each from a master key.",
            ),
            with(
                needed(
                    "key",
                    LABEL,
                    "Label of the key on the token; the slot gets it, too.",
                ),
                "from",
                &[TOKEN],
            ),
            with(
                needed(
                    "label",
                    Kind::Checked {
                        check: slot_label,
                        example: "device-key",
                    },
                    "The slot's label.",
                ),
                "from",
                &[FRESH, MASTER],
            ),
            with(
                needed(
                    "type",
                    Kind::Checked {
                        check: key_type,
                        example: "aes-256",
                    },
                    "Algorithm and size.",
                ),
                "from",
                &[FRESH, MASTER],
            ),
            with(
                needed(
                    "master",
                    LABEL,
                    "Label of the AES key that keys are derived from, by device id, slot and version. It may derive and nothing else.",
                ),
                "from",
                &[MASTER],
            ),
            with(
                field(
                    "export",
                    Kind::Flag,
                    "The backend of [backend] gets the key as well.",
                ),
                "from",
                &[FRESH, MASTER],
            ),
            field(
                "use",
                Kind::Choice(uses),
                "What the device uses it for: one PSA algorithm with its usage flags. Unless it is said, what the key may do on the token.",
            ),
        ],
    },
    Section {
        name: "backend",
        about: "Who gets devices' own keys as well, in a folder with a signed manifest for each run.",
        times: Times::Maybe,
        fields: &[
            needed(
                "key",
                Kind::Path,
                "Public key file of its RSA key-encryption key.",
            ),
            needed(
                "fingerprint",
                Kind::Checked {
                    check: fingerprint,
                    example: "64 hexadecimal digits",
                },
                "SHA-256 of that key's SubjectPublicKeyInfo: any other key is refused.",
            ),
            needed(
                "folder",
                Kind::Path,
                "The folder in which each run makes one of its own.",
            ),
            needed(
                "sign-with",
                LABEL,
                "Label of the P-256 key that signs the manifests, and does nothing else.",
            ),
            field(
                "allow-zero-tail",
                Kind::Flag,
                "Give it private keys that the token puts zeros behind, which a strict importer refuses.",
            ),
        ],
    },
    Section {
        name: "after",
        about: "What is done when all keys of a device are proved.",
        times: Times::Maybe,
        fields: &[field(
            "lock",
            Kind::Flag,
            "Lock the device: nobody changes its slots any more.",
        )],
    },
    Section {
        name: "limits",
        about: "When the station stops by itself.",
        times: Times::Maybe,
        fields: &[
            field(
                "devices",
                Kind::Number {
                    least: 1,
                    most: 1_000_000,
                },
                "Most devices of one run that are begun.",
            ),
            field(
                "failures-in-a-row",
                Kind::Number {
                    least: 1,
                    most: 1_000_000,
                },
                "After so many failures one after the other no further device is begun.",
            ),
            field(
                "at-once",
                Kind::Number {
                    least: 1,
                    most: MAXIMUM_PORTS as u32,
                },
                "Most devices that are worked on at the same time; 64 unless it is said.",
            ),
        ],
    },
    Section {
        name: "port",
        about: "A place where a device is plugged in.",
        times: Times::Many {
            least: 0,
            most: MAXIMUM_PORTS,
        },
        fields: &[
            needed(
                "port",
                Kind::Checked {
                    check: port,
                    example: "/dev/ttyUSB0",
                },
                "A serial device, tcp:HOST:NUMBER or unix:PATH.",
            ),
            needed(
                "nest",
                Kind::Text { most: 16 },
                "What stands on the fixture beside it.",
            ),
        ],
    },
];
