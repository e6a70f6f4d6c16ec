//! Whether two key objects, on the same token or on two, hold the same key. Nothing secret is compared: one makes a MAC, a
//! signature or a ciphertext over something random, and the other verifies it, makes it too, or opens it.

use keyferry_protocol::suite::Suite;

use super::check::CheckAlgorithm;
use super::error::HsmError;
use super::key::{Flag, Flags, KeyClass, KeyInfo, KeyType};
use super::pkcs11::{Direction, EcdhDerivation, SignMechanism};
use super::public_key::{PublicKey, PublicNumbers};
use super::token::{Token, random};
use super::wrap::SESSION_LABEL;

/// What every random input begins with, so that no answer can be mistaken for one to a question of another kind.
const TAG: &[u8; 16] = b"keyferry compare";

/// How it was found out that two objects hold the same key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// A MAC made by one, verified or made as well by the other.
    Mac,
    /// A signature made by one private key, verified by the other token with the public key.
    Signature,
    /// A block encrypted or decrypted by both.
    Encryption,
    /// A key that the private key and a throw-away key agreed on.
    Agreement,
}

impl Evidence {
    /// The name used in output: `mac`, `signature`, `encryption`, `agreement`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mac => "mac",
            Self::Signature => "signature",
            Self::Encryption => "encryption",
            Self::Agreement => "agreement",
        }
    }
}

/// What a comparison of two key objects came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// They hold the same key.
    Same(Evidence),
    /// They hold different keys.
    Different,
    /// The attributes of the two objects, or the mechanisms of the tokens, leave nothing that both can do.
    Unknown,
}

/// One of the two objects that are compared.
#[derive(Clone, Copy)]
pub struct Held<'a> {
    /// The token it is on.
    pub token: &'a Token,
    /// The key.
    pub key: &'a KeyInfo,
}

/// One way to compare.
type Method = fn(Held<'_>, Held<'_>) -> Result<Comparison, HsmError>;

/// Compares two secret keys, or the private keys of two pairs.
///
/// # Errors
/// [`HsmError::Token`] if a token fails for another reason than not being able to do this.
pub fn compare(one: Held<'_>, other: Held<'_>) -> Result<Comparison, HsmError> {
    if one.key.class != other.key.class || !same_kind(one.key.key_type, other.key.key_type) {
        return Ok(Comparison::Different);
    }
    let methods: &[Method] = match one.key.class {
        KeyClass::Secret => &[by_mac, by_block, by_wrapping],
        KeyClass::Private => &[by_public_half],
        KeyClass::Public => &[by_public_key],
    };
    one.token.alive(|| {
        other.token.alive(|| {
            for method in methods {
                match method(one, other)? {
                    Comparison::Unknown => {}
                    found @ (Comparison::Same(_) | Comparison::Different) => return Ok(found),
                }
            }
            Ok(Comparison::Unknown)
        })
    })
}

/// Whether a private key and a public key are the halves of one pair. The private one does something, and the token checks it with
/// the public one.
///
/// # Errors
/// As [`compare`].
pub fn is_pair(private: Held<'_>, public: &PublicKey) -> Result<Comparison, HsmError> {
    owns(private, public, private.token)
}

/// Whether a private key is that of a public key: it signs, decrypts or agrees, and the token `checker` makes sure of it with the
/// public key. What a token says that the public key of this private key be counts for nothing here.
fn owns(private: Held<'_>, public: &PublicKey, checker: &Token) -> Result<Comparison, HsmError> {
    let methods = [by_signature, by_decryption, by_agreement];
    for method in methods {
        match method(private, public, checker)? {
            Comparison::Unknown => {}
            found @ (Comparison::Same(_) | Comparison::Different) => return Ok(found),
        }
    }
    Ok(Comparison::Unknown)
}

