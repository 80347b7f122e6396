//! When a certificate is renewed: a decision about times, taken without a clock, a store or a CA.
//!
//! With renewal information of the CA (RFC 9773) the moment lies in the window that it names, else where two thirds of the
//! life are over. The moment within the window follows from the certificate itself, so every node of a fleet arrives
//! at the same one, and different certificates are spread. How an order goes is not known here.

use std::time::{Duration, SystemTime};

/// The first pause after a failure; it doubles with each further one.
const PAUSE_MIN: Duration = Duration::from_secs(60);
/// No pause of our own is longer: a CA that asks for more is obeyed.
const PAUSE_MAX: Duration = Duration::from_secs(6 * 3600);
/// A `Retry-After` beyond that is taken for a slip.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// A certificate that lacks a name, or that this node refuses, is not replaced sooner than this after it was issued: nodes
/// that disagree about a configuration must not place an order a minute.
const REPLACE_MIN: Duration = Duration::from_secs(3600);

/// A certificate, as far as its renewal goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// Valid from then on.
    pub not_before: SystemTime,
    /// Valid until then.
    pub not_after: SystemTime,
    /// Where in a window this certificate falls, from 0 to 255: a byte of its fingerprint.
    pub spread: u8,
}

/// When the CA would like it renewed (RFC 9773 section 4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// From then on.
    pub start: SystemTime,
    /// Until then.
    pub end: SystemTime,
}

/// What is known when the question is asked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Situation {
    /// The certificate that is served, if there is one.
    pub served: Option<Life>,
    /// What the CA says of it.
    pub window: Option<Window>,
    /// Whether the served certificate lacks a name that is configured.
    pub incomplete: bool,
    /// When the fleet last got a certificate for this name, good or not.
    pub issued: Option<SystemTime>,
    /// Until when the last failure asks to wait.
    pub retry_at: Option<SystemTime>,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Order one now.
    Order(Reason),
    /// Look again then.
    Wait(SystemTime),
}

/// Why one is ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The moment has come.
    Due,
    /// A name was added.
    Incomplete,
    /// There is none.
    Missing,
}

/// Whether to order a certificate now.
pub fn decide(situation: &Situation, now: SystemTime) -> Decision {
    let (reason, moment) = match situation.served {
        None => (Reason::Missing, replace_at(situation)),
        Some(_) if situation.incomplete => (Reason::Incomplete, replace_at(situation)),
        Some(life) => (Reason::Due, Some(due(life, situation.window))),
    };
    let moment = moment.max(situation.retry_at);
    match moment {
        Some(moment) if now < moment => Decision::Wait(moment),
        _ => Decision::Order(reason),
    }
}

/// When a certificate is due, failures apart.
pub fn due(life: Life, window: Option<Window>) -> SystemTime {
    let whole = since(life.not_after, life.not_before);
    let share = u32::from(life.spread);
    let Some(window) = window.filter(|window| window.start < window.end) else {
        // Up to a fiftieth of the life earlier: 6-day certificates differ by hours, 90-day ones by nearly two days.
        return life.not_before + whole * 2 / 3 - (whole / 50) * share / 255;
    };
    let asked = window.start + (since(window.end, window.start) / 255) * share;
    // A window that begins when hardly anything is left would leave no time for a second try.
    asked.min(life.not_after - whole / 8)
}

/// Until when to wait after the `failures`th failure in a row: doubling pauses, with jitter, or what the CA asks for when
/// that is longer. `remaining` is what is left of the served certificate: short ones cannot wait for hours.
pub fn retry_at(
    failures: u32,
    retry_after: Option<Duration>,
    remaining: Option<Duration>,
    spread: u8,
    now: SystemTime,
) -> SystemTime {
    let longest = remaining.map_or(PAUSE_MAX, |left| (left / 8).clamp(PAUSE_MIN, PAUSE_MAX));
    let doubled = PAUSE_MIN.saturating_mul(1 << failures.saturating_sub(1).min(10));
    let pause = doubled.min(longest);
    // A quarter either way, from the spread.
    let jittered = pause * 3 / 4 + (pause / 2) * u32::from(spread) / 255;
    let asked = retry_after.unwrap_or_default().min(RETRY_AFTER_MAX);
    now + jittered.max(asked)
}

fn replace_at(situation: &Situation) -> Option<SystemTime> {
    situation.issued.map(|issued| issued + REPLACE_MIN)
}

