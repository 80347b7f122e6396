//! Bodies in files of their own: written while they arrive, read while they are written, a few chunks at a time.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::{oneshot, watch};

use super::frame::{CHUNK, FILE_HEADER, chunked, file_header, read_chunks, write_chunks};
use super::io::Handle;
use super::metrics::{Damage, Operation, Skip, Written};
use super::queue::Job;
use super::shared::{Shared, body_name};
use super::{Disk, Inner};
use crate::cache::key::Key;
use crate::cache::store::Head;

/// Bytes that are written or read at once.
const BATCH: usize = 4 * CHUNK;

/// Bodies that may be under way to the disk at once; more stream past.
const FILLS_MAX: usize = 16;

/// Of a body whose length is not known, so many bytes are set aside at a time.
const STEP_BYTES: u64 = 16 * 1024 * 1024;

/// How long a body waits for a disk that is slow. After that it streams past, and the disk's copy is given up.
const WRITE_PATIENCE: Duration = Duration::from_secs(3);

/// How long a read may take before it counts as failed.
pub(super) const READ_PATIENCE: Duration = Duration::from_secs(2);

/// A body on the disk: all of it, or what has been written so far.
#[derive(Clone, Debug)]
pub struct OnDisk {
    disk: Disk,
    file: u32,
    /// Bytes of all the body in the file, once that is known.
    total: Option<u64>,
    /// Where this form begins in it.
    first: u64,
    length: Option<u64>,
    owner: Option<(u64, u32)>,
    growth: Option<watch::Receiver<Growth>>,
}

/// Where a body lies that has come whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lying {
    pub(super) file: u32,
    pub(super) total: u64,
    pub(super) first: u64,
    pub(super) length: u64,
}

/// How far a body has been written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Growth {
    written: u64,
    end: Ending,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Failed,
    Open,
    Whole,
}

/// Why a body cannot be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It is not as it was written, or cannot be read.
    #[error("the stored body is damaged")]
    Damaged,
    /// It is gone: evicted, or its writing was given up.
    #[error("the stored body is gone")]
    Gone,
    /// The disk takes too long.
    #[error("the disk takes too long")]
    Slow,
}

impl OnDisk {
    pub(super) fn new(
        disk: Disk,
        file: u32,
        total: u64,
        (first, length): (u64, u64),
        owner: (u64, u32),
    ) -> Self {
        Self {
            disk,
            file,
            total: Some(total),
            first,
            length: Some(length),
            owner: Some(owner),
            growth: None,
        }
    }

    /// The length in bytes; `None` while it is not known.
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// Where it lies: the file and its length, and the first byte in it and how many. `None` while it still comes.
    pub(super) fn place(&self) -> Option<Lying> {
        Some(Lying {
            file: self.file,
            total: self.total?,
            first: self.first,
            length: self.length?,
        })
    }

    /// How many bytes can be read by now.
    pub fn ready(&self) -> u64 {
        let known = self.length.unwrap_or(u64::MAX);
        self.growth
            .as_ref()
            .map_or(known, |growth| growth.borrow().written)
    }

    /// Begins to read.
    pub fn reader(&self) -> BodyReader {
        BodyReader {
            body: self.clone(),
            handle: None,
        }
    }

    /// Takes the body out of the store, for it cannot be read: it is fetched again.
    pub fn forget(&self) {
        if let Some((fingerprint, variant)) = self.owner {
            let shared = &self.disk.0.shared;
            let mut index = shared.index();
            let slots = index.find(fingerprint);
            let held = slots
                .iter()
                .find(|slot| slot.variant == variant && slot.body_file == self.file);
            if let Some(slot) = held {
                index.remove_at(fingerprint, slot.log, slot.offset);
                drop(index);
                let bodies = vec![self.file];
                self.disk.0.queue.push(|_| Job::Unlink { bodies });
            }
        }
    }
}

/// Reads a body.
#[derive(Debug)]
pub struct BodyReader {
    body: OnDisk,
    handle: Option<Arc<Handle>>,
}

