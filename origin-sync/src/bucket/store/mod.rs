//! The store: buckets in a folder, with an index of every object in memory.
//!
//! A body is a file that is never changed. An object is a small record that names its body, and comes into being,
//! or changes, by one rename: body and metadata are seen together or not at all. It knows nothing of HTTP.
//!
//! Lock order: `writing` before `index`. `writing` is held by blocking threads only, while they check a condition
//! and rename; `index` for no longer than a look. Neither is ever held across an await.

mod body;
mod disk;
mod draft;
mod record;
mod upload;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::condition::{Expect, Refusal};
use super::listing::{self, Page, Query};
pub use body::Body;
pub use draft::{Draft, Written};
pub use record::{Meta, Record};
pub use upload::{PartRecord, Upload, UploadId};

/// A folder of buckets. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    durable: bool,
    buckets: RwLock<BTreeMap<String, Arc<Shelf>>>,
    /// Let go when the last clone of the store is.
    _lock: std::fs::File,
}

/// One bucket.
#[derive(Debug)]
struct Shelf {
    name: String,
    dir: PathBuf,
    durable: bool,
    created: SystemTime,
    writing: Mutex<()>,
    index: RwLock<BTreeMap<Vec<u8>, Arc<Record>>>,
    uploads: Mutex<BTreeMap<String, Upload>>,
}

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no such bucket.
    #[error("there is no bucket {0:?}")]
    NoSuchBucket(String),
    /// There is one already.
    #[error("there is a bucket {0:?} already")]
    BucketExists(String),
    /// It still holds objects.
    #[error("the bucket {0:?} is not empty")]
    BucketNotEmpty(String),
    /// S3 would not take that name.
    #[error("{0:?} is no name for a bucket")]
    BucketName(String),
    /// There is no such key.
    #[error("there is no such key")]
    NoSuchKey,
    /// A key has 1 to 1024 bytes.
    #[error("the key is empty or longer than 1024 bytes")]
    KeyLength,
    /// There is no such multipart upload.
    #[error("there is no such upload")]
    NoSuchUpload,
    /// The condition of the write does not hold.
    #[error("the precondition failed")]
    Precondition,
    /// The parts named are not the parts held.
    #[error("{0}")]
    Part(PartFault),
    /// The object was replaced or deleted between lookup and reading: look it up again.
    #[error("the object was replaced meanwhile")]
    Vanished,
    /// Another store, most likely another process, has the folder open.
    #[error("{} is open elsewhere", .0.display())]
    InUse(PathBuf),
    /// The disk failed.
    #[error("cannot {0}")]
    Disk(&'static str, #[source] io::Error),
}

/// What is wrong with the list of parts that would complete an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PartFault {
    /// One of them is not there, or has another entity tag.
    #[error("a part is missing, or is not the one that was named")]
    Unknown,
    /// They must be named in ascending order.
    #[error("the parts are not in ascending order")]
    Order,
    /// All but the last must have 5 MiB.
    #[error("a part is smaller than 5 MiB and not the last")]
    TooSmall,
}

impl From<Refusal> for StoreError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Missing => Self::NoSuchKey,
            Refusal::Failed => Self::Precondition,
        }
    }
}

impl Store {
    /// Opens the folder, makes it if it is missing, sweeps what a crash has left, and reads the index.
    /// With `durable`, a write returns only after it was synchronised to disk. Blocks.
    pub fn open(dir: &Path, durable: bool) -> Result<Self, StoreError> {
        let lock = disk::lock(dir)?;
        let buckets = disk::open(dir, durable)?;
        Ok(Self(Arc::new(Inner {
            _lock: lock,
            dir: dir.to_owned(),
            durable,
            buckets: RwLock::new(buckets),
        })))
    }

    /// Makes a bucket.
    pub fn create_bucket(&self, name: &str) -> Result<(), StoreError> {
        if !s3s::path::check_bucket_name(name) {
            return Err(StoreError::BucketName(name.to_owned()));
        }
        let mut buckets = self.0.buckets.write().unwrap_or_else(PoisonError::into_inner);
        if buckets.contains_key(name) {
            return Err(StoreError::BucketExists(name.to_owned()));
        }
        let shelf = disk::make_shelf(&self.0.dir, name, self.0.durable)?;
        buckets.insert(name.to_owned(), Arc::new(shelf));
        Ok(())
    }

