//! The access log: one line for each exchange, written by a thread of its own.
//!
//! The data plane only copies an [`Entry`] into a bounded queue and goes on. A disk that is full, or a pipe that nobody
//! reads, costs lines, which are counted, and never a response. What a client sent cannot leave its place in a line.

mod format;
mod queue;
mod writer;

use std::fs::{File, OpenOptions};
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::Duration;

use http::{StatusCode, Version};

use self::queue::{Pushed, Queue};

use super::metrics::{Counter, Family, Label, Registry};
use crate::clock::Timestamp;
use crate::config;
pub(crate) use format::rfc3339;

/// Entries of one thread that wait for the writer; above that, entries are dropped and counted.
const QUEUE_ENTRIES: usize = 8_192;

/// What is known of one exchange when its last byte has left.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// The method.
    pub method: &'a str,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// The host that was asked for.
    pub host: &'a str,
    /// Path and query as they came.
    pub target: &'a str,
    /// The client's version of HTTP.
    pub version: Version,
    /// The status code that was sent.
    pub status: StatusCode,
    /// The client's address.
    pub client: IpAddr,
    /// The Referer field.
    pub referer: Option<&'a [u8]>,
    /// The User-Agent field.
    pub user_agent: Option<&'a [u8]>,
    /// Bytes of the body that were sent.
    pub bytes: u64,
    /// When the request's header block had arrived.
    pub received: Timestamp,
    /// From there to the response's last byte.
    pub duration: Duration,
    /// From there to the response's first byte.
    pub first_byte: Duration,
    /// What the cache did: hit, stale, uri-miss and so on.
    pub cache: &'static str,
    /// The content coding that was sent.
    pub coding: &'static str,
    /// The site; empty when none matched.
    pub site: &'a str,
    /// How the response ended: whole, client-gone, broken.
    pub end: &'static str,
}

/// Why lines are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// The writer fell behind: the queue was full.
    QueueFull,
    /// The file or pipe refused them.
    WriteFailed,
}

impl Label for Dropped {
    const NAME: &'static str = "reason";
    const VALUES: &'static [&'static str] = &["queue-full", "write-failed"];
    fn index(self) -> usize {
        self as usize
    }
}

/// The data plane's end of the access log. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AccessLog(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    queue: Queue,
    /// Whom to wake when the queue is no longer empty.
    writer: OnceLock<Thread>,
    /// Entries whose hash is at most this are written: 0 for none but errors, `u64::MAX` for all.
    sample: AtomicU64,
    /// Whether there is a log at all.
    on: AtomicBool,
    /// The configuration in force, for [`AccessLog::reopen`].
    config: Mutex<Option<config::AccessLog>>,
    /// Where the writer goes on; `Some` until it has taken it.
    next: Mutex<Option<Option<Output>>>,
    /// Asks the writer to write out what it has and end.
    closing: AtomicBool,
    ended: Mutex<bool>,
    ended_told: Condvar,
    dropped: Family<Dropped>,
    written: Counter,
}

/// Where lines go, and how they look.
#[derive(Debug)]
struct Output {
    file: File,
    format: config::LogFormat,
    truncate_address: bool,
}

impl AccessLog {
    /// Opens the log of `config` (`None` writes none, until [`AccessLog::apply`] says otherwise) and starts its writer.
    pub fn start(config: Option<&config::AccessLog>, registry: &Registry) -> io::Result<Self> {
        Self::start_with(QUEUE_ENTRIES, config, open(config)?, registry)
    }

