//! What the writer, the readers and the bodies under way have in common: the folder, the index, the limits, the counts.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::frame::Place;
use super::handles::Handles;
use super::index::{Index, Slot};
use super::io::Io;
use super::metrics::{Damage, Metrics, Operation};
use crate::cache::key::Key;
use crate::cache::store::Memory;
use crate::clock::{Clock, Timestamp};

/// After a failed write, how long none is tried.
const SUSPENSION: Duration = Duration::from_secs(10);

/// How much there may be, and in which pieces.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Bytes of all files, one log less: eviction writes what it spares before it removes the rest.
    pub(super) capacity: u64,
    /// Bytes of a log.
    pub(super) log_bytes: u64,
    /// Bodies up to this length lie behind their record.
    pub(super) inline_max: u64,
    /// Bodies up to this length are read into memory when they are asked for.
    pub(super) promoted_max: u64,
    /// Bodies up to this length are kept at all.
    pub(super) body_max: u64,
}

impl Limits {
    /// The limits of a cache of `size` bytes.
    pub(super) fn new(size: u64, promoted_max: u64) -> Self {
        const MIB: u64 = 1024 * 1024;
        // The log that was being written is read whole after a crash, so it is not longer than it need be.
        let log_bytes = (size / 64).clamp(MIB, (size / 4096).clamp(16 * MIB, 64 * MIB));
        Self {
            capacity: size.saturating_sub(log_bytes).max(log_bytes * 2),
            log_bytes,
            inline_max: MIB.min(log_bytes / 4),
            promoted_max,
            body_max: size / 4,
        }
    }
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) io: Io,
    /// The cache's own number: files of another cache are told by it.
    pub(super) store: u64,
    pub(super) limits: Limits,
    pub(super) clock: Clock,
    pub(super) metrics: Metrics,
    /// What is in the memory tier as well is worth sparing.
    pub(super) memory: Memory,
    pub(super) index: Mutex<Index>,
    /// The files that are open to be read.
    pub(super) handles: Handles,
    pub(super) ids: AtomicU32,
    /// Whether something had to be evicted already: from then on, what is asked for once only is not written.
    pub(super) full: AtomicBool,
    suspended_until: AtomicI64,
}

impl Shared {
    pub(super) fn new(
        io: Io,
        store: u64,
        limits: Limits,
        clock: Clock,
        metrics: Metrics,
        memory: Memory,
    ) -> Self {
        Self {
            io,
            store,
            limits,
            clock,
            metrics,
            memory,
            index: Mutex::default(),
            handles: Handles::default(),
            ids: AtomicU32::new(1),
            full: AtomicBool::new(false),
            suspended_until: AtomicI64::new(i64::MIN),
        }
    }

    pub(super) fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number that no file has had.
    pub(super) fn next_id(&self) -> u32 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn place(&self, file: u32, offset: u32) -> Place {
        Place {
            store: self.store,
            file,
            offset,
        }
    }

    /// Seconds since 1970.
    pub(super) fn seconds(&self) -> u32 {
        u32::try_from(self.clock.now().unix_seconds()).unwrap_or(0)
    }

    /// Whether writes are left out for now, because one failed.
    pub(super) fn is_suspended(&self) -> bool {
        self.suspended_until.load(Ordering::Relaxed) > self.clock.now().unix_micros()
    }

    /// A write failed: none is tried for a while, and the operator is told once.
    pub(super) fn fail(&self, operation: Operation, error: &io::Error) {
        self.metrics.errors.inc(operation);
        let until = self.clock.now() + SUSPENSION;
        let before = self.suspended_until.swap(until.unix_micros(), Ordering::Relaxed);
        self.metrics.working.set(0);
        if before == i64::MIN {
            let folder = self.io.root().display();
            tracing::error!(%folder, %error, "the disk cache cannot be written; answers come from memory and the origin, and it is tried again every 10 s");
        }
    }

    /// A write went well.
    pub(super) fn succeed(&self) {
        if self.suspended_until.swap(i64::MIN, Ordering::Relaxed) != i64::MIN {
            self.metrics.working.set(1);
            tracing::info!(folder = %self.io.root().display(), "the disk cache can be written again");
        }
    }

    /// Something is not as it was written: counted, and taken out, so that it is fetched again.
    pub(super) fn damaged(&self, fingerprint: u64, slot: &Slot, what: Damage) {
        self.metrics.damaged.inc(what);
        tracing::warn!(
            log = slot.log,
            offset = slot.offset,
            body = slot.body_file,
            ?what,
            "a stored response is damaged; it is dropped"
        );
        let removed = self.index().remove_at(fingerprint, slot.log, slot.offset);
        if let Some(removed) = removed {
            self.drop_body(removed.body_file);
        }
    }

    /// Removes a body's file, if there is one.
    pub(super) fn drop_body(&self, file: u32) {
        if file == 0 {
            return;
        }
        let mut index = self.index();
        if let Some(body) = index.bodies.remove(&file) {
            index.bytes = index.bytes.saturating_sub(body.bytes);
        }
        drop(index);
        if let Err(error) = self.io.remove(&body_name(file)) {
            self.metrics.errors.inc(Operation::Remove);
            tracing::warn!(%error, file, "a body's file cannot be removed");
        }
    }

    /// Removes a log's file.
    pub(super) fn drop_log(&self, log: u32) {
        let mut index = self.index();
        if let Some(bytes) = index.logs.remove(&log) {
            index.bytes = index.bytes.saturating_sub(bytes);
        }
        drop(index);
        self.handles.forget_log(log);
        if let Err(error) = self.io.remove(&log_name(log)) {
            self.metrics.errors.inc(Operation::Remove);
            tracing::warn!(%error, log, "a log cannot be removed");
        }
    }
}

/// Whether a response time may be believed at `now`: one from the future says that the clock was set back meanwhile, and
/// then nobody knows how old the response is.
pub(super) fn believable(response_time: Timestamp, now: Timestamp) -> bool {
    const SLACK: Duration = Duration::from_secs(2);
    response_time <= now + SLACK
}

pub(super) fn log_name(id: u32) -> String {
    format!("{id:010}.log")
}

pub(super) fn body_name(id: u32) -> String {
    format!("{id:010}.body")
}

/// The number of a file with this ending.
pub(super) fn number(name: &str, ending: &str) -> Option<u32> {
    let digits = name.strip_suffix(ending)?;
    let is_ours = digits.len() == 10 && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|id| is_ours && *id > 0)
}

/// What a key is known by in the index: 64 bits of its SHA-256. The key itself stands in the record and is compared.
pub(super) fn fingerprint(key: &Key) -> u64 {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    // The lengths are part of it, so that no name with a bar in it can pass for two.
    for part in [key.origin(), key.host(), key.as_str()] {
        context.update(&(part.len() as u64).to_le_bytes());
        context.update(part.as_bytes());
    }
    let digest = context.finish();
    digest
        .as_ref()
        .first_chunk()
        .map_or(0, |bytes| u64::from_le_bytes(*bytes))
}
