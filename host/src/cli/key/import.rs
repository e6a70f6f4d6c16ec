//! `keyferry key import`: the key out of an export.

use std::path::{Path, PathBuf};

use clap::Args;
use keyferry_protocol::suite::Suite;

use super::arguments::{parse_key_type, parse_suite, parse_usage, public_key_file};
use crate::cli::files::read_short;
use crate::cli::{Context, Outcome, TokenArgs, fields};
use crate::error::Failure;
use crate::export::{
    MAXIMUM_DOCUMENT, MAXIMUM_SIGNATURE, Sidecar, Signer, Tail, Trust, Wanted, narrow,
    sidecar_path, signature_path,
};
use crate::hsm::{
    Flag, Flags, KeyClass, KeyDraft, KeyInfo, KeySpec, KeyType, KeyUsage, MAXIMUM_BLOB, PublicKey,
    Token, random,
};
use crate::migration::{Import as Job, matching_public_flags};

/// Longest export that is read, in bytes: a KEK under RSA-16384, and a key.
const MAXIMUM_EXPORT: usize = 2048 + MAXIMUM_BLOB;

#[derive(Debug, Args)]
pub(in crate::cli) struct Import {
    #[command(flatten)]
    token: TokenArgs,
    /// The key's label on the token; without it, the label it had at its origin.
    #[arg(long, value_name = "LABEL")]
    label: Option<String>,
    /// Label of the key pair on the token that the key was wrapped for.
    #[arg(long, value_name = "LABEL")]
    unwrap_with: String,
    /// The blob. FILE.json and FILE.json.sig beside it say what it is.
    #[arg(long = "in", value_name = "FILE")]
    file: PathBuf,
    /// Public key of whoever signed the export.
    #[arg(long, value_name = "FILE", conflicts_with = "unauthenticated")]
    signer: Option<PathBuf>,
    /// Take the export on trust: whoever had the files in hand may have exchanged key, attributes or both.
    #[arg(long)]
    unauthenticated: bool,
    /// Let the key leave the token again, if it might at its origin.
    #[arg(long)]
    extractable: bool,
    /// Let the key do only this of what it may do at its origin. Without FILE.json, all that it may do.
    #[arg(long, value_name = "USAGE", value_delimiter = ',', value_parser = parse_usage)]
    usage: Option<Vec<KeyUsage>>,
    /// Without FILE.json: the key's type.
    #[arg(long = "type", value_name = "TYPE", value_parser = parse_key_type)]
    key_type: Option<KeyType>,
    /// Without FILE.json: the public key of a private key.
    #[arg(long, value_name = "FILE")]
    public_key: Option<PathBuf>,
    /// Without FILE.json: the suite; else each that fits is tried.
    #[arg(long, value_name = "SUITE", value_parser = parse_suite)]
    suite: Option<Suite>,
}

/// What the files and the arguments say about the key.
struct Announced {
    draft: KeyDraft,
    public_flags: Option<Flags>,
    suites: Vec<Suite>,
    sidecar: Option<Sidecar>,
}

pub(super) fn import(context: &Context, arguments: &Import) -> Outcome {
    let blob = read_short(&arguments.file, MAXIMUM_EXPORT)?;
    let announced = match sidecar(arguments)? {
        Some(sidecar) => described(arguments, sidecar, &blob)?,
        None => undescribed(arguments)?,
    };
    let (token, _) = arguments.token.open(context)?;
    let with = recipient(&token, &arguments.unwrap_with)?;
    let fingerprint = with.public_key()?.fingerprint();
    if let Some(sidecar) = &announced.sidecar {
        sidecar.recipient.check(fingerprint)?;
    }
    let job = Job {
        to: &token,
        suites: announced
            .suites
            .into_iter()
            .filter(|suite| with.key_type.fits(*suite))
            .collect(),
        with,
        draft: announced.draft,
        public_flags: announced.public_flags,
        tail: announced
            .sidecar
            .as_ref()
            .map_or(Tail::None, |sidecar| sidecar.blob.tail),
        proof: announced.sidecar.and_then(|sidecar| sidecar.proof),
    };
    let done = job.run(&blob)?;
    let evidence = done.evidence.map(crate::hsm::Evidence::name);
    let draft = &job.draft;
    context.note(&format!(
        "{} {} key '{}': {}",
        done.outcome.words(),
        draft.key_type,
        draft.label,
        match evidence {
            Some(name) => format!("proved by {name}"),
            None => "not proved, there is nothing to tell by".into(),
        }
    ));
    let mut last = fields! {
        "label" => draft.label,
        "id" => hex::encode(&draft.id),
        "type" => draft.key_type.to_string(),
        "outcome" => done.outcome.name(),
        "proof" => evidence,
        "authenticated" => !arguments.unauthenticated,
    };
    if let Some(suite) = done.suite {
        last.insert("suite".into(), suite.name().into());
    }
    if let Some(flag) = done.wider {
        last.insert("wider".into(), flag.name().into());
        context.note(&format!(
            "warning: the key that is there may do more: {} is not as it should be",
            flag.attribute()
        ));
    }
    Ok(last)
}

