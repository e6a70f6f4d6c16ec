//! The device's end of a session: requests in, replies out.
//!
//! A [`Device`] takes bytes and the time and gives back bytes and a deadline; it owns no port and no clock. Long work is
//! cut into bounded steps that [`Device::work`] does one at a time, so a board can feed its watchdog and the line in
//! between. `incoming` takes messages from the link, `orders` says which orders pass, `enroll`, `inject`, `proving` and `lifecycle` do what they ask, `answer` signs
//! receipts.

mod answer;
mod buffer;
mod enroll;
mod incoming;
mod inject;
mod lifecycle;
mod memory;
mod operations;
mod orders;
mod proving;
#[cfg(test)]
mod tests;

use keyferry_protocol::identity::{Challenge, Digest, Fingerprint};
use keyferry_protocol::link::{Event, Link, rates};
use keyferry_protocol::message::{Hello, Progress, Reply, Request, Task};
use keyferry_protocol::receipt::{Refusal, State};
use keyferry_protocol::{MAX_BLOB, MAX_MESSAGE, TooLong, VERSION, VERSION_MIN};
use rand_core::Rng;

use crate::fmt::{debug, info, warning};
use crate::keys;
use crate::led::Blinker;
use crate::platform::{Mark, Platform, RootKey, Status, Stretch};
use crate::rng::Drbg;
use crate::store::{Condition, ItemId, Store};
use crate::unwrap::Kek;
use crate::wipe::{Secret, scrub_stack, wipe};
use buffer::Buffer;
use incoming::{Incoming, Rate};
use memory::Memory;

pub use operations::Operations;
pub use orders::allowed;

/// Milliseconds since any fixed moment, from a clock that never goes back.
pub use keyferry_protocol::link::Millis;

/// Stack bytes that [`Device`] overwrites after each step that may have touched a key; a board's stack must be larger by
/// what lies above. RSA's bignum temporaries go deepest, and less deep in code that is made for its size (`opt-level = "z"`).
/// `cargo xtask bench firmware` looks whether it is enough.
pub const SCRUBBED_STACK: usize = match (cfg!(feature = "rsa-keys"), cfg!(small_code)) {
    (true, true) => 12 * 1024,
    (true, false) => 20 * 1024,
    (false, _) => 10 * 1024,
};

/// How long an order may wait for the next bytes of its blobs, in milliseconds, whatever else is said meanwhile. Then it is dropped,
/// and the key-encryption key in RAM with it.
pub const JOB_PATIENCE: Millis = 30_000;

/// How long an order may take from its acceptance until the last byte of its blobs has come, in milliseconds: what trickles in for ever
/// must not keep a key-encryption key in RAM for ever. All blobs of the largest order take under a minute at 9600 baud.
pub const JOB_LIMIT: Millis = 600_000;

/// How often the station is told at most that work goes on, in milliseconds.
const PROGRESS_EVERY: Millis = 200;

/// What the board should do after [`Device::work`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Send what [`Device::transmit`] gives, feed what arrived, and call again at once.
    More,
    /// Nothing to do before bytes arrive or, where given, the clock reaches this value.
    Idle(Option<Millis>),
}

/// What the device is in the middle of.
enum Job {
    /// Nothing.
    Idle,
    /// Making the unwrap key of an `Enroll`.
    Enroll(enroll::Enrolling),
    /// Taking the blobs of an `Inject`, or proving what they brought.
    Inject(inject::Injecting),
}

/// Longest reply with its length, and progress before it.
const TRANSMIT: usize = MAX_MESSAGE + 64;

