//! The station under attack as people run it: the `keyferry` command, a token in SoftHSM, an audit log and a registry.

use keyferry_tests::command::Answer;
use keyferry_tests::tokens::Scratch;
use serde_json::Value;

/// The station.
pub(crate) struct Line {
    pub(crate) scratch: Scratch,
    /// Whether it looks into its registry, as it does at first.
    pub(crate) registry: bool,
}

impl Line {
    /// With an authority, an auditor, a CA and two keys `mac` and `other` that leave the token; and its books.
    pub(crate) fn new(label: &str) -> Self {
        let scratch = Scratch::new(label);
        for key in ["authority", "auditor"] {
            let create = ["key", "create", "--label", key, "--type", "p-256"];
            scratch.done(create.into_iter().chain(["--usage", "sign"]));
        }
        for key in ["mac", "other"] {
            let create = ["key", "create", "--label", key, "--type", "aes-256"];
            scratch.done(create.into_iter().chain(["--extractable"]));
        }
        let line = Self {
            scratch,
            registry: true,
        };
        let ca = ["ca", "init", "--create", "--label", "ca", "--out"];
        line.scratch
            .done(ca.into_iter().chain([line.file("ca.pem").as_str()]));
        let (log, name) = (line.file("audit.log"), ["--station", label]);
        let keys = ["--authority", "authority", "--audit-key", "auditor"];
        let create = ["audit", "create", &log].into_iter();
        line.scratch.done(create.chain(name).chain(keys));
        for label in ["authority", "auditor"] {
            let path = line.file(&format!("{label}.pem"));
            line.scratch
                .done(["key", "public", "--label", label, "--out", &path]);
        }
        line
    }

    pub(crate) fn file(&self, name: &str) -> String {
        self.scratch.path(name).to_str().unwrap().to_owned()
    }

    /// Runs `keyferry device …` with all that a line has.
    pub(crate) fn device(&self, order: &str, port: &str, more: &[&str]) -> Answer {
        let (log, registry) = (self.file("audit.log"), self.file("registry.db"));
        let mut arguments = vec!["--json", "device", order, "--port", port];
        arguments.extend(["--authority", "authority", "--allow-test-devices"]);
        arguments.extend(["--audit", &log]);
        if self.registry {
            arguments.extend(["--registry", &registry]);
        }
        arguments.extend(more);
        self.scratch.run(arguments)
    }

    pub(crate) fn done(&self, order: &str, port: &str, more: &[&str]) -> Value {
        let answer = self.device(order, port, more);
        assert_eq!(answer.code, 0, "{order} {more:?}: {answer:?}");
        answer.last()
    }

    /// Expects failure with this exit code and these words, and a next move.
    pub(crate) fn refused(&self, order: &str, port: &str, more: &[&str], code: i32, words: &str) {
        let answer = self.device(order, port, more);
        assert_eq!(answer.code, code, "{order} {more:?}: {answer:?}");
        let last = answer.last();
        assert!(last["error"].to_string().contains(words), "{last}");
        assert!(
            last["hint"].as_str().is_some_and(|hint| !hint.is_empty()),
            "{last}"
        );
    }

    /// Keeps a checkpoint of the log somewhere else.
    pub(crate) fn anchor(&self) -> String {
        let (log, anchor) = (self.file("audit.log"), self.file("anchor.json"));
        let _ = std::fs::remove_file(&anchor);
        let sign = ["audit", "checkpoint", &log, "--audit-key", "auditor"];
        self.scratch
            .done(sign.into_iter().chain(["--out", &anchor]));
        anchor
    }

    /// Verifies a log with public keys only.
    pub(crate) fn verify(&self, log: &str, anchor: Option<&str>) -> Answer {
        let (authority, auditor) = (self.file("authority.pem"), self.file("auditor.pem"));
        let mut arguments = vec!["--json", "audit", "verify", log];
        arguments.extend(["--authority", &authority, "--audit-key", &auditor]);
        if let Some(anchor) = anchor {
            arguments.extend(["--anchor", anchor]);
        }
        self.scratch.run(arguments)
    }

    /// What the log says has become of the keys: wrapped, proved, failed, open. It must verify.
    pub(crate) fn tally(&self) -> [u64; 4] {
        let anchor = self.anchor();
        let answer = self.verify(&self.file("audit.log"), Some(&anchor));
        assert_eq!(answer.code, 0, "{answer:?}");
        let report = answer.last();
        assert_eq!(report["anchored"], true, "{report}");
        let count = |name: &str| report["keys"][name].as_u64().unwrap();
        let tally = ["wrapped", "proved", "failed", "open"].map(count);
        assert_eq!(tally[0], tally[1..].iter().sum::<u64>(), "{report}");
        tally
    }
}
