//! The deadlines of all connections of one worker, kept by one coarse ticker.
//!
//! A timer per connection costs 2 to 5 % on small answers, so there is none: at each tick every connection's counts are
//! compared with those of the tick before. A deadline is met to within one tick, a sixteenth of the shortest limit.
//!
//! *Progress* is a request, or a new height of bytes written less bytes read. A client that only pings, or asks for its
//! answer a byte at a time, makes none, and one that downloads does.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::Protocol;
use super::pulse::{Closed, Pulse, Signs, Verdict};
use crate::config::Limits;
use crate::drain::Drain;

/// How long a connection that is told to wind down may stay without a request under way, at most.
const GRACE: Duration = Duration::from_secs(5);

/// How long a quiet HTTP/1 connection is kept when a drain begins, for a request that may be on its way.
const FAREWELL: Duration = Duration::from_secs(1);

/// How long the client's last bytes are waited for.
const LINGER: Duration = Duration::from_secs(2);

/// Keeps the deadlines of connections, for as long as anybody holds one of its clones. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Watchdog {
    watched: Arc<Mutex<Vec<Watched>>>,
}

impl Watchdog {
    /// Starts the ticker on the runtime of the caller; it ends with the drain.
    pub fn start(limits: &Limits, drain: &Drain) -> Self {
        let deadlines = Deadlines::new(limits);
        let watched: Arc<Mutex<Vec<Watched>>> = Arc::default();
        let (all, told) = (Arc::clone(&watched), drain.clone());
        drain.spawn("watchdog", async move {
            let mut ticks = tokio::time::interval(deadlines.tick);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            let mut now = 0;
            loop {
                let draining = told.is_draining();
                if draining {
                    ticks.tick().await;
                } else {
                    tokio::select! {
                        _ = ticks.tick() => {}
                        () = told.begun() => {}
                    }
                }
                now += 1;
                look(&all, &deadlines, now, told.is_draining());
                // Whoever may bring another connection holds one: also those whose handshake is not over yet.
                if draining && Arc::strong_count(&all) == 1 {
                    return;
                }
            }
        });
        Self { watched }
    }

    /// Watches a connection until it is gone.
    pub(super) fn watch(&self, pulse: &Arc<Pulse>) {
        let watched = Watched {
            pulse: Arc::clone(pulse),
            chart: Chart::default(),
        };
        self.watched
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(watched);
    }
}

/// Judges every connection.
fn look(all: &Mutex<Vec<Watched>>, deadlines: &Deadlines, now: u32, draining: bool) {
    let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
    all.retain_mut(|watched| {
        if watched.pulse.is_gone() {
            return false;
        }
        let signs = watched.pulse.signs();
        if let Some(verdict) = watched
            .chart
            .judge(signs, watched.pulse.protocol, deadlines, now, draining)
        {
            watched.pulse.decide(verdict);
        } else if watched.chart.may_doze(signs, watched.pulse.protocol, now) {
            watched.pulse.lull();
        }
        true
    });
    if all.len() * 4 < all.capacity() {
        all.shrink_to_fit();
    }
}

#[derive(Debug)]
struct Watched {
    pulse: Arc<Pulse>,
    chart: Chart,
}

/// The limits, in ticks.
#[derive(Clone, Copy, Debug)]
struct Deadlines {
    tick: Duration,
    header: u32,
    idle: u32,
    write_stall: u32,
    grace: u32,
    farewell: u32,
    linger: u32,
}

impl Deadlines {
    fn new(limits: &Limits) -> Self {
        let shortest = limits.header.min(limits.idle).min(limits.write_stall);
        let tick = (shortest / 16).clamp(Duration::from_millis(5), Duration::from_millis(500));
        let ticks = |limit: Duration| {
            u32::try_from(limit.as_micros().div_ceil(tick.as_micros()))
                .unwrap_or(u32::MAX)
                .max(1)
        };
        Self {
            tick,
            header: ticks(limits.header),
            idle: ticks(limits.idle),
            write_stall: ticks(limits.write_stall),
            grace: ticks(GRACE.min(limits.header)),
            farewell: ticks(FAREWELL.min(limits.header)),
            linger: ticks(LINGER.min(limits.header)),
        }
    }
}

/// What is remembered of a connection from tick to tick.
#[derive(Debug, Default)]
struct Chart {
    /// The last tick with progress; 0 before the first look.
    progress: u32,
    /// The greatest height so far of bytes written less bytes read.
    height: i64,
    requests: u32,
    /// Bytes read when the last request was seen.
    read: u64,
    /// The tick that first saw bytes after that.
    head_began: Option<u32>,
    wound: Option<u32>,
    drain_began: Option<u32>,
    linger_began: Option<u32>,
}