    /// Makes a bucket unless it is there.
    pub fn ensure_bucket(&self, name: &str) -> Result<(), StoreError> {
        match self.create_bucket(name) {
            Err(StoreError::BucketExists(_)) => Ok(()),
            other => other,
        }
    }

    /// Deletes an empty bucket.
    pub fn delete_bucket(&self, name: &str) -> Result<(), StoreError> {
        let mut buckets = self.0.buckets.write().unwrap_or_else(PoisonError::into_inner);
        let shelf = buckets
            .get(name)
            .ok_or_else(|| StoreError::NoSuchBucket(name.to_owned()))?;
        let _writing = shelf.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if !shelf
            .index
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .is_empty()
        {
            return Err(StoreError::BucketNotEmpty(name.to_owned()));
        }
        std::fs::remove_dir_all(&shelf.dir).map_err(|error| StoreError::Disk("delete a bucket", error))?;
        drop(_writing);
        buckets.remove(name);
        Ok(())
    }

    /// The buckets, each with the time at which it was made.
    pub fn buckets(&self) -> Vec<(String, SystemTime)> {
        let buckets = self.0.buckets.read().unwrap_or_else(PoisonError::into_inner);
        buckets
            .values()
            .map(|shelf| (shelf.name.clone(), shelf.created))
            .collect()
    }

    /// The record of an object.
    pub fn record(&self, bucket: &str, key: &str) -> Result<Arc<Record>, StoreError> {
        self.shelf(bucket)?.record(key).ok_or(StoreError::NoSuchKey)
    }

    /// One page of the records of a bucket.
    pub fn list(&self, bucket: &str, query: &Query) -> Result<Page<Arc<Record>>, StoreError> {
        let shelf = self.shelf(bucket)?;
        let index = shelf.index.read().unwrap_or_else(PoisonError::into_inner);
        Ok(listing::list(&index, query))
    }

    /// Puts an object whose body is at hand.
    pub async fn put(
        &self,
        bucket: &str,
        key: &str,
        body: impl Into<Bytes>,
        meta: Meta,
    ) -> Result<Arc<Record>, StoreError> {
        self.put_if(bucket, key, body, meta, Expect::Anything).await
    }

    /// Puts an object whose body is at hand, if the condition holds.
    pub async fn put_if(
        &self,
        bucket: &str,
        key: &str,
        body: impl Into<Bytes>,
        meta: Meta,
        expect: Expect,
    ) -> Result<Arc<Record>, StoreError> {
        let mut draft = self.draft(bucket, &[super::checksum::Algorithm::Crc64nvme])?;
        draft.write(body.into()).await?;
        let written = draft.finish().await?;
        self.commit(bucket, Record::of(key, &written, meta), written, expect)
            .await
    }

    /// Begins to write a body; nothing of it is seen before [`Store::commit`].
    pub fn draft(
        &self,
        bucket: &str,
        algorithms: &[super::checksum::Algorithm],
    ) -> Result<Draft, StoreError> {
        Ok(Draft::new(&self.shelf(bucket)?.dir, self.0.durable, algorithms))
    }

    /// Makes a written body an object, atomically, if the condition holds at that moment.
    pub async fn commit(
        &self,
        bucket: &str,
        record: Record,
        written: Written,
        expect: Expect,
    ) -> Result<Arc<Record>, StoreError> {
        check_key(&record.key)?;
        let shelf = self.shelf(bucket)?;
        blocking(move || shelf.commit(record, written, &expect)).await
    }

    /// Deletes an object if the condition holds; says whether there was one.
    pub async fn delete_if(&self, bucket: &str, key: &str, expect: Expect) -> Result<bool, StoreError> {
        let shelf = self.shelf(bucket)?;
        let key = key.to_owned();
        blocking(move || shelf.delete(&key, &expect)).await
    }

    /// Deletes an object; says whether there was one.
    pub async fn delete(&self, bucket: &str, key: &str) -> Result<bool, StoreError> {
        self.delete_if(bucket, key, Expect::Anything).await
    }

