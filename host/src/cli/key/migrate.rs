//! `keyferry key migrate`: the whole way of a key from one HSM to another.

use std::path::PathBuf;

use clap::Args;

use crate::cli::token::KeyArgs;
use crate::cli::{Context, Outcome, PinArgs, TokenArgs, fields};
use crate::error::Failure;
use crate::hsm::{Flag, KeyClass, KeyInfo, KeySpec, Token};
use crate::migration::{Done, Migration, Plan, Step};

#[derive(Debug, Args)]
pub(in crate::cli) struct Migrate {
    /// PKCS#11 URI of the origin; it may name the key as well.
    #[arg(long, value_name = "URI")]
    from: String,
    /// PKCS#11 URI of the target.
    #[arg(long, value_name = "URI")]
    to: String,
    #[command(flatten)]
    key: KeyArgs,
    /// Migrate every key that may leave the origin.
    #[arg(long, conflicts_with_all = ["label", "id"])]
    all: bool,
    /// Label of an RSA or P-256 key pair of the target to wrap for; without it, a pair is made for this migration alone.
    #[arg(long, value_name = "LABEL")]
    via: Option<String>,
    /// Let the copy leave the target again, wrapped.
    #[arg(long)]
    extractable: bool,
    /// Migrate even a key whose copy cannot be proved.
    #[arg(long)]
    unproved: bool,
    /// Say what would happen, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// File with the PIN of the origin, readable by its owner alone.
    #[arg(long, value_name = "PATH", conflicts_with = "from_pin_env")]
    from_pin_file: Option<PathBuf>,
    /// Environment variable with the PIN of the origin.
    #[arg(long, value_name = "NAME")]
    from_pin_env: Option<String>,
    /// File with the PIN of the target, readable by its owner alone.
    #[arg(long, value_name = "PATH", conflicts_with = "to_pin_env")]
    to_pin_file: Option<PathBuf>,
    /// Environment variable with the PIN of the target.
    #[arg(long, value_name = "NAME")]
    to_pin_env: Option<String>,
    /// Send a PIN even if a wrong one would lock its token.
    #[arg(long)]
    allow_last_try: bool,
}

pub(super) fn migrate(context: &Context, arguments: Migrate) -> Outcome {
    let origin = TokenArgs::of(
        arguments.from,
        PinArgs {
            pin_file: arguments.from_pin_file,
            pin_env: arguments.from_pin_env,
            allow_last_try: arguments.allow_last_try,
        },
    );
    let target = TokenArgs::of(
        arguments.to,
        PinArgs {
            pin_file: arguments.to_pin_file,
            pin_env: arguments.to_pin_env,
            allow_last_try: arguments.allow_last_try,
        },
    );
    let (_, from_uri) = origin.spec()?;
    let spec = if arguments.all {
        if from_uri.label.is_some() || from_uri.id.is_some() {
            return Err(Failure::AllOrOne);
        }
        None
    } else {
        Some(arguments.key.spec(from_uri)?)
    };
    let (from, _) = origin.open(context)?;
    let (to, _) = target.open(context)?;
    let via = match &arguments.via {
        Some(label) => Some(to.key(&KeySpec {
            class: Some(KeyClass::Private),
            ..KeySpec::label(label)
        })?),
        None => None,
    };
    let keys = match spec {
        Some(spec) => vec![from.key(&spec)?],
        None => leaving(&from)?,
    };
    let migration = Migration {
        from: &from,
        to: &to,
        via,
        extractable: arguments.extractable,
        unproved: arguments.unproved,
    };
    let mut count = Count::default();
    let mut first_failure = None;
    for key in &keys {
        let result = if arguments.dry_run {
            migration
                .plan(key)
                .map(|plan| announce(context, &migration, &plan))
        } else {
            one(context, &migration, key).map(|done| count.add(&done))
        };
        if let Err(error) = result {
            if keys.len() == 1 {
                return Err(error.into());
            }
            count.failed += 1;
            context.event(fields! { "label" => key.name(), "failed" => error.to_string() });
            context.note(&format!("failed {}: {error}", key.name()));
            first_failure.get_or_insert(error);
        }
    }
    if let Some(error) = first_failure {
        return Err(Failure::SomeNotMigrated {
            failed: count.failed,
            keys: keys.len(),
            first: Box::new(error.into()),
        });
    }
    Ok(fields! {
        "from" => from.label(),
        "to" => to.label(),
        "keys" => keys.len(),
        "migrated" => count.migrated,
        "already_there" => count.already_there,
        "unproved" => count.unproved,
        "dry_run" => arguments.dry_run,
    })
}