impl Chart {
    fn judge(
        &mut self,
        signs: Signs,
        protocol: Protocol,
        deadlines: &Deadlines,
        now: u32,
        draining: bool,
    ) -> Option<Verdict> {
        self.note(signs, now);
        let still = now - self.progress;
        if signs.lingering {
            let began = *self.linger_began.get_or_insert(now);
            return (now - began >= deadlines.linger).then_some(Verdict::End(Closed::Refused));
        }
        if (signs.under_way > signs.on_us || signs.blocked) && still >= deadlines.write_stall {
            return Some(Verdict::End(Closed::Stalled));
        }
        if signs.under_way == 0
            && let Some(verdict) = self.judge_quiet(signs, protocol, deadlines, now)
        {
            return Some(verdict);
        }
        (draining && self.wound.is_none() && self.judge_drain(signs, protocol, deadlines, now)).then(|| {
            self.wound = Some(now);
            Verdict::Wind(Closed::Drain)
        })
    }

    /// Whether an HTTP/1 connection that was just judged may give its buffers back: it has asked something, and nothing has
    /// come or gone for a whole tick. Most connections are quiet most of their time, and their buffers are most of what
    /// they cost.
    fn may_doze(&self, signs: Signs, protocol: Protocol, now: u32) -> bool {
        protocol == Protocol::H1
            && self.wound.is_none()
            && signs.is_quiet()
            && !signs.dozing
            && !signs.holding
            && signs.requests > 0
            && signs.read == self.read
            && now > self.progress
    }

    /// Whether a drain winds the connection down now. GOAWAY can be sent at any time. HTTP/1 has only the next answer to
    /// say it with: closing right away would fail a request that is already on its way here, so a quiet connection is
    /// let wait for one first.
    fn judge_drain(&mut self, signs: Signs, protocol: Protocol, deadlines: &Deadlines, now: u32) -> bool {
        let began = *self.drain_began.get_or_insert(now);
        let quiet = now - began.max(self.progress) >= deadlines.farewell;
        protocol == Protocol::H2 || (signs.under_way == 0 && quiet)
    }

    /// A connection with nothing under way.
    fn judge_quiet(
        &mut self,
        signs: Signs,
        protocol: Protocol,
        deadlines: &Deadlines,
        now: u32,
    ) -> Option<Verdict> {
        if let Some(wound) = self.wound {
            let still = now - wound.max(self.progress);
            return (still >= deadlines.grace).then_some(Verdict::End(Closed::Idle));
        }
        // Under HTTP/2 bytes between requests are mostly frames that belong to none; there, the idle deadline does.
        if protocol == Protocol::H1 && signs.read > self.read {
            let began = *self.head_began.get_or_insert(now);
            return (now - began >= deadlines.header).then_some(Verdict::End(Closed::HeaderTimeout));
        }
        // Whoever has never asked anything is let wait half as long.
        let idle = if signs.requests == 0 {
            deadlines.idle.div_ceil(2)
        } else {
            deadlines.idle
        };
        if now - self.progress >= idle {
            self.wound = Some(now);
            return Some(Verdict::Wind(Closed::Idle));
        }
        None
    }