/// A device.
///
/// `RX` bytes of the line's stream can be received before they are dealt with: an order must fit, so at least its longest on that
/// line, [`MAX_MESSAGE`] for all; an order of five keys with its blobs goes into two frames with [`MAX_BLOB`]. What a station sends on a fast line while the device works waits there. A frame that the device
/// sends has at most `OUT` bytes.
pub struct Device<P: Platform, const RX: usize = MAX_BLOB, const OUT: usize = 1_024> {
    platform: P,
    store: Store<P::Flash>,
    /// `None` where the entropy source failed, or a start could not be counted: then every order is refused.
    random: Option<Drbg>,
    /// Why, where there is none.
    unready: Refusal,
    memory: Memory,
    challenge: Challenge,
    link: Link<RX, TRANSMIT, OUT>,
    incoming: Incoming,
    rate: Rate,
    /// The station has greeted in this session.
    greeted: bool,
    job: Job,
    /// An unwrap key that is made before anybody asks for it, or that an `Enroll` asked for which was broken off.
    early: Option<keys::Generation>,
    /// The body of the order under way.
    order: [u8; RX],
    order_length: usize,
    buffer: Buffer,
    /// Bytes of the blob that is due which have come.
    blob_length: usize,
    /// The last order wants no blobs, or no more: those that the station has sent behind it are dropped.
    drops_blobs: bool,
    kek: Kek,
    /// The time, as the board said last.
    now: Millis,
    /// When the station was told last that work goes on.
    told: Millis,
    /// When the order under way, or the last bytes of its blobs, came.
    fed: Millis,
    /// When the order under way was accepted.
    began: Millis,
    led: Blinker,
    /// Whether the provisioning strap is set.
    answers: bool,
    /// When the watchdog must be fed at the latest.
    hungry: Option<Millis>,
    operations: Operations,
}

impl<P: Platform, const RX: usize, const OUT: usize> Device<P, RX, OUT> {
    /// Opens the key store and gets ready for a station. Never fails: what is wrong shows in the greeting.
    // What it needs of the stack to make a device is over when it returns.
    #[inline(never)]
    pub fn new(mut platform: P) -> Self {
        platform.feed_watchdog();
        platform.measure(Mark::Begins(Stretch::Boot));
        let answers = platform.provisioning_strap();
        let flash = platform.take_flash();
        let mut root = RootKey::zeroed();
        let root_read = platform.root_key(&mut root).is_ok();
        let mut entropy = [0; 32];
        let entropy_read = platform.entropy(&mut entropy).is_ok();
        let seed = Secret::copied(&root);
        let mut store = if root_read {
            Store::look(flash, root)
        } else {
            Store::without_root_key(flash)
        };
        let mut memory = match store.condition() {
            Condition::Ready => Memory::load(&mut store),
            Condition::Quarantined(_) => Memory::quarantined(),
        };
        // A quarantined device writes nothing.
        let boot = match memory.state {
            State::Quarantined => None,
            State::Blank | State::Enrolled | State::Provisioned | State::Locked => {
                store.next_boot().ok()
            }
        };
        if store.condition() != Condition::Ready {
            memory = Memory::quarantined();
        }
        // Where no start is counted, nothing keeps two of them apart but the source. That is enough to number sessions, and for the one order that
        // a quarantined device takes.
        let mut random = entropy_read.then(|| Drbg::new(&seed, boot.unwrap_or(0), &entropy));
        wipe(&mut entropy);
        let mut challenge = Challenge::ZERO;
        renew(&mut challenge, random.as_mut());
        // It is random and no secret, as the number of a session must be.
        let number = u16::from_le_bytes([challenge.0[0], challenge.0[1]]);
        let mut unready = Refusal::Entropy;
        if boot.is_none() && memory.state != State::Quarantined && random.take().is_some() {
            // A worn-out flash: what it holds can be read, and nothing more.
            warning!("a start cannot be counted");
            unready = Refusal::Storage;
        }
        if memory.state == State::Quarantined {
            warning!("key store quarantined");
        }
        let status = resting_status(answers, &memory, random.as_ref());
        platform.show(status);
        // In the field nobody will ask.
        let early = answers.then(|| early_key(&platform, &memory)).flatten();
        platform.measure(Mark::Ends(Stretch::Boot));
        // Last of all and in one piece: it is written to where the caller wants it, and not moved there.
        Self {
            link: Link::offering(rates::set_of(platform.line_rates()), number),
            platform,
            store,
            random,
            unready,
            memory,
            challenge,
            incoming: Incoming::Whole,
            rate: Rate::new(),
            greeted: false,
            job: Job::Idle,
            early,
            order: [0; RX],
            order_length: 0,
            buffer: Buffer::new(),
            blob_length: 0,
            drops_blobs: false,
            kek: Kek::none(),
            now: 0,
            told: 0,
            fed: 0,
            began: 0,
            led: Blinker::new(status),
            answers,
            hungry: None,
            operations: Operations::default(),
        }
    }

