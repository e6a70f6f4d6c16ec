//! Recordings that are cut, garbled, or made to do harm.

use std::fs;
use std::path::Path;

use chacha20::ChaCha20Rng;
use keyferry::device::capture::{CaptureError, Decoder, Item, Recording};
use keyferry::device::session::Session;
use keyferry_tests::command::{self, Answer};
use keyferry_tests::desk::{Desk, OnDesk};
use rand_core::{Rng, SeedableRng};

use super::recorded;

const HEADING: &str = r#"{"keyferry-capture":1,"port":"p","started":"s"}"#;

/// Reads all that can be read; how many items, and why it ended.
fn read(path: &Path) -> (usize, Option<CaptureError>) {
    let recording = match Recording::open(path) {
        Ok(recording) => recording,
        Err(error) => return (0, Some(error)),
    };
    let mut decoder = Decoder::new();
    let mut count = 0;
    for record in recording {
        match record {
            Ok(record) => count += decoder.take(record).len(),
            Err(error) => return (count, Some(error)),
        }
    }
    (count, None)
}

/// A greeting, recorded.
fn greeting(folder: &Path) -> Vec<u8> {
    let device = OnDesk::start(Desk::new(5, 64));
    let (port, path) = recorded(device.port(), folder, "greeting");
    drop(Session::open(port).unwrap());
    fs::read(path).unwrap()
}

#[test]
fn a_recording_cut_anywhere_is_read_as_far_as_it_goes() {
    let folder = tempfile::tempdir().unwrap();
    let whole = greeting(folder.path());
    let path = folder.path().join("cut");
    let first = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let mut before = 0;
    for length in 0..=whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        let (count, error) = read(&path);
        if length < first {
            assert!(matches!(error, Some(CaptureError::NotOne { .. })));
        } else {
            assert!(error.is_none(), "{length}: {error:?}");
        }
        assert!(count >= before);
        before = count;
    }
    assert!(before > 3);
}

#[test]
fn a_damaged_line_is_named_and_what_stands_before_it_shown() {
    let folder = tempfile::tempdir().unwrap();
    let mut whole = greeting(folder.path());
    let lines = whole.iter().filter(|byte| **byte == b'\n').count();
    let path = folder.path().join("damaged");
    for line in [
        "garbage",
        "{}",
        "[]",
        r#"{"ms":1}"#,
        r#"{"ms":-1,"baud":9600}"#,
        r#"{"ms":1,"to":"device"}"#,
        r#"{"ms":1,"to":"nobody","hex":"00"}"#,
        r#"{"ms":1,"to":"device","hex":"0"}"#,
        r#"{"ms":1,"to":"device","hex":"zz"}"#,
        r#"{"ms":1,"to":"device","hex":"00","baud":9600}"#,
        r#"{"ms":1,"pin":"1234"}"#,
    ] {
        fs::write(&path, [&whole[..], line.as_bytes(), b"\n"].concat()).unwrap();
        let answer = Answer::of(
            command::keyferry()
                .args(["--json", "line", "decode"])
                .arg(&path),
        );
        assert_eq!(answer.code, 1, "{line}: {answer:?}");
        let error = answer.last()["error"].as_str().unwrap().to_owned();
        assert!(error.contains(&format!("line {} of", lines + 1)), "{error}");
        assert!(answer.stdout.contains("\"hello\""), "{answer:?}");
    }
    // Longer than any line of a recording, and no end of it: it is not read to the end.
    whole.extend(vec![b'0'; 100_000]);
    fs::write(&path, &whole).unwrap();
    assert!(matches!(read(&path).1, Some(CaptureError::Line { .. })));
    let endless = fs::File::create(folder.path().join("endless")).unwrap();
    endless.set_len(1 << 40).unwrap();
    let (_, error) = read(&folder.path().join("endless"));
    assert!(matches!(error, Some(CaptureError::NotOne { .. })));
}

#[test]
fn any_bytes_on_the_line_are_taken() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("noise");
    for seed in 0..50 {
        let mut random = ChaCha20Rng::seed_from_u64(seed);
        let mut text = HEADING.to_owned();
        for ms in 0..40 {
            let mut bytes = vec![0; random.next_u32() as usize % 4096];
            random.fill_bytes(&mut bytes);
            // Some noise has an end early, some has none.
            if seed % 2 == 0 {
                bytes.iter_mut().for_each(|byte| *byte &= 0x0f);
            }
            let to = if random.next_u32() % 2 == 0 {
                "device"
            } else {
                "station"
            };
            text.push_str(&format!(
                "\n{{\"ms\":{ms},\"to\":\"{to}\",\"hex\":\"{}\"}}",
                hex::encode(bytes)
            ));
        }
        text.push('\n');
        fs::write(&path, text).unwrap();
        let (_, error) = read(&path);
        assert!(error.is_none(), "{error:?}");
    }
}

#[test]
fn text_of_a_bootloader_is_shown_as_such_and_cannot_speak_to_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("boot");
    let chatter = b"U-Boot 2031.04\r\n\x1b[2Jany key\0";
    fs::write(
        &path,
        format!(
            "{HEADING}\n{{\"ms\":1234,\"to\":\"station\",\"hex\":\"{}\"}}\n",
            hex::encode(chatter)
        ),
    )
    .unwrap();
    let found = super::items(&path);
    let [Item::Damaged { length, start, .. }] = &found[..] else {
        panic!("{found:?}");
    };
    assert_eq!(*length, chatter.len() - 1);
    assert_eq!(start[..], chatter[..start.len()]);
    let answer = Answer::of(command::keyferry().args(["line", "decode"]).arg(&path));
    assert_eq!(answer.code, 0);
    assert!(
        answer.stdout.contains("|U-Boot 2031.04...[2Jany key|"),
        "{answer:?}"
    );
    assert!(answer.stdout.contains("  1.234  < station"), "{answer:?}");
    assert!(!answer.stdout.contains('\x1b'));
}
