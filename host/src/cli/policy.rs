//! Which devices a command trusts: the arguments that say so. There is no default, and an argument that the chosen policy does not
//! look at is an error, so that nobody takes a list for checked that was not.

mod both;

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use keyferry_protocol::identity::Fingerprint;
use keyferry_protocol::proof::Level;

use super::files::read_short;
use super::{Context, fields};
use crate::certificate::{DeviceCa, MAXIMUM_FILE};
use crate::error::Failure;
use crate::station::policy::{
    Allowlist, Enrolment, MAXIMUM_LIST, PolicyError, Rules, SerialList, Trust, Visiting,
};
use crate::station::registry::{Location, Registry, RegistryError};

pub(super) use both::BothArgs;

/// Which blank devices may be enrolled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum EnrolmentPolicy {
    /// A key that was in the device before vouches for it, certified by a CA of `--vendor-ca`.
    VendorCertificate,
    /// Its id is in `--serials`; each is enrolled once, which takes a registry.
    SerialList,
    /// Trust the room: whatever device is on the port.
    Open,
}

/// Which enrolled devices are the right ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum VisitPolicy {
    /// A CA of `--ca` has certified its identity key.
    Certificate,
    /// Its id and identity key are in `--allowlist`.
    Allowlist,
    /// Its keys are those that the registry has pinned.
    Registry,
    /// Trust the room: whatever device is on the port.
    Open,
}

/// What both kinds of policy have beside them.
#[derive(Clone, Copy, Debug, Args)]
struct Leave {
    /// Allow devices whose randomness or root key is only a test's, such as emulated ones, and development firmware. Not for real keys.
    #[arg(long)]
    allow_test_devices: bool,
    /// Allow firmware that was built for a developer's desk: it obeys whichever authority comes first.
    #[arg(long)]
    allow_development: bool,
}

/// The registry of the plant.
#[derive(Clone, Debug, Args)]
pub struct RegistryArgs {
    /// The registry: what was enrolled here, and which keys went where. A known device must still have its keys. A file, or the URL of a
    /// PostgreSQL database (postgresql://USER@HOST/DATABASE).
    #[arg(long, value_name = "FILE", env = "KEYFERRY_REGISTRY")]
    registry: Option<PathBuf>,
    /// File with the password for that database, readable by its owner alone [default: the file of PGPASSFILE].
    #[arg(long, value_name = "FILE", env = "KEYFERRY_REGISTRY_PASSWORD_FILE")]
    registry_password_file: Option<PathBuf>,
}

impl RegistryArgs {
    /// The registry, if one is named; it must be there.
    ///
    /// # Errors
    /// [`Failure::Registry`].
    pub fn open(&self) -> Result<Option<Registry>, Failure> {
        self.with(Registry::open_existing_at)
    }

    /// The registry, if one is named; a new one if it is not there.
    ///
    /// # Errors
    /// [`Failure::Registry`].
    pub fn open_or_begin(&self) -> Result<Option<Registry>, Failure> {
        self.with(Registry::open_at)
    }

    fn with(
        &self,
        open: fn(&Location, Option<&Path>) -> Result<Registry, RegistryError>,
    ) -> Result<Option<Registry>, Failure> {
        let Some(name) = &self.registry else {
            return Ok(None);
        };
        let location = Location::parse(name, Path::new("")).map_err(RegistryError::from)?;
        Ok(Some(open(
            &location,
            self.registry_password_file.as_deref(),
        )?))
    }

    /// The registry, which must be named and there.
    ///
    /// # Errors
    /// [`Failure::Missing`], [`Failure::Registry`].
    pub fn open_named(&self) -> Result<Registry, Failure> {
        self.open()?.ok_or(Failure::Missing {
            name: "--registry",
            because: "KEYFERRY_REGISTRY names none either",
        })
    }
}

/// Why a blank device may be enrolled.
#[derive(Debug, Args)]
pub struct EnrolmentArgs {
    /// Why the device may be enrolled.
    #[arg(long, value_name = "POLICY")]
    policy: EnrolmentPolicy,
    /// The ids that are expected: a text file, one id a line, `#` begins a comment. For policy serial-list.
    #[arg(long, value_name = "FILE")]
    serials: Option<PathBuf>,
    /// Certificate of the vendor's CA, PEM; may be given more than once. For policy vendor-certificate.
    #[arg(long, value_name = "FILE")]
    vendor_ca: Vec<PathBuf>,
    #[command(flatten)]
    leave: Leave,
}

