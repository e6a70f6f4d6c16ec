//! `keyferry ca init`.

use std::path::PathBuf;
use std::time::SystemTime;

use clap::Args;

use crate::certificate::{
    CERTIFICATE_LABEL, CaCertificate, REQUEST_LABEL, Validity, check_ca_key, parse_subject,
    printable, request, self_signed, to_pem,
};
use crate::cli::files::{check_new, write_new};
use crate::cli::{Context, Outcome, TokenArgs, fields};
use crate::error::Failure;
use crate::hsm::{HsmError, KeyInfo, KeySpec, NewKey, Token};
use crate::station::TokenSigner;

#[derive(Debug, Args)]
pub(in crate::cli) struct Init {
    /// Label of the CA's key on the token: P-256, which signs and does nothing else.
    #[arg(long, value_name = "LABEL")]
    label: String,
    /// Create the key if it is not there.
    #[arg(long)]
    create: bool,
    /// The CA's name (RFC 4514), for example CN=Factory 1,O=Example; without it, CN= and the label.
    #[arg(long, value_name = "NAME")]
    subject: Option<String>,
    /// How many days the certificate is valid; without it, there is no end (the year 9999).
    #[arg(long, value_name = "N", conflicts_with = "csr", value_parser = clap::value_parser!(u32).range(1..))]
    days: Option<u32>,
    /// Write a certification request (PKCS#10) for an offline root, in place of a certificate that the key itself signs.
    #[arg(long)]
    csr: bool,
    /// The file to write, in PEM.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Replace an existing file.
    #[arg(long)]
    force: bool,
    // Last, because its heading in the help goes on to the end.
    #[command(flatten)]
    token: TokenArgs,
}

pub(super) fn init(context: &Context, arguments: &Init) -> Outcome {
    // All that can be wrong is asked before the login, and before a key is made.
    check_new(&arguments.out, arguments.force)?;
    let subject = match &arguments.subject {
        Some(text) => parse_subject(text)?,
        None => parse_subject(&format!("CN={}", escaped(&arguments.label)))?,
    };
    let validity = arguments.days.map_or(Validity::Unlimited, Validity::Days);
    validity.check(SystemTime::now())?;
    let (token, _) = arguments.token.open(context)?;
    let (key, created) = key(&token, arguments)?;
    let key = token.with_pair(key)?;
    check_ca_key(&key)?;
    let fingerprint = key.public_key()?.fingerprint();
    if created {
        context.note(&format!("created the CA's key '{}'", key.name()));
    }
    context.note(&format!("the CA's key, fingerprint {fingerprint}"));
    let authority = TokenSigner::new(token, key)?;
    let mut last = fields! {
        "label" => arguments.label,
        "created" => created,
        "subject" => printable(&subject),
        "fingerprint" => fingerprint.to_string(),
        "out" => arguments.out.display().to_string(),
    };
    let pem = if arguments.csr {
        last.insert("kind".into(), "request".into());
        to_pem(REQUEST_LABEL, &request(&authority, &subject)?)?
    } else {
        let der = self_signed(&authority, &subject, validity, SystemTime::now())?;
        // Read as it will be read wherever it is trusted.
        let ca = CaCertificate::read(&der)?;
        let document = ca.document();
        last.insert("kind".into(), "certificate".into());
        last.insert("not_after".into(), document.not_after().to_string().into());
        last.insert("sha256".into(), document.fingerprint().to_string().into());
        to_pem(CERTIFICATE_LABEL, &der)?
    };
    write_new(&arguments.out, pem.as_bytes(), arguments.force)?;
    context.note(&if arguments.csr {
        format!(
            "{} asks for a certificate of '{}'; have the root sign it, then give what comes back to `keyferry ca issue --ca`",
            arguments.out.display(),
            printable(&subject)
        )
    } else {
        format!(
            "{} is the certificate of CA '{}': give it to whoever is to trust its devices",
            arguments.out.display(),
            printable(&subject)
        )
    });
    Ok(last)
}

/// The CA's key, and whether it was made just now.
fn key(token: &Token, arguments: &Init) -> Result<(KeyInfo, bool), Failure> {
    match token.key(&KeySpec::label(&arguments.label)) {
        Err(HsmError::NoSuchKey { .. }) if arguments.create => {
            let key = token.create_key(&NewKey::authority(&arguments.label))?;
            Ok((key, true))
        }
        Err(HsmError::NoSuchKey { token, .. }) => Err(Failure::NoCaKey {
            label: arguments.label.clone(),
            token,
        }),
        result => Ok((result?, false)),
    }
}

/// A label as a value in a name: what stands for something there is escaped (RFC 4514 §2.4).
fn escaped(label: &str) -> String {
    label
        .chars()
        .flat_map(|letter| {
            let special = r#""+,;<>#= "#.contains(letter);
            special.then_some('\\').into_iter().chain([letter])
        })
        .collect()
}
