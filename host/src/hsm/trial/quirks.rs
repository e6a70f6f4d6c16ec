//! Odd behaviour that others have met before: where it is discussed, and in which versions it was seen. A row is matched by its
//! symptom, never by the name of a token.

use super::{Difference, Fact, Finding};

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Symptom {
    Works,
    Refused,
    Differs(Difference),
}

/// Behaviour that is known upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quirk {
    facts: &'static [Fact],
    symptom: Symptom,
    /// What is behind it.
    pub about: &'static str,
    /// Where it was seen; the same symptom may have the same cause elsewhere.
    pub seen_in: &'static str,
    /// Where it is discussed.
    pub source: &'static str,
}

/// All rows.
const QUIRKS: &[Quirk] = &[
    Quirk {
        facts: &[Fact::PadSecret, Fact::PadPrivate],
        symptom: Symptom::Differs(Difference::ZeroTail),
        about: "zero bytes are appended before the key is wrapped",
        seen_in: "SoftHSM up to 2.6.1",
        source: "https://github.com/softhsm/SoftHSMv2/pull/307",
    },
    Quirk {
        facts: &[Fact::PadAes],
        symptom: Symptom::Works,
        about: "RFC 5649 under the number of AES_KEY_WRAP_PAD; the specification has PKCS#7 padding there",
        seen_in: "SoftHSM 2.x",
        source: "https://github.com/softhsm/SoftHSMv2/issues/726",
    },
    Quirk {
        facts: &[Fact::OaepSha256, Fact::OpenOaepSha256],
        symptom: Symptom::Refused,
        about: "OAEP is for SHA-1 only",
        seen_in: "SoftHSM up to 2.7.0",
        source: "https://github.com/softhsm/SoftHSMv2/issues/795",
    },
    Quirk {
        facts: &[Fact::SingleStepSha256],
        symptom: Symptom::Differs(Difference::Sha1),
        about: "the hash in the parameters is not looked at",
        seen_in: "SoftHSM 2.7.0",
        source: "https://github.com/softhsm/SoftHSMv2/pull/794",
    },
    Quirk {
        facts: &[Fact::UnwrappedLength],
        symptom: Symptom::Differs(Difference::NotTold),
        about: "CKA_VALUE_LEN of an unwrapped key is 0",
        seen_in: "SoftHSM 2.6.1",
        source: "https://github.com/softhsm/SoftHSMv2/issues/628",
    },
    Quirk {
        facts: &[Fact::UnwrapWithLength],
        symptom: Symptom::Refused,
        about: "tokens disagree on CKA_VALUE_LEN in the template of C_UnwrapKey",
        seen_in: "SoftHSM 2.x",
        source: "https://github.com/OpenSC/OpenSC/pull/3198",
    },
];

impl Quirk {
    /// The row for what was found, if there is one.
    #[must_use]
    pub fn of(fact: Fact, finding: &Finding) -> Option<&'static Self> {
        let symptom = match finding {
            Finding::Works => Symptom::Works,
            Finding::Refused { .. } => Symptom::Refused,
            Finding::Differs(difference) => Symptom::Differs(*difference),
            Finding::Claimed | Finding::Failed { .. } | Finding::NotTried { .. } => return None,
        };
        QUIRKS
            .iter()
            .find(|quirk| quirk.symptom == symptom && quirk.facts.contains(&fact))
    }
}
