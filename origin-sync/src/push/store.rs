//! Blobs into the bucket: each written once, whoever comes first. What is there already is looked at, not believed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use super::Options;
use super::plan::Planned;
use crate::lanes::each;
use crate::progress::Progress;
use crate::release::{Class, Sha256, layout};
use crate::remote::{Body, Error, Expect, Remote, Stored};

/// Smaller blobs are sent without asking whether they are there: the answer costs as much.
const ASKED_BYTES_MIN: u64 = 64 * 1024;

/// Bytes to be stored under their digest.
#[derive(Clone, Debug)]
pub(super) struct Blob {
    pub(super) digest: Sha256,
    pub(super) size: u64,
    source: Source,
}

#[derive(Clone, Debug)]
enum Source {
    Bytes(Bytes),
    File(Arc<Planned>),
}

/// What became of blobs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Written now.
    pub stored: usize,
    /// Their bytes.
    pub stored_bytes: u64,
    /// There already.
    pub there: usize,
}

impl Tally {
    pub(super) fn add(&mut self, other: &Self) {
        self.stored += other.stored;
        self.stored_bytes += other.stored_bytes;
        self.there += other.there;
    }
}

impl Blob {
    pub(super) fn of_file(file: &Planned) -> Self {
        Self {
            digest: file.sha256,
            size: file.size,
            source: Source::File(Arc::new(file.clone())),
        }
    }

    pub(super) fn of_bytes(digest: Sha256, bytes: &Bytes) -> Self {
        Self {
            digest,
            size: bytes.len() as u64,
            source: Source::Bytes(bytes.clone()),
        }
    }

    async fn body(&self, remote: &Remote) -> Result<Body, Error> {
        let bytes = match &self.source {
            Source::Bytes(bytes) => bytes.clone(),
            Source::File(file) => {
                let file = Arc::clone(file);
                let read = tokio::task::spawn_blocking(move || file.bytes());
                let key = layout::blob(&self.digest);
                let odd = |why: String| Error::odd(remote, "store", &key, why);
                let read = read.await.map_err(|error| odd(error.to_string()))?;
                read.map_err(|error| odd(error.to_string()))?.into()
            }
        };
        Ok(Body {
            bytes,
            sha256: self.digest,
            media_type: "application/octet-stream".into(),
            cache_control: Class::Immutable.cache_control().into(),
            tags: None,
        })
    }
}

/// Stores blobs; returns what became of them, and which were there. An error comes with how many are there.
pub(super) async fn send(
    remote: &Remote,
    options: &Options,
    blobs: &[Blob],
) -> Result<(Tally, Vec<Sha256>), (usize, Error)> {
    let part = options.progress.part("store", blobs.len());
    let done = Arc::new(AtomicUsize::new(0));
    let sent = each(blobs.to_vec(), options.requests, |blob| {
        let (remote, step, done) = (remote.clone(), part.clone(), Arc::clone(&done));
        async move {
            let stored = store(&remote, &blob).await?;
            step.step();
            done.fetch_add(1, Ordering::Relaxed);
            Ok((blob.digest, blob.size, stored))
        }
    })
    .await
    .map_err(|error| (done.load(Ordering::Relaxed), error))?;
    let mut tally = Tally::default();
    let mut there = Vec::new();
    for (digest, size, stored) in sent {
        match stored {
            Stored::Now => {
                tally.stored += 1;
                tally.stored_bytes += size;
            }
            Stored::Not => {
                tally.there += 1;
                there.push(digest);
            }
        }
    }
    let Tally {
        stored,
        stored_bytes,
        there: old,
    } = &tally;
    if !blobs.is_empty() {
        part.done(&format!(
            "{stored} blobs, {stored_bytes} bytes; {old} were there already"
        ));
    }
    Ok((tally, there))
}

/// What would become of blobs.
pub(super) async fn look(remote: &Remote, options: &Options, blobs: &[Blob]) -> Result<Tally, Error> {
    let wanted: Vec<(Sha256, u64)> = blobs.iter().map(|blob| (blob.digest, blob.size)).collect();
    let missing = missing(remote, &wanted, options.requests, options.progress).await?;
    let new = blobs.iter().filter(|blob| missing.contains(&blob.digest));
    Ok(Tally {
        stored: missing.len(),
        stored_bytes: new.map(|blob| blob.size).sum(),
        there: blobs.len() - missing.len(),
    })
}

/// Which of these blobs are not in the bucket.
pub async fn missing(
    remote: &Remote,
    wanted: &[(Sha256, u64)],
    requests: usize,
    progress: Progress,
) -> Result<Vec<Sha256>, Error> {
    let mut wanted = wanted.to_vec();
    wanted.sort();
    wanted.dedup();
    let part = progress.part("look", wanted.len());
    let looked = each(wanted, requests, |(digest, size)| {
        let (remote, step) = (remote.clone(), part.clone());
        async move {
            let there = is_there(&remote, &digest, size).await?;
            step.step();
            Ok::<_, Error>((!there).then_some(digest))
        }
    })
    .await?;
    let missing: Vec<Sha256> = looked.into_iter().flatten().collect();
    part.done(&format!("{} blobs are not in the bucket", missing.len()));
    Ok(missing)
}

async fn store(remote: &Remote, blob: &Blob) -> Result<Stored, Error> {
    if blob.size >= ASKED_BYTES_MIN && is_there(remote, &blob.digest, blob.size).await? {
        return Ok(Stored::Not);
    }
    let body = blob.body(remote).await?;
    let key = layout::blob(&blob.digest);
    let stored = remote.put(&key, &body, &Expect::Absent).await?;
    if stored == Stored::Not && !is_there(remote, &blob.digest, blob.size).await? {
        return Err(Error::odd(remote, "store", &key, "it was there, and is gone"));
    }
    Ok(stored)
}

/// Whether the blob is there with its own bytes: by the checksum that S3 made when it was written, or by reading it.
async fn is_there(remote: &Remote, digest: &Sha256, size: u64) -> Result<bool, Error> {
    let key = layout::blob(digest);
    let Some(stat) = remote.stat(&key).await? else {
        return Ok(false);
    };
    let wrong = |why: String| {
        Error::odd(
            remote,
            "trust",
            &key,
            format!("it is there with other bytes: {why}"),
        )
    };
    if stat.size != size {
        return Err(wrong(format!("{} instead of {size}", stat.size)));
    }
    match stat.sha256 {
        Some(sha256) if sha256 == digest.base64() => Ok(true),
        Some(sha256) => Err(wrong(format!("their SHA-256 is {sha256} in base64"))),
        None => Ok(remote.blob(digest, size).await?.is_some()),
    }
}
