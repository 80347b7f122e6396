//! One connection's vital signs: what its parts report, and what the watchdog decides about it.
//!
//! The connection and its requests only count here; nothing on the hot path looks at a clock. Only the connection's own
//! thread counts, so a count is a load and a store and no locked instruction; others may read. `watchdog` reads the
//! counts, and a verdict wakes the connection, which carries it out.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use super::Protocol;
use crate::telemetry::metrics::Label;

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Closed {
    /// The client went, or asked us to.
    Client,
    /// A drain.
    Drain,
    /// The first bytes of a request came, and the rest of its head did not within `limits.header`.
    HeaderTimeout,
    /// Nothing was asked for `limits.idle`.
    Idle,
    /// What came was not HTTP, or broke its rules.
    Protocol,
    /// A request of it was refused, or had content.
    Refused,
    /// The client took nothing for `limits.write_stall`.
    Stalled,
    /// The socket failed, or a body broke.
    Transport,
    /// More than `limits.unproductive_bytes` came without a request in them.
    Unproductive,
}

impl Closed {
    /// All, in order of their index.
    const ALL: [Self; 9] = [
        Self::Client,
        Self::Drain,
        Self::HeaderTimeout,
        Self::Idle,
        Self::Protocol,
        Self::Refused,
        Self::Stalled,
        Self::Transport,
        Self::Unproductive,
    ];
}

impl Label for Closed {
    const NAME: &'static str = "reason";
    const VALUES: &'static [&'static str] = &[
        "client",
        "drain",
        "header-timeout",
        "idle",
        "protocol",
        "refused",
        "stalled",
        "transport",
        "unproductive",
    ];

    fn index(self) -> usize {
        self as usize
    }
}

/// What is to become of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Answer what is under way, take nothing new, then end.
    Wind(Closed),
    /// End now.
    End(Closed),
}

/// The counts of one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Signs {
    /// Bytes read, but for content that was taken.
    pub read: u64,
    /// Bytes written.
    pub written: u64,
    /// Requests that reached the service.
    pub requests: u32,
    /// Requests whose response has not been handed over whole.
    pub under_way: u32,
    /// Those of them that wait for us and not for the client.
    pub on_us: u32,
    /// Whether the socket refuses bytes that are ready for it.
    pub blocked: bool,
    /// Whether our side is closed, and only the client's last bytes are waited for.
    pub lingering: bool,
    /// Whether the connection has given its buffers back.
    pub dozing: bool,
    /// Whether it could not, as the beginning of a request lies in them, and nothing has come since.
    pub holding: bool,
}

impl Signs {
    /// Whether nothing is under way in either direction.
    pub(super) fn is_quiet(&self) -> bool {
        self.under_way == 0 && !self.blocked && !self.lingering
    }
}

/// One connection's vital signs.
#[derive(Debug)]
pub(super) struct Pulse {
    pub protocol: Protocol,
    read: AtomicU64,
    written: AtomicU64,
    requests: AtomicU32,
    under_way: AtomicU32,
    on_us: AtomicU32,
    blocked: AtomicBool,
    /// Whether unread content is on its way, so that closing at once would take the answer away from the client.
    linger_wanted: AtomicBool,
    lingering: AtomicBool,
    /// Whether the connection is asked to give its buffers back, and whether it has.
    drowsy: AtomicBool,
    dozing: AtomicBool,
    /// How much had been read when the beginning of a request was found in the buffers.
    held_at: AtomicU64,
    /// Bytes of content that somebody has taken, with what it cost to send them. Counted on whatever thread takes them.
    content: AtomicU64,
    /// Whether a head has said two things of its content's length.
    ambiguous: AtomicBool,
    /// Whether the handshake is not over yet.
    early: AtomicBool,
    refused: AtomicBool,
    /// Whether the transport failed.
    broken: AtomicBool,
    gone: AtomicBool,
    /// 0: none; 1 + reason: wind down; 128 + reason: end.
    verdict: AtomicU8,
    waker: Mutex<Option<Waker>>,
}

const WIND: u8 = 1;
const END: u8 = 128;

