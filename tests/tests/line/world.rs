//! A device at the end of the line, and the station's port: rings, resets, rates, time.

use std::io;

use keyferry::device::DeviceError;
use keyferry::device::session::Session;
use keyferry_firmware::device::{Device, Work};
use keyferry_protocol::link::Millis;
use keyferry_tests::desk::Desk;
use keyferry_tests::line::{
    Board, Fault, MILLISECOND, Machine, Nanos, Planned, Priced, Settings, Trigger, Ways, World,
    character_time,
};

/// Sends back what it gets, in upper case; what it is told makes it wait, compute, or change its rate.
#[derive(Default)]
struct Echo {
    starts: u32,
    waiting: Vec<u8>,
    alarm: Option<Millis>,
    computes: Nanos,
    baud: Option<u32>,
    heard_at: Vec<Nanos>,
    clock: Nanos,
}

impl Machine for Echo {
    fn clock(&mut self, now: Nanos) {
        self.clock = now;
    }

    fn receive(&mut self, bytes: &[u8], now: Millis) {
        for byte in bytes {
            self.heard_at.push(self.clock);
            match byte {
                b'!' => self.alarm = Some(now + 100),
                b'#' => self.computes = 50 * MILLISECOND,
                b'+' => self.baud = Some(921_600),
                other => self.waiting.push(other.to_ascii_uppercase()),
            }
        }
    }

    fn work(&mut self, now: Millis) -> Work {
        if self.alarm.is_some_and(|at| at <= now) {
            self.alarm = None;
            self.waiting.extend_from_slice(b"(alarm)");
        }
        Work::Idle(self.alarm)
    }

    fn cost(&mut self) -> Nanos {
        std::mem::take(&mut self.computes)
    }

    fn transmit(&mut self, _now: Millis) -> &[u8] {
        &self.waiting
    }

    fn transmitted(&mut self, count: usize, _now: Millis) {
        self.waiting.drain(..count);
    }

    fn baud(&self) -> Option<u32> {
        self.baud
    }
}

fn echo(change: impl FnOnce(&mut Settings)) -> World<Echo> {
    let mut settings = Settings {
        board: Board {
            boot_time: 0,
            ..Board::default()
        },
        ..Settings::default()
    };
    change(&mut settings);
    World::new(&settings, |old: Option<Echo>| Echo {
        starts: old.map_or(0, |old| old.starts) + 1,
        ..Echo::default()
    })
}

/// Sends `bytes` and gives what comes back within so many milliseconds.
fn ask(world: &World<Echo>, bytes: &[u8], patience: Millis) -> Vec<u8> {
    let mut port = world.port();
    let mut rest = bytes;
    let mut answer = Vec::new();
    let mut buffer = [0; 64];
    let until = port.now() + patience;
    while port.now() < until {
        let written = port.write(rest).unwrap();
        rest = &rest[written..];
        let count = port.read(&mut buffer, until).unwrap();
        answer.extend_from_slice(&buffer[..count]);
    }
    assert_eq!(rest.len(), 0);
    answer
}

#[test]
fn bytes_go_there_and_back_in_their_time() {
    let world = echo(|_| {});
    let mut port = world.port();
    assert_eq!(port.write(b"a").unwrap(), 1);
    let mut buffer = [0; 8];
    assert_eq!(port.read(&mut buffer, 1_000).unwrap(), 1);
    assert_eq!(buffer[0], b'A');
    let both = 2 * character_time(115_200);
    assert!(
        (both..both + 20_000).contains(&world.now()),
        "{}",
        world.now()
    );
    assert_eq!(port.read(&mut buffer, 1_000).unwrap(), 0);
    assert_eq!(port.now(), 1_000);
    assert_eq!(world.now(), 1_000 * MILLISECOND);
}

#[test]
fn a_read_that_does_not_wait_lets_time_pass_all_the_same() {
    let world = echo(|_| {});
    let mut port = world.port();
    port.write(b"a").unwrap();
    let mut buffer = [0; 8];
    let reads = (0..10_000)
        .take_while(|_| port.read(&mut buffer, 0).unwrap() == 0)
        .count();
    assert!(reads < 10_000, "a station that polls never hears anything");
}

#[test]
fn long_answers_pass_a_short_transmitter() {
    let world = echo(|settings| settings.board.transmit_ring = 2);
    let sent: Vec<u8> = (0..1_000).map(|index| b'a' + (index % 26) as u8).collect();
    let answer = ask(&world, &sent, 1_000);
    assert_eq!(answer, sent.to_ascii_uppercase());
}

#[test]
fn an_alarm_wakes_the_device() {
    let world = echo(|_| {});
    let answer = ask(&world, b"!x", 99);
    assert_eq!(answer, b"X");
    assert_eq!(ask(&world, b"", 20), b"(alarm)");
}

#[test]
fn a_device_that_computes_fills_its_ring() {
    let sent = [b"#".as_slice(), &[b'a'; 300]].concat();
    let mut lost = Vec::new();
    for ring in [64, 512] {
        let world = echo(|settings| settings.board.receive_ring = ring);
        let answer = ask(&world, &sent, 200);
        let counts = world.counts().down;
        assert_eq!(answer.len() as u64 + counts.overruns, 300, "{ring}");
        lost.push(counts.overruns);
    }
    assert!((200..=300 - 64).contains(&lost[0]), "{lost:?}");
    assert_eq!(lost[1], 0);
}

