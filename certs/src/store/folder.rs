//! A folder as the store: for a single node, or for nodes that share a file system.
//!
//! Writers take turns by a lock on one file, so compare and write is one step; readers need none, for a file is written
//! beside its place and renamed into it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::{Boxed, Error, OBJECT_BYTES_MAX, Object, Objects, OnlyIf, Tag};
use crate::private_file;

/// Objects as files below a folder, for their owner alone.
#[derive(Clone, Debug)]
pub struct Folder {
    root: PathBuf,
}

impl Folder {
    /// The store in `root`; the folder is made when it is first written to.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Runs `work` where it may block.
    fn blocking<T: Send + 'static>(
        &self,
        key: &str,
        work: impl FnOnce(&Path, &str) -> Result<T, Error> + Send + 'static,
    ) -> Boxed<'_, Result<T, Error>> {
        let (root, key) = (self.root.clone(), key.to_owned());
        Box::pin(async move {
            let name = key.clone();
            tokio::task::spawn_blocking(move || work(&root, &key))
                .await
                .unwrap_or_else(|error| Err(Error::unavailable(&name, error)))
        })
    }
}

impl Objects for Folder {
    fn get<'a>(&'a self, key: &'a str) -> Boxed<'a, Result<Option<Object>, Error>> {
        self.blocking(key, |root, key| read(&place(root, key)?, key))
    }

    fn put<'a>(&'a self, key: &'a str, body: Vec<u8>, only_if: OnlyIf) -> Boxed<'a, Result<Tag, Error>> {
        self.blocking(key, move |root, key| {
            let path = place(root, key)?;
            let failed = |error| Error::unavailable(key, error);
            let _lock = lock(root).map_err(failed)?;
            let there = read(&path, key)?;
            let holds = match (&only_if, &there) {
                (OnlyIf::Absent, None) => true,
                (OnlyIf::Unchanged(tag), Some(object)) => *tag == object.tag,
                _ => false,
            };
            if !holds {
                return Err(Error::conflict(key));
            }
            if let Some(folder) = path.parent() {
                private_file::create_folder(folder).map_err(failed)?;
            }
            private_file::write(&path, &body).map_err(failed)?;
            Ok(tag(&body))
        })
    }

    fn delete<'a>(&'a self, key: &'a str) -> Boxed<'a, Result<(), Error>> {
        self.blocking(key, |root, key| {
            let failed = |error| Error::unavailable(key, error);
            let path = place(root, key)?;
            let _lock = lock(root).map_err(failed)?;
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
                _ => Ok(()),
            }
        })
    }

    fn list<'a>(&'a self, prefix: &'a str) -> Boxed<'a, Result<Vec<String>, Error>> {
        self.blocking(prefix, |root, prefix| {
            let mut found = Vec::new();
            walk(root, "", &mut found).map_err(|error| Error::unavailable(prefix, error))?;
            found.retain(|key| key.starts_with(prefix));
            found.sort();
            Ok(found)
        })
    }
}

/// The file of a key. Keys come from the configuration; still none of them leaves the folder.
fn place(root: &Path, key: &str) -> Result<PathBuf, Error> {
    let good = !key.is_empty()
        && key
            .split('/')
            .all(|part| !part.is_empty() && !part.starts_with('.') && !part.contains('\0'));
    if good {
        Ok(root.join(key))
    } else {
        Err(Error::damaged(key, "cannot be the name of a file"))
    }
}

/// Held until it is dropped, or its process ends.
fn lock(root: &Path) -> io::Result<File> {
    private_file::create_folder(root)?;
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(root.join(".lock"))?;
    file.lock()?;
    Ok(file)
}

fn read(path: &Path, key: &str) -> Result<Option<Object>, Error> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::unavailable(key, error)),
    };
    let mut body = Vec::new();
    file.take(OBJECT_BYTES_MAX as u64 + 1)
        .read_to_end(&mut body)
        .map_err(|error| Error::unavailable(key, error))?;
    if body.len() > OBJECT_BYTES_MAX {
        return Err(Error::damaged(key, "is too large"));
    }
    let tag = tag(&body);
    Ok(Some(Object { body, tag }))
}

fn tag(body: &[u8]) -> Tag {
    Tag(hex::encode(aws_lc_rs::digest::digest(
        &aws_lc_rs::digest::SHA256,
        body,
    )))
}

fn walk(folder: &Path, prefix: &str, found: &mut Vec<String>) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let Some(name) = entry.file_name().to_str().map(|name| format!("{prefix}{name}")) else {
            continue;
        };
        if entry.file_type()?.is_dir() {
            walk(&entry.path(), &format!("{name}/"), found)?;
        } else if !name.ends_with(".new") && !name.starts_with('.') {
            found.push(name);
        }
    }
    Ok(())
}