    /// Opens the bytes `range` of the body of `record`. [`StoreError::Vanished`]: look the record up again.
    pub async fn body(
        &self,
        bucket: &str,
        record: &Record,
        range: std::ops::Range<u64>,
    ) -> Result<Body, StoreError> {
        let path = self.shelf(bucket)?.body_path(&record.body);
        Body::open(path, range).await
    }

    /// The whole of an object, for callers who know that it is small.
    pub async fn read(&self, bucket: &str, key: &str) -> Result<(Arc<Record>, Bytes), StoreError> {
        loop {
            let record = self.record(bucket, key)?;
            match self.body(bucket, &record, 0..record.size).await {
                Err(StoreError::Vanished) => {}
                Err(error) => return Err(error),
                Ok(body) => return Ok((record, body.collect().await?)),
            }
        }
    }

    /// A second body with the bytes of `record`, to be committed under another key.
    pub async fn copy(&self, bucket: &str, record: &Record, to: &str) -> Result<Written, StoreError> {
        let from = self.shelf(bucket)?.body_path(&record.body);
        let to = self.shelf(to)?;
        let record = record.clone();
        blocking(move || Written::copy(&from, &to.dir, &record)).await
    }

    fn shelf(&self, bucket: &str) -> Result<Arc<Shelf>, StoreError> {
        let buckets = self.0.buckets.read().unwrap_or_else(PoisonError::into_inner);
        buckets
            .get(bucket)
            .cloned()
            .ok_or_else(|| StoreError::NoSuchBucket(bucket.to_owned()))
    }
}

impl Shelf {
    fn record(&self, key: &str) -> Option<Arc<Record>> {
        self.index
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key.as_bytes())
            .cloned()
    }

    /// The one place where an object changes. The lock makes the check and the rename one step.
    fn commit(&self, record: Record, written: Written, expect: &Expect) -> Result<Arc<Record>, StoreError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.record(&record.key);
        expect.check(before.as_ref().map(|record| record.etag.as_str()))?;
        let record = Arc::new(record);
        disk::place(self, &record, written).map_err(|error| StoreError::Disk("write an object", error))?;
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        index.insert(record.key.clone().into_bytes(), Arc::clone(&record));
        drop(index);
        if let Some(before) = before {
            // Whoever has it open reads on; what is left by a crash here is swept at the next opening.
            let _ = std::fs::remove_file(self.body_path(&before.body));
        }
        Ok(record)
    }

    fn delete(&self, key: &str, expect: &Expect) -> Result<bool, StoreError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.record(key);
        expect.check(before.as_ref().map(|record| record.etag.as_str()))?;
        let Some(before) = before else { return Ok(false) };
        disk::displace(self, key).map_err(|error| StoreError::Disk("delete an object", error))?;
        self.index
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(key.as_bytes());
        let _ = std::fs::remove_file(self.body_path(&before.body));
        Ok(true)
    }

    fn body_path(&self, id: &str) -> PathBuf {
        self.dir.join(disk::BODIES).join(id)
    }
}

fn check_key(key: &str) -> Result<(), StoreError> {
    if key.is_empty() || key.len() > 1024 {
        return Err(StoreError::KeyLength);
    }
    Ok(())
}

/// Runs disk work on a thread that may block. It runs to its end even if nobody waits any more, so a client who
/// goes away leaves no half of a write.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(StoreError::Disk("finish the work", io::Error::other(error))),
    }
}

/// The one place in this crate that asks for the time of day.
#[expect(clippy::disallowed_methods, reason = "this is the clock of the bucket")]
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}

