//! `keyferry hsm probe`: what a token really does, found out by trial.

use keyferry_protocol::suite::Suite;

use super::super::{Context, Outcome, TokenArgs, fields};
use crate::error::Failure;
use crate::hsm::{Fact, Finding, KeyType, MINIMUM_RSA_BITS, Quirk, Token, Verdict, Warning};

/// Tries every fact, and says what follows from them.
pub(super) fn probe(context: &Context, arguments: &TokenArgs) -> Outcome {
    let (token, _) = arguments.open(context)?;
    introduce(context, &token)?;
    let facts = facts(context, &token)?;
    let suites = suites(context, &token)?;
    key_types(context, &token)?;
    let warnings = warnings(context, &facts);
    let best = suites.first().map(|suite| suite.name());
    let toward = |key_type: KeyType| {
        suites
            .iter()
            .find(|suite| key_type.fits(**suite))
            .map_or("none", |suite| suite.name())
    };
    context.print(&format!(
        "\nSuite toward an RSA key: {}; toward a P-256 key: {}.",
        toward(KeyType::Rsa {
            bits: MINIMUM_RSA_BITS
        }),
        toward(KeyType::P256),
    ));
    let names: Vec<_> = suites.iter().map(|suite| suite.name()).collect();
    Ok(fields! {
        "suite" => best,
        "suites" => names,
        "facts" => facts.len(),
        "warnings" => warnings,
    })
}

/// Says which token it is, and which versions of it and its module.
fn introduce(context: &Context, token: &Token) -> Result<(), Failure> {
    let (info, versions) = (token.info(), token.versions()?);
    context.event(fields! {
        "token" => info.label,
        "serial" => info.serial,
        "manufacturer" => info.manufacturer,
        "model" => info.model,
        "hardware_version" => versions.hardware_version,
        "firmware_version" => versions.firmware_version,
        "library" => versions.library,
        "library_version" => versions.library_version,
        "cryptoki_version" => versions.cryptoki_version,
    });
    context.print(&format!(
        "Token '{}', {} {}, hardware {}, firmware {}; module {} {}, PKCS#11 {}.\n",
        info.label,
        info.manufacturer,
        info.model,
        versions.hardware_version,
        versions.firmware_version,
        versions.library,
        versions.library_version,
        versions.cryptoki_version,
    ));
    Ok(())
}

/// Tries and tells every fact.
fn facts(context: &Context, token: &Token) -> Result<Vec<(Fact, Finding)>, Failure> {
    let mut found = Vec::new();
    let mut rows = Vec::new();
    let mut known: Vec<&Quirk> = Vec::new();
    for fact in Fact::all() {
        let finding = token.find_out(fact)?;
        let quirk = Quirk::of(fact, &finding);
        let mut event = fields! {
            "fact" => fact.name(),
            "question" => fact.question(),
            "found" => finding.name(),
            "answer" => finding.to_string(),
        };
        match &finding {
            Finding::Differs(difference) => {
                event.insert("difference".into(), difference.name().into());
            }
            Finding::Refused { function, code } | Finding::Failed { function, code } => {
                event.insert("function".into(), function.as_str().into());
                event.insert("code".into(), code.as_str().into());
            }
            Finding::NotTried { needs } => {
                event.insert("needs".into(), (*needs).into());
            }
            Finding::Works | Finding::Claimed => {}
        }
        if let Some(quirk) = quirk {
            let reference = fields! {
                "about" => quirk.about,
                "seen_in" => quirk.seen_in,
                "source" => quirk.source,
            };
            event.insert("known".into(), reference.into());
        }
        context.event(event);
        let mut answer = finding.to_string();
        if let Some(quirk) = quirk {
            let number = known.iter().position(|other| *other == quirk);
            let number = number.unwrap_or_else(|| {
                known.push(quirk);
                known.len() - 1
            });
            answer += &format!(" [{}]", number + 1);
        }
        rows.push([fact.question().into_owned(), answer]);
        found.push((fact, finding));
    }
    context.table(["TRIED", "FOUND"], &rows);
    for (number, quirk) in (1..).zip(known) {
        let Quirk {
            about,
            seen_in,
            source,
            ..
        } = quirk;
        context.print(&format!("[{number}] {about} ({seen_in}): {source}"));
    }
    Ok(found)
}

/// Tells the verdict on each suite; gives those that can be used, strongest first.
fn suites(context: &Context, token: &Token) -> Result<Vec<Suite>, Failure> {
    let mut usable = Vec::new();
    let mut rows = Vec::new();
    for suite in Suite::ALL {
        let verdict = token.suite_verdict(suite)?;
        context.event(fields! {
            "suite" => suite.name(),
            "usable" => verdict.usable,
            "reason" => verdict.reason,
        });
        if verdict.usable {
            usable.push(suite);
        }
        rows.push(row(suite.name().to_owned(), verdict));
    }
    context.print("");
    context.table(["SUITE", "USABLE", "WHY"], &rows);
    Ok(usable)
}

/// Tells the verdict on each type of key.
fn key_types(context: &Context, token: &Token) -> Result<(), Failure> {
    let mut rows = Vec::new();
    for key_type in KeyType::CREATABLE {
        let verdict = token.key_verdict(key_type)?;
        context.event(fields! {
            "key_type" => key_type.to_string(),
            "usable" => verdict.usable,
            "reason" => verdict.reason,
        });
        rows.push(row(key_type.to_string(), verdict));
    }
    context.print("");
    context.table(["KEY TYPE", "USABLE", "WHY"], &rows);
    Ok(())
}

fn row(name: String, verdict: Verdict) -> [String; 3] {
    let usable = if verdict.usable { "yes" } else { "no" };
    [name, usable.to_owned(), verdict.reason]
}

/// Warns of what was found, each danger once; gives how many there are.
fn warnings(context: &Context, facts: &[(Fact, Finding)]) -> usize {
    let mut told: Vec<Warning> = Vec::new();
    for (fact, finding) in facts {
        let Some(warning) = Warning::of(*fact, finding) else {
            continue;
        };
        if told.contains(&warning) {
            continue;
        }
        context.event(fields! {
            "warning" => warning.name,
            "fact" => fact.name(),
            "text" => warning.text,
        });
        if told.is_empty() {
            context.print("");
        }
        context.print(&format!("WARNING: {}.", warning.text));
        told.push(warning);
    }
    told.len()
}
