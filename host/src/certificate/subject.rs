//! Names in certificates: read from what a person writes, made for a device, shown to a person.

use der::asn1::Ia5StringRef;
use der::asn1::{Any, ObjectIdentifier, PrintableStringRef, TeletexStringRef, Utf8StringRef};
use der::{Decode, Encode, Tag, Tagged};
use keyferry_protocol::identity::DeviceId;
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::name::{Name, RdnSequence, RelativeDistinguishedName};

use super::CertificateError;

/// `commonName` (RFC 5280 appendix A.1).
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
/// `serialNumber` of a subject, which is not the certificate's (RFC 5280 appendix A.1).
const SERIAL_NUMBER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.5");
/// `organizationName` (RFC 5280 appendix A.1).
const ORGANIZATION: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.10");

/// Longest value of a name's part, in characters: `ub-common-name`, `ub-organization-name` and `ub-serial-number` are all
/// 64 (RFC 5280 appendix A.1).
const MAXIMUM_VALUE: usize = 64;

/// Longest subject that is read, in bytes.
const MAXIMUM_TEXT: usize = 1024;

/// The serial number in a device certificate's subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serial(String);

impl Serial {
    /// A product's serial number, as it is on its label.
    ///
    /// # Errors
    /// [`CertificateError::Serial`] if it is no `PrintableString` of 1 to 64 characters, or could be taken for a device's id.
    pub fn product(text: &str) -> Result<Self, CertificateError> {
        let like_an_id =
            text.len() == 2 * DeviceId::LENGTH && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let fits = (1..=MAXIMUM_VALUE).contains(&text.len());
        if !fits || like_an_id || PrintableStringRef::new(text).is_err() {
            return Err(CertificateError::Serial(escaped(text)));
        }
        Ok(Self(text.to_owned()))
    }

    /// The text of it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<DeviceId> for Serial {
    /// The device's id: 32 hexadecimal digits, small letters.
    fn from(id: DeviceId) -> Self {
        Self(hex::encode(id.0))
    }
}

impl std::fmt::Display for Serial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reads a subject as RFC 4514 writes it: `CN=Factory 1,O=Example`.
///
/// # Errors
/// [`CertificateError::Subject`] if it is something else, has no part, or a part whose value is empty, longer than 64
/// characters or not text, or if a backslash is in a value.
pub fn parse_subject(text: &str) -> Result<Name, CertificateError> {
    let wrong = || CertificateError::Subject(escaped(text));
    // The reader takes an escaped backslash before a comma for an escaped comma, and drops one at the end.
    let unsure = text.contains(r"\\") || text.ends_with('\\');
    if text.len() > MAXIMUM_TEXT || unsure {
        return Err(wrong());
    }
    let name: Name = text.parse().map_err(|_| wrong())?;
    let fits = |part: &AttributeTypeAndValue| {
        value(part).is_some_and(|value| (1..=MAXIMUM_VALUE).contains(&value.chars().count()))
    };
    if name.is_empty() || !name.iter().all(fits) {
        return Err(wrong());
    }
    // Read again as others will read it.
    let encoded = name.to_der().map_err(|_| wrong())?;
    Name::from_der(&encoded).map_err(|_| wrong())
}

/// The subject of a device certificate.
pub(super) fn device_subject(
    organization: Option<&str>,
    common_name: Option<&str>,
    serial: &Serial,
) -> Result<Name, CertificateError> {
    let mut names = RdnSequence::default();
    let mut push = |oid, value: Result<Any, der::Error>, text: &str| {
        let wrong = |_| CertificateError::Subject(escaped(text));
        let value = value.map_err(wrong)?;
        let part = RelativeDistinguishedName::try_from(vec![AttributeTypeAndValue { oid, value }])
            .map_err(wrong)?;
        names.push(part);
        Ok::<(), CertificateError>(())
    };
    for (oid, text) in [(ORGANIZATION, organization), (COMMON_NAME, common_name)] {
        let Some(text) = text else { continue };
        if !(1..=MAXIMUM_VALUE).contains(&text.chars().count()) {
            return Err(CertificateError::Subject(escaped(text)));
        }
        let value = Utf8StringRef::new(text).and_then(|text| Any::encode_from(&text));
        push(oid, value, text)?;
    }
    let text = serial.as_str();
    // X.520 gives serialNumber the one type PrintableString.
    let value = PrintableStringRef::new(text).and_then(|text| Any::encode_from(&text));
    push(SERIAL_NUMBER, value, text)?;
    let encoded = names.to_der().map_err(|_| CertificateError::Encoding)?;
    Name::from_der(&encoded).map_err(|_| CertificateError::Encoding)
}

/// The one serial number in a subject.
pub(super) fn serial_number(subject: &Name) -> Result<&str, CertificateError> {
    let mut found = subject.iter().filter(|part| part.oid == SERIAL_NUMBER);
    let (Some(part), None) = (found.next(), found.next()) else {
        return Err(CertificateError::NoSerial);
    };
    PrintableStringRef::try_from(&part.value)
        .map(|text| text.as_str())
        .map_err(|_| CertificateError::NoSerial)
}

/// The text of a name's part, if it is text of a kind that is still in use.
fn value(part: &AttributeTypeAndValue) -> Option<&str> {
    let value = &part.value;
    match value.tag() {
        Tag::Utf8String => Utf8StringRef::try_from(value)
            .ok()
            .map(|text| text.as_str()),
        Tag::PrintableString => PrintableStringRef::try_from(value)
            .ok()
            .map(|text| text.as_str()),
        Tag::Ia5String => Ia5StringRef::try_from(value).ok().map(|text| text.as_str()),
        Tag::TeletexString => TeletexStringRef::try_from(value)
            .ok()
            .map(|text| text.as_str()),
        _ => None,
    }
}

/// A name for a person, as RFC 4514 writes it, without control characters.
#[must_use]
pub fn printable(name: &Name) -> String {
    escaped(&name.to_string())
}

/// A text that does nothing to a terminal.
fn escaped(text: &str) -> String {
    text.chars()
        .flat_map(|letter| {
            let escape = letter.is_control().then(|| letter.escape_unicode());
            let plain = escape.is_none().then_some(letter);
            escape.into_iter().flatten().chain(plain)
        })
        .collect()
}
