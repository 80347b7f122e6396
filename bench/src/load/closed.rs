//! The closed loop: so many clients, each of which asks again when it has its answer. And clients that come anew each
//! time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use http::StatusCode;
use rustls::HandshakeKind;

use super::{Connection, Done, Door, Judge, Mix, Outcome, histogram, record, start};
use crate::clock;

/// A run in a closed loop.
pub(crate) struct Closed {
    pub(crate) door: Door,
    pub(crate) judge: Arc<Judge>,
    pub(crate) connections: usize,
    /// Requests at once on each connection; more than one over HTTP/2 only.
    pub(crate) streams: usize,
    /// The run ends after so long,
    pub(crate) duration: Duration,
    /// or after so many requests.
    pub(crate) requests: u64,
}

/// New connections, one after the other, each with one request.
pub(crate) struct Fresh {
    pub(crate) door: Door,
    pub(crate) judge: Arc<Judge>,
    /// Clients at once.
    pub(crate) clients: usize,
    pub(crate) duration: Duration,
    /// How each handshake has to go.
    pub(crate) kind: HandshakeKind,
}

/// What is shared by the clients of a run.
struct Shared<M> {
    mix: Mutex<M>,
    tally: Mutex<Tally>,
    left: AtomicU64,
    /// Handshakes that went otherwise than they had to.
    other: AtomicU64,
    end: Instant,
}

struct Tally {
    latencies: Histogram<u64>,
    unchanged: u64,
    wire_bytes: u64,
    fault: Option<String>,
}

impl<M: Mix> Shared<M> {
    fn new(mix: M, requests: u64, duration: Duration) -> Arc<Self> {
        Arc::new(Self {
            mix: Mutex::new(mix),
            tally: Mutex::new(Tally {
                latencies: histogram(),
                unchanged: 0,
                wire_bytes: 0,
                fault: None,
            }),
            left: AtomicU64::new(requests),
            other: AtomicU64::new(0),
            end: clock::now() + duration,
        })
    }

    /// Whether there is another request to be made. The first one of a client is made however late it comes to it: on a
    /// busy machine a short run would else be over before it began.
    fn goes_on(&self, is_first: bool) -> bool {
        let take = |left: u64| left.checked_sub(1);
        (is_first || clock::now() < self.end)
            && self
                .left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
                .is_ok()
    }

    async fn ask(&self, door: &Door, judge: &Judge, connection: &mut Connection) -> Outcome<()> {
        let ask = self.mix.lock().unwrap_or_else(PoisonError::into_inner).next();
        let began = clock::now();
        let request = judge.request(&ask, door)?;
        let answer = connection.send(request).await?;
        let seen = judge.judge(&ask, answer).await?;
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        record(&mut tally.latencies, clock::now() - began);
        tally.wire_bytes += seen.wire_bytes;
        tally.unchanged += u64::from(seen.status == StatusCode::NOT_MODIFIED);
        Ok(())
    }

    fn fail(&self, why: String) {
        self.left.store(0, Ordering::Relaxed);
        self.tally
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .fault
            .get_or_insert(why);
    }

    fn done(&self, began: Instant) -> Outcome<Done> {
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(fault) = tally.fault.take() {
            return Err(fault);
        }
        Ok(Done {
            answered: tally.latencies.len(),
            seconds: (clock::now() - began).as_secs_f64(),
            latencies: Some(tally.latencies.clone()),
            lag: None,
            unchanged: tally.unchanged,
            resumed: None,
            wire_bytes: tally.wire_bytes,
        })
    }
}

impl Closed {
    /// Runs it. All connections are there before the first request.
    pub(crate) async fn run(&self, mix: impl Mix) -> Outcome<Done> {
        let mut clients = Vec::new();
        for number in 0..self.connections {
            let connection = self.door.connect(number).await?;
            for _ in 1..self.streams {
                clients.extend(connection.shared());
            }
            clients.push(connection);
        }
        let shared = Shared::new(mix, self.requests, self.duration);
        let began = clock::now();
        let tasks: Vec<_> = clients
            .into_iter()
            .map(|mut connection| {
                let (shared, judge, door) = (Arc::clone(&shared), Arc::clone(&self.judge), self.door.clone());
                start(async move {
                    let mut is_first = true;
                    while shared.goes_on(std::mem::take(&mut is_first)) {
                        if let Err(why) = shared.ask(&door, &judge, &mut connection).await {
                            shared.fail(why);
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            let _ = task.await;
        }
        shared.done(began)
    }
}

/// Of the handshakes that are to be full, all have to be. Of those that are to be resumed, the share is among the figures:
/// a server that gives no new ticket with a resumed handshake leaves a client that uses each ticket once, as RFC 8446,
/// appendix C.4 asks, without one for each third. Below a half it does not resume at all.
fn is_enough(kind: HandshakeKind, other: u64, answered: u64) -> bool {
    match kind {
        HandshakeKind::Resumed => 2 * other <= answered,
        _ => other == 0,
    }
}

impl Fresh {
    /// Runs it.
    pub(crate) async fn run(&self, mix: impl Mix) -> Outcome<Done> {
        let shared = Shared::new(mix, u64::MAX, self.duration);
        let began = clock::now();
        let number = Arc::new(AtomicU64::new(0));
        let tasks: Vec<_> = (0..self.clients)
            .map(|_| {
                let (shared, judge, door) = (Arc::clone(&shared), Arc::clone(&self.judge), self.door.clone());
                let (number, kind) = (Arc::clone(&number), self.kind);
                start(async move {
                    let mut is_first = true;
                    while shared.goes_on(std::mem::take(&mut is_first)) {
                        let number = number.fetch_add(1, Ordering::Relaxed);
                        let outcome = async {
                            let number = usize::try_from(number).unwrap_or_default();
                            let mut connection = door.connect(number).await?;
                            if connection.handshake != Some(kind) {
                                shared.other.fetch_add(1, Ordering::Relaxed);
                            }
                            shared.ask(&door, &judge, &mut connection).await
                        };
                        if let Err(why) = outcome.await {
                            shared.fail(why);
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            let _ = task.await;
        }
        let mut done = shared.done(began)?;
        let other = shared.other.load(Ordering::Relaxed);
        if !is_enough(self.kind, other, done.answered) {
            return Err(format!(
                "of {} handshakes {other} were not {:?}",
                done.answered, self.kind
            ));
        }
        if self.kind == HandshakeKind::Resumed {
            done.resumed = Some(done.answered.saturating_sub(other));
        }
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_third_of_the_handshakes_may_find_no_ticket_and_no_full_one_may_be_resumed() {
        let check = |kind, other, answered, expected| {
            assert_eq!(
                is_enough(kind, other, answered),
                expected,
                "{kind:?} {other}/{answered}"
            );
        };
        check(HandshakeKind::Resumed, 0, 30, true);
        check(HandshakeKind::Resumed, 10, 30, true);
        check(HandshakeKind::Resumed, 16, 30, false);
        check(HandshakeKind::Full, 0, 30, true);
        check(HandshakeKind::Full, 1, 30, false);
    }

    #[test]
    fn a_client_that_comes_late_still_asks_once_and_no_client_more_than_was_asked_for() {
        struct Nothing;
        impl Mix for Nothing {
            fn next(&mut self) -> super::super::Ask {
                super::super::Ask::plain(crate::content::Object::Tenant(0))
            }
        }
        let over = Shared::new(Nothing, 2, Duration::ZERO);
        assert!(over.goes_on(true));
        assert!(!over.goes_on(false));
        assert!(over.goes_on(true));
        assert!(!over.goes_on(true));
    }
}
