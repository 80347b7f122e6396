//! Multipart uploads: parts gathered under an id, and joined into one object at the end.
//!
//! An upload is a folder with a file that describes it, and for each part its bytes and a small record, so that it
//! outlives a restart.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use s3s::crypto::{Checksum as _, Md5};
use serde::{Deserialize, Serialize};

use super::draft::Written;
use super::record::{Meta, Record};
use super::{PartFault, Shelf, Store, StoreError, blocking, check_key, disk, milliseconds, now};
use crate::bucket::checksum::{self, Algorithm, Checksums};
use crate::bucket::condition::Expect;

/// An upload under way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Upload {
    /// The key it will have.
    pub key: String,
    /// What the client says of it.
    pub meta: Meta,
    /// The checksum that the object will have.
    pub algorithm: Algorithm,
    /// Whether that is made of those of the parts.
    pub composite: bool,
    /// When it began, in milliseconds since 1970.
    pub initiated_ms: u64,
    /// The parts, by number.
    #[serde(skip)]
    pub parts: BTreeMap<i32, PartRecord>,
}

/// One part.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PartRecord {
    /// Its number, from 1 to 10,000.
    pub number: i32,
    /// How many bytes it has.
    pub size: u64,
    /// The MD5 of its bytes, in hexadecimal.
    pub etag: String,
    /// Its checksums.
    pub checksums: Checksums,
    /// When it came, in milliseconds since 1970.
    pub modified_ms: u64,
    file: String,
}

/// A bucket, a key, and the id of an upload: all three must agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadId {
    /// The bucket.
    pub bucket: String,
    /// The key.
    pub key: String,
    /// The id.
    pub id: String,
}

/// All parts but the last have at least as much.
const PART_BYTES_MIN: u64 = 5 * 1024 * 1024;
const DESCRIPTION: &str = "upload.json";

impl Upload {
    /// A new upload, with no parts.
    pub fn new(key: &str, meta: Meta, algorithm: Algorithm, composite: bool) -> Self {
        let initiated_ms = milliseconds(now());
        Self {
            key: key.to_owned(),
            meta,
            algorithm,
            composite,
            initiated_ms,
            parts: BTreeMap::new(),
        }
    }

    /// When it began.
    pub fn initiated(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.initiated_ms)
    }
}

impl PartRecord {
    /// When it came.
    pub fn modified(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.modified_ms)
    }
}

impl Store {
    /// Begins an upload; returns its id.
    pub async fn begin_upload(&self, bucket: &str, upload: Upload) -> Result<String, StoreError> {
        check_key(&upload.key)?;
        let shelf = self.shelf(bucket)?;
        blocking(move || {
            let begin = || {
                let id = disk::unique()?;
                let dir = shelf.upload_dir(&id);
                fs::create_dir_all(&dir)?;
                let temporary = shelf.dir.join(disk::TEMPORARY);
                disk::write_json(&temporary, &dir.join(DESCRIPTION), &upload, shelf.durable)?;
                Ok(id)
            };
            let id = begin().map_err(|error| StoreError::Disk("begin an upload", error))?;
            shelf
                .uploads
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(id.clone(), upload);
            Ok(id)
        })
        .await
    }

    /// An upload under way, with the parts it has.
    pub fn upload(&self, at: &UploadId) -> Result<Upload, StoreError> {
        self.shelf(&at.bucket)?.upload(at)
    }

    /// The uploads of a bucket that are under way, by id.
    pub fn uploads(&self, bucket: &str) -> Result<Vec<(String, Upload)>, StoreError> {
        let shelf = self.shelf(bucket)?;
        let uploads = shelf.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(uploads
            .iter()
            .map(|(id, upload)| (id.clone(), upload.clone()))
            .collect())
    }

    /// Adds a part, or puts it in the place of the one with that number.
    pub async fn put_part(
        &self,
        at: &UploadId,
        number: i32,
        written: Written,
    ) -> Result<PartRecord, StoreError> {
        let (shelf, at) = (self.shelf(&at.bucket)?, at.clone());
        blocking(move || shelf.put_part(&at, number, written)).await
    }

    /// Ends an upload, and leaves nothing of it.
    pub async fn abort_upload(&self, at: &UploadId) -> Result<(), StoreError> {
        let (shelf, at) = (self.shelf(&at.bucket)?, at.clone());
        blocking(move || {
            shelf.upload(&at)?;
            shelf.forget_upload(&at);
            Ok(())
        })
        .await
    }

    /// Joins the parts, named by number and entity tag, into an object, if the condition holds at that moment.
    /// `stated` is what the client says the checksums of the object are.
    pub async fn complete_upload(
        &self,
        at: &UploadId,
        parts: Vec<(i32, String)>,
        stated: Checksums,
        expect: Expect,
    ) -> Result<Result<Arc<Record>, Algorithm>, StoreError> {
        let (shelf, at) = (self.shelf(&at.bucket)?, at.clone());
        blocking(move || shelf.complete(&at, &parts, &stated, &expect)).await
    }
}

impl Shelf {
    fn upload_dir(&self, id: &str) -> PathBuf {
        self.dir.join(disk::UPLOADS).join(id)
    }

    fn upload(&self, at: &UploadId) -> Result<Upload, StoreError> {
        let uploads = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        let upload = uploads.get(&at.id).filter(|upload| upload.key == at.key);
        upload.cloned().ok_or(StoreError::NoSuchUpload)
    }

