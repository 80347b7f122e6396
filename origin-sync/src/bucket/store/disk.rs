//! How a bucket lies on disk, and how it is read back and cleaned up when it is opened.
//!
//! ```text
//! .lock                              held while the folder is open: nobody else sweeps or writes then
//! <bucket>/bucket.json               when it was made
//! <bucket>/keys/ab/<sha-256>.json    a record, under the digest of its key: any key is a safe file name
//! <bucket>/bodies/<id>               the bytes, written once
//! <bucket>/uploads/<id>/             a multipart upload under way
//! <bucket>/temporary/                what is being written; empty after each opening
//! ```

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, UNIX_EPOCH};

use aws_lc_rs::digest;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::draft::{Temporary, Written};
use super::record::Record;
use super::{Shelf, StoreError, milliseconds, now, upload};

pub(super) const KEYS: &str = "keys";
pub(super) const BODIES: &str = "bodies";
pub(super) const UPLOADS: &str = "uploads";
pub(super) const TEMPORARY: &str = "temporary";
const BUCKET: &str = "bucket.json";
const LOCK: &str = ".lock";
const LOCK_ATTEMPTS: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

#[derive(Serialize, Deserialize)]
struct BucketFile {
    created_ms: u64,
}

/// Takes the folder for this store, and makes it if it is missing. A store that has just been closed may still be
/// ending its last work, so it is waited for a little.
pub(super) fn lock(dir: &Path) -> Result<File, StoreError> {
    let failed = |error| StoreError::Disk("open the folder", error);
    fs::create_dir_all(dir).map_err(failed)?;
    let lock = File::create(dir.join(LOCK)).map_err(failed)?;
    for _ in 0..LOCK_ATTEMPTS {
        match lock.try_lock() {
            Ok(()) => return Ok(lock),
            Err(fs::TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            Err(fs::TryLockError::Error(error)) => return Err(failed(error)),
        }
    }
    Err(StoreError::InUse(dir.to_owned()))
}

/// Opens every bucket below `dir`. Folders that are no buckets are left alone.
pub(super) fn open(dir: &Path, durable: bool) -> Result<BTreeMap<String, Arc<Shelf>>, StoreError> {
    let failed = |error| StoreError::Disk("open the folder", error);
    let mut buckets = BTreeMap::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !s3s::path::check_bucket_name(&name) || !entry.path().join(BUCKET).is_file() {
            continue;
        }
        let shelf = open_shelf(dir, &name, durable).map_err(failed)?;
        buckets.insert(name, Arc::new(shelf));
    }
    Ok(buckets)
}

/// Makes the folder of a new bucket.
pub(super) fn make_shelf(dir: &Path, name: &str, durable: bool) -> Result<Shelf, StoreError> {
    let make = || {
        let shelf = dir.join(name);
        for part in [KEYS, BODIES, UPLOADS, TEMPORARY] {
            fs::create_dir_all(shelf.join(part))?;
        }
        let file = BucketFile {
            created_ms: milliseconds(now()),
        };
        write_json(&shelf.join(TEMPORARY), &shelf.join(BUCKET), &file, durable)?;
        open_shelf(dir, name, durable)
    };
    make().map_err(|error| StoreError::Disk("make a bucket", error))
}

/// Makes a written body an object: the body takes its lasting name first, and the record makes it seen.
pub(super) fn place(shelf: &Shelf, record: &Record, written: Written) -> io::Result<()> {
    let body = shelf.body_path(&record.body);
    let key = key_path(&shelf.dir, &record.key);
    if let Some(dir) = key.parent() {
        fs::create_dir_all(dir)?;
    }
    written.file.keep(&body)?;
    if shelf.durable {
        sync_dir(&shelf.dir.join(BODIES))?;
    }
    let result = write_json(&shelf.dir.join(TEMPORARY), &key, record, shelf.durable);
    if result.is_err() {
        let _ = fs::remove_file(&body);
    }
    result
}