impl BodyReader {
    /// The next bytes from `at` on, a few chunks at most; waits until they have been written. `None` at the body's end.
    ///
    /// # Errors
    ///
    /// When they are not as they were written, or cannot be had.
    pub async fn read(&mut self, at: u64) -> Result<Option<Bytes>, Unreadable> {
        let length = self.ready(at).await?;
        let Some(left) = length.checked_sub(at).filter(|left| *left > 0) else {
            return Ok(None);
        };
        let from = self.body.first + at;
        let first_chunk = from / CHUNK as u64;
        let end = (from + left.min(BATCH as u64)).next_multiple_of(CHUNK as u64);
        // What of the file is written is known to be whole chunks, or its end.
        let end = end.min(self.body.first + length).max(from + 1);
        let last = match self.body.total {
            Some(total) => end.next_multiple_of(CHUNK as u64).min(total),
            None => end,
        };
        let wanted = (self.body.clone(), self.handle.clone());
        let job = move || fetch(wanted.0, wanted.1, first_chunk, last);
        let read = tokio::time::timeout(READ_PATIENCE, self.body.disk.0.reads.run(job)).await;
        let (handle, bytes) = match read {
            Ok(Some(read)) => read?,
            Ok(None) | Err(_) => return Err(Unreadable::Slow),
        };
        self.handle = Some(handle);
        let skip = usize::try_from(from - first_chunk * CHUNK as u64).unwrap_or(usize::MAX);
        let take = usize::try_from(end - from).unwrap_or(usize::MAX);
        let mut bytes = Bytes::from(bytes);
        if skip + take > bytes.len() {
            return Err(Unreadable::Damaged);
        }
        drop(bytes.split_to(skip));
        bytes.truncate(take);
        Ok(Some(bytes))
    }

    /// The place up to which can be read, once that is beyond `at` or the end is known.
    async fn ready(&mut self, at: u64) -> Result<u64, Unreadable> {
        let Some(growth) = &mut self.body.growth else {
            return self.body.length.ok_or(Unreadable::Gone);
        };
        let grown = growth
            .wait_for(|growth| growth.written > at || growth.end != Ending::Open)
            .await;
        let grown = *grown.map_err(|_| Unreadable::Gone)?;
        match grown.end {
            Ending::Failed => Err(Unreadable::Gone),
            Ending::Open => Ok(grown.written),
            Ending::Whole => {
                self.body.total = Some(grown.written);
                self.body.length = Some(grown.written);
                Ok(grown.written)
            }
        }
    }
}

/// Reads and proves the chunks from `first_chunk` on, up to the byte `end` of the body.
fn fetch(
    body: OnDisk,
    handle: Option<Arc<Handle>>,
    first_chunk: u64,
    end: u64,
) -> Result<(Arc<Handle>, Vec<u8>), Unreadable> {
    let shared = &body.disk.0.shared;
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Unreadable::Gone,
        _ => {
            shared.metrics.errors.inc(Operation::Read);
            shared.metrics.damaged.inc(Damage::File);
            tracing::warn!(%error, file = body.file, "a stored body cannot be read");
            Unreadable::Damaged
        }
    };
    let handle = match handle {
        Some(handle) => handle,
        None => Arc::new(shared.io.open(&body_name(body.file), false).map_err(failed)?),
    };
    let from = first_chunk * CHUNK as u64;
    let at = FILE_HEADER as u64 + chunked(from);
    let bytes = usize::try_from(chunked(end.saturating_sub(from))).unwrap_or(usize::MAX);
    let read = handle.read_at(at, bytes).map_err(failed)?;
    shared.metrics.read_bytes.add(read.len() as u64);
    let Some(chunks) = read_chunks(&read, shared.place(body.file, 0), first_chunk) else {
        shared.metrics.damaged.inc(Damage::Body);
        tracing::warn!(file = body.file, chunk = first_chunk, "a stored body is damaged");
        return Err(Unreadable::Damaged);
    };
    Ok((handle, chunks))
}

/// All of a body of `length` bytes; for small ones. `None` when it is not as it was written.
pub(super) fn read_whole(shared: &Shared, file: u32, length: u64) -> io::Result<Option<Vec<u8>>> {
    let handle = shared.io.open(&body_name(file), false)?;
    let bytes = usize::try_from(chunked(length)).unwrap_or(usize::MAX);
    let read = handle.read_at(FILE_HEADER as u64, bytes)?;
    shared.metrics.read_bytes.add(read.len() as u64);
    Ok(read_chunks(&read, shared.place(file, 0), 0))
}

