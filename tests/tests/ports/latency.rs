//! The latency timer of USB adapters, on a sysfs that the test makes.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use keyferry::device::port::{lower, open_telling};

use super::terminal;

/// A sysfs with this adapter, and where its timer stands.
fn sysfs(device: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let adapter = folder.path().join("bus/usb-serial/devices").join(device);
    fs::create_dir_all(&adapter).unwrap();
    let timer = adapter.join("latency_timer");
    (folder, timer)
}

#[test]
fn a_timer_is_lowered() {
    let (sysfs, timer) = sysfs("ttyUSB7");
    for before in ["16\n", "255\n", "2"] {
        fs::write(&timer, before).unwrap();
        lower(sysfs.path(), Path::new("/dev/ttyUSB7")).unwrap();
        assert_eq!(fs::read_to_string(&timer).unwrap(), "1");
    }
}

#[test]
fn a_timer_is_found_through_a_stable_name() {
    let (sysfs, timer) = sysfs("ttyUSB7");
    fs::write(&timer, "16\n").unwrap();
    let device = sysfs.path().join("ttyUSB7");
    fs::write(&device, "").unwrap();
    let stable = sysfs.path().join("usb-FTDI_FT232R-if00-port0");
    symlink(&device, &stable).unwrap();
    lower(sysfs.path(), &stable).unwrap();
    assert_eq!(fs::read_to_string(&timer).unwrap(), "1");
}

#[test]
fn a_low_timer_is_left_alone() {
    let (sysfs, timer) = sysfs("ttyUSB7");
    for low in ["1\n", "0\n"] {
        fs::write(&timer, low).unwrap();
        lower(sysfs.path(), Path::new("/dev/ttyUSB7")).unwrap();
        assert_eq!(fs::read_to_string(&timer).unwrap(), low);
    }
}

#[test]
fn what_has_no_timer_gets_none() {
    let (sysfs, timer) = sysfs("ttyUSB7");
    for port in [
        "/dev/ttyUSB7",
        "/dev/ttyACM0",
        "/dev/pts/3",
        "/dev/ttyS0",
        "COM3",
    ] {
        lower(sysfs.path(), Path::new(port)).unwrap();
    }
    assert!(!timer.exists());
}

#[test]
fn a_timer_that_cannot_be_read_is_told() {
    let (sysfs, timer) = sysfs("ttyUSB7");
    fs::create_dir(&timer).unwrap();
    let slow = lower(sysfs.path(), Path::new("/dev/ttyUSB7")).unwrap_err();
    assert_eq!(slow.milliseconds, None);
    assert!(slow.to_string().contains("ttyUSB7"), "{slow}");
}

/// Opening a port tells once, and the port works.
#[cfg(target_os = "linux")]
#[test]
fn a_timer_that_cannot_be_written_is_told_with_the_next_move() {
    let (_device, path, _held) = terminal();
    let name = path.strip_prefix("/dev/pts/").unwrap();
    let (sysfs, timer) = sysfs(name);
    // A number that even root cannot change.
    let fixed = "/proc/sys/kernel/ngroups_max";
    let before = fs::read_to_string(fixed).unwrap();
    symlink(fixed, &timer).unwrap();
    let mut told = Vec::new();
    let mut port = open_telling(&path, sysfs.path(), &mut |slow| told.push(slow)).unwrap();
    let [slow] = &told[..] else {
        panic!("told {} times", told.len());
    };
    assert_eq!(slow.device, name);
    assert_eq!(slow.milliseconds, before.trim().parse().ok());
    let hint = slow.hint();
    assert!(
        hint.contains("setserial") && hint.contains("udev"),
        "{hint}"
    );
    assert_eq!(fs::read_to_string(fixed).unwrap(), before);
    assert_eq!(port.write(b"it works").unwrap(), 8);
}