fn since(later: SystemTime, earlier: SystemTime) -> Duration {
    later.duration_since(earlier).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::now;

    const DAY: Duration = Duration::from_secs(86_400);
    const HOUR: Duration = Duration::from_secs(3600);

    fn life(whole: Duration, spread: u8) -> Life {
        Life {
            not_before: now(),
            not_after: now() + whole,
            spread,
        }
    }

    fn window(from: Duration, to: Duration) -> Option<Window> {
        Some(Window {
            start: now() + from,
            end: now() + to,
        })
    }

    #[test]
    fn without_a_word_of_the_ca_two_thirds_of_the_life_decide() {
        let check = |whole, spread, expected: Duration| {
            let moment = due(life(whole, spread), None).duration_since(now()).unwrap();
            let off = moment.abs_diff(expected);
            assert!(off < Duration::from_secs(60), "{whole:?} {spread}: {moment:?}");
        };
        check(90 * DAY, 0, 60 * DAY);
        check(90 * DAY, 255, 60 * DAY - 90 * DAY / 50);
        check(47 * DAY, 0, 47 * DAY * 2 / 3);
        check(6 * DAY, 0, 4 * DAY);
        check(6 * DAY, 255, 4 * DAY - 6 * DAY / 50);
        check(HOUR, 0, HOUR * 2 / 3);
    }

    #[test]
    fn the_window_of_the_ca_goes_first_and_each_certificate_has_its_place_in_it() {
        let check = |window, spread, expected: Duration| {
            let moment = due(life(90 * DAY, spread), window);
            let moment = moment.duration_since(now()).unwrap();
            assert!(
                moment.abs_diff(expected) < HOUR,
                "{window:?} {spread}: {moment:?}"
            );
        };
        check(window(30 * DAY, 31 * DAY), 0, 30 * DAY);
        check(window(30 * DAY, 31 * DAY), 255, 31 * DAY);
        check(window(70 * DAY, 72 * DAY), 127, 71 * DAY);
        // Revoked soon: the CA names a window in the past, and the answer is now.
        check(window(Duration::ZERO, DAY), 0, Duration::ZERO);
        // Too late to be safe, or senseless.
        check(window(89 * DAY, 90 * DAY), 0, 90 * DAY - 90 * DAY / 8);
        check(window(31 * DAY, 30 * DAY), 0, 60 * DAY);
    }

    #[test]
    fn what_is_missing_is_ordered_at_once_and_nothing_twice_an_hour() {
        let check = |situation: Situation, expected: Decision| {
            assert_eq!(decide(&situation, now() + 10 * HOUR), expected, "{situation:?}");
        };
        let at = |time: Duration| now() + time;
        check(Situation::default(), Decision::Order(Reason::Missing));
        let served = Situation {
            served: Some(life(90 * DAY, 0)),
            ..Situation::default()
        };
        check(served, Decision::Wait(due(life(90 * DAY, 0), None)));
        check(
            Situation {
                served: Some(life(14 * HOUR, 0)),
                ..served
            },
            Decision::Order(Reason::Due),
        );
        let incomplete = Situation {
            incomplete: true,
            issued: Some(at(2 * HOUR)),
            ..served
        };
        check(incomplete, Decision::Order(Reason::Incomplete));
        check(
            Situation {
                issued: Some(at(10 * HOUR)),
                ..incomplete
            },
            Decision::Wait(at(11 * HOUR)),
        );
        check(
            Situation {
                issued: Some(at(10 * HOUR)),
                ..Situation::default()
            },
            Decision::Wait(at(11 * HOUR)),
        );
        check(
            Situation {
                retry_at: Some(at(12 * HOUR)),
                ..Situation::default()
            },
            Decision::Wait(at(12 * HOUR)),
        );
        check(
            Situation {
                retry_at: Some(at(9 * HOUR)),
                ..Situation::default()
            },
            Decision::Order(Reason::Missing),
        );
    }

    #[test]
    fn pauses_double_to_six_hours_and_the_ca_may_ask_for_more() {
        let check = |failures, retry_after, remaining, spread, expected: Duration| {
            let pause = retry_at(failures, retry_after, remaining, spread, now())
                .duration_since(now())
                .unwrap();
            assert_eq!(
                pause, expected,
                "{failures} {retry_after:?} {remaining:?} {spread}"
            );
        };
        let minute = Duration::from_secs(60);
        check(1, None, None, 0, minute * 3 / 4);
        check(1, None, None, 255, minute * 5 / 4);
        check(4, None, None, 0, 8 * minute * 3 / 4);
        check(40, None, None, 255, 6 * HOUR * 5 / 4);
        check(u32::MAX, None, Some(30 * DAY), 0, 6 * HOUR * 3 / 4);
        // With eight hours left of it nobody waits for six.
        check(40, None, Some(8 * HOUR), 0, HOUR * 3 / 4);
        check(40, None, Some(Duration::ZERO), 0, minute * 3 / 4);
        check(1, Some(2 * HOUR), None, 0, 2 * HOUR);
        check(1, Some(2 * HOUR), Some(Duration::ZERO), 0, 2 * HOUR);
        check(1, Some(1000 * DAY), None, 0, 7 * DAY);
        check(9, Some(minute), None, 0, 256 * minute * 3 / 4);
    }
}
