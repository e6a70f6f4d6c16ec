//! What is special about the board `native`: many devices in one process, a device that costs nothing while nobody asks it, its files.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::thread;

use keyferry::device::DeviceError;
use keyferry::device::flow;
use keyferry::device::session::Session;
use keyferry::device::verify::Statement;
use keyferry_native::{Device, LineKind, NativeError, Settings};
use keyferry_protocol::identity::Challenge;
use keyferry_protocol::receipt::{SourceClass, State};
use keyferry_protocol::suite::UnwrapAlgorithm;
use keyferry_tests::board::open_again;
use keyferry_tests::software::{SoftAuthority, aes_key, proof_is_right, wrap};

/// The files of a device with this number.
fn settings(folder: &Path, number: u8) -> Settings {
    let flash = folder.join(format!("flash-{number}"));
    if !flash.exists() {
        fs::write(&flash, vec![0xff; 128 * 1024]).unwrap();
    }
    let fuse = folder.join(format!("fuse-{number}"));
    fs::write(&fuse, [number; 32]).unwrap();
    let words = [format!("id={number:x}"), format!("fuse={}", fuse.display())];
    Settings::new(flash, LineKind::Tcp(0)).with(&[&words[0], &words[1]])
}

fn session(device: &Device) -> Session {
    Session::open(open_again(device.port())).unwrap()
}

fn enroll(session: &mut Session, authority: &SoftAuthority) -> Result<Statement, DeviceError> {
    let (kind, nonce) = (UnwrapAlgorithm::P256, Challenge([9; 32]));
    flow::enroll(session, authority, kind, nonce, &mut |_| {})
}

/// Injects one key.
fn inject(session: &mut Session, authority: &SoftAuthority, statement: &Statement) -> bool {
    let key = aes_key(16, 1);
    let shipment = wrap(statement, std::slice::from_ref(&key), 1);
    let challenge = Challenge([3; 32]);
    flow::inject(
        session,
        authority,
        statement,
        &shipment,
        challenge,
        &mut |_| {},
    )
    .is_ok_and(|proofs| proof_is_right(&key, &proofs.reports[0], &proofs.order, &proofs.challenge))
}

#[test]
fn many_devices_in_one_process_share_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let authority = SoftAuthority::new(0);
    let devices: Vec<Device> = (1..=16)
        .map(|number| Device::start(settings(folder.path(), number)).unwrap())
        .collect();
    let mut sessions: Vec<Session> = devices.iter().map(session).collect();
    let statements: Vec<Statement> = sessions
        .iter_mut()
        .map(|session| enroll(session, &authority).unwrap())
        .collect();
    for (number, statement) in (1..).zip(&statements) {
        assert_eq!(statement.device.0[15], number);
        assert_eq!(statement.rng, SourceClass::Test);
        assert_eq!(statement.root_key, SourceClass::Test);
    }
    let keys: HashSet<_> = statements.iter().map(|one| &one.identity_key).collect();
    assert_eq!(keys.len(), devices.len());

    // One is reset: its station notices, and orders anew. The others do not.
    devices[0].reset_button().press();
    for (session, statement) in sessions.iter_mut().zip(&statements) {
        assert!(inject(session, &authority, statement));
    }
    drop(sessions);

    // All at once.
    thread::scope(|scope| {
        for (device, before) in devices.iter().zip(&statements) {
            let authority = &authority;
            scope.spawn(move || {
                let mut session = session(device);
                let statement = enroll(&mut session, authority).unwrap();
                assert_eq!(statement.identity_key, before.identity_key);
                assert_eq!(flow::list(&mut session).unwrap().len(), 1);
                // The slot is taken.
                assert!(!inject(&mut session, authority, &statement));
            });
        }
    });
}

#[test]
fn a_flash_file_is_for_one_device_at_a_time_and_of_one_length() {
    let folder = tempfile::tempdir().unwrap();
    let one = Device::start(settings(folder.path(), 1)).unwrap();
    let error = Device::start(settings(folder.path(), 1)).err().unwrap();
    assert!(error.to_string().contains("already runs"), "{error}");
    assert_eq!(error.hint(), Some("stop that device, or use another file"));
    assert_eq!(session(&one).greeting().state, State::Blank);

    fs::write(folder.path().join("flash-2"), b"short").unwrap();
    let error = Device::start(settings(folder.path(), 2)).err().unwrap();
    assert!(error.to_string().contains("is 5 bytes long"), "{error}");
    let missing = Settings::new(folder.path().join("none"), LineKind::Tcp(0));
    let error = Device::start(missing).err().unwrap();
    assert!(matches!(error, NativeError::Flash(_)) && error.hint().is_some());
}

/// Whoever comes while another station is there waits, and is let in when that one has gone.
#[test]
fn one_station_after_the_other_has_the_device() {
    let folder = tempfile::tempdir().unwrap();
    let device = Device::start(settings(folder.path(), 3)).unwrap();
    for _ in 0..10 {
        let mut first = session(&device);
        thread::scope(|scope| {
            let next = scope.spawn(|| session(&device).greeting().state);
            for _ in 0..5 {
                assert!(flow::list(&mut first).unwrap().is_empty());
            }
            drop(first);
            assert_eq!(next.join().unwrap(), State::Blank);
        });
    }
}

#[cfg(target_os = "linux")]
mod idle {
    use std::io::Write as _;
    use std::time::Duration;

    use keyferry_tests::board::{Board, Image, Rig};

    use super::*;

    /// Processor time that the process has taken, in hundredths of a second (proc(5): fields 14 and 15 of `stat`).
    fn ticks(process: u32) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
        let (_, fields) = stat.rsplit_once(')').unwrap();
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let field = |number: usize| fields[number - 3].parse::<u64>().unwrap();
        field(14) + field(15)
    }

    /// What it takes in a second. A core that spins takes a hundred, on a busy machine some tens.
    fn taken_in_a_second(process: u32) -> u64 {
        let before = ticks(process);
        thread::sleep(Duration::from_secs(1));
        ticks(process) - before
    }

    #[test]
    fn a_device_takes_no_time_while_nobody_asks_it() {
        let mut rig = Rig::start_on(Board::Native, Image::Default, 91);
        let process = rig.process_id();
        assert!(taken_in_a_second(process) <= 3, "before the first station");
        let mut session = rig.session();
        assert!(flow::list(&mut session).unwrap().is_empty());
        assert!(taken_in_a_second(process) <= 3, "with a silent station");
        drop(session);
        assert!(taken_in_a_second(process) <= 3, "after it");
        rig.reset();
        assert_eq!(rig.session().greeting().state, State::Blank);
        assert_eq!(rig.process_id(), process);
    }

    /// Somebody asks and asks, and never reads: what the device has to say finds no room any more.
    #[test]
    fn a_device_takes_little_time_while_the_other_end_takes_nothing() {
        let rig = Rig::start_on(Board::Native, Image::Default, 92);
        drop(rig.session());
        let greeting = rig.wire().down;
        let mut options = fs::OpenOptions::new();
        let mut terminal = options.read(true).write(true).open(rig.port()).unwrap();
        for _ in 0..1_000 {
            terminal.write_all(&greeting).unwrap();
        }
        thread::sleep(Duration::from_secs(1));
        let taken = taken_in_a_second(rig.process_id());
        assert!(taken <= 20, "{taken} hundredths of a second");
        // Whoever reads finds the device well.
        drop(terminal);
        assert_eq!(rig.session().greeting().state, State::Blank);
    }
}