/// The export's document, once it is believed; nothing if there is none.
fn sidecar(arguments: &Import) -> Result<Option<Sidecar>, Failure> {
    let path = sidecar_path(&arguments.file);
    let Some(document) = optional(&path, MAXIMUM_DOCUMENT)? else {
        return if arguments.unauthenticated {
            Ok(None)
        } else {
            Err(Failure::NoSidecar(path))
        };
    };
    let signature = optional(&signature_path(&path), MAXIMUM_SIGNATURE)?;
    let signer = match &arguments.signer {
        Some(path) => Some(Signer::new(&public_key_file(path)?)?),
        None => None,
    };
    let trust = match &signer {
        Some(signer) => Trust::Signer(signer),
        None if arguments.unauthenticated => Trust::Unauthenticated,
        None => return Err(Failure::NoSigner(path)),
    };
    Ok(Some(Sidecar::read(&document, signature.as_deref(), trust)?))
}

/// A file's content, or nothing if there is no such file.
fn optional(path: &Path, limit: usize) -> Result<Option<Vec<u8>>, Failure> {
    match read_short(path, limit) {
        Err(Failure::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            Ok(None)
        }
        result => result.map(Some),
    }
}

/// A key with a document: as at its origin, or less.
fn described(arguments: &Import, sidecar: Sidecar, blob: &[u8]) -> Result<Announced, Failure> {
    let given = [
        (arguments.key_type.is_some(), "--type"),
        (arguments.public_key.is_some(), "--public-key"),
        (arguments.suite.is_some(), "--suite"),
    ];
    if let Some((_, name)) = given.iter().find(|(given, _)| *given) {
        return Err(Failure::SaidTwice(name));
    }
    let key = &sidecar.key;
    sidecar.blob.check(&key.label, blob)?;
    let usage = arguments
        .usage
        .as_ref()
        .map(|usage| flags_of(usage, key.class, key.key_type))
        .transpose()?;
    let flags = narrow(
        key.class,
        &sidecar.attributes,
        &Wanted {
            extractable: arguments.extractable,
            usage: usage.as_deref(),
        },
    )?;
    let public_flags = match (key.class, sidecar.public_attributes) {
        (KeyClass::Private, Some(attributes)) => {
            Some(narrow(KeyClass::Public, &attributes, &Wanted::default())?)
        }
        (KeyClass::Private, None) => Some(matching_public_flags(&flags)),
        (KeyClass::Secret | KeyClass::Public, _) => None,
    };
    let draft = KeyDraft {
        class: key.class,
        key_type: key.key_type,
        label: arguments.label.clone().unwrap_or_else(|| key.label.clone()),
        id: key.id.clone(),
        flags,
        public_key: key.public_key.clone(),
    };
    Ok(Announced {
        draft,
        public_flags,
        suites: vec![sidecar.blob.suite],
        sidecar: Some(sidecar),
    })
}

/// A bare blob: the arguments must say what it is.
fn undescribed(arguments: &Import) -> Result<Announced, Failure> {
    let missing = |name| Failure::Missing {
        name,
        because: "there is no document beside the blob",
    };
    let key_type = arguments.key_type.ok_or(missing("--type"))?;
    let label = arguments.label.clone().ok_or(missing("--label"))?;
    let usage = arguments.usage.as_ref().ok_or(missing("--usage"))?;
    let class = if key_type.is_pair() {
        KeyClass::Private
    } else {
        KeyClass::Secret
    };
    let public_key = match &arguments.public_key {
        Some(path) => Some(checked_public(path, key_type)?),
        None if class == KeyClass::Private => return Err(missing("--public-key")),
        None => None,
    };
    let mut set = vec![
        Flag::Token,
        Flag::Private,
        Flag::Destroyable,
        Flag::Sensitive,
    ];
    if arguments.extractable {
        set.push(Flag::Extractable);
    }
    set.extend(flags_of(usage, class, key_type)?);
    let flags = Flags::of(class, &set);
    let id: [u8; 16] = random()?;
    Ok(Announced {
        public_flags: (class == KeyClass::Private).then(|| matching_public_flags(&flags)),
        draft: KeyDraft {
            class,
            key_type,
            label,
            id: id.to_vec(),
            flags,
            public_key,
        },
        suites: match arguments.suite {
            Some(suite) => vec![suite],
            None => Suite::ALL.to_vec(),
        },
        sidecar: None,
    })
}

fn checked_public(path: &Path, key_type: KeyType) -> Result<PublicKey, Failure> {
    let public = public_key_file(path)?;
    if public.key_type() == key_type {
        Ok(public)
    } else {
        Err(Failure::OtherType {
            path: path.into(),
            found: public.key_type(),
            wanted: key_type,
        })
    }
}

/// The attributes of what a key is to be used for. What it cannot be used for is not left out in silence.
fn flags_of(usage: &[KeyUsage], class: KeyClass, key_type: KeyType) -> Result<Vec<Flag>, Failure> {
    let flags = usage.iter().map(|usage| {
        let flag = usage.flag(class, key_type);
        flag.ok_or_else(|| Failure::NotImportedFor {
            key_type,
            usage: usage.name(),
        })
    });
    flags.collect()
}

/// The private key that opens the export.
fn recipient(token: &Token, label: &str) -> Result<KeyInfo, Failure> {
    let key = token.key(&KeySpec {
        class: Some(KeyClass::Private),
        ..KeySpec::label(label)
    })?;
    Ok(token.with_pair(key)?)
}
