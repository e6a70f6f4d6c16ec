//! A line with a device at its far end. The station's end is a [`Port`]; time passes only while the station waits.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use keyferry::device::port::Port;
use keyferry_firmware::device::Work;
use keyferry_protocol::link::Millis;

use super::{Board, Cable, Counts, End, MICROSECOND, MILLISECOND, Machine, Nanos, Settings, Way};

/// Bytes that the main loop takes out of the receive ring at a time.
const CHUNK: usize = 256;

/// Makes the machine, at first from nothing and after a reset from the old one.
type Maker<M> = Box<dyn FnMut(Option<M>) -> M + Send>;

/// A line, the device at its far end, and the time. Clones are hands on the same world.
pub struct World<M>(Arc<Mutex<State<M>>>);

impl<M> Clone for World<M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<M: Machine + 'static> World<M> {
    /// A world in which the device is switched on at the beginning. `make` gets nothing then; at each reset it gets the machine
    /// as it was, to save its flash, and gives the new one.
    pub fn new(settings: &Settings, make: impl FnMut(Option<M>) -> M + Send + 'static) -> Self {
        let mut state = State {
            cable: Cable::new(settings),
            board: settings.board.clone(),
            board_baud: settings.device_baud,
            machine: None,
            make: Box::new(make),
            now: 0,
            booted: 0,
            ring: VecDeque::new(),
            chatter: VecDeque::new(),
            round: Round::Work,
            next_round: None,
            last_round: 0,
            wants_room: false,
            reset_at: VecDeque::new(),
            unplugged: false,
        };
        state.switch_on();
        Self(Arc::new(Mutex::new(state)))
    }

    /// The station's end.
    #[must_use]
    pub fn port(&self) -> Box<dyn Port> {
        Box::new(WorldPort(self.clone()))
    }

    /// Nanoseconds since the beginning.
    #[must_use]
    pub fn now(&self) -> Nanos {
        self.lock().now
    }

    /// What has happened to the bytes so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        *self.lock().cable.counts()
    }

    /// Resets the device now.
    pub fn reset(&self) {
        self.lock().reset();
    }

    /// Resets the device when the line has begun with so many more characters, both directions together.
    pub fn reset_after(&self, characters: u64) {
        let mut state = self.lock();
        let at = state.characters() + characters;
        let place = state.reset_at.partition_point(|other| *other <= at);
        state.reset_at.insert(place, at);
    }

    /// Pulls the cable out of the station: the port fails from now on.
    pub fn unplug(&self) {
        self.lock().unplugged = true;
    }

    /// Lets so many nanoseconds pass without the station.
    pub fn pass(&self, time: Nanos) {
        let mut state = self.lock();
        let until = state.now + time;
        while state.now < until {
            state.settle();
            state.step(until);
        }
        state.settle();
    }

    /// Looks at the machine, or changes something in it.
    pub fn machine<T>(&self, look: impl FnOnce(&mut M) -> T) -> Option<T> {
        self.lock().machine.as_mut().map(look)
    }

    fn lock(&self) -> MutexGuard<'_, State<M>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the main loop is.
#[derive(Clone, Copy)]
enum Round {
    /// It feeds what arrived and works.
    Work,
    /// It has worked, with this result, and sends.
    Send(Work),
}

struct State<M> {
    cable: Cable,
    board: Board,
    /// The rate it starts with.
    board_baud: u32,
    machine: Option<M>,
    make: Maker<M>,
    now: Nanos,
    /// When the main loop began, or will begin.
    booted: Nanos,
    /// What the receive interrupt has stored.
    ring: VecDeque<u8>,
    /// What the bootloader has not sent yet.
    chatter: VecDeque<u8>,
    round: Round,
    /// When the main loop goes on, unless an interrupt wakes it before; `None`: it sleeps.
    next_round: Option<Nanos>,
    last_round: Nanos,
    /// It has found the transmitter full.
    wants_room: bool,
    /// Numbers of characters that resets wait for, in order.
    reset_at: VecDeque<u64>,
    unplugged: bool,
}

impl<M: Machine> State<M> {
    fn switch_on(&mut self) {
        let old = self.machine.take();
        self.machine = Some((self.make)(old));
        self.booted = self.now + self.board.boot_time;
        self.ring.clear();
        self.chatter = self.board.chatter.iter().copied().collect();
        self.round = Round::Work;
        self.wants_room = false;
        self.next_round = Some(self.booted);
    }

    fn reset(&mut self) {
        self.cable.clear(Way::Up);
        self.cable.set_baud(End::Device, self.board_baud, self.now);
        self.cable.count_reset();
        self.switch_on();
    }

    /// Characters that the line has begun with.
    fn characters(&self) -> u64 {
        self.cable.counts().sum().characters
    }

    /// Milliseconds of the device's own clock.
    const fn device_time(&self) -> Millis {
        self.now.saturating_sub(self.booted) / MILLISECOND
    }

    /// Everything that happens at this moment.
    fn settle(&mut self) {
        self.cable.advance(self.now);
        let characters = self.characters();
        while let Some(at) = self.reset_at.front()
            && *at <= characters
        {
            self.reset_at.pop_front();
            self.reset();
        }
        self.receive_interrupt();
        self.boot();
        self.transmit_interrupt();
        if self.next_round.is_some_and(|at| at <= self.now) {
            self.last_round = self.now;
            self.go_round();
        }
        self.change_baud();
    }

