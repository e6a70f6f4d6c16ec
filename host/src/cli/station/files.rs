//! A plan and the files that it names: lists of devices, certificates of CAs. What is wrong in them is told as mistakes of the plan, at
//! the place that names them.

use std::path::{Path, PathBuf};

use super::PlanArgs;
use crate::certificate::{CaCertificate, DeviceCa, MAXIMUM_FILE};
use crate::cli::files::read_short;
use crate::error::Failure;
use crate::export::check_backend;
use crate::hsm::{MAXIMUM_KEY_FILE, PublicKey};
use crate::station::plan::{
    BackendPlan, EnrolmentPlan, File, HookPlan, MAXIMUM_PLAN, Mistake, Plan, PlanError, VisitPlan,
    What,
};
use crate::station::policy::{Allowlist, Enrolment, MAXIMUM_LIST, Rules, SerialList, Visiting};
use crate::station::run::Hook;

/// A plan, and what is in the files that it names.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) plan: Plan,
    /// The plan's folder, from which its files are seen.
    pub(super) folder: PathBuf,
    /// Which devices it trusts.
    pub(super) rules: Rules,
    /// The CA's certificate.
    pub(super) ca: Option<CaCertificate>,
    /// The backend's key.
    pub(super) backend: Option<PublicKey>,
    /// The program that is called before and after each device.
    pub(super) hook: Option<Hook>,
}

impl Loaded {
    /// A file that the plan names, seen from here.
    pub(super) fn path(&self, path: &Path) -> PathBuf {
        self.folder.join(path)
    }
}

/// Reads plan and files.
///
/// # Errors
/// [`Failure::Read`], [`Failure::TooLong`] for the plan itself, [`Failure::Plan`] with all that is wrong.
pub(super) fn load(arguments: &PlanArgs) -> Result<Loaded, Failure> {
    let path = &arguments.plan;
    let name = printable(path);
    let (plan, mistakes) = Plan::read_with_mistakes(&read_short(path, MAXIMUM_PLAN)?);
    let Some(mut plan) = plan else {
        return Err(PlanError::new(&name, mistakes).into());
    };
    let folder = path.parent().unwrap_or(Path::new("")).to_owned();
    for it in &mut plan.ports {
        it.port = seen_from(&folder, &it.port);
    }
    let mut reader = Reader {
        folder: &folder,
        mistakes,
    };
    let rules = reader.rules(&plan);
    let ca = plan.certificates.as_ref().and_then(|it| reader.ca(&it.ca));
    if let (Some(ca), Some(Visiting::Certificate(trusted)), Some(certificates)) =
        (&ca, &rules.visiting, &plan.certificates)
        && !trusted.trusts(ca)
    {
        let shown = printable(&certificates.ca.path);
        let text = format!(
            "{shown} is not among the CAs under [visit]: devices that it certifies would not be known again"
        );
        reader.mistake(&certificates.ca, text);
    }
    let backend = plan.backend.as_ref().and_then(|it| reader.backend(it));
    let hook = plan.hook.as_ref().and_then(|it| reader.hook(it));
    if let Some(audit) = &plan.audit
        && !folder.join(&audit.path).is_file()
    {
        let shown = printable(&audit.path);
        reader.mistake(
            audit,
            format!("{shown} is not there; `keyferry audit create` begins it"),
        );
    }
    if reader.mistakes.is_empty() {
        Ok(Loaded {
            plan,
            folder,
            rules,
            ca,
            backend,
            hook,
        })
    } else {
        Err(PlanError::new(&name, reader.mistakes).into())
    }
}

/// A port of a plan in this folder, seen from here: a relative path is one from the folder, anything else stands for itself.
fn seen_from(folder: &Path, port: &str) -> String {
    let joined = |path: &str| folder.join(path).to_string_lossy().into_owned();
    match port.strip_prefix("unix:") {
        Some(path) => format!("unix:{}", joined(path)),
        None => match port.split_once('/') {
            // A colon ends the name of a kind of port, or of a drive.
            Some((first, _)) if !first.contains(':') => joined(port),
            Some(_) | None => port.to_owned(),
        },
    }
}

fn printable(path: &Path) -> String {
    path.to_string_lossy().replace(char::is_control, "?")
}

struct Reader<'a> {
    folder: &'a Path,
    mistakes: Vec<Mistake>,
}

