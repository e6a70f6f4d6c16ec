//! What the status LED shows: a pattern for each [`Status`], as a state machine that takes the time and owns neither LED nor clock.
//!
//! | status | the LED |
//! | --- | --- |
//! | idle | dark, with a flash of 100 ms every two seconds |
//! | busy | ten flashes of 50 ms a second |
//! | done | lit |
//! | failed | on and off every half second |
//! | quarantined | three flashes of 150 ms, and a second of darkness |
//! | silent | dark |

use crate::device::Millis;
use crate::platform::Status;

/// How the LED is lit over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// Always the same.
    Steady(bool),
    /// Lit for the first span, dark for the next, and so on; then from the beginning. In milliseconds.
    Cycle(&'static [u16]),
}

impl Status {
    /// The pattern that shows it.
    #[must_use]
    pub const fn pattern(self) -> Pattern {
        match self {
            Self::Idle => Pattern::Cycle(&[100, 1_900]),
            Self::Busy => Pattern::Cycle(&[50, 50]),
            Self::Done => Pattern::Steady(true),
            Self::Failed => Pattern::Cycle(&[500, 500]),
            Self::Quarantined => Pattern::Cycle(&[150, 150, 150, 150, 150, 1_000]),
            Self::Silent => Pattern::Steady(false),
        }
    }
}

impl Pattern {
    /// Whether the LED is lit this long after the pattern began, in milliseconds, and how much later that changes.
    #[must_use]
    pub fn at(self, since: Millis) -> (bool, Option<Millis>) {
        let spans = match self {
            Self::Steady(lit) => return (lit, None),
            Self::Cycle(spans) => spans,
        };
        let length: Millis = spans.iter().map(|span| Millis::from(*span)).sum();
        let mut left = since.checked_rem(length).unwrap_or(0);
        for (index, span) in spans.iter().enumerate() {
            let span = Millis::from(*span);
            if left < span {
                return (index.is_multiple_of(2), Some(span - left));
            }
            left -= span;
        }
        // There are no spans.
        (false, None)
    }
}

/// Follows a pattern.
#[derive(Debug)]
pub(crate) struct Blinker {
    status: Status,
    /// When the status began; `None` until it was first looked at.
    began: Option<Millis>,
    /// How the LED was left.
    lit: Option<bool>,
}

impl Blinker {
    pub(crate) const fn new(status: Status) -> Self {
        Self {
            status,
            began: None,
            lit: None,
        }
    }

    /// From the next look on, shows this.
    pub(crate) fn show(&mut self, status: Status) {
        if status != self.status {
            self.status = status;
            self.began = None;
        }
    }

    /// How the LED is to be switched now, if it is not so already, and when to look again.
    pub(crate) fn turn(&mut self, now: Millis) -> (Option<bool>, Option<Millis>) {
        let began = *self.began.get_or_insert(now);
        let (lit, left) = self.status.pattern().at(now.saturating_sub(began));
        let change = (self.lit != Some(lit)).then_some(lit);
        self.lit = Some(lit);
        (change, left.map(|left| now.saturating_add(left)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Status; 6] = [
        Status::Idle,
        Status::Busy,
        Status::Done,
        Status::Failed,
        Status::Quarantined,
        Status::Silent,
    ];

    /// Every change of the LED in the first six seconds: when, and to what.
    fn changes(blinker: &mut Blinker, from: Millis) -> std::vec::Vec<(Millis, bool)> {
        let mut changes = std::vec::Vec::new();
        let mut now = from;
        while now < from + 6_000 {
            let (change, next) = blinker.turn(now);
            changes.extend(change.map(|lit| (now - from, lit)));
            match next {
                Some(next) => {
                    assert!(next > now, "it never asks for the past");
                    now = next;
                }
                None => break,
            }
        }
        changes
    }

    #[test]
    fn no_two_patterns_look_alike() {
        for (at, one) in ALL.iter().enumerate() {
            for other in &ALL[..at] {
                assert_ne!(
                    changes(&mut Blinker::new(*one), 0),
                    changes(&mut Blinker::new(*other), 0),
                    "{one:?}, {other:?}"
                );
            }
        }
    }

    #[test]
    fn patterns_are_those_of_the_table() {
        let of = |status| changes(&mut Blinker::new(status), 77);
        assert_eq!(of(Status::Done), [(0, true)]);
        assert_eq!(of(Status::Silent), [(0, false)]);
        let idle = [(0, true), (100, false), (2_000, true), (2_100, false)];
        assert_eq!(of(Status::Idle)[..4], idle);
        assert_eq!(of(Status::Busy)[..3], [(0, true), (50, false), (100, true)]);
        assert_eq!(of(Status::Busy).len(), 120);
        assert_eq!(of(Status::Failed)[1..3], [(500, false), (1_000, true)]);
        assert_eq!(of(Status::Quarantined)[5..7], [(750, false), (1_750, true)]);
    }

    #[test]
    fn a_status_begins_with_its_pattern_whenever_it_comes_and_the_same_again_does_not_begin_anew() {
        let mut blinker = Blinker::new(Status::Idle);
        assert_eq!(blinker.turn(1_000), (Some(true), Some(1_100)));
        blinker.show(Status::Idle);
        assert_eq!(blinker.turn(1_030), (None, Some(1_100)));
        blinker.show(Status::Failed);
        assert_eq!(blinker.turn(1_040), (None, Some(1_540)));
        blinker.show(Status::Silent);
        assert_eq!(blinker.turn(1_050), (Some(false), None));
        // A clock that stands still or a look that comes late does no harm.
        blinker.show(Status::Busy);
        assert_eq!(blinker.turn(Millis::MAX), (Some(true), Some(Millis::MAX)));
    }
}
