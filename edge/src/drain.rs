//! The end of things: each task is started here under a name, is told when a drain begins, and is waited for.
//!
//! It also holds the node's [`Readiness`]. It does not decide when to drain: `lifecycle` does.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Starts tasks, tells them that a drain has begun, and waits for them. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Drain(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// As `begun`, for those who look at each request: the token takes a lock.
    draining: AtomicBool,
    begun: CancellationToken,
    ended: CancellationToken,
    tasks: TaskTracker,
    panics: AtomicU64,
}

impl Drain {
    /// Starts `task` on the runtime of the caller. It runs to its end, or is dropped when the drain's deadline passes.
    pub fn spawn<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.spawn_on(&Handle::current(), name, task);
    }

    /// Starts `task` on the runtime of `handle`; otherwise as [`Drain::spawn`].
    pub fn spawn_on<F>(&self, handle: &Handle, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let inner = Arc::clone(&self.0);
        // Boxed before it is captured, or else the task would keep room for what it moved out.
        let task = CatchPanic(Box::pin(task));
        let bounded = async move {
            tokio::select! {
                () = inner.ended.cancelled() => {}
                result = task => if let Err(panic) = result {
                    inner.panics.fetch_add(1, Ordering::Relaxed);
                    tracing::error!(task = name, message = panic_message(&*panic), "a task panicked");
                },
            }
        };
        handle.spawn(self.0.tasks.track_future(bounded));
    }

    /// Resolves once a drain has begun: finish what is under way, take nothing new.
    pub async fn begun(&self) {
        self.0.begun.cancelled().await;
    }

    /// Whether a drain has begun.
    pub fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Relaxed)
    }

    /// Begins the drain. Tasks see it through [`Drain::begun`].
    pub fn begin(&self) {
        self.0.draining.store(true, Ordering::Relaxed);
        self.0.begun.cancel();
    }

    /// Begins the drain if it has not begun, waits for every task up to `deadline`, then drops what is left.
    /// Returns how many tasks had to be dropped.
    pub async fn finish(&self, deadline: Duration) -> usize {
        self.begin();
        self.0.tasks.close();
        let done = tokio::time::timeout(deadline, self.0.tasks.wait()).await.is_ok();
        let left = if done { 0 } else { self.0.tasks.len() };
        self.0.ended.cancel();
        left
    }

    /// How many tasks run now.
    pub fn tasks(&self) -> usize {
        self.0.tasks.len()
    }

    /// How many tasks ended in a panic since start.
    pub fn panics(&self) -> u64 {
        self.0.panics.load(Ordering::Relaxed)
    }

    /// Counts a panic that was caught elsewhere (one request of a connection that lives on).
    pub fn count_panic(&self) {
        self.0.panics.fetch_add(1, Ordering::Relaxed);
    }
}

/// The text of a panic, when it has one.
pub fn panic_message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&'static str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

/// Turns a panic inside a future into an error value, so that one task or one request ends and nothing else.
#[derive(Debug)]
pub struct CatchPanic<F>(pub Pin<Box<F>>);

impl<F: Future> Future for CatchPanic<F> {
    type Output = Result<F::Output, Box<dyn Any + Send>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match std::panic::catch_unwind(AssertUnwindSafe(|| self.0.as_mut().poll(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    }
}

/// Why a node is not ready to be sent traffic. It never depends on S3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum NotReady {
    /// The node has not finished starting.
    Starting = 1,
    /// A drain has begun.
    Draining = 2,
    /// A served certificate has less than an hour left.
    CertificateExpiring = 4,
}

impl NotReady {
    /// All reasons, in the order in which they are reported.
    pub const ALL: [Self; 3] = [Self::Starting, Self::Draining, Self::CertificateExpiring];

    /// The token for status pages and logs.
    pub fn token(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Draining => "draining",
            Self::CertificateExpiring => "certificate-expiring",
        }
    }
}

/// What is not well with a node that serves all the same. It keeps no traffic away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Degraded {
    /// A release goes on with what was last good.
    Release = 1,
}

impl Degraded {
    /// All of them.
    pub const ALL: [Self; 1] = [Self::Release];

    /// The token for status pages and logs.
    pub fn token(self) -> &'static str {
        match self {
            Self::Release => "release",
        }
    }
}

/// Whether the node wants traffic; ready when no reason stands against it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Readiness {
    against: Arc<AtomicU8>,
    degraded: Arc<AtomicU8>,
}

impl Default for Readiness {
    fn default() -> Self {
        Self {
            against: Arc::new(AtomicU8::new(NotReady::Starting as u8)),
            degraded: Arc::default(),
        }
    }
}

impl Readiness {
    /// Raises or clears one reason.
    pub fn set(&self, reason: NotReady, stands: bool) {
        if stands {
            self.against.fetch_or(reason as u8, Ordering::AcqRel);
        } else {
            self.against.fetch_and(!(reason as u8), Ordering::AcqRel);
        }
    }

    /// Whether the node is ready.
    pub fn is_ready(&self) -> bool {
        self.against.load(Ordering::Acquire) == 0
    }

    /// The reasons that stand now.
    pub fn reasons(&self) -> impl Iterator<Item = NotReady> + use<> {
        let set = self.against.load(Ordering::Acquire);
        NotReady::ALL
            .into_iter()
            .filter(move |reason| set & (*reason as u8) != 0)
    }

    /// Notes that something is not well, or well again, while the node serves.
    pub fn set_degraded(&self, what: Degraded, stands: bool) {
        if stands {
            self.degraded.fetch_or(what as u8, Ordering::AcqRel);
        } else {
            self.degraded.fetch_and(!(what as u8), Ordering::AcqRel);
        }
    }

    /// What is not well now.
    pub fn degraded(&self) -> impl Iterator<Item = Degraded> + use<> {
        let set = self.degraded.load(Ordering::Acquire);
        Degraded::ALL
            .into_iter()
            .filter(move |what| set & (*what as u8) != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_drain_waits_for_tasks_and_counts_those_it_dropped() {
        let drain = Drain::default();
        let told = drain.clone();
        drain.spawn("polite", async move { told.begun().await });
        drain.spawn("deaf", std::future::pending());
        assert_eq!(drain.tasks(), 2);
        assert_eq!(drain.finish(Duration::from_millis(50)).await, 1);
        assert!(drain.is_draining());
    }

    #[tokio::test]
    async fn a_panic_ends_one_task_and_is_counted() {
        let drain = Drain::default();
        drain.spawn("broken", async { panic!("on purpose") });
        assert_eq!(drain.finish(Duration::from_secs(5)).await, 0);
        assert_eq!(drain.panics(), 1);
    }

    #[test]
    fn readiness_lists_what_stands_against_it() {
        let readiness = Readiness::default();
        assert!(!readiness.is_ready());
        readiness.set(NotReady::Starting, false);
        assert!(readiness.is_ready());
        readiness.set(NotReady::CertificateExpiring, true);
        readiness.set(NotReady::Draining, true);
        let tokens: Vec<_> = readiness.reasons().map(NotReady::token).collect();
        assert_eq!(tokens, ["draining", "certificate-expiring"]);
    }
}