    /// Only an id that is in the map ever becomes part of a path: what a client sends does not.
    fn put_part(&self, at: &UploadId, number: i32, written: Written) -> Result<PartRecord, StoreError> {
        self.upload(at)?;
        let part = PartRecord {
            number,
            size: written.size(),
            etag: hex::encode(written.md5()),
            checksums: written.checksums().clone(),
            modified_ms: milliseconds(now()),
            file: written.id().to_owned(),
        };
        let dir = self.upload_dir(&at.id);
        let keep = || {
            written.file.keep(&dir.join(&part.file))?;
            let description = dir.join(format!("{number}.json"));
            disk::write_json(&self.dir.join(disk::TEMPORARY), &description, &part, self.durable)
        };
        keep().map_err(|error| StoreError::Disk("write a part", error))?;
        let mut uploads = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        let upload = uploads.get_mut(&at.id).ok_or(StoreError::NoSuchUpload)?;
        if let Some(before) = upload.parts.insert(number, part.clone()) {
            let _ = fs::remove_file(dir.join(before.file));
        }
        Ok(part)
    }

    fn complete(
        &self,
        at: &UploadId,
        named: &[(i32, String)],
        stated: &Checksums,
        expect: &Expect,
    ) -> Result<Result<Arc<Record>, Algorithm>, StoreError> {
        let upload = self.upload(at)?;
        let parts = select(&upload, named).map_err(StoreError::Part)?;
        let dir = self.upload_dir(&at.id);
        let files: Vec<PathBuf> = parts.iter().map(|part| dir.join(&part.file)).collect();
        let whole = if upload.composite {
            &[][..]
        } else {
            std::slice::from_ref(&upload.algorithm)
        };
        let written = Written::join(&self.dir, self.durable, &files, whole)
            .map_err(|error| StoreError::Disk("join the parts", error))?;
        let mut record = Record::of(&upload.key, &written, upload.meta.clone());
        record.etag = etag_of(&parts);
        record.parts = parts.iter().map(|part| part.size).collect();
        if upload.composite {
            record.checksums = composite(upload.algorithm, &parts);
        }
        if let Some(algorithm) = record.checksums.differs_from(stated) {
            return Ok(Err(algorithm));
        }
        let record = self.commit(record, written, expect)?;
        self.forget_upload(at);
        Ok(Ok(record))
    }

    fn forget_upload(&self, at: &UploadId) {
        self.uploads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&at.id);
        if let Err(error) = fs::remove_dir_all(self.upload_dir(&at.id)) {
            tracing::warn!(upload = at.id, %error, "an ended upload could not be deleted");
        }
    }
}

/// Reads the uploads that were under way; a folder without a description is the leftover of one.
pub(super) fn open(dir: &Path) -> io::Result<BTreeMap<String, Upload>> {
    let mut uploads = BTreeMap::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let description = entry.path().join(DESCRIPTION);
        let found = description
            .is_file()
            .then(|| disk::read_json::<Upload>(&description))
            .flatten();
        let Some(mut upload) = found else {
            fs::remove_dir_all(entry.path())?;
            continue;
        };
        for file in fs::read_dir(entry.path())? {
            let path = file?.path();
            if path.extension().is_some_and(|extension| extension == "json")
                && path != description
                && let Some(part) = disk::read_json::<PartRecord>(&path)
            {
                upload.parts.insert(part.number, part);
            }
        }
        uploads.insert(entry.file_name().to_string_lossy().into_owned(), upload);
    }
    Ok(uploads)
}

fn select(upload: &Upload, named: &[(i32, String)]) -> Result<Vec<PartRecord>, PartFault> {
    if named.is_empty() {
        return Err(PartFault::Unknown);
    }
    if !named.is_sorted_by(|a, b| a.0 < b.0) {
        return Err(PartFault::Order);
    }
    let held = |(number, etag): &(i32, String)| {
        upload
            .parts
            .get(number)
            .filter(|part| part.etag == *etag)
            .cloned()
            .ok_or(PartFault::Unknown)
    };
    let parts = named.iter().map(held).collect::<Result<Vec<_>, _>>()?;
    match parts.split_last() {
        Some((_, others)) if others.iter().any(|part| part.size < PART_BYTES_MIN) => Err(PartFault::TooSmall),
        _ => Ok(parts),
    }
}

/// The MD5 of the MD5s of the parts, and how many there are.
fn etag_of(parts: &[PartRecord]) -> String {
    let mut md5 = Md5::new();
    for part in parts {
        md5.update(&hex::decode(&part.etag).unwrap_or_default());
    }
    format!("{}-{}", hex::encode(md5.finalize()), parts.len())
}

/// The checksum of the checksums of the parts, and how many there are.
fn composite(algorithm: Algorithm, parts: &[PartRecord]) -> Checksums {
    let mut hasher = checksum::hasher(&[algorithm]);
    for part in parts {
        let value = part.checksums.value(algorithm).unwrap_or_default();
        hasher.update(&STANDARD.decode(value).unwrap_or_default());
    }
    let of_parts = Checksums::from(hasher.finalize());
    let mut checksums = Checksums {
        composite: true,
        ..Checksums::default()
    };
    if let Some(value) = of_parts.value(algorithm) {
        checksums.insert(algorithm, format!("{value}-{}", parts.len()));
    }
    checksums
}
