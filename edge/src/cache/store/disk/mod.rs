//! The disk tier: what memory has no room for, and what a restart finds again.
//!
//! # What lies on the disk
//!
//! *Logs*: files of at most 16 MiB (64 where the cache is huge) into which records are appended: key, head, and the body where
//! that is at most 1 MiB, all coded forms of it included (a better brotli form took a second of CPU; it is not made twice).
//! *Bodies*: larger ones in files of their own, written while they arrive, at several places at once if need be, whose record
//! in the log makes them visible when they have come whole. The *index* of both is in memory, about 70 bytes for each response,
//! and is read from the directories at the logs' ends.
//!
//! # What holds
//!
//! - A body is read in chunks of 64 KiB, each under a CRC-32 over its bytes and its place: this cache, this file, this
//!   record, this chunk. The head and the key are under one too, and the key is compared. What does not match is dropped,
//!   counted and fetched again.
//! - Head and body become visible together: a record counts when it has been written whole; a body's record is written
//!   after the body. After a crash the same is seen from the files.
//! - Files do not exceed the configured size. The oldest log goes first; what was read since it was written, or is in
//!   memory too, is written anew, up to half of the log. Large bodies that were read are put last.
//! - One thread writes, behind a queue of 4096 responses and an eighth of the memory cap; when it is full, a response is not written, and that
//!   is counted. Reads have four threads; a read or a piece of a body that takes longer than the configured patience is given up.
//!   A thread of the data plane reads only what the page cache has (RWF_NOWAIT): a small record, of a log that is open.
//! - While there is room everything is written at once, so that a node that starts again is not empty. Once the disk is
//!   full, a response is written when it is asked for a second time: one-hit wonders stay away.
//! - At most 300 files are open: 224 bodies that are read, 32 logs, 16 bodies that come, and what is being read or written at the moment. Where
//!   the process has no room for another, what is stored counts as missing, and is not dropped.
//! - A write that fails suspends writing for ten seconds. Answers come from memory and the origin meanwhile.
//!
//! # Why logs of our own
//!
//! Measured on two cores and a warm page cache, 100,000 responses of 10 KiB and 300 of 10 MiB:
//!
//! | | foyer 0.22, block engine | a file for each response | these logs |
//! |---|---|---|---|
//! | fill, 10 KiB | 237k/s, 26 % of the keys missing afterwards | 73k/s | 122k to 174k/s of 1 KiB, none missing |
//! | fill, 10 MiB | 2.1 GB/s, 47 % missing | 1.5 GB/s | as a file each |
//! | index after a crash | 0.02 s | 0.13 s, by walk and stat | directories only |
//! | first bytes of 10 MiB | 1.5 ms: whole values only | 12 µs | as a file each |
//!
//! The last column is of `bench disk`, 1 KiB each, on two cores:
//!
//! | responses | filled | open after a crash |
//! |---|---|---|
//! | 10,000 | 174k/s | 0.004 s |
//! | 100,000 | 124k/s | 0.034 s |
//! | 1,000,000 | 122k/s | 0.222 s |
//!
//! A read takes 33 to 41 µs (p50).
//!
//! By the whole node over TLS and HTTP/1.1, 16 requests at once, 16 MiB of memory, one core each (`bench disk --beside`):
//!
//! | | 10 KiB: hits/s, CPU µs | from the device: hits/s, p50 | 1 MiB: hits/s, CPU µs | from the device |
//! |---|---|---|---|---|
//! | this | 11,182, 89 | 8,996, 1.54 ms | 490, 1,973 | 376, 42 ms |
//! | nginx 1.22, proxy_cache | 25,530, 39 | 9,800, 1.53 ms | 587, 1,377 | 430, 37 ms |
//!
//! With a load average of 12 on the same cores, filling went at half of that, and a million took 1.5 to 3 s to open on one thread;
//! two share it now.
//!
//! foyer keeps whole values: a 4 GiB body would be held in memory, and no range of it read; and it drops what it cannot
//! write. Embedded stores (redb, fjall, sled) keep whole values too, or bring a tree of 64 KiB values that is written
//! twice, once to a journal and once in place. A file for each response streams, but at a million of them a start has to
//! walk a million names, 1.3 s when they are in the page cache and minutes when they are not, and each takes a block and
//! an inode. So large bodies get files, which is what file systems are good at, and small ones share them.