    /// The fingerprint of its unwrap key; zero while it has none.
    #[must_use]
    pub const fn unwrap_key(&self) -> Fingerprint {
        self.memory.unwrap
    }

    /// Private-key operations since start. No unsigned or misaddressed order moves those that belong to orders.
    #[must_use]
    pub const fn operations(&self) -> Operations {
        self.operations
    }

    /// Whether an order is under way.
    #[must_use]
    pub const fn is_busy(&self) -> bool {
        !matches!(self.job, Job::Idle)
    }

    /// The key store's flash, to look at.
    pub const fn flash(&self) -> &P::Flash {
        self.store.flash()
    }

    /// Ends the device and gives the key store's flash back.
    pub fn into_flash(self) -> P::Flash {
        self.store.into_flash()
    }

    /// Takes bytes from the line, all of them.
    pub fn receive(&mut self, bytes: &[u8], now: Millis) {
        self.now = now;
        if !self.answers {
            return;
        }
        self.feed();
        self.link.receive(bytes, now);
        match self.link.event() {
            None => {}
            Some(Event::Opened) => {
                self.abandon();
                self.drops_blobs = false;
                self.incoming = Incoming::Whole;
                self.greeted = false;
            }
            Some(Event::Reset | Event::Lost) => self.abandon(),
        }
        self.take_messages();
        self.platform.measure(Mark::Ends(Stretch::Fed));
    }

    /// Does one bounded piece of work. Call it also when the time of [`Work::Idle`] has come.
    pub fn work(&mut self, now: Millis) -> Work {
        self.now = now;
        self.feed();
        let work = self.work_fed(now);
        self.platform.measure(Mark::Ends(Stretch::Fed));
        let change = self.blink(now);
        match work {
            Work::More => Work::More,
            Work::Idle(deadline) => {
                Work::Idle([deadline, change, self.hungry].into_iter().flatten().min())
            }
        }
    }

    /// Feeds the watchdog.
    fn feed(&mut self) {
        let lasts = self.platform.feed_watchdog();
        self.hungry = lasts.map(|lasts| self.now.saturating_add(lasts));
        self.platform.measure(Mark::Begins(Stretch::Fed));
    }

    /// Feeds the watchdog in the middle of a piece of work.
    fn feed_again(&mut self) {
        self.platform.measure(Mark::Ends(Stretch::Fed));
        self.feed();
    }

    /// Switches the LED where it is time to, and says when it will be next.
    fn blink(&mut self, now: Millis) -> Option<Millis> {
        if !self.platform.has_led() {
            return None;
        }
        let (lit, next) = self.led.turn(now);
        if let Some(lit) = lit {
            self.platform.light(lit);
        }
        next
    }

    /// Shows what it is doing now.
    fn show(&mut self, status: Status) {
        self.led.show(status);
        self.platform.show(status);
    }

    fn work_fed(&mut self, now: Millis) -> Work {
        let more = self.step();
        // The work may have made room for what waits in the link.
        self.take_messages();
        // Before anything is sent: whoever keeps the line busy must not keep an order alive.
        let patience = self
            .awaits_blob()
            .then_some((self.fed + JOB_PATIENCE).min(self.began + JOB_LIMIT));
        if patience.is_some_and(|until| now >= until) {
            self.abandon();
            return Work::More;
        }
        let sending = !self.transmit(now).is_empty();
        if more || sending {
            return Work::More;
        }
        let deadlines = [self.link.deadline(), patience, self.rate_deadline()];
        Work::Idle(deadlines.into_iter().flatten().min())
    }

    /// Drops the order that is under way because nobody goes on with it. What it had in RAM is wiped; the store is as before.
    fn abandon(&mut self) {
        if !matches!(self.job, Job::Idle) {
            info!("order dropped");
        }
        self.drop_job();
        self.forget_agreed_rate();
        scrub_stack::<SCRUBBED_STACK>();
    }

    /// Bytes that wait to be sent, at the rate that [`Self::rate`] tells.
    pub fn transmit(&mut self, now: Millis) -> &[u8] {
        if self.link.transmit(now).is_empty() {
            self.settle_rate(now);
        }
        // The station may be gone. A new greeting opens a new session.
        if self.link.event().is_some() {
            self.abandon();
        }
        self.link.transmit(now)
    }

