//! What a session does while its bytes do not get away, in virtual time.

use std::io;
use std::sync::{Arc, Mutex};

use keyferry::device::DeviceError;
use keyferry::device::port::Port;
use keyferry::device::session::Session;
use keyferry_firmware::device::{Device, Work};
use keyferry_protocol::link::{Link, Millis};
use keyferry_protocol::message::{Reply, Request};
use keyferry_tests::desk::Desk;
use keyferry_tests::line::{Machine, SECOND, Settings, World};

/// A device that greets, and then takes a byte each second.
struct Sipping {
    device: Device<Desk>,
    link: Box<Link<2_048, 2_112, 640>>,
    greeted: bool,
    sipped: Millis,
}

impl Sipping {
    fn new() -> Self {
        Self {
            device: Device::new(Desk::new(1, 32)),
            link: Box::new(Link::new()),
            greeted: false,
            sipped: 0,
        }
    }

    /// The greeting is a real device's.
    fn greet(&mut self, hello: &[u8], now: Millis) {
        let mut other = Link::<2_048, 2_112, 640>::new();
        other.set_rate(u32::MAX);
        other.open(1, now);
        other.send(hello).unwrap();
        while other.front().is_none_or(|front| !front.is_complete()) {
            let down = other.transmit(now).to_vec();
            other.transmitted(down.len(), now);
            self.device.receive(&down, now);
            self.device.work(now);
            let up = self.device.transmit(now).to_vec();
            self.device.transmitted(up.len(), now);
            other.receive(&up, now);
        }
        self.link.send(other.front().unwrap().bytes).unwrap();
    }
}

impl Machine for Sipping {
    fn receive(&mut self, bytes: &[u8], now: Millis) {
        self.link.receive(bytes, now);
    }

    fn work(&mut self, now: Millis) -> Work {
        if let Some(front) = self.link.front() {
            if self.greeted {
                if now >= self.sipped + 1_000 {
                    self.sipped = now;
                    self.link.consume(1);
                }
            } else if front.is_complete() {
                let hello = front.bytes.to_vec();
                self.link.consume(hello.len());
                self.greeted = true;
                self.greet(&hello, now);
            }
        }
        let next = self.link.deadline().unwrap_or(now + 1_000);
        Work::Idle(Some(next.min(self.sipped + 1_000).max(now + 1)))
    }

    fn transmit(&mut self, now: Millis) -> &[u8] {
        self.link.transmit(now)
    }

    fn transmitted(&mut self, count: usize, now: Millis) {
        self.link.transmitted(count, now);
    }
}

/// A device that goes on taking a little holds nobody up for a day.
#[test]
fn a_message_that_is_sipped_is_given_up() {
    let world = World::new(&Settings::default(), |_| Sipping::new());
    let mut session = Session::open(world.port()).unwrap();
    let begin = world.now();
    let blob = Request::Blob {
        bytes: &[7; 20_000],
    };
    let error = session.send(&blob, &mut |_| {}).unwrap_err();
    assert!(matches!(error, DeviceError::Disappeared { .. }), "{error}");
    let seconds = (world.now() - begin) / SECOND;
    assert!((299..=301).contains(&seconds), "{seconds}");
    // Half a message stands in the stream: nothing follows it.
    assert!(session.send(&Request::List, &mut |_| {}).is_err());
}

/// A port that takes a few bytes at a time.
struct Narrow {
    port: Box<dyn Port>,
    next: Millis,
    refused: bool,
    /// How long each read after a refused write was to wait.
    waits: Arc<Mutex<Vec<Millis>>>,
}

impl Port for Narrow {
    fn name(&self) -> &str {
        self.port.name()
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.refused = self.port.now() < self.next;
        if self.refused {
            return Ok(0);
        }
        self.next = self.port.now() + 2;
        self.port.write(&bytes[..bytes.len().min(64)])
    }

    fn read(&mut self, bytes: &mut [u8], until: Millis) -> io::Result<usize> {
        if self.refused {
            let wait = until.saturating_sub(self.port.now());
            assert!(wait > 0, "it asks again and again, without a pause");
            self.waits.lock().unwrap().push(wait);
        }
        self.port.read(bytes, until)
    }

    fn now(&self) -> Millis {
        self.port.now()
    }

    fn set_baud(&mut self, baud: u32) -> io::Result<bool> {
        self.port.set_baud(baud)
    }
}

#[test]
fn a_port_that_is_full_is_tried_again_soon_and_not_all_the_time() {
    let world = World::new(&Settings::default(), |_| {
        Device::<Desk>::new(Desk::new(1, 32))
    });
    let waits = Arc::new(Mutex::new(Vec::new()));
    let port = Narrow {
        port: world.port(),
        next: 0,
        refused: false,
        waits: Arc::clone(&waits),
    };
    let mut session = Session::open(Box::new(port)).unwrap();
    let begin = world.now();
    let bytes = &[3; 1_500];
    let answer = session
        .exchange(&Request::Echo { bytes }, &mut |_| {})
        .unwrap();
    assert_eq!(Reply::decode(&answer), Ok(Reply::Echo { bytes }));
    // Twice 130 ms on the line, and a turn for each 64 bytes.
    assert!(world.now() - begin < SECOND / 2);
    let waits = waits.lock().unwrap();
    assert!(waits.len() > 10, "{waits:?}");
    assert!(waits.iter().all(|wait| *wait <= 5), "{waits:?}");
}