/// Whether a secret key answers a question as it was answered before.
///
/// # Errors
/// As [`compare`].
pub fn answers(
    held: Held<'_>,
    algorithm: CheckAlgorithm,
    input: &[u8],
    value: &[u8],
) -> Result<Comparison, HsmError> {
    if CheckAlgorithm::of(held.key.key_type) != Some(algorithm) {
        return Ok(Comparison::Different);
    }
    if let Some(right) = held.verify(input, value)? {
        return Ok(outcome(right, Evidence::Mac));
    }
    Ok(match held.sign(input)? {
        Some(again) => outcome(again == value, Evidence::Mac),
        None => Comparison::Unknown,
    })
}

fn same_kind(one: KeyType, other: KeyType) -> bool {
    one.may_be(other) || other.may_be(one)
}

const fn outcome(same: bool, evidence: Evidence) -> Comparison {
    if same {
        Comparison::Same(evidence)
    } else {
        Comparison::Different
    }
}

fn question() -> Result<Vec<u8>, HsmError> {
    let nonce: [u8; 32] = random()?;
    Ok([&TAG[..], &nonce].concat())
}

/// One makes a MAC, the other verifies it, or makes it as well where it may only do that.
fn by_mac(one: Held<'_>, other: Held<'_>) -> Result<Comparison, HsmError> {
    let input = question()?;
    for (maker, checker) in [(one, other), (other, one)] {
        let Some(value) = maker.sign(&input)? else {
            continue;
        };
        if let Some(right) = checker.verify(&input, &value)? {
            return Ok(outcome(right, Evidence::Mac));
        }
        if let Some(again) = checker.sign(&input)? {
            return Ok(outcome(again == value, Evidence::Mac));
        }
    }
    Ok(Comparison::Unknown)
}

/// Both do the same to a random block, or one undoes what the other did.
fn by_block(one: Held<'_>, other: Held<'_>) -> Result<Comparison, HsmError> {
    let block: [u8; 16] = random()?;
    let ways = [
        (Direction::Encrypt, Direction::Encrypt),
        (Direction::Decrypt, Direction::Decrypt),
        (Direction::Encrypt, Direction::Decrypt),
        (Direction::Decrypt, Direction::Encrypt),
    ];
    for (first, second) in ways {
        let Some(changed) = one.block(first, &block)? else {
            continue;
        };
        let start = if first == second { block } else { changed };
        let expected = if first == second { changed } else { block };
        if let Some(found) = other.block(second, &start)? {
            return Ok(outcome(found == expected, Evidence::Encryption));
        }
    }
    Ok(Comparison::Unknown)
}

/// One wraps a throw-away key, the other unwraps it, and the two throw-away keys are compared by their MACs.
fn by_wrapping(one: Held<'_>, other: Held<'_>) -> Result<Comparison, HsmError> {
    for (wrapper, unwrapper) in [(one, other), (other, one)] {
        let may = |held: Held<'_>, flag| {
            matches!(held.key.key_type, KeyType::Aes { .. }) && held.key.flags.has(flag)
        };
        if !may(wrapper, Flag::Wrap) || !may(unwrapper, Flag::Unwrap) {
            continue;
        }
        let Some(carried) = possible(wrapper.token.carry_with(wrapper.key))? else {
            continue;
        };
        let input = question()?;
        let sent = Held {
            token: wrapper.token,
            key: carried.key.info(),
        };
        let Some(value) = sent.sign(&input)? else {
            continue;
        };
        return Ok(
            match unwrapper.token.fetch_with(unwrapper.key, &carried.blob) {
                Ok(found) => {
                    let found = Held {
                        token: unwrapper.token,
                        key: found.info(),
                    };
                    match found.sign(&input)? {
                        Some(again) => outcome(again == value, Evidence::Encryption),
                        None => continue,
                    }
                }
                Err(error) if unwrapper.token.connection.is_lost() => return Err(error),
                Err(HsmError::BlobRejected { .. }) => Comparison::Different,
                Err(error) if cannot(&error) => continue,
                Err(error) => return Err(error),
            },
        );
    }
    Ok(Comparison::Unknown)
}

/// The copy must show that it is the private half of the reference's public key, which is known to be the reference's own
/// ([`Token::with_pair`]). The reference itself need not do anything, and it would show nothing of the copy.
fn by_public_half(reference: Held<'_>, copy: Held<'_>) -> Result<Comparison, HsmError> {
    match &reference.key.public_key {
        Some(public) => owns(copy, public, reference.token),
        None => Ok(Comparison::Unknown),
    }
}

