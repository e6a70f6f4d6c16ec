//! What the station asks of an HSM, in intent: list keys, make one, sign this order, wrap these keys for that device, check
//! this proof. Keys leave a token wrapped or not at all; no type here can hold a clear key.
//!
//! [`Token`] is the door. Only the folder `pkcs11` behind it speaks PKCS#11.

mod alive;
mod check;
mod derive;
mod error;
mod evidence;
mod kept;
mod key;
mod key_file;
mod ladder;
mod pairs;
mod pin;
mod pkcs11;
mod public_key;
mod registry;
mod token;
mod trial;
mod unwrap;
mod uri;
mod wrap;

pub use check::CheckAlgorithm;
pub use derive::{DeviceContext, Diversification, Diversified};
pub use error::HsmError;
pub use evidence::{Comparison, Evidence, Held, answers, compare, is_pair};
pub use kept::Kept;
pub use key::{Flag, Flags, KeyClass, KeyInfo, KeyType, KeyUsage, NewKey};
pub use key_file::MAXIMUM_KEY_FILE;
pub use ladder::{Asked, DeviceUse, Question};
pub(crate) use pin::check_owner_only;
pub use pin::{Credentials, PIN_VARIABLE, PinError, PinSource};
pub use pkcs11::{PinState, TokenInfo, Versions};
pub use public_key::{MINIMUM_RSA_BITS, PublicKey, PublicKeyError, PublicNumbers};
pub use token::{Token, random, tokens};
pub use trial::{Difference, Fact, Finding, Profile, Quirk, Verdict, Warning};
pub use unwrap::{KeyDraft, MAXIMUM_BLOB, OpenKek, SessionKey};
pub use uri::{KeySpec, SpecError, TokenSpec, is_uri, parse};
pub use wrap::WrappedKeys;