impl Reader<'_> {
    fn mistake(&mut self, file: &File, text: String) {
        let (place, what) = (file.place, What::File(text));
        self.mistakes.push(Mistake { place, what });
    }

    fn bytes(&mut self, file: &File, limit: usize) -> Option<Vec<u8>> {
        match read_short(&self.folder.join(&file.path), limit) {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                self.mistake(file, error.to_string());
                None
            }
        }
    }

    /// What is read from a file; a reason against it is told with the file's name.
    fn read<T, E: std::fmt::Display>(
        &mut self,
        file: &File,
        limit: usize,
        read: impl FnOnce(&str, &[u8]) -> Result<T, E>,
    ) -> Option<T> {
        let bytes = self.bytes(file, limit)?;
        let name = printable(&file.path);
        match read(&name, &bytes) {
            Ok(found) => Some(found),
            Err(error) => {
                let text = error.to_string();
                let text = if text.contains(&name) {
                    text
                } else {
                    format!("{name}: {text}")
                };
                self.mistake(file, text);
                None
            }
        }
    }

    fn ca(&mut self, file: &File) -> Option<CaCertificate> {
        self.read(file, MAXIMUM_FILE, |_, bytes| CaCertificate::read(bytes))
    }

    fn cas(&mut self, files: &[File]) -> Option<DeviceCa> {
        let mut all = Vec::new();
        for file in files {
            // Each by itself, so that the mistake is told of the right one.
            let one = self.read(file, MAXIMUM_FILE, |_, bytes| {
                let bytes = bytes.to_vec();
                DeviceCa::new(std::slice::from_ref(&bytes)).map(|_| bytes)
            });
            all.extend(one);
        }
        if all.len() < files.len() {
            return None;
        }
        match DeviceCa::new(&all) {
            Ok(cas) => Some(cas),
            Err(error) => {
                if let Some(first) = files.first() {
                    self.mistake(first, error.to_string());
                }
                None
            }
        }
    }

    fn hook(&mut self, plan: &HookPlan) -> Option<Hook> {
        let found = Hook::find(plan, self.folder);
        let refused = |reason| self.mistake(&plan.program, reason);
        found.map_err(refused).ok()
    }

    fn backend(&mut self, plan: &BackendPlan) -> Option<PublicKey> {
        let key = self.read(&plan.key, MAXIMUM_KEY_FILE, |_, bytes| {
            PublicKey::from_file_content(bytes)
        })?;
        let found = key.fingerprint();
        if found != plan.fingerprint {
            let text = format!("the key's fingerprint is {found}, and another was expected");
            self.mistake(&plan.key, text);
            return None;
        }
        if let Err(error) = check_backend(&key) {
            self.mistake(&plan.key, error.to_string());
            return None;
        }
        Some(key)
    }

    fn rules(&mut self, plan: &Plan) -> Rules {
        let enrolment = plan.enrolment.as_ref().and_then(|policy| match policy {
            EnrolmentPlan::VendorCertificate(files) => {
                self.cas(files).map(Enrolment::VendorCertificate)
            }
            EnrolmentPlan::SerialList(file) => self
                .read(file, MAXIMUM_LIST, SerialList::read)
                .map(Enrolment::SerialList),
            EnrolmentPlan::Open => Some(Enrolment::Open),
        });
        let visiting = match &plan.visit {
            VisitPlan::Certificate(files) => self.cas(files).map(Visiting::Certificate),
            VisitPlan::Allowlist(file) => self
                .read(file, MAXIMUM_LIST, Allowlist::read)
                .map(Visiting::Allowlist),
            VisitPlan::Registry => Some(Visiting::Registry),
            VisitPlan::Open => Some(Visiting::Open),
        };
        Rules {
            enrolment,
            visiting,
            allow_test_devices: plan.allow_test_devices,
            allow_development: plan.allow_development || plan.allow_test_devices,
            minimum_proof: plan.minimum_proof,
            suites: plan.suites.clone(),
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_relative_port_is_seen_from_the_plans_folder() {
        for (port, seen) in [
            ("nests/A1", "plans/nests/A1"),
            ("../A1", "plans/../A1"),
            ("unix:A1.socket", "unix:plans/A1.socket"),
            ("unix:/run/A1", "unix:/run/A1"),
            ("/dev/serial/by-path/pci-0:1", "/dev/serial/by-path/pci-0:1"),
            ("COM3", "COM3"),
            ("C:/A1", "C:/A1"),
            ("tcp:line-3:4001", "tcp:line-3:4001"),
        ] {
            assert_eq!(seen_from(Path::new("plans"), port), seen);
            assert_eq!(seen_from(Path::new(""), port), port);
        }
    }
}
