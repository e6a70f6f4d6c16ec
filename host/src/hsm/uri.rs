//! How tokens and keys are named: PKCS#11 URIs (RFC 7512), or labels.

use std::path::PathBuf;

use percent_encoding::percent_decode_str;

use super::key::KeyClass;
use super::pkcs11::TokenInfo;

/// The vendor-specific query attribute with the string for `C_Initialize`.
const INIT_RESERVED: &str = "init-reserved";

/// Why a name of a token or key cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// It does not follow RFC 7512.
    #[error("this is not a PKCS#11 URI (RFC 7512): {0}")]
    Malformed(String),
    /// A PIN stands in the URI itself.
    #[error("the PKCS#11 URI has a pin-value")]
    PinValue,
    /// An attribute that would narrow the choice, but is not understood here.
    #[error("the attribute '{0}' of PKCS#11 URIs is not supported")]
    Unsupported(&'static str),
    /// An attribute's value is not text.
    #[error("the attribute '{0}' of the PKCS#11 URI is not valid UTF-8")]
    NotText(&'static str),
    /// An id is not given as hexadecimal digits.
    #[error("'{0}' is not an id in hexadecimal digits")]
    BadId(String),
    /// Neither a label nor an id of a key is given.
    #[error("no key is named")]
    NoKey,
}

impl SpecError {
    /// The next move for a person, where there is one to name.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Malformed(_) | Self::NotText(_) => {
                "a token is named like pkcs11:token=my-token?module-path=/usr/lib/softhsm/libsofthsm2.so"
            }
            Self::PinValue => {
                "a PIN on a command line is seen by everybody; use pin-source=file:PATH, --pin-file or --pin-env"
            }
            Self::Unsupported(_) => {
                "name the token by its label (token=) or serial number (serial=)"
            }
            Self::BadId(_) => "`keyferry key list` shows ids",
            Self::NoKey => "give --label, --id, or object= in the URI",
        };
        Some(hint.into())
    }
}

/// Names one token. What is not given matches all; no two tokens may be left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenSpec {
    /// The PKCS#11 library.
    pub module: Option<PathBuf>,
    /// The name of the library in p11-kit's registry, used where `module` is not given.
    pub module_name: Option<String>,
    /// What `C_Initialize` is given in `pReserved`, as a zero-terminated string: some modules take their configuration there (NSS
    /// softokn, kryoptic). In a URI it is the query attribute `init-reserved`, after p11-kit's setting.
    pub init_reserved: Option<String>,
    /// The token's label.
    pub label: Option<String>,
    /// The token's serial number.
    pub serial: Option<String>,
    /// Who made the token.
    pub manufacturer: Option<String>,
    /// The token's model.
    pub model: Option<String>,
    /// Where the PIN is found (RFC 7512 §2.4), percent-decoded.
    pub pin_source: Option<String>,
}

impl TokenSpec {
    /// Whether this token is meant.
    #[must_use]
    pub fn matches(&self, token: &TokenInfo) -> bool {
        let fits = |wanted: &Option<String>, found: &str| {
            wanted.as_ref().is_none_or(|wanted| wanted == found)
        };
        fits(&self.label, &token.label)
            && fits(&self.serial, &token.serial)
            && fits(&self.manufacturer, &token.manufacturer)
            && fits(&self.model, &token.model)
    }
}

/// The words that follow "no token" in a message.
impl std::fmt::Display for TokenSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let given = [
            ("label", &self.label),
            ("serial number", &self.serial),
            ("manufacturer", &self.manufacturer),
            ("model", &self.model),
        ];
        let words: Vec<_> = given
            .iter()
            .filter_map(|(name, value)| value.as_ref().map(|value| format!("{name} '{value}'")))
            .collect();
        if words.is_empty() {
            f.write_str("in this module")
        } else {
            write!(f, "with {}", words.join(" and "))
        }
    }
}

