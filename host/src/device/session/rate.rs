//! The rate of the line: finding the one at which a device listens, and agreeing on a faster one.

use std::time::Duration;

use keyferry_protocol::link::{Millis, rates};
use keyferry_protocol::message::{Reply, Request};

use super::{DeviceError, Session};

/// How long to wait for the greeting in all, in milliseconds.
const GREETING_PATIENCE: Millis = 5_000;

/// How long to wait at one rate the first time, in milliseconds: a greeting takes some 20 ms at 115200 baud, and a USB adapter may
/// keep an answer for 16.
const DWELL: Millis = 250;

/// Where a device may listen besides the base rate: it was left there by a session that was cut, or it knows no other.
const ELSEWHERE: [u32; 7] = [
    921_600, 1_000_000, 3_000_000, 460_800, 230_400, 2_000_000, 57_600,
];

/// How long both ends wait for a good frame at a new rate before they go back, in milliseconds.
const TRIAL: Millis = rates::TRIAL;

/// What a change of rate costs: bytes of request and answer at the old rate, and waiting.
const CHANGE_BYTES: u64 = 100;
const CHANGE_WAIT: Millis = 20;

impl Session {
    /// Calls the device at one rate after the other until it answers.
    pub(super) fn find(&mut self) -> Result<Vec<u8>, DeviceError> {
        let start = self.port.now();
        let end = start + GREETING_PATIENCE;
        // A session that was lost may have left the device at its own rate.
        let left = self.rate.filter(|rate| *rate != rates::BASE);
        // Every second call is at the base rate, since most devices listen there, some a little later than others; and the last.
        let elsewhere = ELSEWHERE.into_iter().flat_map(|rate| [rates::BASE, rate]);
        let calls = left.into_iter().chain(elsewhere).map(|rate| (rate, DWELL));
        for (rate, dwell) in calls.chain([(rates::BASE, GREETING_PATIENCE)]) {
            let tuned = self.tune(rate)?;
            let deadline = if tuned {
                end.min(self.port.now() + dwell)
            } else {
                end
            };
            let mut answer = self.call(deadline, end);
            // It was reset in the middle of its answer.
            while matches!(answer, Err(DeviceError::Restarted { .. })) && self.port.now() < end {
                answer = self.call(deadline.max(self.port.now() + dwell).min(end), end);
            }
            match answer {
                Ok(Some(message)) => return Ok(message),
                Ok(None) => {}
                Err(error) => return Err(error),
            }
            if self.port.now() >= end {
                break;
            }
        }
        Err(self.silent(start))
    }

    fn silent(&self, start: Millis) -> DeviceError {
        let port = self.port_name();
        if self.arrived == 0 {
            DeviceError::Silent {
                port,
                waited: Duration::from_millis(self.port.now().saturating_sub(start)),
            }
        } else {
            DeviceError::Garbage {
                port,
                bytes: self.arrived,
            }
        }
    }

    /// Sets the port's rate, and says whether it has one. A rate that the port cannot do is passed over.
    fn tune(&mut self, rate: u32) -> Result<bool, DeviceError> {
        if self.rate == Some(rate) {
            return Ok(true);
        }
        match self.port.set_baud(rate) {
            Ok(true) => {
                self.rate = Some(rate);
                self.link.set_rate(rate);
                Ok(true)
            }
            Ok(false) => {
                self.rate = None;
                // Nothing is gained by waiting for a line that takes no time.
                self.link.set_rate(u32::MAX);
                Ok(false)
            }
            Err(_) if rate != rates::BASE => Ok(false),
            Err(error) => Err(self.port_error(error)),
        }
    }

    /// When to go back to the base rate because nothing is heard.
    pub(super) fn rate_deadline(&self) -> Option<Millis> {
        let faster = self.rate.is_some_and(|rate| rate != rates::BASE);
        (faster && self.link.is_open()).then(|| self.link.heard_at() + rates::PATIENCE)
    }

    /// Goes back to the base rate when it is time: the device does so too.
    pub(super) fn keep_rate(&mut self) -> Result<(), DeviceError> {
        if self.rate_deadline().is_some_and(|at| self.port.now() >= at) {
            self.tune(rates::BASE)?;
        }
        Ok(())
    }

    /// The line's rate now, in baud; `None` on a port that has none.
    #[must_use]
    pub const fn rate(&self) -> Option<u32> {
        self.rate
    }

    /// Changes to the fastest rate that both ends know and the line carries, if that saves time on `bytes` that are going to cross
    /// it.
    ///
    /// # Errors
    /// [`DeviceError`]. That the faster rate does not work is none: the session goes on at the old one.
    pub fn hasten(&mut self, bytes: u64) -> Result<(), DeviceError> {
        let Some(old) = self.rate else {
            return Ok(());
        };
        let millis = |count: u64, rate: u32| count * rates::byte_time(rate) / 1_000_000;
        let mut set = self.link.common_rates() & !self.unfit;
        while let Some(rate) = rates::of_set(set).next() {
            set &= !rates::set_of(&[rate]);
            let saved = millis(bytes, old).saturating_sub(millis(bytes, rate));
            if saved <= millis(CHANGE_BYTES, old) + CHANGE_WAIT {
                return Ok(());
            }
            if old == rate || self.change(rate)? {
                return Ok(());
            }
            self.unfit |= rates::set_of(&[rate]);
            if self.rate != Some(old) {
                // The base rate now, and another reckoning.
                return self.hasten(bytes);
            }
        }
        Ok(())
    }

    /// Tries one rate, and says whether it works.
    fn change(&mut self, rate: u32) -> Result<bool, DeviceError> {
        let answer = self.exchange(&Request::Rate { baud: rate }, &mut |_| {})?;
        match Reply::decode(&answer) {
            Ok(Reply::Rate { baud }) if baud == rate => {}
            Ok(Reply::Refused(_)) => return Ok(false),
            Ok(_) | Err(_) => return Err(DeviceError::Unexpected),
        }
        if !self.tune(rate)? {
            return self.wait_back();
        }
        if self.ask(TRIAL)? {
            return Ok(true);
        }
        self.wait_back()
    }

    /// Asks for a sign of life, and says whether there was one in time.
    fn ask(&mut self, patience: Millis) -> Result<bool, DeviceError> {
        let before = self.link.heard_frames();
        self.link.ping();
        let deadline = self.port.now() + patience;
        self.wait_for(deadline, |link| link.heard_frames() != before)?;
        Ok(self.link.heard_frames() != before)
    }

    /// Goes back to the base rate, and waits until the device has done so too.
    fn wait_back(&mut self) -> Result<bool, DeviceError> {
        self.tune(rates::BASE)?;
        self.ask(2 * TRIAL)?;
        Ok(false)
    }
}