    fn start_with(
        entries: usize,
        config: Option<&config::AccessLog>,
        output: Option<Output>,
        registry: &Registry,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Queue::new(entries),
            writer: OnceLock::new(),
            sample: AtomicU64::new(0),
            on: AtomicBool::new(false),
            config: Mutex::new(None),
            next: Mutex::new(None),
            closing: AtomicBool::new(false),
            ended: Mutex::new(false),
            ended_told: Condvar::new(),
            dropped: registry.family(
                "edge_access_log_dropped_total",
                "Access log lines that were not written.",
            ),
            written: registry.counter(
                "edge_access_log_written_total",
                "Access log lines that were written.",
            ),
        });
        shared.apply(config, output);
        let writer = writer::Writer::new(Arc::clone(&shared));
        let thread = std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || writer.run())?;
        let _ = shared.writer.set(thread.thread().clone());
        Ok(Self(shared))
    }

    /// Whether an exchange that was received `received` from `client` and answered with `status` is to be written.
    pub fn wants(&self, received: Timestamp, client: IpAddr, status: StatusCode) -> bool {
        self.0.on.load(Ordering::Relaxed) && self.0.is_sampled(received, client, status)
    }

    /// Hands over an entry that is wanted. Never waits: what does not fit the queue is dropped and counted.
    pub fn push(&self, entry: &Entry<'_>) {
        match self.0.queue.push(entry) {
            Pushed::Queued => {}
            Pushed::QueuedForSleeper => self.0.wake(),
            Pushed::Full => self.0.dropped.inc(Dropped::QueueFull),
        }
    }

    /// Goes over to a new configuration. The new file is opened first: on an error the old log goes on.
    pub fn apply(&self, config: Option<&config::AccessLog>) -> io::Result<()> {
        let output = open(config)?;
        self.0.apply(config, output);
        Ok(())
    }

    /// Opens the file anew, after somebody moved it away. On an error the old one goes on.
    pub fn reopen(&self) -> io::Result<()> {
        let config = lock(&self.0.config).clone();
        self.apply(config.as_ref())
    }

    /// Writes out what was pushed so far and ends the writer. Blocks, for `patience` at most; false when that was not
    /// enough (nobody reads the pipe), and then the lines that are left are lost.
    pub fn finish(&self, patience: Duration) -> bool {
        self.0.closing.store(true, Ordering::Release);
        self.0.wake();
        let ended = lock(&self.0.ended);
        self.0
            .ended_told
            .wait_timeout_while(ended, patience, |ended| !*ended)
            .is_ok_and(|(ended, _)| *ended)
    }
}

impl Shared {
    fn apply(&self, config: Option<&config::AccessLog>, output: Option<Output>) {
        // A float beyond the range of the integer becomes its bound, so that 1.0 means every entry.
        let sample = config.map_or(0, |config| (config.sample * u64::MAX as f64) as u64);
        self.sample.store(sample, Ordering::Relaxed);
        self.on.store(config.is_some(), Ordering::Relaxed);
        *lock(&self.config) = config.cloned();
        *lock(&self.next) = Some(output);
        self.wake();
    }

    fn wake(&self) {
        if let Some(writer) = self.writer.get() {
            writer.unpark();
        }
    }

    /// The sample is a hash of when and who, so that it needs no state that threads would share.
    fn is_sampled(&self, received: Timestamp, client: IpAddr, status: StatusCode) -> bool {
        let sample = self.sample.load(Ordering::Relaxed);
        if sample == u64::MAX || status.is_server_error() {
            return true;
        }
        let who = match client {
            IpAddr::V4(address) => u64::from(address.to_bits()),
            IpAddr::V6(address) => (address.to_bits() ^ (address.to_bits() >> 64)) as u64,
        };
        mix(received.unix_micros().cast_unsigned() ^ who.rotate_left(32)) < sample
    }
}

/// The finaliser of splitmix64: spreads neighbouring numbers over the whole range.
fn mix(mut n: u64) -> u64 {
    n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

fn open(config: Option<&config::AccessLog>) -> io::Result<Option<Output>> {
    let Some(config) = config else {
        return Ok(None);
    };
    let file = match &config.path {
        Some(path) => open_file(path)?,
        // Our own descriptor for it: the one of `io::stdout` writes line by line.
        None => File::from(io::stdout().as_fd().try_clone_to_owned()?),
    };
    Ok(Some(Output {
        file,
        format: config.format,
        truncate_address: config.truncate_address,
    }))
}

/// Addresses of people are not for every user of the machine to read.
fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
