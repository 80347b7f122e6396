//! A few threads that do what blocks, behind a queue with an end: a disk that hangs holds these and nothing else.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

type Job = Box<dyn FnOnce() + Send>;

/// The threads. They end when the pool is dropped and the queue is empty.
#[derive(Debug)]
pub(super) struct Pool {
    jobs: SyncSender<Job>,
}

impl Pool {
    /// Starts `threads` threads, for which at most `waiting_max` jobs may wait.
    pub(super) fn start(name: &str, threads: usize, waiting_max: usize) -> io::Result<Self> {
        let (jobs, waiting) = sync_channel::<Job>(waiting_max);
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..threads {
            let waiting = Arc::clone(&waiting);
            std::thread::Builder::new()
                .name(name.to_owned())
                .spawn(move || work(&waiting))?;
        }
        Ok(Self { jobs })
    }

    /// What `job` gives; `None` when too many jobs wait already, or it panicked.
    pub(super) async fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let (done, result) = oneshot::channel();
        let job = Box::new(move || {
            // Nobody may be waiting any more.
            let _ = done.send(job());
        });
        match self.jobs.try_send(job) {
            Ok(()) => result.await.ok(),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => None,
        }
    }
}

fn work(waiting: &Mutex<Receiver<Job>>) {
    loop {
        // Held while waiting: the others wait for the lock instead, which is the same.
        let job = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else {
            return;
        };
        // A job that panics takes no thread with it.
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(job)).is_err() {
            tracing::error!("a job on the disk's threads panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_queue_says_no_and_a_panic_takes_no_thread() {
        let pool = Pool::start("test", 1, 1).unwrap();
        assert_eq!(pool.run(|| -> u8 { panic!("on purpose") }).await, None);
        assert_eq!(pool.run(|| 7).await, Some(7));
        let (open, closed) = sync_channel::<()>(0);
        let (began, begun) = oneshot::channel();
        let held = pool.run(move || {
            let _ = began.send(());
            let _ = closed.recv();
        });
        let fill = async {
            begun.await.unwrap();
            let waits = std::pin::pin!(pool.run(|| 1));
            let no = async {
                // The one place in the queue is taken by the one before.
                let refused = pool.run(|| 2).await;
                drop(open);
                refused
            };
            tokio::join!(waits, no)
        };
        let ((), (waited, refused)) = tokio::join!(async { held.await.unwrap_or(()) }, fill);
        assert_eq!((waited, refused), (Some(1), None));
    }
}