    /// Says that the first `count` bytes of [`Self::transmit`] have gone out.
    pub fn transmitted(&mut self, count: usize, now: Millis) {
        self.link.transmitted(count, now);
    }

    fn step(&mut self) -> bool {
        let due = match self.job {
            Job::Idle => self.early.as_ref().is_some_and(|early| !early.is_found()),
            // A step may end in an answer.
            Job::Enroll(_) | Job::Inject(_) => self.has_room(),
        };
        if !due {
            return false;
        }
        self.platform.measure(Mark::Begins(Stretch::Step));
        let more = self.step_job();
        scrub_stack::<SCRUBBED_STACK>();
        self.platform.measure(Mark::Ends(Stretch::Step));
        more
    }

    /// Never part of [`Self::step`]'s frame, which the scrubbing does not reach: a key moved through a local variable
    /// would stay there.
    #[inline(never)]
    fn step_job(&mut self) -> bool {
        match self.job {
            Job::Idle => self.step_early(),
            Job::Enroll(_) => self.step_enroll(),
            Job::Inject(_) => self.step_inject(),
        }
    }

    /// Whether any answer could be sent. Nothing that may end in one is begun before.
    fn has_room(&self) -> bool {
        self.link.room() >= MAX_MESSAGE
    }

    fn reply(&mut self, reply: &Reply<'_>) {
        if send(&mut self.link, reply).is_err() {
            self.refuse(Refusal::TooLong);
        }
    }

    fn refuse(&mut self, refusal: Refusal) {
        info!("refused: {=u8}", refusal as u8);
        self.show(Status::Failed);
        // A session that is over takes nothing; the station asks again.
        let _ = send(&mut self.link, &Reply::Refused(refusal));
    }

    /// Tells the station that work goes on, unless it still has an earlier message to take, or was told a moment ago: the receipt
    /// shall not wait for words that nobody can read so fast.
    fn progress(&mut self, task: Task, done: u16, total: u16) {
        let due = done == 0 && task == Task::Unwrap || self.now >= self.told + PROGRESS_EVERY;
        if due && self.link.idle() {
            self.told = self.now;
            self.reply(&Reply::Progress(Progress { task, done, total }));
        }
    }

    /// Deals with the message at the front of the link, all of which has come.
    ///
    /// Never part of its caller's frame, which is below all the work.
    #[inline(never)]
    fn handle(&mut self) {
        let message = self.link.front().map_or(&[][..], |front| front.bytes);
        let request = Request::decode(message);
        self.drops_blobs = false;
        match request {
            Err(_) => self.refuse(Refusal::Malformed),
            Ok(Request::Hello { min, max }) => self.greet(min, max),
            Ok(_) if !self.greeted => self.refuse(Refusal::Sequence),
            Ok(Request::Order { .. }) => {
                self.take_order();
                // An order that was not even authentic leaves the one under way as it is, and its blobs may come.
                self.drops_blobs = !matches!(self.job, Job::Inject(_));
                scrub_stack::<SCRUBBED_STACK>();
            }
            // Those are taken as they arrive, before there is a whole message.
            Ok(Request::Blob { .. }) => self.refuse(Refusal::Malformed),
            // A blob or a receipt is in the one buffer that these need too.
            Ok(Request::Status { .. } | Request::List | Request::Certificate)
                if !matches!(self.job, Job::Idle) =>
            {
                self.refuse(Refusal::Sequence);
            }
            Ok(Request::Status { order, nonce }) => {
                self.answer_status(order, nonce);
                scrub_stack::<SCRUBBED_STACK>();
            }
            Ok(Request::List) => self.list(),
            Ok(Request::Echo { .. }) => self.echo(),
            Ok(Request::Certificate) => self.answer_certificate(),
            Ok(Request::Rate { baud }) => self.change_rate(baud),
            Ok(Request::Failed) => {
                self.show(Status::Failed);
                self.reply(&Reply::Failed);
            }
        }
    }