impl EnrolmentArgs {
    /// The rules.
    ///
    /// # Errors
    /// [`Failure::Missing`], [`Failure::NotForPolicy`]; [`Failure::Read`], [`Failure::TooLong`]; [`Failure::Policy`],
    /// [`Failure::Certificate`] for files with something wrong in them.
    pub fn rules(&self) -> Result<Rules, Failure> {
        let wanted = self.policy;
        let name = match wanted {
            EnrolmentPolicy::VendorCertificate => "vendor-certificate",
            EnrolmentPolicy::SerialList => "serial-list",
            EnrolmentPolicy::Open => "open",
        };
        let policy = name;
        only_for(
            self.serials.is_some(),
            "--serials",
            wanted == EnrolmentPolicy::SerialList,
            policy,
        )?;
        only_for(
            !self.vendor_ca.is_empty(),
            "--vendor-ca",
            wanted == EnrolmentPolicy::VendorCertificate,
            policy,
        )?;
        let enrolment = match wanted {
            EnrolmentPolicy::VendorCertificate => {
                Enrolment::VendorCertificate(cas("--vendor-ca", &self.vendor_ca)?)
            }
            EnrolmentPolicy::SerialList => {
                let (name, bytes) = list("--serials", self.serials.as_ref())?;
                Enrolment::SerialList(SerialList::read(&name, &bytes).map_err(PolicyError::from)?)
            }
            EnrolmentPolicy::Open => Enrolment::Open,
        };
        let mut rules = self.leave.rules();
        rules.enrolment = Some(enrolment);
        Ok(rules)
    }
}

/// Why an enrolled device is taken for the right one.
#[derive(Debug, Args)]
pub struct VisitArgs {
    /// Why the device is taken for the right one.
    #[arg(long, value_name = "POLICY", required_unless_present = "identity")]
    policy: Option<VisitPolicy>,
    /// Certificate of a CA that certifies identity keys, PEM; may be given more than once. For policy certificate.
    #[arg(long, value_name = "FILE")]
    ca: Vec<PathBuf>,
    /// The devices that are allowed: a text file, id and fingerprint of the identity key on each line. For policy allowlist.
    #[arg(long, value_name = "FILE")]
    allowlist: Option<PathBuf>,
    /// The only identity key to accept, by its fingerprint (64 hexadecimal digits): an allowlist of one.
    #[arg(long, value_name = "FINGERPRINT", conflicts_with = "policy", value_parser = parse_fingerprint)]
    identity: Option<Fingerprint>,
    /// The weakest proof of a key that counts: check-value, challenge or signature.
    #[arg(long, value_name = "LEVEL", default_value = "check-value", value_parser = parse_level)]
    minimum_proof: Level,
    #[command(flatten)]
    leave: Leave,
}

impl VisitArgs {
    /// The rules.
    ///
    /// # Errors
    /// As [`EnrolmentArgs::rules`].
    pub fn rules(&self) -> Result<Rules, Failure> {
        let wanted = self.policy;
        let name = match wanted {
            None => "allowlist (--identity)",
            Some(VisitPolicy::Certificate) => "certificate",
            Some(VisitPolicy::Allowlist) => "allowlist",
            Some(VisitPolicy::Registry) => "registry",
            Some(VisitPolicy::Open) => "open",
        };
        only_for(
            !self.ca.is_empty(),
            "--ca",
            wanted == Some(VisitPolicy::Certificate),
            name,
        )?;
        only_for(
            self.allowlist.is_some(),
            "--allowlist",
            wanted == Some(VisitPolicy::Allowlist),
            name,
        )?;
        let visiting = match (wanted, self.identity) {
            (None, Some(identity)) => Visiting::Allowlist(Allowlist::one(identity)),
            (None, None) => {
                return Err(Failure::Missing {
                    name: "--policy",
                    because: "nothing is trusted by default",
                });
            }
            (Some(VisitPolicy::Certificate), _) => Visiting::Certificate(cas("--ca", &self.ca)?),
            (Some(VisitPolicy::Allowlist), _) => {
                let (name, bytes) = list("--allowlist", self.allowlist.as_ref())?;
                Visiting::Allowlist(Allowlist::read(&name, &bytes).map_err(PolicyError::from)?)
            }
            (Some(VisitPolicy::Registry), _) => Visiting::Registry,
            (Some(VisitPolicy::Open), _) => Visiting::Open,
        };
        let mut rules = self.leave.rules();
        rules.visiting = Some(visiting);
        rules.minimum_proof = self.minimum_proof;
        Ok(rules)
    }
}