/// The private key signs, and the public key verifies.
fn by_signature(
    private: Held<'_>,
    public: &PublicKey,
    checker: &Token,
) -> Result<Comparison, HsmError> {
    let input = question()?;
    let Some(signature) = private.sign(&input)? else {
        return Ok(Comparison::Unknown);
    };
    Ok(match checker.verify_with(public, &input, &signature)? {
        Some(right) => outcome(right, Evidence::Signature),
        None => Comparison::Unknown,
    })
}

/// What is encrypted with the RSA public key must come out again with the private key.
fn by_decryption(
    private: Held<'_>,
    public: &PublicKey,
    checker: &Token,
) -> Result<Comparison, HsmError> {
    // A key that asks for its PIN at each use is not decrypted with: its signature tells as much.
    let can = matches!(private.key.key_type, KeyType::Rsa { .. })
        && private.key.flags.has(Flag::Decrypt)
        && !private.key.flags.has(Flag::AlwaysAuthenticate);
    if !can {
        return Ok(Comparison::Unknown);
    }
    let clear = question()?;
    let Some(ciphertext) = checker.encrypt_with(public, &clear)? else {
        return Ok(Comparison::Unknown);
    };
    let token = private.token;
    let found = token
        .connection
        .rsa_decrypt(token.handle_of(private.key)?, &ciphertext);
    match found {
        Ok(found) => Ok(outcome(found == clear, Evidence::Encryption)),
        Err(error) if cannot(&error) => Ok(Comparison::Unknown),
        Err(error) if token.connection.is_lost() => Err(error),
        Err(HsmError::Token { .. }) => Ok(Comparison::Different),
        Err(error) => Err(error),
    }
}

/// A throw-away P-256 key and the public key agree on a key, the private key and the throw-away public key on another; if the two
/// make the same MAC, they are one.
fn by_agreement(
    private: Held<'_>,
    public: &PublicKey,
    checker: &Token,
) -> Result<Comparison, HsmError> {
    let PublicNumbers::P256(point) = public.numbers() else {
        return Ok(Comparison::Unknown);
    };
    let may = private.key.key_type == KeyType::P256
        && private.key.flags.has(Flag::Derive)
        && !private.key.flags.has(Flag::AlwaysAuthenticate);
    if !may {
        return Ok(Comparison::Unknown);
    }
    let (ephemeral, ephemeral_point) = match checker.ephemeral_pair(Suite::EcdhP256Null) {
        Err(HsmError::SuiteRefused { .. }) => return Ok(Comparison::Unknown),
        result => result?,
    };
    let input = question()?;
    let mac = |token: &Token, key, peer: &[u8]| {
        let set = [
            Flag::Private,
            Flag::Destroyable,
            Flag::Sensitive,
            Flag::Sign,
        ];
        let flags = Flags::of(KeyClass::Secret, &set);
        let connection = &token.connection;
        let agreed = connection
            .derive_ecdh(key, peer, EcdhDerivation::Null, SESSION_LABEL, &flags)
            .and_then(|agreed| connection.sign(SignMechanism::Cmac, agreed.handle(), &input));
        possible(agreed)
    };
    let handle = private.token.handle_of(private.key)?;
    let theirs = mac(checker, ephemeral.handle(), point)?;
    let ours = mac(private.token, handle, &ephemeral_point)?;
    Ok(match (ours, theirs) {
        (Some(ours), Some(theirs)) => outcome(ours == theirs, Evidence::Agreement),
        _ => Comparison::Unknown,
    })
}

/// Public keys are compared as they are.
fn by_public_key(one: Held<'_>, other: Held<'_>) -> Result<Comparison, HsmError> {
    Ok(match (&one.key.public_key, &other.key.public_key) {
        (Some(one), Some(other)) => outcome(one == other, Evidence::Signature),
        _ => Comparison::Unknown,
    })
}