mod bodies;
mod draft;
mod evict;
mod fill;
mod frame;
mod growth;
mod handles;
mod index;
mod io;
mod load;
mod log;
mod meta;
mod metrics;
mod pool;
mod purges;
mod queue;
mod recover;
mod shared;
#[cfg(test)]
mod tests;
mod verify;
mod wire;
mod writer;

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;

pub use self::bodies::{BodyReader, OnDisk, Unreadable};
pub use self::fill::{Fill, Front, Places, Rest, Taken};
pub use self::growth::FAR_BYTES;
pub use self::index::SiteTotal;
pub use self::io::{EIO, EMFILE, ENOSPC, EROFS, Failing, Fault, Faults, Op};
pub use self::load::Loaded;
pub use self::meta::FormAt;
pub use self::recover::OpenError;
pub use self::verify::Verified;

use self::fill::Fills;
use self::io::{Handle, Io};
use self::metrics::{Metrics, Skip};
use self::pool::Pool;
use self::queue::{Job, Queue};
use self::shared::{Limits, Shared, fingerprint};
use self::verify::Verification;
use super::{Memory, StoredResponse};
use crate::cache::key::Key;
use crate::clock::Clock;
use crate::telemetry::metrics::Registry;

/// Threads that read.
const READERS: usize = 4;

/// Reads that may wait; more are misses.
const READS_MAX: usize = 1024;

/// Threads that write large bodies.
const BODY_WRITERS: usize = 2;

/// Pieces of large bodies that may wait: one for each place at which one comes.
const BODY_WRITES_MAX: usize = fill::FILLS_MAX * fill::FRONTS_MAX;

/// How the disk tier is to be.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    /// The folder.
    pub path: &'a Path,
    /// Bytes that it may take.
    pub size: u64,
    /// Bodies up to this length are read into memory when they are asked for; longer ones stream from the disk.
    pub promoted_max: u64,
    /// How long a read or a write may take before an answer goes on without the disk: from the origin, or stored in memory
    /// alone.
    pub patience: Duration,
}

/// The disk tier. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Disk(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    reads: Pool,
    writes: Pool,
    fills: Fills,
    faults: Arc<Faults>,
    position: u64,
    patience: Duration,
    verification: Verification,
    held: Mutex<Held>,
}

/// What is let go of at the end.
#[derive(Debug)]
struct Held {
    lock: Option<Handle>,
    writer: Option<JoinHandle<()>>,
}

/// What is there.
#[derive(Clone, Debug)]
pub struct Totals {
    /// Stored responses.
    pub entries: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Bytes that they may take.
    pub bytes_max: u64,
    /// By site.
    pub sites: Vec<SiteTotal>,
    /// Whether it can be written.
    pub working: bool,
}

impl Disk {
    /// Opens the folder, and finds what is in it. It blocks, for less than a second at a million responses.
    ///
    /// # Errors
    ///
    /// When the folder cannot be used.
    pub fn open(
        options: &Options<'_>,
        memory: &Memory,
        clock: Clock,
        registry: &Registry,
        faults: Arc<Faults>,
    ) -> Result<Self, OpenError> {
        let began = clock.now();
        let metrics = Metrics::register(registry);
        let io = Io::new(options.path, Arc::clone(&faults));
        let unusable = |source| OpenError::Unusable {
            path: options.path.display().to_string(),
            hint: "look at the disk",
            source,
        };
        let claimed = recover::claim(&io)?;
        let limits = Limits::new(options.size, options.promoted_max);
        let shared = Shared::new(io, claimed.store, limits, clock, metrics, memory.clone());
        let found = recover::recover(&shared).map_err(unusable)?;
        let shared = Arc::new(shared);
        let queue = Arc::new(Queue::new(memory.budget().capacity()));
        let (writer, jobs) = (writer::Writer::new(Arc::clone(&shared)), Arc::clone(&queue));
        let thread = std::thread::Builder::new()
            .name("disk-write".into())
            .spawn(move || writer.run(&jobs))
            .map_err(unusable)?;
        let disk = Self(Arc::new(Inner {
            reads: Pool::start("disk-read", READERS, READS_MAX).map_err(unusable)?,
            writes: Pool::start("disk-body", BODY_WRITERS, BODY_WRITES_MAX).map_err(unusable)?,
            fills: Fills::default(),
            queue,
            faults,
            position: found.position,
            patience: options.patience,
            verification: Verification::default(),
            held: Mutex::new(Held {
                lock: Some(claimed.lock),
                writer: Some(thread),
            }),
            shared,
        }));
        disk.register(registry);
        let totals = disk.totals();
        let took = disk.0.shared.clock.now().since(began);
        disk.0.shared.metrics.working.set(1);
        tracing::info!(folder = %options.path.display(), entries = totals.entries, bytes = totals.bytes, swept = found.swept, ?took, "the disk cache is open");
        Ok(disk)
    }