impl Pulse {
    pub(super) fn new(protocol: Protocol) -> Arc<Self> {
        Arc::new(Self {
            protocol,
            read: AtomicU64::new(0),
            written: AtomicU64::new(0),
            requests: AtomicU32::new(0),
            under_way: AtomicU32::new(0),
            on_us: AtomicU32::new(0),
            blocked: AtomicBool::new(false),
            linger_wanted: AtomicBool::new(false),
            lingering: AtomicBool::new(false),
            drowsy: AtomicBool::new(false),
            dozing: AtomicBool::new(false),
            held_at: AtomicU64::new(u64::MAX),
            content: AtomicU64::new(0),
            ambiguous: AtomicBool::new(false),
            early: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            verdict: AtomicU8::new(0),
            waker: Mutex::new(None),
        })
    }

    pub(super) fn count_read(&self, bytes: u64) {
        let read = self.read.load(Ordering::Relaxed);
        self.read.store(read.wrapping_add(bytes), Ordering::Relaxed);
    }

    pub(super) fn count_written(&self, bytes: u64) {
        let written = self.written.load(Ordering::Relaxed);
        self.written.store(written.wrapping_add(bytes), Ordering::Relaxed);
    }

    /// Content was taken: as many bytes of what was read are no flood.
    pub(super) fn count_content(&self, bytes: u64) {
        self.content.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes of content that were taken.
    pub(super) fn content(&self) -> u64 {
        self.content.load(Ordering::Relaxed)
    }

    pub(super) fn set_early(&self, early: bool) {
        self.early.store(early, Ordering::Relaxed);
    }

    pub(super) fn is_early(&self) -> bool {
        self.early.load(Ordering::Relaxed)
    }

    pub(super) fn set_ambiguous(&self) {
        self.ambiguous.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_ambiguous(&self) -> bool {
        self.ambiguous.load(Ordering::Relaxed)
    }

    /// How many requests have reached the service.
    pub(super) fn requests(&self) -> u32 {
        self.requests.load(Ordering::Relaxed)
    }

    pub(super) fn set_blocked(&self, blocked: bool) {
        self.blocked.store(blocked, Ordering::Relaxed);
    }

    /// Whether the socket takes what it is given shows in how a write went.
    pub(super) fn note<T>(&self, result: &Poll<io::Result<T>>) {
        self.set_blocked(result.is_pending());
        if matches!(result, Poll::Ready(Err(_))) {
            self.set_broken();
        }
    }

    /// After the answer under way, waits for the client's own end before closing (RFC 9112, 9.6).
    pub(super) fn want_linger(&self) {
        self.linger_wanted.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_linger_wanted(&self) -> bool {
        self.linger_wanted.load(Ordering::Relaxed)
    }

    pub(super) fn set_lingering(&self) {
        self.lingering.store(true, Ordering::Relaxed);
    }

    /// Asks the connection to give its buffers back, and wakes it.
    pub(super) fn lull(&self) {
        self.drowsy.store(true, Ordering::Relaxed);
        self.wake();
    }

    /// Whether the connection was asked to doze since the last call, and nothing has come between.
    pub(super) fn take_lull(&self) -> bool {
        // A plain load first: this is asked at every turn of the connection.
        self.drowsy.load(Ordering::Relaxed)
            && self.drowsy.swap(false, Ordering::Relaxed)
            && self.signs().is_quiet()
    }

    pub(super) fn set_dozing(&self, dozing: bool) {
        self.dozing.store(dozing, Ordering::Relaxed);
    }

    /// Notes that the buffers hold the beginning of a request: they are not asked for again before more has come.
    pub(super) fn set_holding(&self) {
        self.held_at
            .store(self.read.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    pub(super) fn set_refused(&self) {
        self.refused.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    pub(super) fn set_broken(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    /// The connection is over; the watchdog forgets it.
    pub(super) fn set_gone(&self) {
        self.gone.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    pub(super) fn signs(&self) -> Signs {
        Signs {
            read: self.read.load(Ordering::Relaxed).saturating_sub(self.content()),
            written: self.written.load(Ordering::Relaxed),
            requests: self.requests(),
            under_way: self.under_way.load(Ordering::Relaxed),
            on_us: self.on_us.load(Ordering::Relaxed),
            blocked: self.blocked.load(Ordering::Relaxed),
            lingering: self.lingering.load(Ordering::Relaxed),
            dozing: self.dozing.load(Ordering::Relaxed),
            holding: self.held_at.load(Ordering::Relaxed) == self.read.load(Ordering::Relaxed),
        }
    }

    /// Decides the connection's end and wakes it. An end is never taken back.
    pub(super) fn decide(&self, verdict: Verdict) {
        let code = match verdict {
            Verdict::Wind(why) => WIND + why as u8,
            Verdict::End(why) => END + why as u8,
        };
        if self.verdict.fetch_max(code, Ordering::AcqRel) < code {
            self.wake();
        }
    }

    pub(super) fn verdict(&self) -> Option<Verdict> {
        let code = self.verdict.load(Ordering::Acquire);
        let why = |offset| Closed::ALL.get(usize::from(code - offset)).copied();
        match code {
            0 => None,
            WIND..END => why(WIND).map(Verdict::Wind),
            END.. => why(END).map(Verdict::End),
        }
    }

    /// Remembers whom to wake on a verdict.
    pub(super) fn listen(&self, cx: &Context<'_>) {
        let mut waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *waker {
            Some(old) => old.clone_from(cx.waker()),
            None => *waker = Some(cx.waker().clone()),
        }
    }

    fn wake(&self) {
        let waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// One request under way, until its response is handed over whole or given up.
#[derive(Debug)]
pub(super) struct UnderWay {
    pulse: Arc<Pulse>,
    on_us: bool,
}

impl UnderWay {
    /// A request has reached the service: it waits for us.
    pub(super) fn begin(pulse: &Arc<Pulse>) -> Self {
        more(&pulse.requests);
        more(&pulse.under_way);
        more(&pulse.on_us);
        Self {
            pulse: Arc::clone(pulse),
            on_us: true,
        }
    }

    /// Whether the connection was ended, so that what was handed over last may never have left.
    pub(super) fn is_cut(&self) -> bool {
        matches!(self.pulse.verdict(), Some(Verdict::End(_))) || self.pulse.is_broken()
    }

    /// Notes whether the next step is ours or the client's.
    pub(super) fn set_on_us(&mut self, on_us: bool) {
        if self.on_us == on_us {
            return;
        }
        self.on_us = on_us;
        if on_us {
            more(&self.pulse.on_us);
        } else {
            fewer(&self.pulse.on_us);
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.set_on_us(false);
        fewer(&self.pulse.under_way);
    }
}

fn more(count: &AtomicU32) {
    count.store(count.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
}

fn fewer(count: &AtomicU32) {
    count.store(count.load(Ordering::Relaxed).wrapping_sub(1), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_never_taken_back() {
        let pulse = Pulse::new(Protocol::H2);
        assert_eq!(pulse.verdict(), None);
        for why in Closed::ALL {
            pulse.decide(Verdict::Wind(why));
        }
        pulse.decide(Verdict::End(Closed::Client));
        pulse.decide(Verdict::Wind(Closed::Unproductive));
        assert_eq!(pulse.verdict(), Some(Verdict::End(Closed::Client)));
    }

    #[test]
    fn every_verdict_reads_back() {
        for why in Closed::ALL {
            assert_eq!(Closed::ALL[why.index()], why);
            for verdict in [Verdict::Wind(why), Verdict::End(why)] {
                let pulse = Pulse::new(Protocol::H1);
                pulse.decide(verdict);
                assert_eq!(pulse.verdict(), Some(verdict));
            }
        }
        assert_eq!(Closed::VALUES.len(), Closed::ALL.len());
    }

    #[test]
    fn a_request_is_under_way_until_it_is_dropped() {
        let pulse = Pulse::new(Protocol::H1);
        let mut one = UnderWay::begin(&pulse);
        let two = UnderWay::begin(&pulse);
        one.set_on_us(false);
        one.set_on_us(false);
        let signs = pulse.signs();
        assert_eq!((signs.requests, signs.under_way, signs.on_us), (2, 2, 1));
        drop((one, two));
        let signs = pulse.signs();
        assert_eq!((signs.requests, signs.under_way, signs.on_us), (2, 0, 0));
    }
}