/// Names one key of a token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeySpec {
    /// `CKA_LABEL`.
    pub label: Option<String>,
    /// `CKA_ID`.
    pub id: Option<Vec<u8>>,
    /// `CKA_CLASS`; without it, secret and private keys.
    pub class: Option<KeyClass>,
}

impl KeySpec {
    /// The key with this label.
    #[must_use]
    pub fn label(label: &str) -> Self {
        Self {
            label: Some(label.into()),
            ..Self::default()
        }
    }

    /// Takes an id as hexadecimal digits.
    ///
    /// # Errors
    /// [`SpecError::BadId`].
    pub fn parse_id(digits: &str) -> Result<Vec<u8>, SpecError> {
        hex::decode(digits)
            .ok()
            .filter(|id| !id.is_empty())
            .ok_or_else(|| SpecError::BadId(digits.into()))
    }

    /// Whether nothing is named at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.label.is_none() && self.id.is_none()
    }
}

/// The words that follow "no key" in a message.
impl std::fmt::Display for KeySpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.label, &self.id) {
            (Some(label), None) => write!(f, "'{label}'"),
            (None, Some(id)) => write!(f, "with id {}", hex::encode(id)),
            (Some(label), Some(id)) => write!(f, "'{label}' with id {}", hex::encode(id)),
            (None, None) => f.write_str("of any name"),
        }
    }
}

/// The scheme, which is the same in capitals (RFC 3986 §3.1).
const SCHEME: &str = "pkcs11:";

/// Whether a name is meant to be a PKCS#11 URI rather than a label. What has a PIN in it is none: it is refused as a URI, and not
/// repeated as a label that does not exist.
#[must_use]
pub fn is_uri(name: &str) -> bool {
    let name = name.trim().to_ascii_lowercase();
    name.starts_with(SCHEME) || name.contains("pin-value")
}