/// Reads a whole body a batch at a time, and keeps nothing of it: whether every chunk is as it was written.
pub(super) fn verify(shared: &Shared, file: u32, length: u64) -> io::Result<bool> {
    let handle = shared.io.open(&body_name(file), false)?;
    let mut at = 0;
    while at < length {
        let end = (at + BATCH as u64).min(length);
        let bytes = usize::try_from(chunked(end - at)).unwrap_or(usize::MAX);
        let read = handle.read_at(FILE_HEADER as u64 + chunked(at), bytes)?;
        shared.metrics.read_bytes.add(read.len() as u64);
        if read_chunks(&read, shared.place(file, 0), at / CHUNK as u64).is_none() {
            return Ok(false);
        }
        at = end;
    }
    Ok(true)
}

/// Writes a body that is all there.
pub(super) fn write_whole(shared: &Shared, file: u32, body: &[u8]) -> io::Result<()> {
    let handle = shared.io.create(&body_name(file))?;
    handle.write_at(0, &file_header(shared.store, file))?;
    for (batch, bytes) in (0u64..).zip(body.chunks(BATCH)) {
        let from = batch * BATCH as u64;
        write_batch(shared, &handle, file, from, bytes)?;
    }
    shared.metrics.writes.inc(Written::Body);
    Ok(())
}

fn write_batch(shared: &Shared, handle: &Handle, file: u32, from: u64, bytes: &[u8]) -> io::Result<()> {
    let mut out = Vec::with_capacity(bytes.len() + 64);
    write_chunks(&mut out, shared.place(file, 0), from / CHUNK as u64, bytes);
    handle.write_at(FILE_HEADER as u64 + chunked(from), &out)?;
    shared.metrics.written_bytes.add(out.len() as u64);
    Ok(())
}

/// A body on its way to the disk. Dropped before [`Fill::finish`], it is gone, and its readers are told.
#[derive(Debug)]
pub struct Fill {
    inner: Arc<Inner>,
    file: u32,
    handle: Arc<Handle>,
    pending: BytesMut,
    written: u64,
    reserved: u64,
    growth: watch::Sender<Growth>,
    committed: bool,
    _place: FillPlace,
}

impl Disk {
    /// Begins to take in a body of `length` bytes, if that is known; `None` when the disk cannot have it now.
    pub async fn fill(&self, length: Option<u64>) -> Option<Fill> {
        let inner = &self.0;
        let skip = |why| {
            inner.shared.metrics.skipped.inc(why);
            None::<Fill>
        };
        if inner.shared.is_suspended() {
            return skip(Skip::Failed);
        }
        if length.is_some_and(|length| length > inner.shared.limits.body_max) {
            return skip(Skip::TooLarge);
        }
        if inner.fills.fetch_add(1, Ordering::Relaxed) >= FILLS_MAX {
            inner.fills.fetch_sub(1, Ordering::Relaxed);
            return skip(Skip::Busy);
        }
        let place = FillPlace(Arc::clone(inner));
        let bytes = FILE_HEADER as u64 + chunked(length.unwrap_or(STEP_BYTES));
        if !reserve(inner, bytes).await {
            return skip(Skip::Failed);
        }
        let file = inner.shared.next_id();
        let shared = Arc::clone(&inner.shared);
        let begun = inner.writes.run(move || {
            let handle = shared.io.create(&body_name(file))?;
            handle.write_at(0, &file_header(shared.store, file))?;
            Ok::<_, io::Error>(handle)
        });
        let begun = tokio::time::timeout(WRITE_PATIENCE, begun).await;
        let handle = match begun {
            Ok(Some(Ok(handle))) => handle,
            failed => {
                if let Ok(Some(Err(error))) = failed {
                    inner.shared.fail(Operation::Write, &error);
                }
                release(&inner.shared, bytes);
                return skip(Skip::Failed);
            }
        };
        let (growth, _) = watch::channel(Growth {
            written: 0,
            end: Ending::Open,
        });
        Some(Fill {
            inner: Arc::clone(inner),
            file,
            handle: Arc::new(handle),
            pending: BytesMut::with_capacity(BATCH),
            written: 0,
            reserved: bytes,
            growth,
            committed: false,
            _place: place,
        })
    }
}

/// One of the bodies under way.
#[derive(Debug)]
struct FillPlace(Arc<Inner>);

