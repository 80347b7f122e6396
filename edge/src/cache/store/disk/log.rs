//! The logs: records appended one after the other by the one writer; a full log gets its directory and is closed.
//!
//! What was written into a log never changes. A log that ends without its directory, as after a crash, is read record by
//! record, and a damaged place in it costs the records that lie there.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use super::frame::{
    DIRECTORY_END, Directory, FILE_HEADER, Kind, LISTED_BYTES, Listed, RECORD_HEADER, RECORD_MAGIC, Record,
    file_header, write_chunks,
};
use super::index::{Slot, Unit};
use super::io::{ENOSPC, Handle, Io};
use super::meta;
use super::shared::{Shared, log_name};

/// The log being written, if there is one.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) shared: Arc<Shared>,
    active: Option<Active>,
}

#[derive(Debug)]
struct Active {
    id: u32,
    file: Handle,
    end: u64,
    directory: Directory,
    /// Places of sites in the index, to places in the directory.
    sites: HashMap<u16, u16>,
}

/// A record to be appended.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    pub(super) record: Record,
    pub(super) meta: &'a [u8],
    /// What lies behind the metadata, of an inline record.
    pub(super) body: &'a [u8],
    /// Its site's place in the index.
    pub(super) site: u16,
    /// The epoch at which it was fetched.
    pub(super) position: u64,
}

impl Log {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, active: None }
    }

    /// Appends a record, and tells where it stands. The caller has made room.
    pub(super) fn append(&mut self, entry: &Entry<'_>) -> io::Result<Slot> {
        let length = entry.record.length();
        let full = |active: &Active| active.end + length > self.shared.limits.log_bytes;
        if self.active.as_ref().is_some_and(full) {
            self.close();
        }
        let mut active = match self.active.take() {
            Some(active) => active,
            None => self.begin()?,
        };
        let written = active.append(&self.shared, entry, length);
        let is_worth_keeping =
            |error: &io::Error| error.raw_os_error() == Some(ENOSPC) && active.end > FILE_HEADER as u64;
        match &written {
            Err(error) if !is_worth_keeping(error) => self.leave(&active),
            _ => self.active = Some(active),
        }
        written
    }

    /// Writes the directory of the active log and closes it.
    pub(super) fn close(&mut self) {
        let Some(active) = self.active.take() else {
            return;
        };
        let bytes = active.directory.encode(self.shared.store, active.id, active.end);
        match active.file.write_at(active.end, &bytes) {
            Ok(()) => {
                let mut index = self.shared.index();
                index.bytes += bytes.len() as u64;
                if let Some(log) = index.logs.get_mut(&active.id) {
                    *log += bytes.len() as u64;
                }
            }
            // Without a directory it is read record by record.
            Err(error) => self.shared.fail(super::metrics::Operation::Write, &error),
        }
        self.leave(&active);
    }

    /// The active log counts as full.
    fn leave(&self, active: &Active) {
        self.shared.index().queue.push_back(Unit::Log(active.id));
    }

    fn begin(&self) -> io::Result<Active> {
        let id = self.shared.next_id();
        let file = self.shared.io.create(&log_name(id))?;
        let header = file_header(self.shared.store, id);
        let written = file.write_at(0, &header);
        if let Err(error) = written {
            // Nothing refers to it yet.
            let _ = self.shared.io.remove(&log_name(id));
            return Err(error);
        }
        let mut index = self.shared.index();
        index.bytes += FILE_HEADER as u64;
        index.logs.insert(id, FILE_HEADER as u64);
        Ok(Active {
            id,
            file,
            end: FILE_HEADER as u64,
            directory: Directory::default(),
            sites: HashMap::new(),
        })
    }
}

impl Active {
    fn append(&mut self, shared: &Shared, entry: &Entry<'_>, length: u64) -> io::Result<Slot> {
        let too_long = || io::Error::from(io::ErrorKind::InvalidInput);
        let offset = u32::try_from(self.end).map_err(|_| too_long())?;
        let length = u32::try_from(length).map_err(|_| too_long())?;
        let place = shared.place(self.id, offset);
        let mut bytes = entry.record.encode(place, entry.meta);
        bytes.reserve(length as usize);
        bytes.extend_from_slice(entry.meta);
        write_chunks(&mut bytes, place, 0, entry.body);
        self.file.write_at(self.end, &bytes)?;
        self.end += bytes.len() as u64;
        shared.metrics.written_bytes.add(bytes.len() as u64);
        let mut index = shared.index();
        index.bytes += bytes.len() as u64;
        if let Some(log) = index.logs.get_mut(&self.id) {
            *log = self.end;
        }
        let directory = &mut self.directory;
        let site = *self.sites.entry(entry.site).or_insert_with(|| {
            let name = index.sites().get(usize::from(entry.site));
            directory
                .sites
                .push(name.map(|site| site.name.clone()).unwrap_or_default());
            u16::try_from(directory.sites.len() - 1).unwrap_or(u16::MAX)
        });
        directory.position = directory.position.max(entry.position);
        directory.listed.push(Listed {
            record: entry.record,
            offset,
            site,
        });
        Ok(Slot {
            log: self.id,
            offset,
            length,
            variant: entry.record.variant,
            written: entry.record.written,
            body_file: entry.record.body_file,
            site: entry.site,
            reads: 0,
        })
    }
}