    fn note(&mut self, signs: Signs, now: u32) {
        let height =
            i64::try_from(signs.written).unwrap_or(i64::MAX) - i64::try_from(signs.read).unwrap_or(i64::MAX);
        if self.progress == 0 {
            self.progress = now;
            self.height = height;
        }
        if signs.requests != self.requests {
            self.requests = signs.requests;
            self.read = signs.read;
            self.head_began = None;
            self.height = height;
            self.progress = now;
        }
        // While every request waits for us, the client's time stands still.
        let ours = signs.under_way > 0 && signs.under_way == signs.on_us && !signs.blocked;
        if height > self.height || ours {
            self.height = self.height.max(height);
            self.progress = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ticks of 500 ms: header 20, idle 120, stall 60, grace 10, linger 4.
    fn deadlines() -> Deadlines {
        Deadlines::new(&Limits::default())
    }

    /// Feeds `signs(tick)` until a verdict; returns its tick and the verdict.
    fn first(protocol: Protocol, draining_from: u32, signs: impl Fn(u32) -> Signs) -> Option<(u32, Verdict)> {
        let (mut chart, deadlines) = (Chart::default(), deadlines());
        (1..1000).find_map(|now| {
            chart
                .judge(signs(now), protocol, &deadlines, now, now >= draining_from)
                .map(|verdict| (now, verdict))
        })
    }

    const NEVER: u32 = 10_000;

    #[test]
    fn the_tick_follows_the_shortest_limit() {
        assert_eq!(deadlines().tick, Duration::from_millis(500));
        let quick = Deadlines::new(&Limits {
            header: Duration::from_millis(160),
            ..Limits::default()
        });
        assert_eq!((quick.tick, quick.header), (Duration::from_millis(10), 16));
    }

    #[test]
    fn a_head_that_does_not_arrive_ends_the_connection() {
        let drip = |now: u32| Signs {
            read: u64::from(now),
            ..Signs::default()
        };
        assert_eq!(
            first(Protocol::H1, NEVER, drip),
            Some((21, Verdict::End(Closed::HeaderTimeout)))
        );
        let after_one = |now: u32| Signs {
            read: 100 + u64::from(now),
            requests: 1,
            ..Signs::default()
        };
        assert_eq!(
            first(Protocol::H1, NEVER, after_one),
            Some((22, Verdict::End(Closed::HeaderTimeout)))
        );
    }

    #[test]
    fn a_connection_without_a_request_is_wound_down_and_then_ended() {
        let silent = |_| Signs::default();
        assert_eq!(
            first(Protocol::H2, NEVER, silent),
            Some((61, Verdict::Wind(Closed::Idle)))
        );
        let asked = |_| Signs {
            requests: 1,
            read: 50,
            written: 60,
            ..Signs::default()
        };
        assert_eq!(
            first(Protocol::H1, NEVER, asked),
            Some((121, Verdict::Wind(Closed::Idle)))
        );
        let (mut chart, deadlines) = (Chart::default(), deadlines());
        let verdicts: Vec<_> = (1..200)
            .filter_map(|now| {
                chart
                    .judge(asked(now), Protocol::H2, &deadlines, now, false)
                    .map(|v| (now, v))
            })
            .take(2)
            .collect();
        assert_eq!(
            verdicts,
            [
                (121, Verdict::Wind(Closed::Idle)),
                (131, Verdict::End(Closed::Idle))
            ]
        );
    }

    #[test]
    fn pings_are_no_progress_and_downloads_are() {
        let pings = |now: u32| Signs {
            read: 17 * u64::from(now),
            written: 17 * u64::from(now),
            ..Signs::default()
        };
        assert_eq!(
            first(Protocol::H2, NEVER, pings),
            Some((61, Verdict::Wind(Closed::Idle)))
        );
        let download = |now: u32| Signs {
            requests: 1,
            under_way: 1,
            written: u64::from(now),
            ..Signs::default()
        };
        assert_eq!(first(Protocol::H2, NEVER, download), None);
    }

    #[test]
    fn a_client_that_takes_nothing_is_ended_and_one_that_waits_for_us_is_not() {
        let stuck = |now: u32| Signs {
            requests: 1,
            under_way: 2,
            on_us: 1,
            read: 17 * u64::from(now),
            written: 17 * u64::from(now),
            ..Signs::default()
        };
        assert_eq!(
            first(Protocol::H2, NEVER, stuck),
            Some((61, Verdict::End(Closed::Stalled)))
        );
        let ours = |_| Signs {
            requests: 1,
            under_way: 1,
            on_us: 1,
            ..Signs::default()
        };
        assert_eq!(first(Protocol::H1, NEVER, ours), None);
        let blocked = |_| Signs {
            requests: 1,
            blocked: true,
            ..Signs::default()
        };
        assert_eq!(
            first(Protocol::H1, NEVER, blocked),
            Some((61, Verdict::End(Closed::Stalled)))
        );
    }

    #[test]
    fn a_drain_tells_http2_at_once_and_lets_a_quiet_http1_connection_ask_once_more() {
        let busy = |_| Signs {
            requests: 1,
            under_way: 1,
            on_us: 1,
            ..Signs::default()
        };
        let quiet = |_| Signs {
            requests: 1,
            ..Signs::default()
        };
        let wound = |tick| Some((tick, Verdict::Wind(Closed::Drain)));
        let farewell = deadlines().farewell;
        assert_eq!(first(Protocol::H2, 7, busy), wound(7));
        assert_eq!(first(Protocol::H1, 7, busy), None);
        assert_eq!(first(Protocol::H1, 7, quiet), wound(7 + farewell));
    }

    #[test]
    fn only_a_connection_without_anything_under_way_may_doze() {
        let quiet = Signs {
            requests: 1,
            read: 50,
            written: 60,
            ..Signs::default()
        };
        let check = |before: Signs, now: Signs, expected: bool| {
            let (mut chart, deadlines) = (Chart::default(), deadlines());
            chart.judge(before, Protocol::H1, &deadlines, 1, false);
            assert!(!chart.may_doze(before, Protocol::H1, 1), "{before:?}");
            chart.judge(now, Protocol::H1, &deadlines, 2, false);
            assert_eq!(chart.may_doze(now, Protocol::H1, 2), expected, "{now:?}");
            assert!(!chart.may_doze(now, Protocol::H2, 2), "{now:?}");
        };
        check(quiet, quiet, true);
        check(Signs::default(), Signs::default(), false);
        check(Signs::default(), quiet, false);
        let but = |change: fn(&mut Signs)| {
            let mut signs = quiet;
            change(&mut signs);
            signs
        };
        check(quiet, but(|signs| signs.under_way = 1), false);
        check(quiet, but(|signs| signs.blocked = true), false);
        check(quiet, but(|signs| signs.lingering = true), false);
        check(quiet, but(|signs| signs.dozing = true), false);
        check(quiet, but(|signs| signs.holding = true), false);
        check(quiet, but(|signs| signs.read = 51), false);
        check(quiet, but(|signs| signs.requests = 2), false);
    }

    #[test]
    fn lingering_is_short() {
        let lingering = |_| Signs {
            lingering: true,
            ..Signs::default()
        };
        assert_eq!(
            first(Protocol::H1, NEVER, lingering),
            Some((5, Verdict::End(Closed::Refused)))
        );
    }
}
