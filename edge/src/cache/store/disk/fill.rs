//! Bodies on their way into files of their own, as they arrive: seen by those who ask for them, and by a restart only when
//! they have come whole.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use bytes::{Bytes, BytesMut};
use tokio::sync::{oneshot, watch};

use super::bodies::{BATCH, OnDisk};
use super::frame::{CHUNK, FILE_HEADER, chunked, file_header, write_chunks};
use super::growth::{Ending, Growth};
use super::io::Handle;
use super::metrics::{Operation, Skip, Written};
use super::queue::Job;
use super::shared::{Shared, body_name};
use super::{Disk, Inner};
use crate::cache::key::Key;
use crate::cache::store::Head;

/// Of a body whose length is not known, so many bytes are set aside at a time.
const STEP_BYTES: u64 = 16 * 1024 * 1024;

/// Bodies that may be under way to the disk at once; more stream past.
pub(super) const FILLS_MAX: usize = 16;

/// Places at which a body may come at once.
pub(super) const FRONTS_MAX: usize = 5;

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
    filling: Arc<Filling>,
    front: Front,
    length: Option<u64>,
    reserved: u64,
    committed: bool,
    _place: FillPlace,
}

/// What all who write a body have in common.
#[derive(Debug)]
struct Filling {
    inner: Arc<Inner>,
    file: u32,
    handle: Arc<Handle>,
    growth: watch::Sender<Growth>,
}

/// A place at which a body comes. Dropped, nothing more comes there.
#[derive(Debug)]
pub struct Front {
    filling: Arc<Filling>,
    /// Where it began, by which it is known.
    first: u64,
    /// How far it has been written.
    at: u64,
    pending: BytesMut,
    /// Whether it has brought what it was to bring.
    done: bool,
}

/// What is left of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// The disk does not take it.
    Failed,
    /// The first stretch that nobody has brought.
    Gap {
        /// Where it begins.
        first: u64,
        /// Where it ends.
        end: u64,
    },
    /// Nothing, as far as is known.
    Nothing,
}