impl Drop for FillPlace {
    fn drop(&mut self) {
        self.0.fills.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn reserve(inner: &Arc<Inner>, bytes: u64) -> bool {
    let (done, room) = oneshot::channel();
    inner.queue.push(|_| Job::Reserve { bytes, done });
    matches!(tokio::time::timeout(WRITE_PATIENCE, room).await, Ok(Ok(true)))
}

fn release(shared: &Shared, bytes: u64) {
    let mut index = shared.index();
    index.bytes = index.bytes.saturating_sub(bytes);
}

impl Fill {
    /// What has been written so far, to be read while more comes.
    pub fn body(&self, length: Option<u64>) -> OnDisk {
        OnDisk {
            disk: Disk(Arc::clone(&self.inner)),
            file: self.file,
            total: None,
            first: 0,
            length,
            owner: None,
            growth: Some(self.growth.subscribe()),
        }
    }

    /// Takes the next bytes. `false` when the disk does not take them: then the body's readers have been told, and it is
    /// for the caller to give up.
    pub async fn write(&mut self, mut chunk: Bytes) -> bool {
        while !chunk.is_empty() {
            let room = BATCH - self.pending.len().min(BATCH);
            let part = chunk.split_to(room.min(chunk.len()));
            self.pending.extend_from_slice(&part);
            if self.pending.len() >= BATCH && !self.flush().await {
                return false;
            }
        }
        true
    }

    async fn flush(&mut self) -> bool {
        if self.pending.is_empty() {
            return true;
        }
        let bytes = self.pending.split().freeze();
        let (from, length) = (self.written, bytes.len() as u64);
        let needed = FILE_HEADER as u64 + chunked(from + length);
        if from + length > self.inner.shared.limits.body_max {
            self.inner.shared.metrics.skipped.inc(Skip::TooLarge);
            return false;
        }
        if needed > self.reserved {
            if !reserve(&self.inner, STEP_BYTES).await {
                self.inner.shared.metrics.skipped.inc(Skip::Failed);
                return false;
            }
            self.reserved += STEP_BYTES;
        }
        let (shared, handle, file) = (
            Arc::clone(&self.inner.shared),
            Arc::clone(&self.handle),
            self.file,
        );
        let job = self
            .inner
            .writes
            .run(move || write_batch(&shared, &handle, file, from, &bytes));
        match tokio::time::timeout(WRITE_PATIENCE, job).await {
            Ok(Some(Ok(()))) => {}
            Ok(Some(Err(error))) => {
                self.inner.shared.fail(Operation::Write, &error);
                self.inner.shared.metrics.skipped.inc(Skip::Failed);
                return false;
            }
            Ok(None) | Err(_) => {
                self.inner.shared.metrics.skipped.inc(Skip::Busy);
                return false;
            }
        }
        self.written += length;
        self.growth.send_modify(|growth| growth.written = self.written);
        true
    }

    /// The body has come whole: it becomes visible with its head. `None` when that does not succeed.
    pub async fn finish(mut self, key: &Key, head: &Arc<Head>) -> Option<OnDisk> {
        if !self.flush().await {
            return None;
        }
        let length = self.written;
        let exact = FILE_HEADER as u64 + chunked(length);
        let (done, committed) = oneshot::channel();
        release(&self.inner.shared, self.reserved.saturating_sub(exact));
        self.reserved = self.reserved.min(exact);
        self.inner.queue.push(|order| Job::Commit {
            key: key.clone(),
            head: Arc::clone(head),
            file: self.file,
            length,
            order,
            done,
        });
        // From here on the file is the index's; if the record cannot be written, it is removed by `Drop`.
        self.committed = committed.await.unwrap_or(false);
        if !self.committed {
            return None;
        }
        self.inner.shared.metrics.writes.inc(Written::Body);
        self.growth.send_modify(|growth| growth.end = Ending::Whole);
        let owner = (super::shared::fingerprint(key), super::writer::variant(head));
        Some(OnDisk::new(
            Disk(Arc::clone(&self.inner)),
            self.file,
            length,
            (0, length),
            owner,
        ))
    }
}

impl Drop for Fill {
    fn drop(&mut self) {
        if self.committed {
            return;
        }
        self.growth.send_modify(|growth| growth.end = Ending::Failed);
        release(&self.inner.shared, self.reserved);
        let bodies = vec![self.file];
        self.inner.queue.push(|_| Job::Unlink { bodies });
    }
}

/// How many bodies are under way.
pub(super) type Fills = AtomicUsize;
