//! From sections and fields to a plan: what they mean together, and what cannot be together.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use keyferry_protocol::identity::{Digest, Fingerprint};
use keyferry_protocol::proof::Level;
use keyferry_protocol::suite::{Suite, UnwrapAlgorithm};

use super::entry::{Entries, Entry, Placed};
use super::kind::{FAIL, FRESH, MASTER, TOKEN, WARN};
use super::mistake::{Mistake, Place, What, shortened};
use super::{
    AT_ONCE, BackendPlan, CertificatePlan, EnrolmentPlan, File, HOOK_SECONDS, HookPlan, KeyPlan,
    KeySource, Limits, OnFailure, Plan, PortPlan, REGISTRY_WAIT, TokenPlan, VisitPlan, WatchPlan,
};
use crate::hsm::{DeviceUse, KeyType};
use crate::station::policy::OPEN;

/// The plan, if nothing that it needs is missing; what is missing or wrong by itself was told before.
pub(super) fn plan(entries: &Entries, digest: Digest, mistakes: &mut Vec<Mistake>) -> Option<Plan> {
    let mut checks = Checks { mistakes };
    let none = Entry::default();
    let one = |name: &str| entries.get(name).and_then(|all| all.first());
    let maybe = |name: &str| one(name).unwrap_or(&none);
    let all = |name: &str| entries.get(name).map_or(&[][..], Vec::as_slice);

    let order = maybe("order");
    let enrolment = maybe("enrolment");
    let unwrap = enrolment.named::<UnwrapAlgorithm>("unwrap");
    let suites = suites(order);
    if let Some(enrolment) = one("enrolment") {
        checks.suites(order, enrolment, &suites);
    }
    let hsm = maybe("hsm");
    let has = Has {
        keeper: hsm.text("keep-under").is_some() || one("hsm").is_none(),
        backend: one("backend").is_some(),
        minimum_proof: order
            .named("minimum-proof")
            .map_or(Level::CheckValue, |found| found.value),
    };
    let keys = checks.keys(all("key"), has);
    let ports = checks.ports(all("port"));
    let watch = checks.watch(all("watch"));
    let station = maybe("station");
    checks.files(station);
    if let Some(key) = hsm.text("audit-key")
        && one("station").is_some()
        && station.text("audit").is_none()
        && !station.wrong.contains(&"audit")
    {
        let what = What::Needs {
            what: "audit-key",
            other: "audit in [station], the log that it signs",
        };
        checks.mistake(key.place, what);
    }
    if let Some(entry) = one("hook") {
        checks.hook(entry);
    }

    let devices = maybe("devices");
    let limits = maybe("limits");
    let number = |name| limits.number(name).map(|found| found.value);
    Some(Plan {
        name: station.text("name")?.value.to_owned(),
        digest,
        journal: path(station, "journal")?.path,
        registry: path(station, "registry")?.path,
        registry_password: path(station, "registry-password").map(|file| file.path),
        audit: path(station, "audit"),
        hsm: token(hsm)?,
        certificates: match one("certificates") {
            Some(entry) => Some(certificates(entry)?),
            None => None,
        },
        allow_test_devices: devices.flag("allow-test-devices"),
        allow_development: devices.flag("allow-development"),
        serials: devices.flag("serials"),
        enrolment: match one("enrolment") {
            Some(entry) => Some(enrolment_plan(entry)?),
            None => None,
        },
        unwrap: unwrap.map_or(UnwrapAlgorithm::Rsa2048, |found| found.value),
        visit: visit_plan(one("visit")?)?,
        version: order.number("version").map_or(1, |found| found.value),
        suites,
        minimum_proof: has.minimum_proof,
        keys,
        backend: match one("backend") {
            Some(entry) => Some(backend(entry)?),
            None => None,
        },
        lock: maybe("after").flag("lock"),
        hook: match one("hook") {
            Some(entry) => Some(hook(entry)?),
            None => None,
        },
        limits: Limits {
            devices: number("devices"),
            failures_in_a_row: number("failures-in-a-row"),
            at_once: number("at-once")
                .and_then(|number| usize::try_from(number).ok())
                .unwrap_or(AT_ONCE),
            registry_wait: Duration::from_secs(
                number("registry-wait").unwrap_or(REGISTRY_WAIT).into(),
            ),
        },
        ports,
        watch,
    })
}

fn path(entry: &Entry, name: &str) -> Option<File> {
    entry.text(name).map(|found| File {
        path: PathBuf::from(found.value),
        place: found.place,
    })
}

fn paths(entry: &Entry, name: &str) -> Option<Vec<File>> {
    let found = entry.texts(name)?;
    let file = |found: &Placed<String>| File {
        path: PathBuf::from(&found.value),
        place: found.place,
    };
    Some(found.value.iter().map(file).collect())
}

fn words(entry: &Entry, name: &str) -> Option<String> {
    entry.text(name).map(|found| found.value.to_owned())
}

