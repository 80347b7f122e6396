//! When the node stops, and in which order.
//!
//! Readiness turns red first, so that DNS and balancers stop sending; after a delay the sockets close, open connections
//! are told to finish, and what has not finished by the deadline is dropped. It knows nothing of what it stops.

mod signals;

use std::pin::pin;
use std::time::Duration;

pub use self::signals::{Signal, Signals};
use crate::config;
use crate::drain::{Drain, NotReady, Readiness};
use crate::listener::Workers;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Everything under way was finished.
    Clean,
    /// The deadline passed, and so many tasks were dropped.
    Dropped(usize),
    /// The operator could not wait.
    AtOnce,
}

impl Ended {
    /// The exit code of the process.
    pub fn code(self) -> u8 {
        match self {
            Self::Clean => 0,
            Self::Dropped(_) => 1,
            // What a shell reports for SIGINT.
            Self::AtOnce => 130,
        }
    }
}

/// What the node does when it is told to.
pub trait Orders: Send {
    /// SIGHUP: read the configuration and the certificates again.
    fn reload(&mut self);
    /// SIGUSR1: open the log files again.
    fn reopen_logs(&mut self);
}

/// Waits for the signal to stop, obeying `orders` until then, and stops.
pub async fn run(
    mut signals: Signals,
    mut orders: impl Orders,
    plan: &config::Drain,
    drain: &Drain,
    readiness: &Readiness,
    workers: Workers,
) -> Ended {
    loop {
        match signals.next().await {
            Signal::Stop(name) => {
                tracing::info!(signal = name, "stopping");
                break;
            }
            Signal::Reload => orders.reload(),
            Signal::ReopenLogs => orders.reopen_logs(),
            Signal::Upgrade => tracing::warn!("SIGUSR2 is not supported; nothing was done"),
        }
    }
    stop(signals, plan, drain, readiness, workers).await
}

/// Stops in order. A second SIGINT ends it at once.
async fn stop(
    mut signals: Signals,
    plan: &config::Drain,
    drain: &Drain,
    readiness: &Readiness,
    mut workers: Workers,
) -> Ended {
    let ended = {
        let mut orderly = pin!(orderly(plan, drain, readiness, &mut workers));
        loop {
            tokio::select! {
                ended = &mut orderly => break ended,
                signal = signals.next() => if signal == Signal::Stop("SIGINT") {
                    break Ended::AtOnce;
                },
            }
        }
    };
    if ended == Ended::AtOnce {
        tracing::warn!(left = drain.tasks(), "ending at once");
        drain.finish(Duration::ZERO).await;
    }
    // Joining waits for threads that only wait for this; nothing can be left to hold them.
    let _ = tokio::task::spawn_blocking(move || workers.end()).await;
    ended
}

/// Stops in order, whatever signals come.
pub async fn orderly(
    plan: &config::Drain,
    drain: &Drain,
    readiness: &Readiness,
    workers: &mut Workers,
) -> Ended {
    readiness.set(NotReady::Draining, true);
    if !plan.delay.is_zero() {
        tracing::info!(
            seconds = plan.delay.as_secs_f64(),
            "not ready any more; still serving"
        );
        tokio::time::sleep(plan.delay).await;
    }
    workers.close_sockets().await;
    tracing::info!(
        tasks = drain.tasks(),
        "sockets closed; finishing what is under way"
    );
    match drain.finish(plan.deadline).await {
        0 => {
            tracing::info!("drained");
            Ended::Clean
        }
        left => {
            tracing::warn!(left, "the deadline passed before everything was finished");
            Ended::Dropped(left)
        }
    }
}