impl Held<'_> {
    /// A MAC or signature, if the key's attributes and the token's mechanisms allow it.
    fn sign(self, input: &[u8]) -> Result<Option<Vec<u8>>, HsmError> {
        match CheckAlgorithm::of(self.key.key_type) {
            Some(algorithm) if self.key.flags.has(Flag::Sign) => {
                possible(self.token.make_check(self.key, algorithm, input))
            }
            Some(_) | None => Ok(None),
        }
    }

    /// Whether a MAC is right, if the key's attributes and the token's mechanisms allow to say.
    fn verify(self, input: &[u8], value: &[u8]) -> Result<Option<bool>, HsmError> {
        match CheckAlgorithm::of(self.key.key_type) {
            Some(algorithm) if self.key.flags.has(Flag::Verify) => {
                match self.token.verify_check(self.key, algorithm, input, value) {
                    // A wrong MAC, in the words of NSS 3.87; or a failure. It cannot be told.
                    Err(HsmError::Token { code, .. }) if code == "CKR_DEVICE_ERROR" => Ok(None),
                    result => possible(result),
                }
            }
            Some(_) | None => Ok(None),
        }
    }

    /// One block through the cipher, if the key's attributes and the token's mechanisms allow it.
    fn block(self, direction: Direction, block: &[u8; 16]) -> Result<Option<[u8; 16]>, HsmError> {
        let flag = match direction {
            Direction::Encrypt => Flag::Encrypt,
            Direction::Decrypt => Flag::Decrypt,
        };
        if !matches!(self.key.key_type, KeyType::Aes { .. }) || !self.key.flags.has(flag) {
            return Ok(None);
        }
        let connection = &self.token.connection;
        let found =
            possible(connection.aes_block(self.token.handle_of(self.key)?, direction, block))?;
        Ok(found.and_then(|found| found.try_into().ok()))
    }
}

impl Token {
    /// Whether a signature is right, by the token and a public key; nothing if the token cannot say.
    fn verify_with(
        &self,
        public: &PublicKey,
        input: &[u8],
        signature: &[u8],
    ) -> Result<Option<bool>, HsmError> {
        let Some(algorithm) = CheckAlgorithm::of(public.key_type()) else {
            return Ok(None);
        };
        let flags = Flags::of(KeyClass::Public, &[Flag::Destroyable, Flag::Verify]);
        let connection = &self.connection;
        let Some(handle) = possible(connection.import_public(public, SESSION_LABEL, &[], &flags))?
        else {
            return Ok(None);
        };
        let public = connection.guard(handle);
        let (mechanism, data) = algorithm.question(input);
        possible(connection.verify(mechanism, public.handle(), &data, signature))
    }

    /// A ciphertext for the holder of an RSA private key; nothing if the token cannot make it.
    fn encrypt_with(&self, public: &PublicKey, clear: &[u8]) -> Result<Option<Vec<u8>>, HsmError> {
        let flags = Flags::of(KeyClass::Public, &[Flag::Destroyable, Flag::Encrypt]);
        let connection = &self.connection;
        let Some(handle) = possible(connection.import_public(public, SESSION_LABEL, &[], &flags))?
        else {
            return Ok(None);
        };
        let public = connection.guard(handle);
        possible(connection.rsa_encrypt(public.handle(), clear))
    }
}

/// Turns "this token cannot do that" into nothing.
fn possible<T>(result: Result<T, HsmError>) -> Result<Option<T>, HsmError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if cannot(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a token says that it, or the key, cannot do what was asked; as opposed to having failed to do it.
fn cannot(error: &HsmError) -> bool {
    matches!(
        error,
        HsmError::Token { code, .. } if matches!(
            code.as_str(),
            "CKR_MECHANISM_INVALID"
                | "CKR_MECHANISM_PARAM_INVALID"
                | "CKR_FUNCTION_NOT_SUPPORTED"
                | "CKR_KEY_FUNCTION_NOT_PERMITTED"
                | "CKR_KEY_TYPE_INCONSISTENT"
                | "CKR_KEY_SIZE_RANGE"
                | "CKR_ARGUMENTS_BAD"
        )
    )
}