fn suites(order: &Entry) -> Vec<Suite> {
    match order.texts("suites") {
        None => Suite::ALL.to_vec(),
        Some(found) => {
            let named = found.value.iter();
            named.filter_map(|name| name.value.parse().ok()).collect()
        }
    }
}

fn token(hsm: &Entry) -> Option<TokenPlan> {
    Some(TokenPlan {
        token: words(hsm, "token")?,
        authority: words(hsm, "authority")?,
        audit_key: words(hsm, "audit-key"),
        keep_under: words(hsm, "keep-under"),
    })
}

fn certificates(entry: &Entry) -> Option<CertificatePlan> {
    Some(CertificatePlan {
        key: words(entry, "key")?,
        ca: path(entry, "ca")?,
        organization: words(entry, "organization"),
    })
}

fn backend(entry: &Entry) -> Option<BackendPlan> {
    let mut fingerprint = Fingerprint::ZERO;
    let digits = entry.text("fingerprint")?.value;
    hex::decode_to_slice(digits, &mut fingerprint.0).ok()?;
    Some(BackendPlan {
        key: path(entry, "key")?,
        fingerprint,
        folder: path(entry, "folder")?.path,
        sign_with: words(entry, "sign-with")?,
        allow_zero_tail: entry.flag("allow-zero-tail"),
    })
}

fn hook(entry: &Entry) -> Option<HookPlan> {
    let on_failure = |name| match entry.text(name)?.value {
        FAIL => Some(OnFailure::Fail),
        WARN => Some(OnFailure::Warn),
        _ => None,
    };
    let arguments = entry
        .texts("arguments")
        .map_or(&[][..], |found| found.value);
    Some(HookPlan {
        program: path(entry, "program")?,
        arguments: arguments.iter().map(|it| it.value.clone()).collect(),
        seconds: entry
            .number("seconds")
            .map_or(HOOK_SECONDS, |found| found.value),
        before: on_failure("before"),
        after: on_failure("after"),
    })
}

fn enrolment_plan(entry: &Entry) -> Option<EnrolmentPlan> {
    match entry.text("policy")?.value {
        "vendor-certificate" => paths(entry, "vendor-ca").map(EnrolmentPlan::VendorCertificate),
        "serial-list" => path(entry, "serials").map(EnrolmentPlan::SerialList),
        OPEN => Some(EnrolmentPlan::Open),
        _ => None,
    }
}

fn visit_plan(entry: &Entry) -> Option<VisitPlan> {
    match entry.text("policy")?.value {
        "certificate" => paths(entry, "ca").map(VisitPlan::Certificate),
        "allowlist" => path(entry, "allowlist").map(VisitPlan::Allowlist),
        "registry" => Some(VisitPlan::Registry),
        OPEN => Some(VisitPlan::Open),
        _ => None,
    }
}

/// What keys may need.
#[derive(Clone, Copy)]
struct Has {
    keeper: bool,
    backend: bool,
    minimum_proof: Level,
}

struct Checks<'m> {
    mistakes: &'m mut Vec<Mistake>,
}

