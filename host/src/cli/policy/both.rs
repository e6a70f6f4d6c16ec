//! Both kinds of policy on one command line, for a broker that sees enrolments and visits.

use std::path::PathBuf;

use clap::Args;
use keyferry_protocol::identity::Fingerprint;
use keyferry_protocol::proof::Level;

use super::{
    EnrolmentArgs, EnrolmentPolicy, Leave, VisitArgs, VisitPolicy, parse_fingerprint, parse_level,
};
use crate::error::Failure;
use crate::station::policy::Rules;

/// Which devices a broker believes. What is not given is not allowed.
#[derive(Debug, Args)]
pub(in crate::cli) struct BothArgs {
    /// Why blank devices may be enrolled. Without it none may.
    #[arg(long, value_name = "POLICY")]
    enroll_policy: Option<EnrolmentPolicy>,
    /// The ids that are expected: a text file, one id a line, `#` begins a comment. For enroll policy serial-list.
    #[arg(long, value_name = "FILE", requires = "enroll_policy")]
    serials: Option<PathBuf>,
    /// Certificate of the vendor's CA, PEM; may be given more than once. For enroll policy vendor-certificate.
    #[arg(long, value_name = "FILE", requires = "enroll_policy")]
    vendor_ca: Vec<PathBuf>,
    /// Why enrolled devices are taken for the right ones. Without it they get nothing but their enrolment.
    #[arg(long, value_name = "POLICY")]
    visit_policy: Option<VisitPolicy>,
    /// Certificate of a CA that certifies identity keys, PEM; may be given more than once. For visit policy certificate.
    #[arg(long, value_name = "FILE", requires = "visit_policy")]
    ca: Vec<PathBuf>,
    /// The devices that are allowed: a text file, id and fingerprint of the identity key on each line. For visit policy allowlist.
    #[arg(long, value_name = "FILE", requires = "visit_policy")]
    allowlist: Option<PathBuf>,
    /// The only identity key to accept, by its fingerprint (64 hexadecimal digits): an allowlist of one.
    #[arg(long, value_name = "FINGERPRINT", conflicts_with = "visit_policy", value_parser = parse_fingerprint)]
    identity: Option<Fingerprint>,
    /// The weakest proof of a key that counts: check-value, challenge or signature.
    #[arg(long, value_name = "LEVEL", default_value = "check-value", value_parser = parse_level)]
    minimum_proof: Level,
    #[command(flatten)]
    leave: Leave,
}

impl BothArgs {
    /// The rules.
    ///
    /// # Errors
    /// As [`EnrolmentArgs::rules`]; [`Failure::Missing`] if there is no policy at all.
    pub(in crate::cli) fn rules(&self) -> Result<Rules, Failure> {
        let enrolment = self.enroll_policy.map(|policy| EnrolmentArgs {
            policy,
            serials: self.serials.clone(),
            vendor_ca: self.vendor_ca.clone(),
            leave: self.leave,
        });
        let visiting =
            (self.visit_policy.is_some() || self.identity.is_some()).then(|| VisitArgs {
                policy: self.visit_policy,
                ca: self.ca.clone(),
                allowlist: self.allowlist.clone(),
                identity: self.identity,
                minimum_proof: self.minimum_proof,
                leave: self.leave,
            });
        if enrolment.is_none() && visiting.is_none() {
            return Err(Failure::Missing {
                name: "--enroll-policy or --visit-policy",
                because: "nothing is trusted by default",
            });
        }
        let mut rules = self.leave.rules();
        rules.minimum_proof = self.minimum_proof;
        if let Some(arguments) = enrolment {
            rules.enrolment = arguments.rules()?.enrolment;
        }
        if let Some(arguments) = visiting {
            rules.visiting = arguments.rules()?.visiting;
        }
        Ok(rules)
    }
}
