//! What can be wrong in a plan. All of it is told at once, each mistake with its place and what to do about it.

use std::fmt;

/// Most mistakes that are told one by one.
pub(super) const MAXIMUM_MISTAKES: usize = 50;

/// Longest piece of the plan that a message repeats, in characters.
const SHOWN: usize = 60;

/// A place in the plan's text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line, from 1.
    pub line: usize,
    /// The character on the line, from 1.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum What {
    /// It is no text.
    #[error("it is not UTF-8 text")]
    NoText,
    /// It is too long.
    #[error("it is longer than {most} bytes")]
    TooLong {
        /// The most.
        most: usize,
    },
    /// It is no TOML.
    #[error("{0}")]
    Syntax(String),
    /// There is no such section or field.
    #[error("there is no {} '{name}'{}", in_section(.section), shown_near(.near))]
    Unknown {
        /// The section; none for a section itself.
        section: Option<&'static str>,
        /// The name.
        name: String,
        /// The name that is meant, perhaps.
        near: Option<&'static str>,
        /// What there is.
        known: Vec<&'static str>,
    },
    /// A section is missing.
    #[error("the section [{section}] is missing")]
    NoSection {
        /// The section.
        section: &'static str,
        /// What it is for.
        about: &'static str,
    },
    /// A field is missing.
    #[error("[{section}] has no '{field}'")]
    Missing {
        /// The section.
        section: &'static str,
        /// The field.
        field: &'static str,
        /// What it is for.
        about: &'static str,
    },
    /// A value is of another type.
    #[error("'{name}' is {found}, and should be {wanted}")]
    Type {
        /// The field or section.
        name: &'static str,
        /// What is there.
        found: &'static str,
        /// What should be.
        wanted: &'static str,
    },
    /// A value is none of those that there are.
    #[error("'{field}' cannot be '{found}'{}", shown_near(.near))]
    NotOneOf {
        /// The field.
        field: &'static str,
        /// What is there.
        found: String,
        /// What is meant, perhaps.
        near: Option<&'static str>,
        /// What there is.
        known: Vec<&'static str>,
    },
    /// A number is too small or too large.
    #[error("'{field}' is not from {least} to {most}")]
    OutOfRange {
        /// The field.
        field: &'static str,
        /// The least.
        least: u32,
        /// The most.
        most: u32,
    },
    /// A value means nothing.
    #[error("'{field}' is not right: {reason}")]
    Rejected {
        /// The field.
        field: &'static str,
        /// Why.
        reason: String,
        /// How it may look.
        example: &'static str,
    },
    /// Words that are missing, too many, or act on a terminal.
    #[error("'{field}' should have 1 to {most} characters, and no control characters")]
    BadText {
        /// The field.
        field: &'static str,
        /// The most.
        most: usize,
    },
    /// A field that the chosen way does not look at.
    #[error("'{field}' has no meaning with {chooser} = \"{chosen}\"")]
    NotFor {
        /// The field.
        field: &'static str,
        /// The field that decides.
        chooser: &'static str,
        /// What it says.
        chosen: String,
    },
    /// The same thing twice.
    #[error("{what} is there already, on line {first}")]
    Twice {
        /// What.
        what: String,
        /// Where it is first.
        first: usize,
    },
    /// Something that goes only with something else.
    #[error("{what} needs {other}")]
    Needs {
        /// What stands here.
        what: &'static str,
        /// What is not there.
        other: &'static str,
    },
    /// Too many, or too few.
    #[error("[[{section}]] stands there {found} times, and should from {least} to {most} times")]
    Times {
        /// The section.
        section: &'static str,
        /// How often.
        found: usize,
        /// The least.
        least: usize,
        /// The most.
        most: usize,
    },
    /// A use that a key of this type does not have.
    #[error("no device uses a key of type {key_type} for {device_use}")]
    UnfitUse {
        /// The type.
        key_type: String,
        /// The use.
        device_use: &'static str,
    },
    /// A use that nothing can prove well enough.
    #[error(
        "a key of type {key_type} that is used for {device_use} proves nothing at level {minimum}"
    )]
    WeakUse {
        /// The type.
        key_type: String,
        /// The use.
        device_use: &'static str,
        /// The weakest proof that counts.
        minimum: &'static str,
    },
    /// Suites that no unwrap key fits.
    #[error("none of the allowed suites works with an unwrap key of kind {unwrap}")]
    UnfitSuites {
        /// The kind.
        unwrap: &'static str,
    },
    /// A file that the plan names is missing, or has mistakes of its own.
    #[error("{0}")]
    File(String),
    /// A file of labels has a mistake in a line.
    #[error("{0}")]
    Labels(String),
}

