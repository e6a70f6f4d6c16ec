//! What can go wrong between the station and a token, in words a person can act on.

use std::path::PathBuf;

use keyferry_protocol::suite::Suite;

use super::key::{Flag, KeyType};
use super::public_key::PublicKeyError;
use super::trial::Difference;

/// Why a token did not do what it was asked. No variant ever carries a PIN or key material.
#[derive(Debug, thiserror::Error)]
pub enum HsmError {
    /// No module is named.
    #[error("no PKCS#11 module is named")]
    NoModule,
    /// No one module of that name is registered with p11-kit.
    #[error(
        "no PKCS#11 module '{name}' is registered here; {}",
        there_are("module", present)
    )]
    NoSuchModule {
        /// The name that was asked for.
        name: String,
        /// The names that exist.
        present: Vec<String>,
    },
    /// p11-kit's registry of modules cannot be used.
    #[error("p11-kit's configuration {} cannot be used: {reason}", path.display())]
    Registry {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no file at the path of the PKCS#11 module.
    #[error("there is no PKCS#11 module at {}", path.display())]
    ModuleNotFound {
        /// The path as it was given.
        path: PathBuf,
    },
    /// The file exists but is no loadable PKCS#11 module.
    #[error("{} cannot be loaded as a PKCS#11 module: {reason}", path.display())]
    ModuleNotLoadable {
        /// The path as it was given.
        path: PathBuf,
        /// What the loader said.
        reason: String,
    },
    /// The module is in use in this process with another configuration.
    #[error("{} is initialised already, with another init-reserved", path.display())]
    ModuleInitialized {
        /// The path as it was given.
        path: PathBuf,
    },
    /// No token of the module matches.
    #[error("no token {wanted}; {}", there_are("token", present))]
    NoSuchToken {
        /// The label or serial number that was asked for.
        wanted: String,
        /// The labels that exist.
        present: Vec<String>,
    },
    /// More than one token of the module matches.
    #[error("{} tokens match {wanted}; their serial numbers are {}", serials.len(), serials.join(", "))]
    SeveralTokens {
        /// The label or serial number that was asked for.
        wanted: String,
        /// The serial numbers of those that match.
        serials: Vec<String>,
    },
    /// The token refused the PIN.
    #[error("token '{token}' refused the PIN{}", if *last_try { "; one try is left" } else { "" })]
    PinIncorrect {
        /// The token's label.
        token: String,
        /// The token says that the next wrong PIN locks it.
        last_try: bool,
    },
    /// Too many wrong PINs were given.
    #[error("the PIN of token '{token}' is locked")]
    PinLocked {
        /// The token's label.
        token: String,
    },
    /// The token has no user PIN yet.
    #[error("token '{token}' has no user PIN yet")]
    PinNotSet {
        /// The token's label.
        token: String,
    },
    /// A wrong PIN would lock the token, so it is not sent without a person's word.
    #[error("one try is left for the PIN of token '{token}'")]
    LastTry {
        /// The token's label.
        token: String,
    },
    /// The token was removed, or the connection to it is broken.
    #[error("token '{token}' is gone ({function}: {code})")]
    TokenGone {
        /// The token's label.
        token: String,
        /// The function that failed.
        function: String,
        /// Its return value.
        code: String,
    },
    /// In the token's place there is another one.
    #[error("token '{token}' is gone; '{found}' is in its place")]
    TokenReplaced {
        /// The token's label.
        token: String,
        /// The label of the one that is there now.
        found: String,
    },
    /// The token lost the session, and the one that was opened in its place.
    #[error("token '{token}' lost the session twice in one operation")]
    LostTwice {
        /// The token's label.
        token: String,
    },
    /// The token has no session left.
    #[error("token '{token}' has no session left{}", limit.map(|limit| format!("; it allows {limit}")).unwrap_or_default())]
    NoSession {
        /// The token's label.
        token: String,
        /// How many it allows a process, where it says so.
        limit: Option<usize>,
    },
    /// The token does not let itself be changed.
    #[error("token '{token}' is read-only")]
    ReadOnly {
        /// The token's label.
        token: String,
    },
    /// No key matches.
    #[error("no key {wanted} on token '{token}'; {}", there_are("key", present))]
    NoSuchKey {
        /// The token's label.
        token: String,
        /// The label or id that was asked for.
        wanted: String,
        /// The labels that exist.
        present: Vec<String>,
    },
    /// More than one key matches.
    #[error("{} keys match {wanted} on token '{token}'; their ids are {}", ids.len(), ids.join(", "))]
    SeveralKeys {
        /// The token's label.
        token: String,
        /// The label that was asked for.
        wanted: String,
        /// `CKA_ID` of each key that matches, as hexadecimal digits.
        ids: Vec<String>,
    },
    /// A key of that label is there already.
    #[error("token '{token}' already has a key '{label}'")]
    LabelTaken {
        /// The token's label.
        token: String,
        /// The key's label.
        label: String,
    },
    /// The token keeps the key for good.
    #[error("key '{label}' is not extractable (CKA_EXTRACTABLE is false)")]
    NotExtractable {
        /// The key's label.
        label: String,
    },
    /// The token gives the key only to wrapping keys that its security officer trusts.
    #[error(
        "key '{label}' may only leave under a trusted wrapping key (CKA_WRAP_WITH_TRUSTED is true)"
    )]
    TrustedOnly {
        /// The key's label.
        label: String,
    },
    /// An attribute of the key forbids what was asked.
    #[error("key '{label}' may not do this ({} is false)", flag.attribute())]
    NotPermitted {
        /// The key's label.
        label: String,
        /// The attribute that is false.
        flag: Flag,
    },
    /// The master key may do something else than derive, or does not say.
    #[error(
        "key '{label}' cannot be a diversification master ({} is not {wanted})",
        flag.attribute()
    )]
    NotDeriveOnly {
        /// The key's label.
        label: String,
        /// The attribute that is wrong.
        flag: Flag,
        /// What it should be.
        wanted: bool,
    },
    /// A key that others are to be kept under may do too much or too little.
    #[error(
        "no keys can be kept under key '{label}' ({} is not {wanted})",
        flag.attribute()
    )]
    NotAKeeper {
        /// The key's label.
        label: String,
        /// The attribute that is wrong.
        flag: Flag,
        /// What it should be.
        wanted: bool,
    },
    /// The token derives no key of this type, or not as it should.
    #[error("token '{token}' does not derive a key of type {key_type}: {}", tried.join("; "))]
    CannotDerive {
        /// The token's label.
        token: String,
        /// The key to be derived.
        key_type: KeyType,
        /// Each way that was tried, and what came of it.
        tried: Vec<String>,
    },
    /// A key that receives wrapped keys must do nothing else.
    #[error("key '{label}' cannot be created to receive wrapped keys")]
    RecipientOnly {
        /// The key's label.
        label: String,
    },
    /// A key that others are to be kept under is to do something else as well, or is of a type that cannot.
    #[error("key '{label}' cannot be one that others are kept under")]
    KeeperOnly {
        /// The key's label.
        label: String,
    },
    /// The operation is for another type of key.
    #[error("key '{label}' is of type {found}; {wanted} is needed here")]
    WrongKeyType {
        /// The key's label.
        label: String,
        /// Its type.
        found: KeyType,
        /// The type that is needed.
        wanted: &'static str,
    },
    /// The token has the private key, but nothing that tells its public key.
    #[error("the public key of '{label}' is not on the token")]
    NoPublicKey {
        /// The key's label.
        label: String,
    },
    /// The token does not open what was wrapped.
    #[error("token '{token}' does not open {what} in the blob ({function}: {code})")]
    BlobRejected {
        /// The token's label.
        token: String,
        /// What should have come out.
        what: &'static str,
        /// The function that failed.
        function: String,
        /// Its return value.
        code: String,
    },
    /// The public key beside a private key is that of another.
    #[error(
        "the public key beside '{label}' is not its own: it does not verify what '{label}' signs"
    )]
    PairMismatch {
        /// The private key's label.
        label: String,
    },
    /// The PIN of a key that asks for it at each use was refused.
    #[error(
        "the PIN for key '{label}' was refused, which asks for it at each use (CKA_ALWAYS_AUTHENTICATE)"
    )]
    KeyPinIncorrect {
        /// The key's label.
        label: String,
    },
    /// A key that asks for its PIN at each use cannot be used where PKCS#11 has no place for it.
    #[error(
        "key '{label}' asks for its PIN at each use (CKA_ALWAYS_AUTHENTICATE), and unwrapping has no place for that"
    )]
    AsksEachUse {
        /// The key's label.
        label: String,
    },
    /// A secret key that should ask for its PIN at each use; only private keys can.
    #[error("key '{label}' is not a pair: only private keys ask for a PIN at each use")]
    OnlyPairsAsk {
        /// The key's label.
        label: String,
    },
    /// A blob that cannot be one.
    #[error("{what} has {actual} bytes; {expected} were expected")]
    BlobLength {
        /// The blob, or the part of it.
        what: String,
        /// The right length in bytes.
        expected: String,
        /// The length it has.
        actual: usize,
    },
    /// The token gave a key more rights than it was told to.
    #[error("the token did not keep {} of key '{label}' as it was told", flag.attribute())]
    Widened {
        /// The key's label.
        label: String,
        /// The attribute that differs.
        flag: Flag,
    },
    /// The recipient's key is not one to wrap for.
    #[error(transparent)]
    Recipient(#[from] PublicKeyError),
    /// The recipient's key is of the wrong kind for the suite.
    #[error("suite {suite} does not work toward a recipient key of type {recipient}")]
    SuiteMismatch {
        /// The suite that was asked for.
        suite: Suite,
        /// The recipient key's type.
        recipient: KeyType,
    },
    /// The token accepts the suite and does something else, as a trial with throw-away keys showed.
    #[error("token '{token}' accepts suite {suite}, but {difference}")]
    SuiteWrong {
        /// The token's label.
        token: String,
        /// The suite that was asked for.
        suite: Suite,
        /// What it does.
        difference: Difference,
    },
    /// The token does not do the suite.
    #[error("token '{token}' refuses suite {suite} ({function}: {code})")]
    SuiteRefused {
        /// The token's label.
        token: String,
        /// The suite that was asked for.
        suite: Suite,
        /// The function that failed.
        function: String,
        /// Its return value.
        code: String,
    },
    /// The token lacks a mechanism for which there is no substitute.
    #[error("token '{token}' has no mechanism for {purpose} ({mechanism})")]
    MechanismMissing {
        /// The token's label.
        token: String,
        /// What it is needed for.
        purpose: &'static str,
        /// The mechanism's name in PKCS#11.
        mechanism: &'static str,
    },
    /// The token gave a result of a length that cannot be right.
    #[error("the token returned {actual} bytes for {what} where {expected} were expected")]
    UnexpectedLength {
        /// What was asked for.
        what: String,
        /// The length or range of lengths in bytes that would be right.
        expected: String,
        /// The length in bytes that came.
        actual: usize,
    },
    /// A token function failed for another reason.
    #[error("{function} failed: {code}")]
    Token {
        /// The function's name in PKCS#11, for example `C_WrapKey`.
        function: String,
        /// Its return value, for example `CKR_DEVICE_ERROR`, or what was wrong with its output.
        code: String,
    },
    /// The operating system gave no random numbers.
    #[error("the operating system gave no random numbers: {0}")]
    Random(String),
}

