//! Starting on a folder: whose it is, what is in it, and sweeping what belongs to nothing.
//!
//! Of a full log only its directory is read, of the one that was being written every record's head; no body is looked at,
//! for each is proved when it is read. So a start takes the same however the process before it ended.

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::mpsc::sync_channel;

use super::frame::{Directory, FILE_HEADER, Kind, Listed, VERSION, chunked, file_header, read_file_header};
use super::index::{BodyFile, Index, Slot, Unit};
use super::io::{Handle, Io};
use super::log::{listed_about, listing};
use super::metrics::Damage;
use super::shared::{Shared, number};

/// The file that says whose folder this is, and in which format.
const IDENTITY: &str = "portico-cache";

/// Where what is in another format is put.
const ASIDE: &str = "set-aside";

/// Held by the process that uses the folder.
const LOCK: &str = "lock";

/// Logs that are read ahead of being taken in.
const LISTINGS_MAX: usize = 2;

/// Why a folder cannot be used. The node serves on from memory.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process uses it.
    #[error("another process uses {0}: give each node a folder of its own")]
    InUse(String),
    /// It is a file, say.
    #[error("{0} is not a folder")]
    NotAFolder(String),
    /// It is missing, and the folder above it as well.
    #[error("{0} is missing, and so is the folder above it: is the disk mounted?")]
    Missing(String),
    /// It cannot be read or written.
    #[error("{path} cannot be used by this user: {hint}")]
    Unusable {
        /// The folder.
        path: String,
        /// What to look at.
        hint: &'static str,
        /// What the system says.
        source: io::Error,
    },
}

impl OpenError {
    fn of(path: &Path, source: io::Error) -> Self {
        let hint = match source.kind() {
            io::ErrorKind::PermissionDenied => "look at its owner and mode",
            io::ErrorKind::ReadOnlyFilesystem => "the file system is read-only",
            io::ErrorKind::StorageFull => "the file system is full",
            _ => "look at the disk",
        };
        Self::Unusable {
            path: path.display().to_string(),
            hint,
            source,
        }
    }
}

/// A folder that is ours: the lock that keeps it so, and the cache's own number.
#[derive(Debug)]
pub(super) struct Claimed {
    pub(super) lock: Handle,
    pub(super) store: u64,
}

/// Makes the folder ours, and sets aside what is in another format.
pub(super) fn claim(io: &Io) -> Result<Claimed, OpenError> {
    let path = io.root();
    let shown = || path.display().to_string();
    match std::fs::metadata(path) {
        Ok(found) if !found.is_dir() => return Err(OpenError::NotAFolder(shown())),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            use std::os::unix::fs::DirBuilderExt as _;
            match std::fs::DirBuilder::new().mode(0o700).create(path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(OpenError::Missing(shown()));
                }
                Err(error) => return Err(OpenError::of(path, error)),
            }
        }
        Err(error) => return Err(OpenError::of(path, error)),
    }
    let lock = io
        .open_or_create(LOCK)
        .map_err(|error| OpenError::of(path, error))?;
    if !lock.lock().map_err(|error| OpenError::of(path, error))? {
        return Err(OpenError::InUse(shown()));
    }
    let store = identify(io).map_err(|error| OpenError::of(path, error))?;
    Ok(Claimed { lock, store })
}

fn identify(io: &Io) -> io::Result<u64> {
    let identity = match io.read(IDENTITY) {
        Ok(bytes) => read_file_header(&bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            tracing::warn!(%error, "the cache's identity cannot be read");
            None
        }
    };
    match identity {
        Some((VERSION, store, 0)) => return Ok(store),
        // A file of ours in its place is damage.
        Some((VERSION, ..)) | None => sweep_all(io)?,
        Some((version, ..)) => {
            tracing::warn!(
                version,
                ours = VERSION,
                "the disk cache is in another format; it is set aside as {ASIDE}, and may be removed"
            );
            set_aside(io)?;
        }
    }
    let store = fastrand::u64(1..);
    let next = format!("{IDENTITY}.new");
    let file = io.create(&next)?;
    file.write_at(0, &file_header(store, 0))?;
    file.sync()?;
    io.rename(&next, IDENTITY)?;
    io.sync_folder()?;
    Ok(store)
}

/// Puts everything that is ours into a folder of its own, which takes the place of one from before.
fn set_aside(io: &Io) -> io::Result<()> {
    let aside = io.root().join(ASIDE);
    match std::fs::remove_dir_all(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => std::fs::create_dir(&aside)?,
    }
    for name in io.list()?.into_iter().filter(|name| is_ours(name)) {
        io.rename(&name, &format!("{ASIDE}/{name}"))?;
    }
    Ok(())
}

/// Removes everything that is ours: without an identity nobody can say what it is.
fn sweep_all(io: &Io) -> io::Result<()> {
    let ours: Vec<String> = io.list()?.into_iter().filter(|name| is_ours(name)).collect();
    if !ours.is_empty() {
        tracing::warn!(
            files = ours.len(),
            "the disk cache has lost its identity; it starts empty"
        );
    }
    ours.iter().try_for_each(|name| io.remove(name))
}

fn is_ours(name: &str) -> bool {
    let numbered = |ending| number(name, ending).is_some();
    name.starts_with(IDENTITY) || name.starts_with("purges") || numbered(".log") || numbered(".body")
}

/// Records that a start makes room for beforehand.
const LISTED_AT_ONCE: usize = 1 << 20;

