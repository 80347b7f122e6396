//! Bodies in files of their own: read from any byte on, also while they are still written, a few chunks at a time.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use super::Disk;
use super::frame::{CHUNK, FILE_HEADER, chunked, read_chunks};
use super::growth::{Ending, Growth};
use super::handles::is_shortage;
use super::io::Handle;
use super::metrics::{Damage, Operation};
use super::queue::Job;
use super::shared::{Shared, body_name};

/// Bytes that are written at once.
pub(super) const BATCH: usize = 4 * CHUNK;

/// Bytes that are read at once.
const READ_BATCH: usize = 2 * CHUNK;

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

/// Why a body cannot be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It is not as it was written, or cannot be read.
    #[error("the stored body is damaged")]
    Damaged,
    /// It is gone: evicted, or its writing was given up.
    #[error("the stored body is gone")]
    Gone,
    /// The disk takes too long, or no more files can be open.
    #[error("the disk takes too long, or there is no room for an open file")]
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

    /// A body that is still being written.
    pub(super) fn growing(
        disk: Disk,
        file: u32,
        length: Option<u64>,
        growth: watch::Receiver<Growth>,
    ) -> Self {
        Self {
            disk,
            file,
            total: None,
            first: 0,
            length,
            owner: None,
            growth: Some(growth),
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

    /// Whether the byte at `at` is there, or comes when at most `far` more have come.
    pub fn is_near(&self, at: u64, far: u64) -> bool {
        self.growth
            .as_ref()
            .is_none_or(|growth| growth.borrow().is_near(at, far))
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
        let end = (from + left.min(READ_BATCH as u64)).next_multiple_of(CHUNK as u64);
        // What of the file is written is known to be whole chunks, or its end.
        let end = end.min(self.body.first + length).max(from + 1);
        let last = match self.body.total {
            Some(total) => end.next_multiple_of(CHUNK as u64).min(total),
            None => end,
        };
        let wanted = (self.body.clone(), self.handle.clone());
        let job = move || fetch(wanted.0, wanted.1, first_chunk, last);
        let disk = &self.body.disk.0;
        let read = tokio::time::timeout(disk.patience, disk.reads.run(job)).await;
        let (handle, bytes) = match read {
            Ok(Some(read)) => read?,
            Ok(None) | Err(_) => return Err(Unreadable::Slow),
        };
        self.handle = handle;
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
            .wait_for(|growth| growth.reach(at) > at || growth.end != Ending::Open)
            .await;
        let (end, reach, whole) = {
            let grown = grown.map_err(|_| Unreadable::Gone)?;
            (grown.end, grown.reach(at), grown.reach(0))
        };
        match end {
            Ending::Failed => Err(Unreadable::Gone),
            Ending::Open => Ok(reach),
            Ending::Whole => {
                self.body.total = Some(whole);
                self.body.length = Some(whole);
                Ok(whole)
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
) -> Result<(Option<Arc<Handle>>, Vec<u8>), Unreadable> {
    let shared = &body.disk.0.shared;
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Unreadable::Gone,
        _ if is_shortage(&error) => {
            shared.metrics.errors.inc(Operation::Read);
            Unreadable::Slow
        }
        _ => {
            shared.metrics.errors.inc(Operation::Read);
            shared.metrics.damaged.inc(Damage::File);
            tracing::warn!(%error, file = body.file, "a stored body cannot be read");
            Unreadable::Damaged
        }
    };
    let (handle, is_kept) = match handle {
        Some(handle) => (handle, true),
        None => shared.handles.open(&shared.io, body.file).map_err(failed)?,
    };
    let from = first_chunk * CHUNK as u64;
    let at = FILE_HEADER as u64 + chunked(from);
    let bytes = usize::try_from(chunked(end.saturating_sub(from))).unwrap_or(usize::MAX);
    let read = handle.read_at(at, bytes).map_err(failed)?;
    shared.metrics.read_bytes.add(read.len() as u64);
    let Some(chunks) = read_chunks(read, shared.place(body.file, 0), first_chunk) else {
        shared.metrics.damaged.inc(Damage::Body);
        tracing::warn!(file = body.file, chunk = first_chunk, "a stored body is damaged");
        return Err(Unreadable::Damaged);
    };
    Ok((is_kept.then_some(handle), chunks))
}

/// All of a body of `length` bytes; for small ones. `None` when it is not as it was written.
pub(super) fn read_whole(shared: &Shared, file: u32, length: u64) -> io::Result<Option<Vec<u8>>> {
    let handle = shared.io.open(&body_name(file), false)?;
    let bytes = usize::try_from(chunked(length)).unwrap_or(usize::MAX);
    let read = handle.read_at(FILE_HEADER as u64, bytes)?;
    shared.metrics.read_bytes.add(read.len() as u64);
    Ok(read_chunks(read, shared.place(file, 0), 0))
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
        if read_chunks(read, shared.place(file, 0), at / CHUNK as u64).is_none() {
            return Ok(false);
        }
        at = end;
    }
    Ok(true)
}