impl Leave {
    fn rules(&self) -> Rules {
        Rules {
            allow_test_devices: self.allow_test_devices,
            allow_development: self.allow_development || self.allow_test_devices,
            ..Rules::closed()
        }
    }
}

impl Context {
    /// Says whom a command trusts and why, and what it is to be thought of that nothing vouches for the device.
    pub fn trust(&self, trust: &Trust) {
        if trust.trusts_the_room() {
            self.warn(&format!("policy {}: {}", trust.policy, trust.reason));
        } else {
            self.note(&format!("policy {}: {}", trust.policy, trust.reason));
        }
        self.event(fields! { "policy" => trust.policy, "reason" => trust.reason });
    }
}

/// Refuses an argument that the chosen policy does not look at.
fn only_for(
    given: bool,
    argument: &'static str,
    fits: bool,
    policy: &'static str,
) -> Result<(), Failure> {
    if given && !fits {
        return Err(Failure::NotForPolicy { argument, policy });
    }
    Ok(())
}

pub(super) fn cas(argument: &'static str, paths: &[PathBuf]) -> Result<DeviceCa, Failure> {
    if paths.is_empty() {
        return Err(Failure::Missing {
            name: argument,
            because: "the policy trusts whom a CA has certified",
        });
    }
    let mut files = Vec::new();
    for path in paths {
        let bytes = read_short(path, MAXIMUM_FILE)?;
        // Each by itself, so that the error names the file.
        DeviceCa::new(std::slice::from_ref(&bytes)).map_err(|reason| Failure::CertificateFile {
            path: path.clone(),
            reason,
        })?;
        files.push(bytes);
    }
    Ok(DeviceCa::new(&files)?)
}

/// A list's name, as errors and records call it, and what is in it.
fn list(argument: &'static str, path: Option<&PathBuf>) -> Result<(String, Vec<u8>), Failure> {
    let Some(path) = path else {
        return Err(Failure::Missing {
            name: argument,
            because: "the policy trusts what is on the list",
        });
    };
    let bytes = read_short(path, MAXIMUM_LIST)?;
    let name = path.file_name().unwrap_or(path.as_os_str());
    Ok((name.to_string_lossy().replace(char::is_control, "?"), bytes))
}

fn parse_fingerprint(text: &str) -> Result<Fingerprint, String> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes)
        .map_err(|_| "a fingerprint has 64 hexadecimal digits".to_owned())?;
    Ok(Fingerprint(bytes))
}

