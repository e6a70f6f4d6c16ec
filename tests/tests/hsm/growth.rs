//! A line runs for months: what is done for one device leaves nothing behind, neither in the process nor on the token.

use keyferry::hsm::{KeyInfo, KeyType, NewKey, PublicKey, Token, parse};
use keyferry_protocol::suite::Suite;
use keyferry_tests::tokens::{Kind, Scratch, in_own_process_with};

use crate::{MESSAGE, key, open};

/// So many wraps, under RSA and ECDH.
const WRAPS: usize = 10_000;
/// So many before the first look: until then caches and heaps fill.
const WARM_UP: usize = 1_000;
/// One in so many is an ECDH one, which takes a token longer.
const ECDH: usize = 10;
/// One in so many is done in a session of its own.
const OWN_SESSION: usize = 99;
/// The memory that may come in the meantime, in bytes: less than two words a wrap.
///
/// SoftHSM 2.6.1 keeps something of every session object until it is finalised (`SessionObjectStore`): with the bare calls
/// alone it grows by 480 bytes a wrap under RSA and 720 under ECDH. The same code of ours runs on all three.
#[cfg(target_os = "linux")]
const fn growth(kind: Kind) -> usize {
    match kind {
        Kind::SoftHsm => 600 * (WRAPS - WARM_UP),
        Kind::Nss | Kind::Kryoptic => 128 * 1024,
    }
}

/// What could grow.
#[derive(Debug, PartialEq, Eq)]
struct Standing {
    /// Objects that live in sessions of this process.
    objects: usize,
    /// Open sessions of this process. NSS counts them; SoftHSM 2.6.1 says nothing, and kryoptic 1.5.4 always zero.
    sessions: Option<usize>,
    /// Objects on the token.
    keys: usize,
}

fn standing(scratch: &Scratch, token: &Token) -> Standing {
    let (spec, _) = parse(&scratch.uri()).unwrap();
    Standing {
        objects: token.session_objects().unwrap(),
        sessions: Token::find(&spec).unwrap().sessions,
        keys: token.keys().unwrap().len(),
    }
}

/// The memory that this process has written to, in bytes, in RAM or swapped out. Pages of files are not counted: the system drops and
/// brings them as it likes.
#[cfg(target_os = "linux")]
fn written() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let kilobytes = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name));
        let number = line.and_then(|line| line.split_whitespace().nth(1));
        number.unwrap().parse::<usize>().unwrap()
    };
    (kilobytes("RssAnon:") + kilobytes("VmSwap:")) * 1024
}

/// One device: a key is wrapped for it and its order is signed.
fn serve(
    token: &Token,
    recipient: &PublicKey,
    suite: Suite,
    target: &KeyInfo,
    authority: &KeyInfo,
) {
    let wrapped = token.wrap_for(recipient, suite, &[target]).unwrap();
    assert_eq!(wrapped.blobs.len(), 1);
    token.sign_p256(authority, MESSAGE).unwrap();
}

fn nothing_grows(kind: Kind, scratch: &Scratch) {
    let token = open(scratch);
    let create = |key: &NewKey| token.create_key(key).unwrap();
    create(&NewKey::target("target", KeyType::Aes { bits: 256 }));
    create(&NewKey::authority("authority"));
    let recipient = |label: &str, key_type| {
        let made = create(&NewKey::target(label, key_type));
        made.public_key().unwrap().clone()
    };
    let rsa = recipient("rsa device", KeyType::Rsa { bits: 2048 });
    let ec = recipient("ec device", KeyType::P256);
    let (target, authority) = (key(&token, "target"), key(&token, "authority"));
    let round = |number: usize| {
        let (recipient, suite) = if number.is_multiple_of(ECDH) {
            (&ec, Suite::EcdhP256Null)
        } else {
            (&rsa, Suite::RsaOaepSha1)
        };
        if number.is_multiple_of(OWN_SESSION) {
            let own = token.another_session().unwrap();
            serve(&own, recipient, suite, &target, &authority);
        } else {
            serve(&token, recipient, suite, &target, &authority);
        }
    };
    (0..WARM_UP).for_each(round);
    let before = standing(scratch, &token);
    #[cfg(target_os = "linux")]
    let written_before = written();
    (WARM_UP..WRAPS).for_each(round);
    #[cfg(target_os = "linux")]
    {
        let now = written();
        assert!(
            now <= written_before + growth(kind),
            "{written_before} bytes of memory became {now}"
        );
    }
    assert_eq!(before.objects, 0);
    assert!(kind != Kind::Nss || before.sessions.is_some_and(|count| count > 0));
    assert_eq!(standing(scratch, &token), before);
}

#[test]
fn ten_thousand_wraps_leave_nothing_behind() {
    for kind in Kind::ALL {
        in_own_process_with(
            "growth::ten_thousand_wraps_leave_nothing_behind",
            &[(kind, "line")],
            |scratch| nothing_grows(kind, scratch),
        );
    }
}