    /// What has arrived goes into the ring, or is lost.
    fn receive_interrupt(&mut self) {
        let mut bytes = [0; 64];
        loop {
            let count = self.cable.read(Way::Down, &mut bytes, self.now);
            if count == 0 {
                return;
            }
            let room = if self.now < self.booted {
                0
            } else {
                self.board.receive_ring - self.ring.len()
            };
            let kept = count.min(room);
            self.ring.extend(&bytes[..kept]);
            self.cable.tally_mut(Way::Down).overruns += (count - kept) as u64;
            if kept > 0 {
                self.wake();
            }
        }
    }

    /// The bootloader talks until the main loop begins.
    fn boot(&mut self) {
        if self.now >= self.booted {
            self.chatter.clear();
            return;
        }
        let (bytes, _) = self.chatter.as_slices();
        let count = self.cable.write(Way::Up, bytes, self.now);
        self.chatter.drain(..count);
    }

    /// A main loop that waits for room in the transmitter is woken when there is some.
    fn transmit_interrupt(&mut self) {
        if self.wants_room && self.cable.room(Way::Up) > 0 {
            self.wants_room = false;
            self.wake();
        }
    }

    /// Ends the main loop's sleep. A round that computes is not interrupted.
    fn wake(&mut self) {
        if matches!(self.round, Round::Work) {
            let soon = self.now.max(self.last_round + self.board.turn.max(1));
            let soon = soon.max(self.booted);
            self.next_round = Some(self.next_round.map_or(soon, |at| at.min(soon)));
        }
    }

    /// One round of the main loop, or what is left of it.
    fn go_round(&mut self) {
        let (now, time) = (self.now, self.device_time());
        let Some(machine) = &mut self.machine else {
            return;
        };
        let work = match self.round {
            Round::Send(work) => work,
            Round::Work => {
                machine.clock(now);
                let count = self.ring.len().min(CHUNK);
                if count > 0 {
                    let bytes: Vec<u8> = self.ring.drain(..count).collect();
                    machine.receive(&bytes, time);
                }
                let work = machine.work(time);
                let cost = machine.cost();
                if cost > 0 {
                    self.round = Round::Send(work);
                    self.next_round = Some(now + cost);
                    return;
                }
                work
            }
        };
        self.round = Round::Work;
        let waiting = machine.transmit(time);
        let count = self.cable.write(Way::Up, waiting, now);
        self.wants_room = waiting.len() > count;
        if count > 0 {
            machine.transmitted(count, time);
        }
        let soon = now + self.board.turn.max(1);
        self.next_round = match work {
            Work::More => Some(soon),
            Work::Idle(_) if count > 0 || !self.ring.is_empty() => Some(soon),
            Work::Idle(Some(deadline)) => {
                let alarm = deadline.saturating_mul(MILLISECOND);
                Some(self.booted.saturating_add(alarm).max(soon))
            }
            Work::Idle(None) => None,
        };
    }

    /// The board follows the machine's wish when its transmitter is empty.
    fn change_baud(&mut self) {
        if let Some(wish) = self.wish()
            && self
                .cable
                .quiet_at(Way::Up)
                .is_some_and(|at| at <= self.now)
        {
            self.cable.set_baud(End::Device, wish, self.now);
        }
    }

    /// A rate that the machine wants and the board has not.
    fn wish(&self) -> Option<u32> {
        let wish = self.machine.as_ref()?.baud()?;
        let new = self.now >= self.booted && wish != self.cable.baud(End::Device);
        new.then_some(wish)
    }

    /// Until when the station's bytes are under way, or for ever if that is not known yet.
    fn down_busy(&self) -> Option<Nanos> {
        let until = self.cable.quiet_at(Way::Down).unwrap_or(Nanos::MAX);
        (until > self.now).then_some(until)
    }

    /// Moves the time to the next event, or to `until` if nothing happens before.
    fn step(&mut self, until: Nanos) {
        let quiet = self.wish().and_then(|_| self.cable.quiet_at(Way::Up));
        let events = [self.cable.next(), self.next_round, quiet];
        let next = events.into_iter().flatten().min().unwrap_or(until);
        self.now = next.min(until).max(self.now + 1);
    }
}

/// The station's end of a world's line.
struct WorldPort<M>(World<M>);

impl<M: Machine + 'static> WorldPort<M> {
    fn plugged(&self) -> io::Result<MutexGuard<'_, State<M>>> {
        let state = self.0.lock();
        if state.unplugged {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(state)
    }
}

impl<M: Machine + 'static> Port for WorldPort<M> {
    fn name(&self) -> &str {
        "line"
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.plugged()?;
        let now = state.now;
        Ok(state.cable.write(Way::Down, bytes, now))
    }

    fn read(&mut self, bytes: &mut [u8], until: Millis) -> io::Result<usize> {
        let mut state = self.plugged()?;
        let until = until.saturating_mul(MILLISECOND);
        let entered = state.now;
        loop {
            state.settle();
            let now = state.now;
            let count = state.cable.read(Way::Up, bytes, now);
            if count > 0 {
                return Ok(count);
            }
            if now >= until {
                // Even a call that does not wait takes its time: a station that does nothing else must not stop the world.
                if now == entered {
                    state.now += MICROSECOND;
                }
                return Ok(0);
            }
            state.step(until);
        }
    }

    fn now(&self) -> Millis {
        self.0.lock().now / MILLISECOND
    }

    fn set_baud(&mut self, baud: u32) -> io::Result<bool> {
        let mut state = self.plugged()?;
        // What was written before goes out first, at the old rate.
        loop {
            // Before it is asked until when: the last byte may begin at this moment.
            state.settle();
            let Some(until) = state.down_busy() else {
                break;
            };
            state.step(until);
        }
        let now = state.now;
        state.cable.set_baud(End::Station, baud, now);
        Ok(true)
    }
}