fn parse_level(name: &str) -> Result<Level, String> {
    let wrong = || "there is check-value, challenge and signature".to_owned();
    match name.parse() {
        // Whoever wants keys that nobody has proved does not want this program.
        Ok(Level::None) | Err(_) => Err(wrong()),
        Ok(level @ (Level::CheckValue | Level::Challenge | Level::Signature)) => Ok(level),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Enrol {
        #[command(flatten)]
        policy: EnrolmentArgs,
    }

    #[derive(Debug, Parser)]
    struct Visit {
        #[command(flatten)]
        policy: VisitArgs,
    }

    fn enrol(arguments: &[&str]) -> Result<Rules, Failure> {
        let all = ["x"].iter().chain(arguments);
        Enrol::try_parse_from(all).unwrap().policy.rules()
    }

    fn visit(arguments: &[&str]) -> Result<Rules, Failure> {
        let all = ["x"].iter().chain(arguments);
        Visit::try_parse_from(all).unwrap().policy.rules()
    }

    #[test]
    fn there_is_no_default() {
        let error = Enrol::try_parse_from(["x"]).unwrap_err().to_string();
        assert!(error.contains("--policy"), "{error}");
        let error = Visit::try_parse_from(["x"]).unwrap_err().to_string();
        assert!(error.contains("--policy"), "{error}");
        // What there is to choose from is said.
        let wrong = ["x", "--policy", "trust"];
        let error = Enrol::try_parse_from(wrong).unwrap_err().to_string();
        for name in Enrolment::NAMES {
            assert!(error.contains(name), "{error}");
        }
        let error = Visit::try_parse_from(wrong).unwrap_err().to_string();
        for name in Visiting::NAMES {
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn leave_is_given_only_where_it_was_asked_for() {
        let rules = enrol(&["--policy", "open"]).unwrap();
        assert!(matches!(rules.enrolment, Some(Enrolment::Open)));
        assert!(rules.visiting.is_none());
        assert!(!rules.allow_test_devices && !rules.allow_development);
        let rules = visit(&["--policy", "registry", "--allow-development"]).unwrap();
        assert!(matches!(rules.visiting, Some(Visiting::Registry)));
        assert!(rules.enrolment.is_none());
        assert!(!rules.allow_test_devices && rules.allow_development);
        let rules = visit(&["--policy", "open", "--allow-test-devices"]).unwrap();
        assert!(rules.allow_test_devices && rules.allow_development);
    }

    #[test]
    fn an_argument_that_is_not_looked_at_is_an_error() {
        for result in [
            enrol(&["--policy", "open", "--serials", "f"]),
            enrol(&["--policy", "open", "--vendor-ca", "f"]),
            enrol(&[
                "--policy",
                "serial-list",
                "--serials",
                "f",
                "--vendor-ca",
                "f",
            ]),
            visit(&["--policy", "open", "--ca", "f"]),
            visit(&["--policy", "registry", "--allowlist", "f"]),
            visit(&["--identity", &"ab".repeat(32), "--allowlist", "f"]),
        ] {
            assert!(
                matches!(result, Err(Failure::NotForPolicy { .. })),
                "{result:?}"
            );
        }
    }

    #[test]
    fn an_argument_that_the_policy_needs_is_missed() {
        for (result, argument) in [
            (enrol(&["--policy", "serial-list"]), "--serials"),
            (enrol(&["--policy", "vendor-certificate"]), "--vendor-ca"),
            (visit(&["--policy", "certificate"]), "--ca"),
            (visit(&["--policy", "allowlist"]), "--allowlist"),
        ] {
            match result {
                Err(Failure::Missing { name, .. }) => assert_eq!(name, argument),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn files_are_read_and_named_in_errors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("serials.txt");
        std::fs::write(&path, "hello\n").unwrap();
        let path = path.display().to_string();
        let error = enrol(&["--policy", "serial-list", "--serials", &path]).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("serials.txt is not used: line 1"),
            "{error}"
        );
        assert_eq!(error.exit(), crate::error::Exit::Usage);
        let error = visit(&["--policy", "certificate", "--ca", &path]).unwrap_err();
        assert!(matches!(error, Failure::CertificateFile { .. }), "{error}");
    }

    #[test]
    fn one_identity_key_may_be_asked_for() {
        let identity = "ab".repeat(32);
        let rules = visit(&["--identity", &identity]).unwrap();
        assert!(matches!(rules.visiting, Some(Visiting::Allowlist(_))));
        let both = ["x", "--identity", &identity, "--policy", "open"];
        assert!(Visit::try_parse_from(both).is_err());
        assert!(Visit::try_parse_from(["x", "--identity", "ab"]).is_err());
    }

    #[test]
    fn nobody_can_ask_for_no_proof() {
        assert_eq!(
            visit(&["--policy", "open"]).unwrap().minimum_proof,
            Level::CheckValue
        );
        let rules = visit(&["--policy", "open", "--minimum-proof", "signature"]).unwrap();
        assert_eq!(rules.minimum_proof, Level::Signature);
        for wrong in ["none", "strong"] {
            let arguments = ["x", "--policy", "open", "--minimum-proof", wrong];
            assert!(Visit::try_parse_from(arguments).is_err());
        }
    }
}
