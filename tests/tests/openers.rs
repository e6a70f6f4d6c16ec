//! The two independent openers and the maker of blobs agree with each other, and refuse what they should: what other tests
//! conclude from them rests on this.

use keyferry::hsm::KeyType;
use keyferry_protocol::suite::Suite;
use keyferry_tests::openssl::{
    Private, cut_at_der_length, make_blob, make_key, make_p256, make_rsa, open_blob, pkcs8,
    public_of,
};
use keyferry_tests::strict::{PrivateKey, Tail, open_private, open_secret};
use keyferry_tests::tokens::Scratch;

/// Suites, with a recipient's private and public key file.
fn recipients(scratch: &Scratch) -> Vec<(Suite, String, String)> {
    let (rsa, rsa_public) = make_rsa(scratch, "rsa-recipient", 2048);
    let (large, large_public) = make_rsa(scratch, "large-recipient", 3072);
    let (ec, ec_public) = make_p256(scratch, "ec-recipient");
    vec![
        (Suite::RsaOaepSha1, rsa.clone(), rsa_public.clone()),
        (Suite::RsaOaepSha256, rsa, rsa_public),
        (Suite::RsaOaepSha256, large, large_public),
        (Suite::EcdhP256X963Sha256, ec.clone(), ec_public.clone()),
        (Suite::EcdhP256Null, ec, ec_public),
    ]
}

#[test]
fn secrets_come_out_as_they_went_in() {
    let scratch = Scratch::with(&[]);
    for (suite, private, public) in recipients(&scratch) {
        for length in [16, 20, 24, 32, 64] {
            let secret: Vec<u8> = (0..length).collect();
            let blob = make_blob(&scratch, suite, &public, &secret);
            assert_eq!(open_blob(&scratch, suite, &private, &blob), secret);
            assert_eq!(open_secret(suite, &private, &blob).as_ref(), Ok(&secret));
        }
    }
}

#[test]
fn private_keys_of_every_type_come_out_as_they_went_in() {
    let scratch = Scratch::with(&[]);
    let curve = |name| ["-algorithm", "EC", "-pkeyopt", name];
    let size = |name| ["-algorithm", "RSA", "-pkeyopt", name];
    let keys: [(KeyType, &[&str]); 5] = [
        (KeyType::P256, &curve("ec_paramgen_curve:P-256")),
        (KeyType::P384, &curve("ec_paramgen_curve:P-384")),
        (KeyType::Ed25519, &["-algorithm", "ED25519"]),
        (KeyType::Rsa { bits: 2048 }, &size("rsa_keygen_bits:2048")),
        (KeyType::Rsa { bits: 4096 }, &size("rsa_keygen_bits:4096")),
    ];
    let recipients = recipients(&scratch);
    for (key_type, algorithm) in keys {
        let (file, _) = make_key(&scratch, "key", algorithm);
        let clear = pkcs8(&file);
        let expected = Ok(PrivateKey {
            key_type,
            spki: public_of(Private::File(&file)),
        });
        for (suite, private, public) in &recipients {
            let blob = make_blob(&scratch, *suite, public, &clear);
            let opened = open_blob(&scratch, *suite, private, &blob);
            assert_eq!(opened, clear);
            let spki = public_of(Private::Pkcs8(&opened));
            assert_eq!(Some(&spki), expected.as_ref().ok().map(|key| &key.spki));
            let strict = open_private(*suite, private, &blob, Tail::Refuse);
            assert_eq!(strict, expected, "{key_type} {suite}");
        }
    }
}

#[test]
fn a_tail_is_refused_or_cut() {
    let scratch = Scratch::with(&[]);
    let (private, public) = make_rsa(&scratch, "recipient", 2048);
    let suite = Suite::RsaOaepSha256;
    let (key, _) = make_p256(&scratch, "key");
    let clear = pkcs8(&key);
    let open = |tail: &[u8], what| {
        let blob = make_blob(&scratch, suite, &public, &[&clear[..], tail].concat());
        open_private(suite, &private, &blob, what)
    };
    let key = open(&[], Tail::Refuse).unwrap();
    for zeros in 1..8 {
        let tail = &[0; 8][..zeros];
        let refused = open(tail, Tail::Refuse).unwrap_err();
        assert_eq!(refused, format!("{zeros} bytes follow the DER SEQUENCE"),);
        assert_eq!(open(tail, Tail::Cut).as_ref(), Ok(&key));
        assert_eq!(cut_at_der_length(&[&clear, tail].concat()), clear);
    }
    for tail in [&[0; 8][..], b"junk", &[0, 0, 1]] {
        let refused = open(tail, Tail::Cut).unwrap_err();
        assert_eq!(refused, "what follows the DER SEQUENCE is no filling");
    }
}

#[test]
fn altered_blobs_and_wrong_recipients_are_refused() {
    let scratch = Scratch::with(&[]);
    for (suite, private, public) in recipients(&scratch) {
        let blob = make_blob(&scratch, suite, &public, &[7; 32]);
        let end = blob.len() - 1;
        // In the KEK's part, in the key's part.
        for position in [10, end] {
            let mut altered = blob.clone();
            altered[position] ^= 1;
            assert!(open_secret(suite, &private, &altered).is_err());
        }
        assert!(open_secret(suite, &private, &blob[..end]).is_err());
        assert!(open_private(suite, &private, &blob, Tail::Cut).is_err());
    }
    let (_, public) = make_rsa(&scratch, "one", 2048);
    let (other, _) = make_rsa(&scratch, "another", 2048);
    let blob = make_blob(&scratch, Suite::RsaOaepSha1, &public, &[7; 32]);
    for suite in [Suite::RsaOaepSha1, Suite::RsaOaepSha256] {
        assert!(open_secret(suite, &other, &blob).is_err());
    }
}