/// Deletes the record of a key.
pub(super) fn displace(shelf: &Shelf, key: &str) -> io::Result<()> {
    let path = key_path(&shelf.dir, key);
    fs::remove_file(&path)?;
    match path.parent() {
        Some(dir) if shelf.durable => sync_dir(dir),
        _ => Ok(()),
    }
}

/// Writes a small file whole or not at all.
pub(super) fn write_json<T: Serialize>(
    temporary: &Path,
    path: &Path,
    value: &T,
    durable: bool,
) -> io::Result<()> {
    let temporary = Temporary::new(temporary)?;
    let mut file = File::create_new(&temporary.path)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    if durable {
        file.sync_data()?;
    }
    temporary.keep(path)?;
    match path.parent() {
        Some(dir) if durable => sync_dir(dir),
        _ => Ok(()),
    }
}

/// Reads what [`write_json`] wrote; nothing, and a warning, when it is not that.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let read = || -> io::Result<T> { Ok(serde_json::from_slice(&fs::read(path)?)?) };
    match read() {
        Ok(value) => Some(value),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "a file of the bucket is not readable; left out");
            None
        }
    }
}

/// A name that nothing else has.
pub(super) fn unique() -> io::Result<String> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| io::Error::other("no random bytes"))?;
    Ok(hex::encode(bytes))
}

fn open_shelf(dir: &Path, name: &str, durable: bool) -> io::Result<Shelf> {
    let dir = dir.join(name);
    let created = read_json::<BucketFile>(&dir.join(BUCKET)).map_or(0, |file| file.created_ms);
    for part in [KEYS, BODIES, UPLOADS, TEMPORARY] {
        fs::create_dir_all(dir.join(part))?;
    }
    for leftover in fs::read_dir(dir.join(TEMPORARY))? {
        sweep(&leftover?.path())?;
    }
    let mut bodies = HashMap::new();
    for body in fs::read_dir(dir.join(BODIES))? {
        let body = body?;
        bodies.insert(
            body.file_name().to_string_lossy().into_owned(),
            body.metadata()?.len(),
        );
    }
    let index = read_index(&dir, &mut bodies)?;
    for orphan in bodies.keys() {
        sweep(&dir.join(BODIES).join(orphan))?;
    }
    let uploads = upload::open(&dir.join(UPLOADS))?;
    Ok(Shelf {
        name: name.to_owned(),
        dir,
        durable,
        created: UNIX_EPOCH + Duration::from_millis(created),
        writing: Mutex::new(()),
        index: RwLock::new(index),
        uploads: Mutex::new(uploads),
    })
}

/// Reads all records, and takes their bodies out of `bodies`. A record whose body is not there whole is deleted:
/// it must never be answered with other bytes.
fn read_index(dir: &Path, bodies: &mut HashMap<String, u64>) -> io::Result<BTreeMap<Vec<u8>, Arc<Record>>> {
    let mut index = BTreeMap::new();
    for fan in fs::read_dir(dir.join(KEYS))? {
        for entry in fs::read_dir(fan?.path())? {
            let path = entry?.path();
            let Some(record) = read_json::<Record>(&path) else {
                continue;
            };
            if bodies.get(&record.body) != Some(&record.size) {
                tracing::warn!(key = record.key, "an object has lost its body; left out");
                fs::remove_file(&path)?;
                continue;
            }
            bodies.remove(&record.body);
            index.insert(record.key.clone().into_bytes(), Arc::new(record));
        }
    }
    Ok(index)
}

/// Deletes a leftover, unless whoever left it does so at this moment.
fn sweep(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn key_path(shelf: &Path, key: &str) -> PathBuf {
    let name = hex::encode(digest::digest(&digest::SHA256, key.as_bytes()));
    let fan: String = name.chars().take(2).collect();
    shelf.join(KEYS).join(fan).join(format!("{name}.json"))
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
