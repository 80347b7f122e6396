//! What waits to be written: bounded by number and by bytes, and whoever comes when it is full is told so at once.
//!
//! Removals, and what bodies under way ask for, are always taken: there are never more of them than there are stored
//! responses and bodies under way.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::cache::key::Key;
use crate::cache::store::{Head, StoredResponse};

/// Responses that may wait.
const JOBS_MAX: usize = 4096;

/// Bytes of responses that may wait, whatever the memory cap. They count there, also when the memory tier has evicted them.
const BYTES_MAX: u64 = 32 * 1024 * 1024;

/// Something for the writer to do.
#[derive(Debug)]
pub(super) enum Job {
    /// Write a stored response.
    Store {
        key: Key,
        stored: Arc<StoredResponse>,
        order: u64,
    },
    /// A body came whole: write its record.
    Commit {
        key: Key,
        head: Arc<Head>,
        file: u32,
        length: u64,
        order: u64,
        done: oneshot::Sender<bool>,
    },
    /// Remember that nothing older under this key counts, and remove these files.
    Gone {
        fingerprint: u64,
        order: u64,
        bodies: Vec<u32>,
    },
    /// Remove the files of these bodies.
    Unlink { bodies: Vec<u32> },
    /// Make room for so many bytes of a body under way, and set them aside.
    Reserve { bytes: u64, done: oneshot::Sender<bool> },
    /// Make sure that everything before this is in the files.
    Flush { done: oneshot::Sender<()> },
}

#[derive(Debug)]
pub(super) struct Queue {
    bytes_max: u64,
    state: Mutex<State>,
    wake: Condvar,
    full: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    jobs: VecDeque<(Job, u64)>,
    bytes: u64,
    order: u64,
    closed: bool,
    /// Whether the writer is at work on a job.
    busy: bool,
}

impl Queue {
    /// A queue beside a memory cap of `memory_bytes`, of which it may hold an eighth.
    pub(super) fn new(memory_bytes: u64) -> Self {
        Self {
            bytes_max: BYTES_MAX.min(memory_bytes / 8),
            state: Mutex::default(),
            wake: Condvar::new(),
            full: AtomicBool::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a response of `bytes` bytes; `false` when there is no room for it.
    pub(super) fn offer(&self, key: &Key, stored: &Arc<StoredResponse>, bytes: u64) -> bool {
        // Looked at first without the lock, for those who ask on each hit.
        if self.full.load(Ordering::Relaxed) {
            return false;
        }
        let mut state = self.lock();
        let is_full =
            state.jobs.len() >= JOBS_MAX || (state.bytes > 0 && state.bytes + bytes > self.bytes_max);
        if is_full || state.closed {
            self.full.store(true, Ordering::Relaxed);
            return false;
        }
        let order = state.order;
        let job = Job::Store {
            key: key.clone(),
            stored: Arc::clone(stored),
            order,
        };
        state.push(job, bytes);
        drop(state);
        self.wake.notify_one();
        true
    }

    /// Queues what is always taken. `make` is given the job's place in the order of all.
    pub(super) fn push(&self, make: impl FnOnce(u64) -> Job) {
        let mut state = self.lock();
        let job = make(state.order);
        state.push(job, 0);
        drop(state);
        self.wake.notify_one();
    }

    /// The order that the next job will have.
    pub(super) fn order(&self) -> u64 {
        self.lock().order
    }

    /// Whether nothing waits, and nothing is being written.
    pub(super) fn is_idle(&self) -> bool {
        let state = self.lock();
        state.jobs.is_empty() && !state.busy
    }

    /// Nothing more is taken; the writer ends when it has done what waits.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_all();
    }

    /// The next job; waits for one. `None` once the queue is closed and empty.
    pub(super) fn next(&self) -> Option<Job> {
        let mut state = self.lock();
        state.busy = false;
        loop {
            if let Some((job, bytes)) = state.jobs.pop_front() {
                state.bytes -= bytes;
                state.busy = true;
                self.full.store(false, Ordering::Relaxed);
                return Some(job);
            }
            if state.closed {
                return None;
            }
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl State {
    fn push(&mut self, job: Job, bytes: u64) {
        self.order += 1;
        self.bytes += bytes;
        self.jobs.push_back((job, bytes));
    }
}
