//! Buckets or servers in order: who is asked, who is skipped, who is asked again.
//!
//! Nothing here waits for one whose breaker is open. What an answer is worth is the kind's own matter: see [`Server`].

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use super::health::Admission;
use super::retry::{Budget, Plan};
use super::vitals::Vitals;
use super::{Answer, Ask, BucketStatus, Error, Kind, Metrics, Source};
use crate::clock::Clock;
use crate::config;
use crate::drain::Drain;

/// One of several that can be asked for the same.
pub(super) trait Server: Send + Sync + 'static {
    /// How it stands.
    fn vitals(&self) -> &Vitals;

    /// One attempt, with its consequences for the vitals.
    fn fetch(
        self: &Arc<Self>,
        ask: &Ask,
        admission: Admission,
    ) -> impl Future<Output = Result<Answer, Error>> + Send;

    /// Looks whether it is back, and tells the vitals.
    fn probe(&self) -> impl Future<Output = ()> + Send;

    /// Whether an answer of the server at `place` counts; `last` when there is nobody after it.
    fn counts(answer: Answer, ask: &Ask, place: usize, last: bool) -> Result<Answer, Error>;

    /// Whether the same server may be asked once more after `error`.
    fn is_worth_another_try(error: &Error) -> bool;
}

/// Servers in order of preference.
#[derive(Debug)]
pub(super) struct Failover<S> {
    servers: Vec<Arc<S>>,
    timeouts: config::OriginTimeouts,
    budget: Arc<Mutex<Budget>>,
    metrics: Metrics,
    clock: Clock,
}

impl<S: Server> Failover<S> {
    pub(super) fn start(
        servers: Vec<Arc<S>>,
        timeouts: &config::OriginTimeouts,
        budget: Arc<Mutex<Budget>>,
        metrics: Metrics,
        clock: Clock,
        drain: &Drain,
    ) -> Self {
        for server in &servers {
            drain.spawn("origin-probe", keep_probing(server, drain.clone()));
        }
        Self {
            servers,
            timeouts: timeouts.clone(),
            budget,
            metrics,
            clock,
        }
    }

    pub(super) fn first(&self) -> Option<&Arc<S>> {
        self.servers.first()
    }

    pub(super) fn servers(&self) -> &[Arc<S>] {
        &self.servers
    }

    pub(super) fn status(&self) -> Vec<BucketStatus> {
        self.servers
            .iter()
            .map(|server| server.vitals().status())
            .collect()
    }

    pub(super) async fn fetch(&self, ask: &Ask) -> Result<Answer, Error> {
        self.budget().request();
        let plan = Plan::new(self.timeouts.attempts, self.timeouts.operation, self.clock.now());
        // In the first round everyone has its turn, in the later ones those that may be better by now.
        let mut candidates: Vec<usize> = self.candidates(&ask.besides);
        let mut last = None;
        for made in 1.. {
            let round = self.round(ask, &candidates, plan).await;
            let failed = match round {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            let refused = failed.refused();
            candidates = failed.again;
            let error = failed.error.or(last);
            let pause = error
                .as_ref()
                .filter(|_| !candidates.is_empty())
                .and_then(|error| plan.pause(made, error.retry_after, fastrand::f64(), self.clock.now()));
            let Some(pause) = pause.filter(|_| self.take_retry()) else {
                return Err(error.unwrap_or(refused));
            };
            last = error;
            tokio::time::sleep(pause).await;
        }
        Err(Error::new(Kind::ProxyInternalError, "the rounds have no end"))
    }

    fn candidates(&self, besides: &[Source]) -> Vec<usize> {
        let servers = self.servers.iter().enumerate();
        let asked = servers.filter(|(_, server)| !besides.contains(server.vitals().id()));
        asked.map(|(place, _)| place).collect()
    }

    /// Asks `candidates` in order, until one has an answer that counts.
    async fn round(&self, ask: &Ask, candidates: &[usize], plan: Plan) -> Result<Answer, Failed> {
        let mut failed = Failed {
            error: None,
            again: Vec::new(),
            probe_in: None,
        };
        for &place in candidates {
            let Some(server) = self.servers.get(place) else {
                continue;
            };
            let admission = match server.vitals().admit() {
                Admission::Refused(probe_in) => {
                    failed.probe_in = Some(failed.probe_in.map_or(probe_in, |least| least.min(probe_in)));
                    continue;
                }
                admission => admission,
            };
            let left = plan.left(self.clock.now());
            let fetched = tokio::time::timeout(left, server.fetch(ask, admission)).await;
            let late = || Error::new(Kind::HttpResponseTimeout, "no time is left");
            let is_last = candidates.last() == Some(&place);
            match fetched
                .unwrap_or_else(|_| Err(late()))
                .and_then(|answer| S::counts(answer, ask, place, is_last))
            {
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    if S::is_worth_another_try(&error) {
                        failed.again.push(place);
                    }
                    let goes_on = error.kind.may_fail_over();
                    failed.error = Some(error);
                    if !goes_on {
                        failed.again.clear();
                        break;
                    }
                }
            }
        }
        Err(failed)
    }

    fn take_retry(&self) -> bool {
        let granted = self.budget().take(self.clock.now());
        let counter = if granted {
            &self.metrics.retries
        } else {
            &self.metrics.retries_refused
        };
        counter.inc();
        granted
    }

    fn budget(&self) -> std::sync::MutexGuard<'_, Budget> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A round without an answer.
struct Failed {
    /// The last error; none when every breaker is open.
    error: Option<Error>,
    /// Who may be asked again.
    again: Vec<usize>,
    /// Until the first of the open breakers is probed.
    probe_in: Option<Duration>,
}

impl Failed {
    fn refused(&self) -> Error {
        Error::new(Kind::BreakerOpen, "none is healthy").with_retry_after(self.probe_in)
    }
}

/// Probes the server while its breaker is open, so that no client pays for finding out. Ends with the server, or when
/// a drain begins; from then on clients' own requests find out.
fn keep_probing<S: Server>(server: &Arc<S>, drain: Drain) -> impl Future<Output = ()> + Send + 'static {
    let opened = server.vitals().opened();
    let server: Weak<S> = Arc::downgrade(server);
    async move {
        let probing = async {
            while let Some(wait) = server.upgrade().map(|server| server.vitals().probe_in()) {
                match wait {
                    None => opened.notified().await,
                    Some(wait) if wait.is_zero() => {
                        let Some(server) = server.upgrade() else { return };
                        server.probe().await;
                    }
                    Some(wait) => tokio::time::sleep(wait).await,
                }
            }
        };
        tokio::select! {
            () = probing => {}
            () = drain.begun() => {}
        }
    }
}