/// In milliseconds since 1970, as records keep it.
pub(crate) fn milliseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    u64::try_from(since).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(dir: &Path) -> Store {
        let store = Store::open(dir, false).unwrap();
        store.ensure_bucket("b-1").unwrap();
        store
    }

    fn files(dir: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
            match entry.file_type().unwrap().is_dir() {
                true => found.extend(files(&entry.path())),
                false => found.push(entry.path()),
            }
        }
        found
    }

    #[tokio::test]
    async fn what_was_put_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let meta = Meta {
            content_type: Some("text/plain".into()),
            ..Meta::default()
        };
        let keys = [
            "plain",
            "a/../../b",
            "/",
            "日本 \u{7}",
            &"x".repeat(1024),
            "C:\\n",
            "a",
            "a/b",
        ];
        let first = store(dir.path());
        for key in keys {
            first
                .put("b-1", key, key.as_bytes().to_vec(), meta.clone())
                .await
                .unwrap();
        }
        drop(first);
        let second = store(dir.path());
        for key in keys {
            let (record, body) = second.read("b-1", key).await.unwrap();
            assert_eq!((body.as_ref(), &record.meta), (key.as_bytes(), &meta));
        }
        let all = second
            .list(
                "b-1",
                &Query {
                    limit: 100,
                    ..Query::default()
                },
            )
            .unwrap();
        assert_eq!(all.entries.len(), keys.len());
    }

    #[test]
    fn a_folder_is_open_once() {
        let dir = tempfile::tempdir().unwrap();
        let first = store(dir.path());
        assert!(matches!(
            Store::open(dir.path(), false),
            Err(StoreError::InUse(_))
        ));
        drop(first);
        store(dir.path());
    }

    #[tokio::test]
    async fn keys_have_a_length() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        for key in ["", &"x".repeat(1025)] {
            let result = store.put("b-1", key, "x", Meta::default()).await;
            assert!(matches!(result, Err(StoreError::KeyLength)), "{key:?}");
        }
    }

    #[tokio::test]
    async fn a_refused_or_replaced_body_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        for body in ["one", "two", "three"] {
            store.put("b-1", "k", body, Meta::default()).await.unwrap();
        }
        let refused = store
            .put_if("b-1", "k", "four", Meta::default(), Expect::Absent)
            .await;
        assert!(matches!(refused, Err(StoreError::Precondition)));
        let mut draft = store.draft("b-1", &[]).unwrap();
        draft.write(Bytes::from(vec![0; 1 << 20])).await.unwrap();
        drop(draft);
        assert_eq!(store.read("b-1", "k").await.unwrap().1, "three");
        // The lock, the bucket, the record and the body.
        assert_eq!(files(dir.path()).len(), 4, "{:?}", files(dir.path()));
        assert!(store.delete("b-1", "k").await.unwrap());
        assert!(!store.delete("b-1", "k").await.unwrap());
        assert_eq!(files(dir.path()).len(), 2);
    }

    #[tokio::test]
    async fn what_a_crash_leaves_is_swept() {
        let dir = tempfile::tempdir().unwrap();
        let first = store(dir.path());
        first.put("b-1", "k", "body", Meta::default()).await.unwrap();
        first.put("b-1", "torn", "body", Meta::default()).await.unwrap();
        let torn = first.record("b-1", "torn").unwrap();
        let shelf = dir.path().join("b-1");
        std::fs::write(shelf.join(disk::TEMPORARY).join("t1"), "half").unwrap();
        std::fs::write(shelf.join(disk::BODIES).join("orphan"), "never named").unwrap();
        std::fs::write(shelf.join(disk::BODIES).join(&torn.body), "b").unwrap();
        drop(first);
        let second = store(dir.path());
        assert_eq!(second.read("b-1", "k").await.unwrap().1, "body");
        assert!(matches!(second.record("b-1", "torn"), Err(StoreError::NoSuchKey)));
        assert_eq!(files(dir.path()).len(), 4, "{:?}", files(dir.path()));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn of_sixteen_racing_writers_one_wins() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let first = store.put("b-1", "held", "0", Meta::default()).await.unwrap();
        for (key, expect) in [
            ("new", Expect::Absent),
            ("held", Expect::Etag(first.etag.clone())),
        ] {
            let start = Arc::new(tokio::sync::Barrier::new(16));
            let mut writers = tokio::task::JoinSet::new();
            for number in 0..16 {
                let (store, start, expect) = (store.clone(), Arc::clone(&start), expect.clone());
                writers.spawn(async move {
                    start.wait().await;
                    let body = format!("writer {number}");
                    store
                        .put_if("b-1", key, body.clone(), Meta::default(), expect)
                        .await
                        .ok()
                        .map(|_| body)
                });
            }
            let won: Vec<String> = writers.join_all().await.into_iter().flatten().collect();
            assert_eq!(won.len(), 1, "{key}");
            assert_eq!(store.read("b-1", key).await.unwrap().1, won[0]);
        }
    }
}
