//! A body that is being written: into a temporary file, with all its digests taken on the way.
//!
//! It becomes an object only when it is committed; dropped before that, it leaves nothing behind.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use s3s::checksum::ChecksumHasher;
use s3s::crypto::{Checksum as _, Md5};

use super::record::Record;
use super::{StoreError, blocking, disk};
use crate::bucket::checksum::{self, Algorithm, Checksums};

/// A body on its way to disk.
pub struct Draft {
    dir: PathBuf,
    durable: bool,
    sink: Option<Sink>,
    hashers: Option<ChecksumHasher>,
    batch: Vec<Bytes>,
    batched: usize,
}

/// A body that is on disk whole, under a temporary name.
#[derive(Debug)]
pub struct Written {
    pub(super) file: Temporary,
    size: u64,
    md5: [u8; 16],
    checksums: Checksums,
}

/// A file that goes away unless it is kept.
#[derive(Debug)]
pub(super) struct Temporary {
    pub(super) path: PathBuf,
    pub(super) id: String,
    kept: bool,
}

struct Sink {
    file: File,
    temporary: Temporary,
    md5: Md5,
    hashers: ChecksumHasher,
    size: u64,
}

/// As many bytes are gathered before a thread is asked to write them.
const BATCH_BYTES: usize = 256 * 1024;

impl std::fmt::Debug for Draft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Draft")
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

impl Draft {
    pub(super) fn new(shelf: &Path, durable: bool, algorithms: &[Algorithm]) -> Self {
        Self {
            dir: shelf.join(disk::TEMPORARY),
            durable,
            sink: None,
            hashers: Some(checksum::hasher(algorithms)),
            batch: Vec::new(),
            batched: 0,
        }
    }

    /// Takes the next bytes. Memory is bounded: a full batch is on disk before this returns.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        self.batched += bytes.len();
        self.batch.push(bytes);
        if self.batched < BATCH_BYTES {
            return Ok(());
        }
        let sink = self.flush(false).await?;
        self.sink = Some(sink);
        Ok(())
    }

    /// Writes what is left, and synchronises if the store is durable.
    pub async fn finish(mut self) -> Result<Written, StoreError> {
        let sink = self.flush(self.durable).await?;
        Ok(Written {
            file: sink.temporary,
            size: sink.size,
            md5: sink.md5.finalize(),
            checksums: sink.hashers.finalize().into(),
        })
    }

    async fn flush(&mut self, synchronise: bool) -> Result<Sink, StoreError> {
        let batch = std::mem::take(&mut self.batch);
        self.batched = 0;
        let (dir, sink) = (self.dir.clone(), self.sink.take());
        let hashers = self.hashers.take();
        blocking(move || {
            let mut sink = match sink {
                Some(sink) => sink,
                None => Sink::new(&dir, hashers.unwrap_or_default())?,
            };
            let result = batch.iter().try_for_each(|bytes| sink.write(bytes));
            result
                .and_then(|()| {
                    if synchronise {
                        sink.file.sync_data()
                    } else {
                        Ok(())
                    }
                })
                .map_err(failed)?;
            Ok(sink)
        })
        .await
    }
}

impl Written {
    /// The name that its file will have.
    pub fn id(&self) -> &str {
        &self.file.id
    }

    /// How many bytes there are.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The MD5 of the bytes.
    pub fn md5(&self) -> [u8; 16] {
        self.md5
    }

    /// The checksums of the bytes that were asked for.
    pub fn checksums(&self) -> &Checksums {
        &self.checksums
    }

    /// The body of `record` once more, under a name of its own. Bodies never change, so a link will do.
    pub(super) fn copy(from: &Path, shelf: &Path, record: &Record) -> Result<Self, StoreError> {
        let file = Temporary::new(&shelf.join(disk::TEMPORARY)).map_err(failed)?;
        let linked =
            std::fs::hard_link(from, &file.path).or_else(|_| std::fs::copy(from, &file.path).map(|_| ()));
        linked.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => StoreError::Vanished,
            _ => failed(error),
        })?;
        Ok(Self {
            file,
            size: record.size,
            md5: [0; 16],
            checksums: record.checksums.clone(),
        })
    }

    /// The files `parts` one after the other. Blocks.
    pub(super) fn join(
        shelf: &Path,
        durable: bool,
        parts: &[PathBuf],
        algorithms: &[Algorithm],
    ) -> io::Result<Self> {
        let dir = shelf.join(disk::TEMPORARY);
        let mut sink = Sink::new(&dir, checksum::hasher(algorithms)).map_err(io::Error::other)?;
        let mut buffer = vec![0; BATCH_BYTES];
        for part in parts {
            let mut file = File::open(part)?;
            loop {
                let count = io::Read::read(&mut file, &mut buffer)?;
                let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else {
                    break;
                };
                sink.write(bytes)?;
            }
        }
        if durable {
            sink.file.sync_data()?;
        }
        let checksums = sink.hashers.finalize().into();
        Ok(Self {
            file: sink.temporary,
            size: sink.size,
            md5: sink.md5.finalize(),
            checksums,
        })
    }
}

impl Temporary {
    pub(super) fn new(dir: &Path) -> io::Result<Self> {
        let id = disk::unique()?;
        Ok(Self {
            path: dir.join(&id),
            id,
            kept: false,
        })
    }

    /// Gives it its lasting name.
    pub(super) fn keep(mut self, name: &Path) -> io::Result<()> {
        std::fs::rename(&self.path, name)?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.kept {
            // It may never have been made; and what stays is swept at the next opening.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Sink {
    fn new(dir: &Path, hashers: ChecksumHasher) -> Result<Self, StoreError> {
        let temporary = Temporary::new(dir).map_err(failed)?;
        let file = File::create_new(&temporary.path).map_err(failed)?;
        Ok(Self {
            file,
            temporary,
            md5: Md5::new(),
            hashers,
            size: 0,
        })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.md5.update(bytes);
        self.hashers.update(bytes);
        self.size += bytes.len() as u64;
        Ok(())
    }
}

fn failed(error: io::Error) -> StoreError {
    StoreError::Disk("write a body", error)
}