/// How the keys fared.
#[derive(Default)]
struct Count {
    migrated: usize,
    already_there: usize,
    unproved: usize,
    failed: usize,
}

impl Count {
    fn add(&mut self, done: &Done) {
        match done.outcome {
            crate::migration::Outcome::AlreadyThere => self.already_there += 1,
            crate::migration::Outcome::Migrated | crate::migration::Outcome::Completed => {
                self.migrated += 1;
            }
        }
        if done.evidence.is_none() {
            self.unproved += 1;
        }
    }
}

/// The keys of a token that may leave it.
fn leaving(from: &Token) -> Result<Vec<KeyInfo>, Failure> {
    let mut keys = from.keys()?;
    keys.retain(|key| key.class != KeyClass::Public && key.check_may_leave().is_ok());
    Ok(keys)
}

fn one(
    context: &Context,
    migration: &Migration<'_>,
    key: &KeyInfo,
) -> Result<Done, crate::migration::MigrationError> {
    let plan = migration.plan(key)?;
    let done = migration.run(&plan, &mut |step| context.note(&describe(step)))?;
    let evidence = done.evidence.map(crate::hsm::Evidence::name);
    let mut event = fields! {
        "label" => key.label,
        "id" => hex::encode(&key.id),
        "type" => key.key_type.to_string(),
        "outcome" => done.outcome.name(),
        "proof" => evidence,
    };
    if let Some(suite) = done.suite {
        event.insert("suite".into(), suite.name().into());
    }
    if let Some(flag) = done.wider {
        event.insert("wider".into(), flag.name().into());
        context.note(&format!(
            "warning: key '{}' on the target may more than a copy would: {} is not as it should be",
            key.name(),
            flag.attribute()
        ));
    }
    context.event(event);
    let proved = match evidence {
        Some(name) => format!("proved by {name}"),
        None => "not proved".into(),
    };
    context.note(&format!(
        "{} {} key '{}': {proved}",
        done.outcome.words(),
        key.key_type,
        key.name()
    ));
    Ok(done)
}

fn describe(step: &Step) -> String {
    match step {
        Step::Recipient {
            key_type,
            fingerprint,
            temporary,
        } => format!(
            "recipient {}{key_type} key of the target, fingerprint {fingerprint}",
            if *temporary { "temporary " } else { "" }
        ),
        Step::Wrapped { suite, bytes } => format!("wrapped under {suite}: {bytes} bytes"),
        Step::Proved(evidence) => format!("the copy is the same key: {}", evidence.name()),
        Step::Kept => "imported".into(),
    }
}

/// Says what would happen to a key.
fn announce(context: &Context, migration: &Migration<'_>, plan: &Plan) {
    let usages: Vec<_> = plan
        .draft
        .flags
        .known()
        .filter(|(flag, value)| *value && flag.is_usage())
        .map(|(flag, _)| flag.name())
        .collect();
    let suites: Vec<_> = plan.suites.iter().map(|suite| suite.name()).collect();
    let extractable = plan.draft.flags.has(Flag::Extractable);
    context.event(fields! {
        "label" => plan.key.label,
        "type" => plan.key.key_type.to_string(),
        "would" => if plan.present.is_some() { "compare" } else { "migrate" },
        "usage" => usages,
        "extractable" => extractable,
        "suites" => suites,
    });
    let to = migration.to.label();
    context.note(&match &plan.present {
        Some(_) => format!(
            "would compare key '{}' with the one of that label on '{to}', and complete it",
            plan.key.name()
        ),
        None => format!(
            "would migrate {} key '{}' to '{to}' under the first of {} that it opens; usage {}; {}extractable",
            plan.key.key_type,
            plan.key.name(),
            suites.join(", "),
            if usages.is_empty() { "none".into() } else { usages.join(",") },
            if extractable { "" } else { "not " },
        ),
    });
}
