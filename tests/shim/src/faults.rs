//! What goes wrong, and when. Calls that name a session are counted, from 1; the faults are given in the environment.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use cryptoki_sys::{
    CK_FLAGS, CK_MECHANISM_TYPE, CK_RV, CKF_PROTECTED_AUTHENTICATION_PATH, CKF_USER_PIN_COUNT_LOW,
    CKF_USER_PIN_FINAL_TRY, CKF_USER_PIN_LOCKED, CKF_WRITE_PROTECTED, CKR_DEVICE_REMOVED,
    CKR_MECHANISM_INVALID,
};

use crate::real;

/// The faults, separated by blanks; see [`Faults::parse`].
const FAULTS: &str = "KEYFERRY_SHIM_FAULTS";
/// A file that gets a line with the function's name for each call that is counted.
const CALLS: &str = "KEYFERRY_SHIM_CALLS";

/// A file: at the first call after it was made, all sessions are closed, and it is removed.
const LOSE: &str = "KEYFERRY_SHIM_LOSE";

/// What was asked for.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    lose_at: Vec<usize>,
    log_out_at: Vec<usize>,
    remove_at: Option<usize>,
    replace_at: Option<usize>,
    latency: Duration,
    pub(crate) sessions: Option<usize>,
    pub(crate) pin_pad: bool,
    pub(crate) write_protected: bool,
    pub(crate) unwraps_another: bool,
    pub(crate) renumbers: bool,
    pub(crate) verifies_no_mac: bool,
    without: Vec<CK_MECHANISM_TYPE>,
}

/// Held for reading by each call that the real module is at, for writing while sessions are taken away: SoftHSM frees a session that is
/// closed under a call of another thread, and a connection that breaks does no such thing.
static CALLING: RwLock<()> = RwLock::new(());

/// A call that the real module is at.
pub(crate) type Calling = RwLockReadGuard<'static, ()>;

static CALL: AtomicUsize = AtomicUsize::new(0);
static REMOVED: AtomicBool = AtomicBool::new(false);
static REPLACED: AtomicBool = AtomicBool::new(false);
/// Wrong PINs: 0 none, 1 at least one, 2 one try is left, 3 locked.
static WRONG_PINS: AtomicU8 = AtomicU8::new(0);

/// The faults of this process.
pub(crate) fn faults() -> &'static Faults {
    static FOUND: OnceLock<Faults> = OnceLock::new();
    FOUND.get_or_init(|| Faults::parse(&std::env::var(FAULTS).unwrap_or_default()))
}

impl Faults {
    /// - `lose-sessions-at=N`: at call N, all sessions are closed, as when a connection breaks;
    /// - `log-out-at=N`: at call N, the token forgets the login;
    /// - `remove-at=N`: from call N on, the token is not there;
    /// - `replace-at=N`: from call N on, another token is in its place;
    /// - `latency-ms=N`: each call takes so many milliseconds longer, as with an HSM on a network. Calls of several threads wait side by
    ///   side, as an HSM serves its sessions side by side;
    /// - `sessions=N`: there are no more sessions than N;
    /// - `wrong-pins=N`: 1 some tries were used, 2 one is left, 3 none;
    /// - `pin-pad`: the PIN is entered at the token, and is `KEYFERRY_SHIM_PIN`;
    /// - `write-protected`: the token cannot be changed;
    /// - `unwraps-another`: what comes out of a wrapped elliptic-curve key is a new key;
    /// - `verifies-no-mac`: no MAC is right;
    /// - `renumbers`: sessions get the lowest numbers that are free, as from a server that starts anew; those of SoftHSM never come again;
    /// - `without=0xID`: a mechanism is missing.
    fn parse(text: &str) -> Self {
        let mut faults = Self::default();
        for word in text.split_whitespace() {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            let number = match value.strip_prefix("0x") {
                Some(digits) => usize::from_str_radix(digits, 16).ok(),
                None => value.parse().ok(),
            };
            match (name, number) {
                ("lose-sessions-at", Some(call)) => faults.lose_at.push(call),
                ("log-out-at", Some(call)) => faults.log_out_at.push(call),
                ("remove-at", Some(call)) => faults.remove_at = Some(call),
                ("replace-at", Some(call)) => faults.replace_at = Some(call),
                ("latency-ms", Some(millis)) => {
                    faults.latency = Duration::from_millis(millis as u64);
                }
                ("sessions", Some(limit)) => faults.sessions = Some(limit),
                ("wrong-pins", Some(count @ 0..=3)) => {
                    WRONG_PINS.store(count as u8, Ordering::SeqCst);
                }
                ("pin-pad", None) => faults.pin_pad = true,
                ("write-protected", None) => faults.write_protected = true,
                ("unwraps-another", None) => faults.unwraps_another = true,
                ("verifies-no-mac", None) => faults.verifies_no_mac = true,
                ("renumbers", None) => faults.renumbers = true,
                ("without", Some(id)) => faults.without.push(id as CK_MECHANISM_TYPE),
                // A test with a slip of the pen must not pass.
                _ => {
                    eprintln!("keyferry-shim: unknown fault '{word}'");
                    std::process::exit(101);
                }
            }
        }
        faults
    }