fn in_section(section: &Option<&'static str>) -> String {
    match section {
        None => "section".to_owned(),
        Some(section) => format!("field of [{section}]"),
    }
}

fn shown_near(near: &Option<&'static str>) -> String {
    near.map_or_else(String::new, |near| format!("; did you mean '{near}'?"))
}

/// The beginning of what stands in the plan, without what would act on a terminal.
pub(super) fn shortened(text: &str) -> String {
    let letters = text.chars().take(SHOWN);
    let mut shown: String = letters
        .map(|letter| if letter.is_control() { '?' } else { letter })
        .collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

impl What {
    /// The next move, for a person.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::NoText => "write it with a text editor, and save it as UTF-8".to_owned(),
            Self::TooLong { .. } => "put lists of devices into files of their own".to_owned(),
            Self::Syntax(_) => "see https://toml.io for how TOML is written".to_owned(),
            Self::Unknown { known, .. } | Self::NotOneOf { known, .. } => {
                format!("there is {}", known.join(", "))
            }
            Self::NoSection { section, about } => format!("write [{section}]. {about}"),
            Self::Missing { field, about, .. } => format!("write {field} = …. {about}"),
            Self::Type { wanted, .. } => format!("write {wanted}"),
            Self::OutOfRange { least, most, .. } => {
                format!("write a number from {least} to {most}")
            }
            Self::Rejected { example, .. } => format!("for example \"{example}\""),
            Self::BadText { .. } => "write some words".to_owned(),
            Self::NotFor { field, chooser, .. } => {
                format!("leave {field} out, or choose another {chooser}")
            }
            Self::Twice { .. } => "take one of the two out".to_owned(),
            Self::Needs { other, .. } => format!("write {other}"),
            Self::Times { section, .. } => format!("write or remove sections [[{section}]]"),
            Self::WeakUse { .. } => {
                "choose another use, or a lower minimum-proof under [order]".to_owned()
            }
            Self::UnfitUse { .. } => "choose another use, or another type".to_owned(),
            Self::UnfitSuites { .. } => {
                "an RSA key goes with rsa-oaep-…, a p-256 key with ecdh-p256-…".to_owned()
            }
            Self::Labels(_) => {
                "mend the file: each line has a nest of the plan and the serial number of its device, and each of them once"
                    .to_owned()
            }
            Self::File(_) => {
                "mend the file, or name another; names are seen from the plan's folder".to_owned()
            }
        }
    }
}

/// A mistake and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Where.
    pub place: Place,
    /// What.
    pub what: What,
}

/// A plan with mistakes. Nothing of it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanError {
    /// The plan's name.
    pub name: String,
    /// The mistakes in the order of their places, at most fifty.
    pub mistakes: Vec<Mistake>,
    /// How many there are besides.
    pub more: usize,
}

impl PlanError {
    /// All that is wrong in a plan; it is put in order.
    #[must_use]
    pub fn new(name: &str, mut mistakes: Vec<Mistake>) -> Self {
        mistakes.sort_by_key(|mistake| mistake.place);
        let more = mistakes.len().saturating_sub(MAXIMUM_MISTAKES);
        mistakes.truncate(MAXIMUM_MISTAKES);
        Self {
            name: name.to_owned(),
            mistakes,
            more,
        }
    }

    /// The next move, for a person.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        "nothing was begun; `keyferry station schema` prints what a plan may say"
    }

    /// How many mistakes there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.mistakes.len() + self.more
    }
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.count() == 1 {
            "mistake"
        } else {
            "mistakes"
        };
        write!(f, "{} has {} {word}", self.name, self.count())?;
        for Mistake { place, what } in &self.mistakes {
            write!(
                f,
                "\n  {}:{place}: {what}\n    hint: {}",
                self.name,
                what.hint()
            )?;
        }
        if self.more > 0 {
            write!(f, "\n  and {} more", self.more)?;
        }
        Ok(())
    }
}

impl std::error::Error for PlanError {}