    fn register(&self, registry: &Registry) {
        let (bytes, entries) = (Arc::clone(&self.0.shared), Arc::clone(&self.0.shared));
        registry.gauge_fn("edge_disk_bytes", "Bytes of the disk tier's files.", move || {
            bytes.index().bytes as f64
        });
        registry.gauge_fn(
            "edge_disk_entries",
            "Responses stored in the disk tier.",
            move || entries.index().entries() as f64,
        );
    }

    /// Whether anything may be stored under `key`: a look into the index, no file.
    pub fn has(&self, key: &Key) -> bool {
        self.0.shared.index().has(fingerprint(key))
    }

    /// Takes a response that has just been stored: writes it at once while there is room, else when it is asked for again.
    pub fn offer(&self, key: &Key, stored: &Arc<StoredResponse>) {
        if self.0.shared.full.load(Ordering::Relaxed) && !self.has(key) {
            self.0.shared.metrics.skipped.inc(Skip::Admission);
            return;
        }
        self.write(key, stored);
    }

    /// Takes a response that has been asked for again, unless it was taken before: one relaxed load on nearly all hits.
    pub fn offer_again(&self, key: &Key, stored: &Arc<StoredResponse>) {
        if !stored.is_offered() {
            self.write(key, stored);
        }
    }

    fn write(&self, key: &Key, stored: &Arc<StoredResponse>) {
        // Parts come and go in memory.
        if stored.head.part.is_some() {
            return;
        }
        stored.set_offered(true);
        if self.0.queue.offer(key, stored, stored.bytes()) {
            return;
        }
        stored.set_offered(false);
        self.0.shared.metrics.skipped.inc(Skip::QueueFull);
        // Memory has a newer response than the disk: the older one must not come back after it.
        let fingerprint = fingerprint(key);
        let mut index = self.0.shared.index();
        if let Some(older) = index.remove_variant(fingerprint, draft::variant(&stored.head)) {
            drop(index);
            self.gone(fingerprint, vec![older.body_file]);
        }
    }

    /// Drops everything under `key`, now and for good.
    pub fn remove(&self, key: &Key) {
        let fingerprint = fingerprint(key);
        let order = self.0.queue.order();
        let mut index = self.0.shared.index();
        let removed = index.remove(fingerprint);
        if removed.is_empty() && self.0.queue.is_idle() {
            return;
        }
        // What was queued before this must not come back.
        index.barriers.insert(fingerprint, order);
        drop(index);
        let bodies = removed.into_iter().map(|slot| slot.body_file).collect();
        self.gone(fingerprint, bodies);
    }

    fn gone(&self, fingerprint: u64, bodies: Vec<u32>) {
        self.0.queue.push(|order| Job::Gone {
            fingerprint,
            order,
            bodies,
        });
    }

    /// The highest epoch of any response that was found at the start.
    pub fn position(&self) -> u64 {
        self.0.position
    }

    /// What is there.
    pub fn totals(&self) -> Totals {
        let shared = &self.0.shared;
        let index = shared.index();
        Totals {
            entries: index.entries(),
            bytes: index.bytes,
            bytes_max: shared.limits.capacity + shared.limits.log_bytes,
            sites: index.sites().to_vec(),
            working: !shared.is_suspended(),
        }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        self.0.shared.io.root()
    }

    /// By which a test makes files fail.
    pub fn faults(&self) -> &Faults {
        &self.0.faults
    }

    /// Waits until everything that was offered so far is in the files.
    pub async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        self.0.queue.push(|_| Job::Flush { done });
        // Without a writer there is nothing to wait for.
        let _ = flushed.await;
    }

    /// Writes what waits, for at most `patience`, and lets go of the folder.
    pub async fn close(&self, patience: Duration) {
        self.0.queue.close();
        let writer = self.held().writer.take();
        let ended = tokio::task::spawn_blocking(move || writer.map(JoinHandle::join));
        // A disk that hangs is not waited for; what it holds is found as after a crash.
        let _ = tokio::time::timeout(patience, ended).await;
        self.held().lock = None;
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.queue.close();
    }
}
