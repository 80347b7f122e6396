//! Bodies on their way into files of their own, as they arrive: seen by those who ask for them, and by a restart only when
//! they have come whole.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::{oneshot, watch};

use super::bodies::{BATCH, Ending, Growth, OnDisk};
use super::frame::{CHUNK, FILE_HEADER, chunked, file_header, write_chunks};
use super::io::Handle;
use super::metrics::{Operation, Skip, Written};
use super::queue::Job;
use super::shared::{Shared, body_name};
use super::{Disk, Inner};
use crate::cache::key::Key;
use crate::cache::store::Head;

/// How long a body waits for a disk that is slow. After that it streams past, and the disk's copy is given up.
const WRITE_PATIENCE: Duration = Duration::from_secs(3);

/// Of a body whose length is not known, so many bytes are set aside at a time.
const STEP_BYTES: u64 = 16 * 1024 * 1024;

/// Bodies that may be under way to the disk at once; more stream past.
const FILLS_MAX: usize = 16;

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
        let disk = Disk(Arc::clone(&self.inner));
        OnDisk::growing(disk, self.file, length, self.growth.subscribe())
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
        let owner = (super::shared::fingerprint(key), super::draft::variant(head));
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