    /// The flags that the token shows beside its own.
    pub(crate) fn flags(&self) -> CK_FLAGS {
        let mut flags = match WRONG_PINS.load(Ordering::SeqCst) {
            0 => 0,
            1 => CKF_USER_PIN_COUNT_LOW,
            2 => CKF_USER_PIN_COUNT_LOW | CKF_USER_PIN_FINAL_TRY,
            _ => CKF_USER_PIN_LOCKED,
        };
        if self.pin_pad {
            flags |= CKF_PROTECTED_AUTHENTICATION_PATH;
        }
        if self.write_protected {
            flags |= CKF_WRITE_PROTECTED;
        }
        flags
    }

    /// Whether anything is to happen at a call.
    fn strike_at(&self, call: usize) -> bool {
        self.lose_at.contains(&call)
            || self.log_out_at.contains(&call)
            || [self.replace_at, self.remove_at].contains(&Some(call))
    }

    /// Lets it happen.
    fn strike(&self, call: usize) {
        if self.lose_at.contains(&call) {
            real::close_all();
        }
        if self.log_out_at.contains(&call) {
            real::log_out();
        }
        if self.replace_at == Some(call) {
            real::close_all();
            REPLACED.store(true, Ordering::SeqCst);
        }
        if self.remove_at == Some(call) {
            real::close_all();
            REMOVED.store(true, Ordering::SeqCst);
        }
    }

    /// Whether the token lacks a mechanism.
    pub(crate) fn lacks(&self, mechanism: CK_MECHANISM_TYPE) -> bool {
        self.without.contains(&mechanism)
    }
}

/// Whether the token is not there any more.
pub(crate) fn is_removed() -> bool {
    REMOVED.load(Ordering::SeqCst)
}

/// Whether another token is in the place of the real one.
pub(crate) fn is_replaced() -> bool {
    REPLACED.load(Ordering::SeqCst)
}

/// Whether too many wrong PINs were given.
pub(crate) fn is_locked() -> bool {
    WRONG_PINS.load(Ordering::SeqCst) >= 3
}

/// Takes note of a PIN that was right or wrong.
pub(crate) fn note_pin(right: bool) {
    let _ = WRONG_PINS.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |count| {
        Some(if right { 0 } else { (count + 1).min(3) })
    });
}

/// Counts a call, and lets happen what is to happen at it. An error is the call's answer; the other threads' faults wait until what is given
/// back is dropped.
pub(crate) fn before(name: &str) -> Result<Calling, CK_RV> {
    let call = CALL.fetch_add(1, Ordering::SeqCst) + 1;
    if let Some(path) = std::env::var_os(CALLS) {
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path);
        // In one write: threads must not mix their lines.
        let line = format!("{name}\n");
        if file
            .and_then(|mut file| file.write_all(line.as_bytes()))
            .is_err()
        {
            eprintln!("keyferry-shim: the file that {CALLS} names cannot be written");
            std::process::exit(101);
        }
    }
    if std::env::var_os(LOSE).is_some_and(|file| std::fs::remove_file(file).is_ok()) {
        let _alone = CALLING.write().unwrap_or_else(PoisonError::into_inner);
        real::close_all();
    }
    let faults = faults();
    // Nothing is locked here.
    std::thread::sleep(faults.latency);
    if faults.strike_at(call) {
        let _alone = CALLING.write().unwrap_or_else(PoisonError::into_inner);
        faults.strike(call);
    }
    if is_removed() {
        Err(CKR_DEVICE_REMOVED)
    } else {
        Ok(CALLING.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// As [`before`], for a call that names a mechanism.
pub(crate) fn before_mechanism(name: &str, mechanism: CK_MECHANISM_TYPE) -> Result<Calling, CK_RV> {
    let calling = before(name)?;
    if faults().lacks(mechanism) {
        return Err(CKR_MECHANISM_INVALID);
    }
    Ok(calling)
}