/// Reads a PKCS#11 URI: the token it names, and the key if it names one.
///
/// # Errors
/// [`SpecError`]; a PIN in the URI is refused and never repeated in the message.
pub fn parse(uri: &str) -> Result<(TokenSpec, KeySpec), SpecError> {
    // Asked first: the parser's messages quote what they complain about.
    if uri.to_ascii_lowercase().contains("pin-value") {
        return Err(SpecError::PinValue);
    }
    let uri = match uri.trim().split_at_checked(SCHEME.len()) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case(SCHEME) => format!("{SCHEME}{rest}"),
        Some(_) | None => uri.to_owned(),
    };
    // RFC 3986 §2 has no such characters. The parser leaves some of them out of its messages, and panics where nothing is left.
    if uri.chars().any(char::is_control) {
        return Err(SpecError::Malformed(
            "a URI is one line and has no control characters".to_owned(),
        ));
    }
    let parsed = pk11_uri_parser::parse(&uri).map_err(|error| {
        // Two paragraphs, the second of which is the parser's advice on one line.
        let text = error.to_string();
        let advice = text.lines().last().unwrap_or_default();
        SpecError::Malformed(advice.trim_start_matches("help: ").to_owned())
    })?;
    let unsupported = [
        ("library-manufacturer", parsed.library_manufacturer()),
        ("library-version", parsed.library_version()),
        ("library-description", parsed.library_description()),
        ("slot-description", parsed.slot_description()),
        ("slot-manufacturer", parsed.slot_manufacturer()),
        ("slot-id", parsed.slot_id()),
    ];
    if let Some((name, _)) = unsupported.iter().find(|(_, value)| value.is_some()) {
        return Err(SpecError::Unsupported(name));
    }
    let text = |name: &'static str, value: Option<&str>| {
        value
            .map(|value| {
                percent_decode_str(value)
                    .decode_utf8()
                    .map(|text| text.into_owned())
                    .map_err(|_| SpecError::NotText(name))
            })
            .transpose()
    };
    let class = match parsed.r#type() {
        None => None,
        Some("secret-key") => Some(KeyClass::Secret),
        Some("private") => Some(KeyClass::Private),
        Some("public") => Some(KeyClass::Public),
        Some(_) => return Err(SpecError::Unsupported("type")),
    };
    let token = TokenSpec {
        module: text("module-path", parsed.module_path())?.map(PathBuf::from),
        module_name: text("module-name", parsed.module_name())?,
        init_reserved: match parsed.vendor(INIT_RESERVED).map(Vec::as_slice) {
            None => None,
            Some([value]) => text(INIT_RESERVED, Some(value))?,
            Some(_) => {
                return Err(SpecError::Malformed(format!(
                    "{INIT_RESERVED} is given twice"
                )));
            }
        },
        label: text("token", parsed.token())?,
        serial: text("serial", parsed.serial())?,
        manufacturer: text("manufacturer", parsed.manufacturer())?,
        model: text("model", parsed.model())?,
        pin_source: text("pin-source", parsed.pin_source())?,
    };
    let key = KeySpec {
        label: text("object", parsed.object())?,
        id: parsed.id().map(|id| percent_decode_str(id).collect()),
        class,
    };
    Ok((token, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_percent_decoded() {
        let (token, key) = parse(
            "pkcs11:token=The%20Line%20%231;serial=0a;object=m%C3%BCller;id=%69%00%ff;type=private\
             ?module-path=/opt/my%20hsm/lib.so&module-name=my%2dhsm&pin-source=file:/etc/pin&init-reserved=dir%3D%27a%20b%27",
        )
        .unwrap();
        assert_eq!(token.label.as_deref(), Some("The Line #1"));
        assert_eq!(token.serial.as_deref(), Some("0a"));
        assert_eq!(token.module, Some(PathBuf::from("/opt/my hsm/lib.so")));
        assert_eq!(token.module_name.as_deref(), Some("my-hsm"));
        assert_eq!(token.pin_source.as_deref(), Some("file:/etc/pin"));
        assert_eq!(token.init_reserved.as_deref(), Some("dir='a b'"));
        assert_eq!(key.label.as_deref(), Some("müller"));
        assert_eq!(key.id, Some(vec![0x69, 0x00, 0xff]));
        assert_eq!(key.class, Some(KeyClass::Private));
    }

    #[test]
    fn a_pin_in_the_uri_is_refused_and_not_repeated() {
        for uri in [
            "pkcs11:token=a?pin-value=4711",
            "pkcs11:token=a;pin-value=4711",
            "pkcs11:token=a b?pin-value=4711",
            "PKCS11:token=a?pin-value=4711",
            " pkcs11:token=a?PIN-VALUE=4711",
        ] {
            assert!(is_uri(uri));
            let error = parse(uri).unwrap_err();
            assert_eq!(error, SpecError::PinValue);
            assert!(!error.to_string().contains("4711"));
            assert!(!format!("{error:?} {:?}", error.hint()).contains("4711"));
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for uri in [
            "",
            "pkcs11",
            "http://x",
            "pkcs11:token=a;",
            "pkcs11:token=a b",
            "pkcs11:;",
            "pkcs11:?&",
            "pkcs11:token",
            "pkcs11:token=a;token=b",
            "pkcs11:token=a?b",
            // The fuzzer's: the parser counts back from the end of nothing.
            "pkcs11:?\n\n=",
            "pkcs11:\n\t;",
            "pkcs11:token=a\n;serial=b",
        ] {
            assert!(
                matches!(parse(uri), Err(SpecError::Malformed(_))),
                "{uri}: {:?}",
                parse(uri)
            );
        }
        assert_eq!(
            parse("pkcs11:slot-id=3"),
            Err(SpecError::Unsupported("slot-id"))
        );
        assert_eq!(parse("pkcs11:token=%ff"), Err(SpecError::NotText("token")));
    }

    #[test]
    fn a_bare_scheme_names_no_token_in_particular() {
        assert_eq!(parse("pkcs11:").unwrap(), Default::default());
    }
}