impl HsmError {
    /// The next move for a person, where there is one to name.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NoModule | Self::ModuleNotFound { .. } => {
                "give the path of your HSM's PKCS#11 library with --module or as module-path= in the URI".into()
            }
            Self::NoSuchModule { .. } | Self::Registry { .. } => {
                "give the path of the library with module-path= instead, or register it with p11-kit (see pkcs11.conf(5))".into()
            }
            Self::ModuleNotLoadable { .. } => {
                "the file must be a PKCS#11 library for this machine's architecture, and has to find its configuration: most look at an environment variable (SoftHSM: SOFTHSM2_CONF) or in their own folder, some want it as init-reserved in the URI"
                    .into()
            }
            Self::NoSuchToken { .. } => {
                "`keyferry hsm tokens` lists the tokens of a module".into()
            }
            Self::SeveralTokens { .. } => {
                "name the token by its serial number: pkcs11:serial=…".into()
            }
            Self::PinIncorrect { last_try: true, .. } => {
                "the next wrong PIN locks the token: make sure before trying again".into()
            }
            Self::PinIncorrect { .. } => {
                "check the PIN; a token may lock after a few wrong tries".into()
            }
            Self::PinLocked { .. } => "the token's security officer can set a new PIN".into(),
            Self::PinNotSet { .. } => "set the user PIN with the token's own tool first".into(),
            Self::LastTry { .. } => {
                "a wrong PIN would lock the token: make sure of the PIN, then repeat with --allow-last-try".into()
            }
            Self::TokenGone { .. } | Self::LostTwice { .. } => {
                "see to the token or the connection to it, then start the command again: nothing is done twice".into()
            }
            Self::TokenReplaced { .. } => {
                "put the right token back, then repeat the command: nothing is done twice".into()
            }
            Self::NoSession { .. } => "close other programs that use this token".into(),
            Self::ReadOnly { .. } => {
                "the token is write-protected: unlock it with its own tool or switch, or use another".into()
            }
            Self::NoSuchKey { .. } => "`keyferry key list` shows the keys of a token".into(),
            Self::SeveralKeys { .. } => "name one of them by its id: --id HEX, or id= in the URI".into(),
            Self::LabelTaken { .. } => "choose another label; labels are how keys are named".into(),
            Self::NotExtractable { .. } => {
                "this cannot be changed later: create the key with --extractable if it must leave the token".into()
            }
            Self::TrustedOnly { .. } => {
                "such a key cannot be wrapped toward a key imported at run time; use a key without this attribute".into()
            }
            Self::NotPermitted { flag, .. } => match flag.usage_name() {
                Some(usage) => format!("create the key with --usage {usage}"),
                None => return None,
            },
            Self::WrongKeyType { .. } => return None,
            Self::ModuleInitialized { .. } => {
                "one process uses a module in one configuration: name both tokens with the same init-reserved".into()
            }
            Self::NotDeriveOnly { .. } => {
                "create a master for this: key create --type aes-256 --usage derive".into()
            }
            Self::NotAKeeper { .. } => {
                "create a key for this: key create --type aes-256 --usage keep".into()
            }
            Self::CannotDerive { .. } => {
                "`keyferry hsm probe` shows what the token derives; --fresh takes random keys".into()
            }
            Self::KeeperOnly { .. } => {
                "it must be an aes key, not extractable, with --usage keep alone".into()
            }
            Self::RecipientOnly { .. } => {
                "it must be an rsa or p-256 pair, not extractable, with --usage unwrap alone".into()
            }
            Self::KeyPinIncorrect { .. } => {
                "if this key has a PIN of its own: --key-pin-file or --key-pin-env".into()
            }
            Self::AsksEachUse { .. } => {
                "unwrap with a key pair that does not: key create --usage unwrap".into()
            }
            Self::OnlyPairsAsk { .. } => "leave out --always-authenticate".into(),
            Self::BlobRejected { .. } | Self::BlobLength { .. } => {
                "the blob is damaged, or was wrapped for another key or under another suite".into()
            }
            Self::Widened { .. } => {
                "the key was taken off the token again; such a token cannot keep this key".into()
            }
            Self::Recipient(error) => return error.hint(),
            Self::NoPublicKey { .. } | Self::PairMismatch { .. } => {
                "put the public key on the token beside it, with the same CKA_ID".into()
            }
            Self::SuiteMismatch { recipient, .. } => {
                let fitting: Vec<_> = Suite::ALL
                    .into_iter()
                    .filter(|suite| recipient.fits(*suite))
                    .map(Suite::name)
                    .collect();
                if fitting.is_empty() {
                    "use an RSA (2048 bits or more) or P-256 recipient key".into()
                } else {
                    format!("suites for this recipient: {}", fitting.join(", "))
                }
            }
            Self::SuiteRefused { suite: Suite::EcdhP256X963Sha256, .. } => {
                "use another suite, for example ecdh-p256-null".into()
            }
            Self::SuiteWrong { .. } => {
                "`keyferry hsm probe` shows what the token really does; use another suite".into()
            }
            Self::SuiteRefused { suite: Suite::RsaOaepSha256, .. } => {
                "this token may do SHA-1 only (SoftHSM 2.x does): use suite rsa-oaep-sha1".into()
            }
            Self::SuiteRefused { suite: Suite::RsaOaepSha1, .. } => {
                "this token may do SHA-256 only: use suite rsa-oaep-sha256".into()
            }
            Self::SuiteRefused { suite: Suite::EcdhP256Null, .. } => {
                "use an RSA recipient key".into()
            }
            Self::MechanismMissing { .. } => "this token cannot do the job; use another".into(),
            Self::UnexpectedLength { .. } => {
                "the token's wrapping does not follow the standard it names; nothing was sent".into()
            }
            Self::Token { code, .. } => match code.as_str() {
                "CKR_DEVICE_REMOVED" | "CKR_TOKEN_NOT_PRESENT" => "is the token still plugged in?".into(),
                _ => return None,
            },
            Self::Random(_) => return None,
        };
        Some(hint)
    }
}

/// Says which labels exist, for an error about one that does not.
fn there_are(what: &str, labels: &[String]) -> String {
    if labels.is_empty() {
        return format!("there is no {what} at all");
    }
    let quoted: Vec<_> = labels.iter().map(|label| format!("'{label}'")).collect();
    format!("there are: {}", quoted.join(", "))
}
