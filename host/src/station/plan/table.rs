//! What a plan may say: every section and field once. The reader, the JSON schema and the errors all come from these tables, so that
//! none of them can say something else than the others.

use keyferry_protocol::MAX_ENTRIES;

use super::kind::{
    FRESH, HIGHEST_SLOT, Kind, LABEL, MASTER, MAXIMUM_PATTERNS, MAXIMUM_PORTS, MAXIMUM_VERSION,
    Section, TOKEN, Times, enrolments, failures, field, fingerprint, key_type, levels, needed,
    nest, port, registry, slot_label, sources, suites, unwraps, uri, uses, visits, watched, with,
};

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
                Kind::Checked {
                    check: registry,
                    example: "plant.db",
                },
                "The registry of devices, a file or the URL of a PostgreSQL database (postgresql://USER@HOST/DATABASE); begun if it is not there.",
            ),
            field(
                "registry-password",
                Kind::Path,
                "File with the password for that database, readable by its owner alone. Unless it is said, the file of PGPASSFILE.",
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
                    most: MAXIMUM_VERSION,
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
                    Kind::Checked {
                        check: slot_label,
                        example: "fleet",
                    },
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
        name: "hook",
        about: "A program that gets a JSON object on its standard input before and after each device.",
        times: Times::Maybe,
        fields: &[
            needed(
                "program",
                Kind::Path,
                "The program: a name that is looked for as a shell does, or a path. No shell is started.",
            ),
            field(
                "arguments",
                Kind::Words,
                "Its arguments, each as it stands here.",
            ),
            field(
                "seconds",
                Kind::Number {
                    least: 1,
                    most: 3600,
                },
                "How long it may take before it is ended, in seconds; 10 unless it is said.",
            ),
            field(
                "before",
                Kind::Choice(failures),
                "Call it before a device is touched. If it fails: fail, the device is not touched and has failed; warn, it is told.",
            ),
            field(
                "after",
                Kind::Choice(failures),
                "Call it when a device is over, done or not. If it fails: fail, the device has failed, whatever it has got; warn, it is told.",
            ),
        ],
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
            field(
                "registry-wait",
                Kind::Number {
                    least: 0,
                    most: 86_400,
                },
                "Seconds that devices wait while the registry's server is away; 300 unless it is said.",
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
                Kind::Checked {
                    check: nest,
                    example: "A1",
                },
                "What stands on the fixture beside it.",
            ),
        ],
    },
    Section {
        name: "watch",
        about: "Where `station watch` looks for devices besides the places of [[port]].",
        times: Times::Many {
            least: 0,
            most: MAXIMUM_PATTERNS,
        },
        fields: &[needed(
            "ports",
            Kind::Checked {
                check: watched,
                example: "/dev/serial/by-path/*",
            },
            "A folder and a pattern (*, ?, [abc]) for names in it: each that is a port is a nest, and has its name. Without a folder, the pattern is for the serial ports that the system lists.",
        )],
    },
];