impl Checks<'_> {
    fn mistake(&mut self, place: Place, what: What) {
        self.mistakes.push(Mistake { place, what });
    }

    /// Whether this stands here for the first time.
    fn first<T: Ord>(
        &mut self,
        seen: &mut BTreeMap<T, Place>,
        found: Placed<T>,
        what: impl FnOnce(&T) -> String,
    ) -> bool {
        let Placed { value, place } = found;
        if let Some(first) = seen.get(&value) {
            let (what, first) = (what(&value), first.line);
            self.mistake(place, What::Twice { what, first });
            return false;
        }
        seen.insert(value, place);
        true
    }

    /// An unwrap key that nothing could be wrapped for is found out before a device has made it. Of a kind that is a mistake by itself nobody knows
    /// what was meant.
    fn suites(&mut self, order: &Entry, enrolment: &Entry, suites: &[Suite]) {
        if enrolment.wrong.contains(&"unwrap") {
            return;
        }
        let unwrap = enrolment.named::<UnwrapAlgorithm>("unwrap");
        let kind = unwrap.map_or(UnwrapAlgorithm::Rsa2048, |found| found.value);
        let Some(written) = order.texts("suites") else {
            return;
        };
        if !suites.iter().any(|suite| suite.fits(kind)) {
            let unwrap = kind.name();
            self.mistake(written.place, What::UnfitSuites { unwrap });
        }
    }

    fn keys(&mut self, entries: &[Entry], has: Has) -> Vec<KeyPlan> {
        let mut slots = BTreeMap::new();
        let mut keys = Vec::new();
        for entry in entries {
            if let Some(slot) = entry.number("slot") {
                self.first(&mut slots, slot, |slot| format!("a key for slot {slot}"));
            }
            if let Some(key) = self.key(entry, has) {
                keys.push(key);
            }
        }
        keys
    }

    fn key(&mut self, entry: &Entry, has: Has) -> Option<KeyPlan> {
        let device_use = entry.named::<DeviceUse>("use");
        let from = entry.text("from")?;
        let source = match from.value {
            TOKEN => KeySource::Token {
                label: words(entry, "key")?,
            },
            FRESH => {
                if !has.keeper {
                    let what = What::Needs {
                        what: "from = \"fresh\"",
                        other: "keep-under in [hsm]",
                    };
                    self.mistake(from.place, what);
                }
                KeySource::Fresh {
                    key_type: self.key_type(entry, device_use.as_ref(), has)?,
                    label: words(entry, "label")?,
                }
            }
            MASTER => {
                let key_type = self.key_type(entry, device_use.as_ref(), has)?;
                let derivable = match key_type {
                    KeyType::Aes { .. } | KeyType::Secret { bits: 256 } => true,
                    KeyType::Secret { .. }
                    | KeyType::Rsa { .. }
                    | KeyType::P256
                    | KeyType::P384
                    | KeyType::Ed25519
                    | KeyType::Other => false,
                };
                if let Some(written) = entry.text("type").filter(|_| !derivable) {
                    let what = What::Rejected {
                        field: "type",
                        reason: "AES keys and hmac-256 are derived, and no others".to_owned(),
                        example: "aes-256",
                    };
                    self.mistake(written.place, what);
                }
                KeySource::Master {
                    master: words(entry, "master")?,
                    label: words(entry, "label")?,
                    key_type,
                }
            }
            _ => return None,
        };
        let export = entry.flag("export");
        if export && !has.backend {
            let what = What::Needs {
                what: "export = true",
                other: "the section [backend]",
            };
            self.mistake(entry.place, what);
        }
        Some(KeyPlan {
            slot: u16::try_from(entry.number("slot")?.value).ok()?,
            source,
            export,
            device_use: device_use.map(|found| found.value),
            place: entry.place,
        })
    }

    /// The type of a key that is made, which must have the use, and be able to prove itself in it.
    fn key_type(
        &mut self,
        entry: &Entry,
        device_use: Option<&Placed<DeviceUse>>,
        has: Has,
    ) -> Option<KeyType> {
        let key_type = entry.named::<KeyType>("type")?.value;
        if let Some(wanted) = device_use {
            let (text, device_use) = (key_type.to_string(), wanted.value.name());
            let what = if !wanted.value.fits(key_type) {
                Some(What::UnfitUse {
                    key_type: text,
                    device_use,
                })
            } else if wanted.value.highest_level(key_type) < has.minimum_proof {
                Some(What::WeakUse {
                    key_type: text,
                    device_use,
                    minimum: has.minimum_proof.name(),
                })
            } else {
                None
            };
            if let Some(what) = what {
                self.mistake(wanted.place, what);
            }
        }
        Some(key_type)
    }

    fn ports(&mut self, entries: &[Entry]) -> Vec<PortPlan> {
        let (mut ports, mut nests) = (BTreeMap::new(), BTreeMap::new());
        let mut all = Vec::new();
        for entry in entries {
            let (port, nest) = (entry.text("port"), entry.text("nest"));
            if let Some(port) = &port {
                self.first(&mut ports, port.clone(), |port| {
                    format!("port '{}'", shortened(port))
                });
            }
            if let Some(nest) = &nest {
                self.first(&mut nests, nest.clone(), |nest| {
                    format!("nest '{}'", shortened(nest))
                });
            }
            if let (Some(port), Some(nest)) = (port, nest) {
                all.push(PortPlan {
                    port: port.value.to_owned(),
                    nest: nest.value.to_owned(),
                });
            }
        }
        all
    }

    fn watch(&mut self, entries: &[Entry]) -> Vec<WatchPlan> {
        let mut patterns = BTreeMap::new();
        let mut all = Vec::new();
        for pattern in entries.iter().filter_map(|entry| entry.text("ports")) {
            let read = WatchPlan::read(pattern.value);
            self.first(&mut patterns, pattern, |pattern| {
                format!("the pattern '{}'", shortened(pattern))
            });
            all.extend(read);
        }
        all
    }

    /// A hook that is never called is a mistake.
    fn hook(&mut self, entry: &Entry) {
        if !entry.fields.contains_key("before") && !entry.fields.contains_key("after") {
            let what = What::Needs {
                what: "[hook]",
                other: "before = \"fail\" or after = \"fail\" (or \"warn\")",
            };
            self.mistake(entry.place, what);
        }
    }

    /// Two books in one file would spoil each other.
    fn files(&mut self, station: &Entry) {
        let mut seen = BTreeMap::new();
        for name in ["journal", "registry", "audit"] {
            if let Some(file) = station.text(name) {
                self.first(&mut seen, file, |file| {
                    format!("the file '{}'", shortened(file))
                });
            }
        }
    }
}
