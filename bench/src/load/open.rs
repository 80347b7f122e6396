//! The open loop: requests are due at fixed times, whether or not earlier ones were answered.
//!
//! A latency counts from when the request was due, so a server (or a generator) that falls behind shows it in every
//! request that had to wait: no coordinated omission. The pace is kept by a task that never sleeps while something is due
//! within two milliseconds, since timers are no finer than one; it has a core for itself.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use http::StatusCode;
use tokio::sync::mpsc;

use super::{Ask, Connection, Done, Door, Judge, Mix, Outcome, histogram, record, start};
use crate::clock;

/// A run in an open loop.
pub(crate) struct Open {
    pub(crate) door: Door,
    pub(crate) judge: Arc<Judge>,
    pub(crate) connections: usize,
    /// Requests in each second, over all connections.
    pub(crate) rate: f64,
    pub(crate) duration: Duration,
    /// What comes before, at the same rate, and is not counted.
    pub(crate) warm_up: Duration,
}

/// So many requests may wait for one connection; a server that is further behind does not keep up at all.
const BEHIND_MAX: usize = 4096;

/// How long the last answers may take.
const LAST_MAX: Duration = Duration::from_secs(120);

struct Due {
    ask: Ask,
    at: Instant,
    counts: bool,
}

struct Tally {
    latencies: Histogram<u64>,
    lag: Histogram<u64>,
    unchanged: u64,
    wire_bytes: u64,
    fault: Option<String>,
}

impl Open {
    /// Runs it.
    pub(crate) async fn run(&self, mut mix: impl Mix) -> Outcome<Done> {
        let tally = Arc::new(Mutex::new(Tally {
            latencies: histogram(),
            lag: histogram(),
            unchanged: 0,
            wire_bytes: 0,
            fault: None,
        }));
        let mut queues = Vec::new();
        let mut workers = Vec::new();
        for number in 0..self.connections {
            let connection = self.door.connect(number).await?;
            let (sender, receiver) = mpsc::channel(BEHIND_MAX);
            queues.push(sender);
            let (judge, tally, door) = (Arc::clone(&self.judge), Arc::clone(&tally), self.door.clone());
            workers.push(start(work(connection, door, receiver, judge, tally)));
        }
        let began = clock::now();
        self.pace(began, &queues, &mut mix).await?;
        let counted_from = began + self.warm_up;
        drop(queues);
        let ended = tokio::time::timeout(LAST_MAX, async {
            for worker in workers {
                let _ = worker.await;
            }
        });
        ended
            .await
            .map_err(|_| "answers are still missing after 120 s".to_owned())?;
        let seconds = (clock::now() - counted_from).as_secs_f64();
        let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(fault) = tally.fault.take() {
            return Err(fault);
        }
        Ok(Done {
            answered: tally.latencies.len(),
            seconds,
            latencies: Some(tally.latencies.clone()),
            lag: Some(tally.lag.clone()),
            unchanged: tally.unchanged,
            resumed: None,
            wire_bytes: tally.wire_bytes,
        })
    }

    async fn pace(&self, began: Instant, queues: &[mpsc::Sender<Due>], mix: &mut impl Mix) -> Outcome<()> {
        let interval = Duration::from_secs_f64(1.0 / self.rate.max(0.001));
        let end = began + self.warm_up + self.duration;
        let mut at = began;
        for queue in queues.iter().cycle() {
            if at >= end {
                break;
            }
            wait_until(at).await;
            let counts = at >= began + self.warm_up;
            let due = Due {
                ask: mix.next(),
                at,
                counts,
            };
            if let Err(error) = queue.try_send(due) {
                return Err(match error {
                    mpsc::error::TrySendError::Full(_) => {
                        format!(
                            "it does not keep up with {:.0} requests in each second",
                            self.rate
                        )
                    }
                    mpsc::error::TrySendError::Closed(_) => "a connection was closed".to_owned(),
                });
            }
            at += interval;
        }
        Ok(())
    }
}

/// Waits until `at` without being late: by the timer while it is far, by letting the others run once it is near.
async fn wait_until(at: Instant) {
    loop {
        let now = clock::now();
        if now >= at {
            return;
        }
        let left = at - now;
        if left > Duration::from_millis(3) {
            tokio::time::sleep(left - Duration::from_millis(2)).await;
        } else {
            tokio::task::yield_now().await;
        }
    }
}

/// Asks what is due over one connection: one after the other over HTTP/1.1, at once over HTTP/2.
async fn work(
    mut connection: Connection,
    door: Door,
    mut queue: mpsc::Receiver<Due>,
    judge: Arc<Judge>,
    tally: Arc<Mutex<Tally>>,
) {
    let mut streams = Vec::new();
    while let Some(due) = queue.recv().await {
        match connection.shared() {
            None => one(&mut connection, &door, due, &judge, &tally).await,
            Some(mut shared) => {
                let (judge, tally, door) = (Arc::clone(&judge), Arc::clone(&tally), door.clone());
                streams.push(start(async move {
                    one(&mut shared, &door, due, &judge, &tally).await;
                }));
                if streams.len() > 2 * BEHIND_MAX {
                    streams.retain(|stream| !stream.is_finished());
                }
            }
        }
    }
    for stream in streams {
        let _ = stream.await;
    }
}

async fn one(connection: &mut Connection, door: &Door, due: Due, judge: &Judge, tally: &Mutex<Tally>) {
    let sent = clock::now();
    let outcome = async {
        let request = judge.request(&due.ask, door)?;
        let answer = connection.send(request).await?;
        judge.judge(&due.ask, answer).await
    };
    let outcome = outcome.await;
    let done = clock::now();
    let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
    match outcome {
        Ok(_) if !due.counts => {}
        Ok(seen) => {
            record(&mut tally.latencies, done - due.at);
            record(&mut tally.lag, sent - due.at);
            tally.wire_bytes += seen.wire_bytes;
            tally.unchanged += u64::from(seen.status == StatusCode::NOT_MODIFIED);
        }
        Err(why) => tally.fault = Some(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_is_due_too_early() {
        for millis in [0, 1, 5] {
            let at = clock::now() + Duration::from_millis(millis);
            wait_until(at).await;
            assert!(clock::now() >= at);
        }
    }
}