#[test]
fn a_reset_forgets_what_is_under_way_and_nothing_else() {
    let world = echo(|settings| settings.board.boot_time = 2 * MILLISECOND);
    world.pass(2 * MILLISECOND);
    assert_eq!(ask(&world, b"abc", 10), b"ABC");
    world.reset_after(100);
    let answer = ask(&world, &[b'x'; 200], 100);
    // What came in two milliseconds, some 23 bytes, found a deaf device.
    assert!((170..180).contains(&answer.len()), "{}", answer.len());
    assert_eq!(world.machine(|echo| echo.starts), Some(2));
    assert_eq!(world.counts().resets, 1);
    assert_eq!(world.counts().down.overruns, 200 - answer.len() as u64);
    assert_eq!(ask(&world, b"again", 10), b"AGAIN");
    world.reset();
    assert_eq!(world.machine(|echo| echo.starts), Some(3));
}

#[test]
fn a_reset_hits_at_any_byte() {
    for at in 1..40 {
        let world = echo(|_| {});
        world.reset_after(at);
        let answer = ask(&world, &[b'x'; 40], 100);
        assert_eq!(world.counts().resets, 1, "{at}");
        assert!(answer.len() <= 40);
        assert_eq!(ask(&world, b"ok", 10), b"OK", "{at}");
    }
}

#[test]
fn a_booting_device_is_deaf_and_its_bootloader_talks() {
    let world = echo(|settings| {
        settings.board.boot_time = 50 * MILLISECOND;
        settings.board.chatter = b"boot 1.0, press any key\r\n".to_vec();
    });
    let answer = ask(&world, b"abc", 50);
    assert_eq!(answer, b"boot 1.0, press any key\r\n");
    assert_eq!(world.counts().down.overruns, 3);
    assert_eq!(ask(&world, b"abc", 10), b"ABC");
    // The device's own clock begins with its main loop.
    assert_eq!(ask(&world, b"!", 80), b"");
    world.reset();
    assert_eq!(ask(&world, b"!", 45), b"boot 1.0, press any key\r\n");
}

#[test]
fn a_device_changes_its_rate_when_all_is_sent() {
    let world = echo(|_| {});
    let mut port = world.port();
    assert_eq!(ask(&world, b"abcdefgh+", 100), b"ABCDEFGH");
    assert_ne!(ask(&world, b"abc", 100), b"ABC");
    assert!(port.set_baud(921_600).unwrap());
    assert_eq!(ask(&world, b"abc", 100), b"ABC");
    // After a reset it is back at its own.
    world.reset();
    assert_ne!(ask(&world, b"abc", 100), b"ABC");
    assert!(port.set_baud(115_200).unwrap());
    assert_eq!(ask(&world, b"abc", 100), b"ABC");
}

#[test]
fn the_station_changes_its_rate_when_all_is_sent() {
    let world = echo(|_| {});
    let mut port = world.port();
    assert_eq!(port.write(&[b'a'; 100]).unwrap(), 100);
    assert!(port.set_baud(921_600).unwrap());
    assert!(world.now() >= 100 * character_time(115_200));
    world.pass(MILLISECOND);
    let heard = world.machine(|echo| echo.heard_at.len());
    assert_eq!(heard, Some(100));
    assert_eq!(world.counts().down.framing_errors, 0);
}

/// Nothing else happens after it: once the world slept for ever then.
#[test]
fn a_rate_is_changed_behind_bytes_that_are_lost() {
    let world = echo(|settings| {
        settings.faults.planned.push(Planned {
            fault: Fault::Drop(3),
            ways: Ways::Down,
            when: Trigger::Byte(0),
        });
    });
    let mut port = world.port();
    assert_eq!(port.write(b"abc").unwrap(), 3);
    assert!(port.set_baud(921_600).unwrap());
    assert!(world.now() < MILLISECOND, "{}", world.now());
}

#[test]
fn a_pulled_cable_is_an_error() {
    let world = echo(|_| {});
    let mut port = world.port();
    world.unplug();
    let gone = |result: io::Result<usize>| result.unwrap_err().kind() == io::ErrorKind::BrokenPipe;
    assert!(gone(port.write(b"a")));
    assert!(gone(port.read(&mut [0; 4], 10)));
}

#[test]
fn a_real_device_answers_through_the_line() -> Result<(), DeviceError> {
    let settings = Settings {
        up_latency: MILLISECOND,
        ..Settings::default()
    };
    let world = World::new(&settings, |old: Option<Priced<Desk>>| {
        let flash = old.map(|old| old.device.into_flash());
        let desk = flash.map_or_else(|| Desk::new(1, 32), |flash| Desk::with_flash(1, flash));
        Priced::new(Device::new(desk), 100 * MILLISECOND)
    });
    world.pass(settings.board.boot_time);
    let session = Session::open(world.port())?;
    let greeting = session.greeting().clone();
    drop(session);
    let characters = world.counts().sum().characters;
    assert!(characters > 50, "{characters}");
    assert!(world.now() >= characters / 2 * character_time(115_200));

    // The flash survives, the session does not.
    world.reset();
    world.pass(settings.board.boot_time);
    let session = Session::open(world.port())?;
    assert_eq!(session.greeting().state, greeting.state);
    Ok(())
}

#[test]
fn the_same_seed_gives_the_same_world() {
    let run = |seed| {
        let world = echo(|settings| {
            settings.seed = seed;
            settings.faults.ber = 1e-3;
        });
        let answer = ask(&world, &[b'x'; 500], 200);
        let heard = world.machine(|echo| echo.heard_at.clone());
        (answer, heard, world.counts())
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}