/// What a log holds: by its directory, or record by record; and the bytes of its file.
pub(super) fn listing(io: &Io, store: u64, id: u32) -> io::Result<(Directory, u64)> {
    let file = io.open(&log_name(id), false)?;
    let length = file.len()?;
    if let Some(directory) = directory(&file, length, store, id)? {
        return Ok((directory, length));
    }
    let bytes = file.read_at(0, usize::try_from(length).unwrap_or(usize::MAX))?;
    Ok((scan(&bytes, store, id), length))
}

/// About how many responses a closed log lists, by the length of its directory; 0 when that cannot be told.
pub(super) fn listed_about(io: &Io, id: u32) -> usize {
    let about = || -> io::Result<u64> {
        let file = io.open(&log_name(id), false)?;
        let length = file.len()?;
        let Some(at) = length.checked_sub(DIRECTORY_END as u64) else {
            return Ok(0);
        };
        let located = Directory::locate(&file.read_at(at, DIRECTORY_END)?);
        let bytes = located.map_or(0, |(_, bytes)| bytes.min(length));
        Ok(bytes / LISTED_BYTES)
    };
    // What is wrong with it shows when it is read.
    about().map_or(0, |count| usize::try_from(count).unwrap_or(0))
}

fn directory(file: &Handle, length: u64, store: u64, id: u32) -> io::Result<Option<Directory>> {
    let Some(at) = length.checked_sub(DIRECTORY_END as u64) else {
        return Ok(None);
    };
    let Some((end, bytes)) = Directory::locate(&file.read_at(at, DIRECTORY_END)?) else {
        return Ok(None);
    };
    if end.checked_add(bytes) != Some(at) {
        return Ok(None);
    }
    let bytes = file.read_at(end, usize::try_from(length - end).unwrap_or(usize::MAX))?;
    Ok(Directory::decode(&bytes, store, id, end))
}

/// Every record that is as it was written, in order. The bodies are not looked at: that is done when they are read.
pub(super) fn scan(bytes: &[u8], store: u64, id: u32) -> Directory {
    let mut directory = Directory::default();
    let mut at = FILE_HEADER;
    let magic = memchr::memmem::Finder::new(&RECORD_MAGIC);
    while let Some(rest) = bytes.get(at..) {
        let Some(skip) = magic.find(rest) else {
            break;
        };
        at += skip;
        let rest = rest.get(skip..).unwrap_or_default();
        at += match u32::try_from(at)
            .ok()
            .and_then(|offset| prove(rest, store, id, offset))
        {
            Some((record, key_and_head)) => {
                let listed = list(&mut directory, record, key_and_head, at);
                if listed {
                    usize::try_from(record.length()).unwrap_or(usize::MAX)
                } else {
                    1
                }
            }
            None => 1,
        };
    }
    directory
}

/// The record at the start of `bytes`, if all of it is there.
fn prove(bytes: &[u8], store: u64, id: u32, offset: u32) -> Option<(Record, &[u8])> {
    let place = super::frame::Place {
        store,
        file: id,
        offset,
    };
    let (record, meta) = Record::prove(bytes, place)?;
    (record.length() <= bytes.len() as u64).then_some((record, meta))
}

fn list(directory: &mut Directory, record: Record, meta: &[u8], at: usize) -> bool {
    let (site, position) = match record.kind {
        Kind::Gone => ("", 0),
        Kind::Inline | Kind::External => match meta::skim(meta) {
            Some((host, position)) => (host, position.number()),
            None => return false,
        },
    };
    let known = directory.sites.iter().position(|name| **name == *site);
    let place = known.unwrap_or_else(|| {
        directory.sites.push(site.into());
        directory.sites.len() - 1
    });
    directory.position = directory.position.max(position);
    directory.listed.push(Listed {
        record,
        offset: u32::try_from(at).unwrap_or(u32::MAX),
        site: u16::try_from(place).unwrap_or(u16::MAX),
    });
    true
}

/// A whole record, proved but for its body.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) record: Record,
    pub(super) meta: Vec<u8>,
    /// The body's bytes, with their checksums.
    pub(super) body: Vec<u8>,
}

/// A record as it was written; `None` when it is not. A log that is not open is opened for this alone.
pub(super) fn read(shared: &Shared, slot: &Slot) -> io::Result<Option<Read>> {
    match shared.handles.held_log(slot.log) {
        Some(log) => read_from(shared, &log, slot),
        None => read_from(shared, &shared.io.open(&log_name(slot.log), false)?, slot),
    }
}

/// As [`read`], from an open log.
pub(super) fn read_from(shared: &Shared, log: &Handle, slot: &Slot) -> io::Result<Option<Read>> {
    let bytes = log.read_at(u64::from(slot.offset), slot.length as usize)?;
    Ok(proved(shared, slot, bytes))
}

/// What these bytes are, which were read where `slot` says; `None` when they are not what was written there.
pub(super) fn proved(shared: &Shared, slot: &Slot, mut bytes: Vec<u8>) -> Option<Read> {
    shared.metrics.read_bytes.add(bytes.len() as u64);
    let (record, meta) = Record::prove(&bytes, shared.place(slot.log, slot.offset))?;
    let meta = meta.to_vec();
    // What remains is the body, where it was read to.
    bytes.drain(..RECORD_HEADER + meta.len());
    (record.length() == u64::from(slot.length)).then_some(Read {
        record,
        meta,
        body: bytes,
    })
}