/// What became of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The disk does not take it: it is for the caller to give up.
    Failed,
    /// What comes next has come already, or comes at another place.
    Met,
    /// More is welcome.
    On,
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
        let begun = tokio::time::timeout(inner.patience, begun).await;
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
        let filling = Arc::new(Filling {
            inner: Arc::clone(inner),
            file,
            handle: Arc::new(handle),
            growth: watch::channel(Growth::new()).0,
        });
        Some(Fill {
            front: Front::new(&filling, 0, 0),
            filling,
            length,
            reserved: bytes,
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
    let (done, mut room) = oneshot::channel();
    inner.queue.push(|_| Job::Reserve { bytes, done });
    match tokio::time::timeout(inner.patience, &mut room).await {
        Ok(granted) => granted.unwrap_or(false),
        Err(_) => {
            // What was granted at the last moment is given back.
            room.close();
            if room.try_recv() == Ok(true) {
                release(&inner.shared, bytes);
            }
            false
        }
    }
}

fn release(shared: &Shared, bytes: u64) {
    let mut index = shared.index();
    index.bytes = index.bytes.saturating_sub(bytes);
}

impl Fill {
    /// What has been written so far, to be read while more comes.
    pub fn body(&self, length: Option<u64>) -> OnDisk {
        let disk = Disk(Arc::clone(&self.filling.inner));
        OnDisk::growing(disk, self.filling.file, length, self.filling.growth.subscribe())
    }

    /// By which other places can be begun at.
    pub fn places(&self) -> Places {
        Places(Arc::downgrade(&self.filling))
    }

    /// Takes the next bytes. Unless the disk does not take them: then the body's readers have been told.
    pub async fn write(&mut self, chunk: Bytes) -> Taken {
        let end = self.front.at + (self.front.pending.len() + chunk.len()) as u64;
        if end > self.filling.inner.shared.limits.body_max {
            self.filling.inner.shared.metrics.skipped.inc(Skip::TooLarge);
            return Taken::Failed;
        }
        while FILE_HEADER as u64 + chunked(end) > self.reserved {
            if !reserve(&self.filling.inner, STEP_BYTES).await {
                self.filling.inner.shared.metrics.skipped.inc(Skip::Failed);
                return Taken::Failed;
            }
            self.reserved += STEP_BYTES;
        }
        self.front.write(chunk).await
    }

    /// What is left to be brought next, once nothing comes any more where the body is known up to. What is written next is to
    /// begin there.
    pub async fn rest(&mut self) -> Rest {
        if !self.front.flush().await {
            return Rest::Failed;
        }
        let Some(length) = self.length else {
            return Rest::Nothing;
        };
        self.front.done = true;
        self.front.leave();
        let mut growth = self.filling.growth.subscribe();
        // It cannot be gone: this is whose it is.
        let _ = growth.wait_for(|growth| !growth.grows_on()).await;
        let mut rest = Rest::Nothing;
        self.filling.growth.send_if_modified(|growth| {
            let Some((first, end)) = growth.gap(length) else {
                return false;
            };
            rest = Rest::Gap { first, end };
            if let Some(began) = growth.go_on(first) {
                (self.front.first, self.front.at) = (began, first);
            }
            true
        });
        rest
    }

    /// The body has come whole: it becomes visible with its head. `None` when that does not succeed.
    pub async fn finish(mut self, key: &Key, head: &Arc<Head>) -> Option<OnDisk> {
        if !self.front.flush().await {
            return None;
        }
        self.front.done = true;
        let filling = Arc::clone(&self.filling);
        let length = filling.growth.borrow().reach(0);
        if self.length.is_some_and(|announced| announced != length) {
            return None;
        }
        // Who reads it has all of it, whether the disk keeps it or not.
        filling.growth.send_modify(|growth| growth.end = Ending::Whole);
        let exact = FILE_HEADER as u64 + chunked(length);
        let (done, committed) = oneshot::channel();
        release(&filling.inner.shared, self.reserved.saturating_sub(exact));
        self.reserved = self.reserved.min(exact);
        filling.inner.queue.push(|order| Job::Commit {
            key: key.clone(),
            head: Arc::clone(head),
            file: filling.file,
            length,
            order,
            done,
        });
        // From here on the file is the index's; if the record cannot be written, it is removed by `Drop`.
        self.committed = committed.await.unwrap_or(false);
        if !self.committed {
            return None;
        }
        filling.inner.shared.metrics.writes.inc(Written::Body);
        let owner = (super::shared::fingerprint(key), super::draft::variant(head));
        Some(OnDisk::new(
            Disk(Arc::clone(&filling.inner)),
            filling.file,
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
        self.filling.growth.send_if_modified(|growth| {
            let is_cut = growth.end == Ending::Open;
            if is_cut {
                growth.end = Ending::Failed;
            }
            is_cut
        });
        release(&self.filling.inner.shared, self.reserved);
        let bodies = vec![self.filling.file];
        self.filling.inner.queue.push(|_| Job::Unlink { bodies });
    }
}

/// Begins at other places of a body under way. It keeps no body alive.
#[derive(Clone, Debug)]
pub struct Places(Weak<Filling>);

impl Places {
    /// Begins at the chunk of the byte at `at`; `None` when something comes there already, at too many places, or no more at
    /// all.
    pub fn begin(&self, at: u64) -> Option<Front> {
        let filling = self.0.upgrade()?;
        let first = at - at % CHUNK as u64;
        let mut begun = false;
        filling.growth.send_if_modified(|growth| {
            begun = growth.growing() < FRONTS_MAX && growth.begin(first);
            begun
        });
        begun.then(|| Front::new(&filling, first, first))
    }
}

impl Front {
    fn new(filling: &Arc<Filling>, first: u64, at: u64) -> Self {
        Self {
            filling: Arc::clone(filling),
            first,
            at,
            pending: BytesMut::with_capacity(BATCH),
            done: false,
        }
    }

    /// Where it begins.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// Where it ends, if something comes there already.
    pub fn limit(&self) -> Option<u64> {
        self.filling.growth.borrow().limit(self.first)
    }

    /// Takes the next bytes.
    pub async fn write(&mut self, mut chunk: Bytes) -> Taken {
        while !chunk.is_empty() {
            let room = BATCH - self.pending.len().min(BATCH);
            let part = chunk.split_to(room.min(chunk.len()));
            self.pending.extend_from_slice(&part);
            // Whoever begins at another place is not written over: they begin at whole chunks, and far away.
            let limit = self.limit().map(|limit| limit.saturating_sub(self.at));
            let left = limit.map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(usize::MAX));
            let met = self.pending.len() >= left;
            self.pending.truncate(left);
            if (met || self.pending.len() >= BATCH) && !self.flush().await {
                return Taken::Failed;
            }
            if met {
                self.done = true;
                return Taken::Met;
            }
        }
        Taken::On
    }

    /// Writes what is pending: the body's end, or whole chunks.
    async fn flush(&mut self) -> bool {
        let filling = &self.filling;
        if filling.growth.borrow().end != Ending::Open {
            return false;
        }
        if self.pending.is_empty() {
            return true;
        }
        let bytes = self.pending.split().freeze();
        let (from, length) = (self.at, bytes.len() as u64);
        let (shared, handle, file) = (
            Arc::clone(&filling.inner.shared),
            Arc::clone(&filling.handle),
            filling.file,
        );
        let job = filling
            .inner
            .writes
            .run(move || write_batch(&shared, &handle, file, from, &bytes));
        match tokio::time::timeout(filling.inner.patience, job).await {
            Ok(Some(Ok(()))) => {}
            Ok(Some(Err(error))) => {
                filling.inner.shared.fail(Operation::Write, &error);
                filling.inner.shared.metrics.skipped.inc(Skip::Failed);
                return false;
            }
            Ok(None) | Err(_) => {
                filling.inner.shared.metrics.skipped.inc(Skip::Busy);
                return false;
            }
        }
        self.at += length;
        let (first, at) = (self.first, self.at);
        filling.growth.send_modify(|growth| growth.grow(first, at));
        true
    }

    /// Its source has come to its end: what is pending is written, and it is done.
    pub async fn close(mut self) {
        self.done = self.flush().await;
    }

    fn leave(&self) {
        let (first, done) = (self.first, self.done);
        self.filling
            .growth
            .send_modify(|growth| growth.leave(first, done));
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.leave();
    }
}

/// How many bodies are under way.
pub(super) type Fills = AtomicUsize;
