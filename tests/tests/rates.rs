//! The rate of the line, on a cable in virtual time on which bytes at another rate are garbage.

use keyferry::device::DeviceError;
use keyferry::device::flow;
use keyferry::device::session::Session;
use keyferry_firmware::device::{Device, Work};
use keyferry_protocol::identity::Challenge;
use keyferry_protocol::link::{Millis, rates};
use keyferry_protocol::suite::UnwrapAlgorithm;
use keyferry_tests::desk::Desk;
use keyferry_tests::line::{Board, MILLISECOND, Machine, SECOND, Settings, World};
use keyferry_tests::software::{SoftAuthority, aes_key, wrap};

/// A device that says yes to a rate and then runs at another.
struct Wrong(Device<Desk>);

impl Machine for Wrong {
    fn receive(&mut self, bytes: &[u8], now: Millis) {
        self.0.receive(bytes, now);
    }

    fn work(&mut self, now: Millis) -> Work {
        self.0.work(now)
    }

    fn transmit(&mut self, now: Millis) -> &[u8] {
        self.0.transmit(now)
    }

    fn transmitted(&mut self, count: usize, now: Millis) {
        self.0.transmitted(count, now);
    }

    fn baud(&self) -> Option<u32> {
        Some(match self.0.rate() {
            921_600 => 700_000,
            rate => rate,
        })
    }
}

fn desk(rates: &'static [u32]) -> Desk {
    let mut desk = Desk::new(1, 32);
    desk.rates = rates;
    desk
}

/// Enrols the device and gives it a key.
fn provision(session: &mut Session) -> Result<(), DeviceError> {
    let authority = SoftAuthority::new(0);
    let nonce = Challenge([9; 32]);
    let unwrap = UnwrapAlgorithm::P256;
    let statement = flow::enroll(session, &authority, unwrap, nonce, &mut |_| {})?;
    let shipment = wrap(&statement, &[aes_key(16, 1)], 1);
    let challenge = Challenge([3; 32]);
    let proofs = flow::inject(
        session,
        &authority,
        &statement,
        &shipment,
        challenge,
        &mut |_| {},
    )?;
    assert_eq!(proofs.reports.len(), 1);
    Ok(())
}

#[test]
fn the_ends_change_to_the_fastest_rate_that_both_know() {
    let device = || Device::<Desk>::new(desk(&[230_400, 921_600]));
    let world = World::new(&Settings::default(), move |_| device());
    let mut session = Session::open(world.port()).unwrap();
    assert_eq!(session.rate(), Some(rates::BASE));
    // Not worth it.
    session.hasten(50).unwrap();
    assert_eq!(session.rate(), Some(rates::BASE));
    let begin = world.now();
    session.hasten(3_000).unwrap();
    assert_eq!(session.rate(), Some(921_600));
    assert!(world.now() - begin < 30 * MILLISECOND);
    provision(&mut session).unwrap();
    assert_eq!(session.rate(), Some(921_600));
    // A pause that is too long for it, as a slow HSM makes one: both go back, and the session goes on.
    drop(session);
    world.pass(6 * SECOND);
    let session = Session::open(world.port()).unwrap();
    assert_eq!(session.rate(), Some(rates::BASE));
}

/// SPEC: M-40
#[test]
fn a_rate_that_does_not_work_costs_a_moment() {
    let world = World::new(&Settings::default(), |_| {
        Wrong(Device::new(desk(&[230_400, 921_600])))
    });
    let mut session = Session::open(world.port()).unwrap();
    let begin = world.now();
    session.hasten(100_000).unwrap();
    assert_eq!(session.rate(), Some(230_400), "the next one works");
    assert!(world.now() - begin < 2 * SECOND);
    provision(&mut session).unwrap();
    // It is not tried again.
    let begin = world.now();
    session.hasten(100_000).unwrap();
    assert!(world.now() - begin < MILLISECOND);
}

#[test]
fn a_device_is_found_at_the_rate_that_it_was_left_at() {
    for rate in [921_600, 230_400, 57_600] {
        let settings = Settings {
            device_baud: rate,
            ..Settings::default()
        };
        let world = World::new(&settings, |_| Stubborn(Device::new(desk(&[]))));
        let session = Session::open(world.port()).unwrap();
        assert_eq!(session.rate(), Some(rate));
        assert!(world.now() < 5 * SECOND);
    }
}

/// A device that a session left at a rate, and that then runs at a wrong one whenever it agrees on 921600 baud.
struct LeftBehind {
    device: Wrong,
    moved: bool,
}

impl Machine for LeftBehind {
    fn receive(&mut self, bytes: &[u8], now: Millis) {
        self.device.receive(bytes, now);
    }

    fn work(&mut self, now: Millis) -> Work {
        let work = self.device.work(now);
        self.moved |= self.device.0.rate() != rates::BASE;
        work
    }

    fn transmit(&mut self, now: Millis) -> &[u8] {
        self.device.transmit(now)
    }

    fn transmitted(&mut self, count: usize, now: Millis) {
        self.device.transmitted(count, now);
    }

    fn baud(&self) -> Option<u32> {
        if self.moved {
            self.device.baud()
        } else {
            Some(230_400)
        }
    }
}

/// What a rate saves is reckoned from the rate that the line has now, not from the one before a trial that failed.
#[test]
fn after_a_rate_that_does_not_work_the_next_is_reckoned_anew() {
    let settings = Settings {
        device_baud: 230_400,
        ..Settings::default()
    };
    let world = World::new(&settings, |_| LeftBehind {
        device: Wrong(Device::new(desk(&[230_400, 921_600]))),
        moved: false,
    });
    let mut session = Session::open(world.port()).unwrap();
    assert_eq!(session.rate(), Some(230_400));
    session.hasten(100_000).unwrap();
    assert_eq!(session.rate(), Some(230_400));
    assert_eq!(
        world.machine(|one| one.moved),
        Some(true),
        "by way of the base rate"
    );
    provision(&mut session).unwrap();
}

/// A device whose board has one rate.
struct Stubborn(Device<Desk>);

impl Machine for Stubborn {
    fn receive(&mut self, bytes: &[u8], now: Millis) {
        self.0.receive(bytes, now);
    }

    fn work(&mut self, now: Millis) -> Work {
        self.0.work(now)
    }

    fn transmit(&mut self, now: Millis) -> &[u8] {
        self.0.transmit(now)
    }

    fn transmitted(&mut self, count: usize, now: Millis) {
        self.0.transmitted(count, now);
    }
}

#[test]
fn a_bootloader_may_talk_as_long_as_it_likes() {
    let chatter = b"\0\0\xffBOOT v1.2 (c) 2019\r\nCRC ok\r\n\0jumping to 0x08004000\r\n".repeat(20);
    let settings = Settings {
        board: Board {
            boot_time: 900 * MILLISECOND,
            chatter,
            ..Board::default()
        },
        ..Settings::default()
    };
    let world = World::new(&settings, |_| Device::<Desk>::new(desk(&[])));
    let mut session = Session::open(world.port()).unwrap();
    assert!(world.now() < 3 * SECOND);
    provision(&mut session).unwrap();
}