/// What was found.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Recovered {
    /// The highest epoch of any record: the purges must know it too.
    pub(super) position: u64,
    /// Files that belonged to nothing.
    pub(super) swept: usize,
}

/// Fills the index from what is in the folder, and removes what belongs to nothing.
pub(super) fn recover(shared: &Shared) -> io::Result<Recovered> {
    let names = shared.io.list()?;
    let mut logs: Vec<u32> = names.iter().filter_map(|name| number(name, ".log")).collect();
    let bodies: HashSet<u32> = names.iter().filter_map(|name| number(name, ".body")).collect();
    logs.sort_unstable();
    let last = logs.iter().chain(&bodies).max().copied().unwrap_or(0);
    shared
        .ids
        .store(last.saturating_add(1), std::sync::atomic::Ordering::Relaxed);
    let mut found = Recovered::default();
    let mut index = shared.index();
    let mut useless = Vec::new();
    // Room for all of them at once: a table that grows step by step is moved each time. Of very many, most may be old.
    let about: usize = logs.iter().map(|log| listed_about(&shared.io, *log)).sum();
    index.reserve(about.min(LISTED_AT_ONCE));
    std::thread::scope(|scope| {
        // One thread reads while this one takes in: two cores do it in little more than half the time.
        let (read, listings) = sync_channel(LISTINGS_MAX);
        let each = move || {
            for log in logs {
                if read.send((log, listing(&shared.io, shared.store, log))).is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new()
            .name("disk-recover".into())
            .spawn_scoped(scope, each)?;
        for (log, listed) in listings {
            match listed {
                Ok((directory, bytes)) if !directory.listed.is_empty() => {
                    found.position = found.position.max(directory.position);
                    index.logs.insert(log, bytes);
                    index.bytes += bytes;
                    // No number is given again that a record names: the record of a body that is gone would name another's.
                    let files = directory.listed.iter().map(|listed| listed.record.body_file);
                    let next = files.max().unwrap_or(0).saturating_add(1);
                    shared.ids.fetch_max(next, std::sync::atomic::Ordering::Relaxed);
                    take_in(&mut index, log, &directory, &bodies);
                }
                Ok((_, bytes)) => {
                    if bytes > FILE_HEADER as u64 {
                        shared.metrics.damaged.inc(Damage::File);
                    }
                    useless.push(super::shared::log_name(log));
                }
                Err(error) => {
                    shared.metrics.damaged.inc(Damage::File);
                    tracing::warn!(%error, log, "a log of the disk cache cannot be read; it is removed");
                    useless.push(super::shared::log_name(log));
                }
            }
        }
        Ok::<_, io::Error>(())
    })?;
    order_units(&mut index);
    let orphans = bodies.iter().filter(|file| !index.bodies.contains_key(file));
    useless.extend(orphans.map(|file| super::shared::body_name(*file)));
    drop(index);
    let leftovers = names.into_iter().filter(|name| name.ends_with(".new"));
    for name in useless.into_iter().chain(leftovers) {
        found.swept += 1;
        if let Err(error) = shared.io.remove(&name) {
            tracing::warn!(%error, name, "a leftover of the disk cache cannot be removed");
        }
    }
    Ok(found)
}

fn take_in(index: &mut Index, log: u32, directory: &Directory, bodies: &HashSet<u32>) {
    let sites: Vec<u16> = directory.sites.iter().map(|site| index.site(site)).collect();
    for Listed { record, offset, site } in &directory.listed {
        if record.kind == Kind::Gone {
            for slot in index.remove(record.fingerprint) {
                forget_body(index, slot.body_file);
            }
            continue;
        }
        let slot = Slot {
            log,
            offset: *offset,
            length: u32::try_from(record.length()).unwrap_or(u32::MAX),
            variant: record.variant,
            written: record.written,
            body_file: record.body_file,
            site: sites.get(usize::from(*site)).copied().unwrap_or_default(),
            reads: 0,
        };
        if record.kind == Kind::External {
            if !bodies.contains(&record.body_file) {
                // Its body is gone; an older response must not come back in its place.
                if let Some(older) = index.remove_variant(record.fingerprint, record.variant) {
                    forget_body(index, older.body_file);
                }
                continue;
            }
            let body = BodyFile {
                bytes: FILE_HEADER as u64 + chunked(record.body_length),
                fingerprint: record.fingerprint,
                variant: record.variant,
            };
            if index.bodies.insert(record.body_file, body).is_none() {
                index.bytes = index.bytes.saturating_add(body.bytes);
            }
        }
        if let Some(older) = index.put(record.fingerprint, slot)
            && older.body_file != slot.body_file
        {
            forget_body(index, older.body_file);
        }
    }
}

fn forget_body(index: &mut Index, file: u32) {
    if let Some(body) = index.bodies.remove(&file) {
        index.bytes = index.bytes.saturating_sub(body.bytes);
    }
}

/// The oldest first: numbers are given in order.
fn order_units(index: &mut Index) {
    let logs = index.logs.keys().map(|log| (*log, Unit::Log(*log)));
    let bodies = index.bodies.keys().map(|file| (*file, Unit::Body(*file)));
    let mut units: Vec<(u32, Unit)> = logs.chain(bodies).collect();
    units.sort_unstable_by_key(|(id, _)| *id);
    index.queue = units.into_iter().map(|(_, unit)| unit).collect();
}