    fn echo(&mut self) {
        let (front, space) = self.link.halves();
        let Some(Ok(Request::Echo { bytes })) = front.map(|front| Request::decode(front.bytes))
        else {
            return;
        };
        let reply = Reply::Echo { bytes };
        match reply.encode(space).map(|bytes| bytes.len()) {
            Ok(length) => self.link.commit(length),
            Err(TooLong) => self.refuse(Refusal::TooLong),
        }
    }

    fn greet(&mut self, min: u8, max: u8) {
        let shared = (VERSION_MIN..=VERSION)
            .rev()
            .find(|version| (min..=max).contains(version));
        let Some(version) = shared else {
            self.refuse(Refusal::UnknownVersion);
            return;
        };
        debug!("greeted");
        self.show(self.resting_status());
        self.greeted = true;
        let description = self.platform.description();
        let hello = Hello {
            version,
            device: self.platform.device_id(),
            identity: self.memory.identity,
            authority: self.memory.authority.hint(),
            state: self.memory.state,
            certified: self.store.contains(ItemId::CERTIFICATE),
            counter: self.memory.counter,
            challenge: self.challenge,
            board: description.board,
            firmware: description.firmware,
        };
        self.reply(&Reply::Hello(hello));
    }

    /// Forgets what is under way. The store is as before the order.
    ///
    /// Never part of its caller's frame, which the scrubbing afterwards does not reach: what there is of a key of an `Enroll` moves through it.
    #[inline(never)]
    fn drop_job(&mut self) {
        let idle = matches!(self.job, Job::Idle);
        // What was found of a key is kept for the next `Enroll`.
        if let Job::Enroll(enrolling) = core::mem::replace(&mut self.job, Job::Idle) {
            self.early = Some(enrolling.into_generation());
        }
        self.store.abort();
        self.buffer.wipe();
        self.kek = Kek::none();
        self.blob_length = 0;
        // What the last order came to stays to be seen, also when its session is over.
        let status = self.resting_status();
        if !idle || status != Status::Idle {
            self.show(status);
        }
    }

    pub(super) const fn resting_status(&self) -> Status {
        resting_status(self.answers, &self.memory, self.random.as_ref())
    }

    /// Mixes fresh entropy into the generator, so that its state tells nothing of what it gave before: the keys that an
    /// `Enroll` made, say.
    ///
    /// # Errors
    /// [`Refusal::Entropy`] if the source reports a failure; from then on every order is refused.
    fn refresh_random(&mut self) -> Result<(), Refusal> {
        let mut entropy = Secret::<32>::zeroed();
        match (
            self.platform.entropy(entropy.expose_mut()),
            &mut self.random,
        ) {
            (Ok(()), Some(random)) => {
                random.reseed(entropy.expose());
                Ok(())
            }
            (Ok(()) | Err(_), _) => {
                self.random = None;
                self.unready = Refusal::Entropy;
                Err(Refusal::Entropy)
            }
        }
    }

    fn renew_challenge(&mut self) {
        renew(&mut self.challenge, self.random.as_mut());
    }

    fn no_keys(&self) -> bool {
        self.memory.identity == Fingerprint::ZERO
    }

    fn is_last_order(&self, order: &Digest) -> bool {
        self.memory.last_order == *order && *order != Digest::ZERO
    }
}

fn renew(challenge: &mut Challenge, random: Option<&mut Drbg>) {
    if let Some(random) = random {
        random.fill_bytes(&mut challenge.0);
    }
}

/// The unwrap key that a device without keys begins with.
fn early_key<P: Platform>(platform: &P, memory: &Memory) -> Option<keys::Generation> {
    match memory.state {
        State::Blank => platform.early_unwrap_key().and_then(keys::Generation::new),
        State::Enrolled | State::Provisioned | State::Locked | State::Quarantined => None,
    }
}

const fn resting_status(answers: bool, memory: &Memory, random: Option<&Drbg>) -> Status {
    if !answers {
        Status::Silent
    } else if matches!(memory.state, State::Quarantined) {
        Status::Quarantined
    } else if random.is_none() {
        Status::Failed
    } else {
        Status::Idle
    }
}

/// Hands a reply to the link.
fn send<const RX: usize, const OUT: usize>(
    link: &mut Link<RX, TRANSMIT, OUT>,
    reply: &Reply<'_>,
) -> Result<(), TooLong> {
    let length = reply.encode(link.space())?.len();
    link.commit(length);
    Ok(())
}
