//! The one thread that writes records: what it writes becomes visible when it is written, head and body together.

use std::io;
use std::sync::Arc;

use super::bodies::{self, OnDisk};
use super::draft::{Draft, form_at, gather, variant, whole_form};
use super::fill;
use super::frame::{FILE_HEADER, Kind, Record, chunked};
use super::index::{BodyFile, Slot, Unit};
use super::log::{Entry, Log, Read};
use super::meta::{self, FormAt};
use super::metrics::{Operation, Skip, Written};
use super::queue::{Job, Queue};
use super::shared::{Shared, fingerprint};
use crate::cache::key::Key;
use crate::cache::store::{Content, Form, Head, StoredResponse};

/// A response whose body is longer than this is not written anew each time it is confirmed...
const REFRESHED_BYTES: u64 = 64 * 1024;

/// ...but only when what is on the disk is so many seconds old.
const REFRESHED_AFTER: u32 = 600;

/// Removals that could not be written down yet, at most.
const OWED_MAX: usize = 100_000;

/// The writer.
#[derive(Debug)]
pub(super) struct Writer {
    log: Log,
    shared: Arc<Shared>,
    /// Removals that could not be written down yet.
    owed: Vec<u64>,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            log: Log::new(Arc::clone(&shared)),
            shared,
            owed: Vec::new(),
        }
    }

    /// Works until the queue is closed and empty.
    pub(super) fn run(mut self, queue: &Queue) {
        // A smaller size than before takes effect at once.
        self.log.make_room(0);
        while let Some(job) = queue.next() {
            let did = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.work(job)));
            if did.is_err() {
                tracing::error!("writing a stored response to disk panicked; it is left out");
                self.log = Log::new(Arc::clone(&self.shared));
            }
        }
        self.log.close();
    }

    fn work(&mut self, job: Job) {
        match job {
            Job::Store { key, stored, order } => {
                if let Err(why) = self.store(&key, &stored, order) {
                    self.shared.metrics.skipped.inc(why);
                    // Memory has a newer response than the disk: the older one must not come back after it.
                    self.overtaken(&key, &stored.head);
                }
            }
            Job::Commit {
                key,
                head,
                file,
                length,
                order,
                done,
            } => {
                let draft = Draft {
                    key: &key,
                    head: &head,
                    forms: vec![whole_form(&head, length)],
                    order,
                };
                let committed = !self.shared.is_suspended() && self.external(&draft, file, length, true);
                if !committed {
                    self.shared.metrics.skipped.inc(Skip::Failed);
                }
                // Whoever asked may be gone; then the body's end is seen to by whoever made it.
                let _ = done.send(committed);
            }
            Job::Gone {
                fingerprint,
                order,
                bodies,
            } => self.gone(fingerprint, order, &bodies),
            Job::Unlink { bodies } => bodies.iter().for_each(|file| self.shared.drop_body(*file)),
            Job::Reserve { bytes, done } => {
                let room = !self.shared.is_suspended() && self.log.make_room(bytes);
                if room {
                    self.shared.index().bytes += bytes;
                }
                if done.send(room).is_err() && room {
                    let mut index = self.shared.index();
                    index.bytes = index.bytes.saturating_sub(bytes);
                }
            }
            Job::Flush { done } => {
                self.log.close();
                let _ = done.send(());
            }
        }
    }

    fn store(&mut self, key: &Key, stored: &StoredResponse, order: u64) -> Result<(), Skip> {
        if self.shared.is_suspended() {
            return Err(Skip::Failed);
        }
        let own = stored.own_form().ok_or(Skip::Failed)?;
        if let Content::Disk(on_disk) = &own.body {
            return self.refresh(key, stored, on_disk, order);
        }
        // What is gathered here, and what may be read to compare it with.
        let _working = self.shared.memory.budget().count(2 * stored.bytes());
        let (forms, body) = gather(stored);
        if body.len() as u64 > self.shared.limits.body_max {
            return Err(Skip::TooLarge);
        }
        if self.is_fresh_enough(key, stored, &forms, &body) {
            return Ok(());
        }
        let draft = Draft {
            key,
            head: &stored.head,
            forms,
            order,
        };
        let inline = body.len() as u64 <= self.shared.limits.inline_max;
        let written = if inline {
            self.inline(&draft, &body)
        } else {
            self.body_file(&draft, &body)
        };
        match written {
            Ok(true) => Ok(()),
            Ok(false) => Err(Skip::TooLarge),
            Err(error) => {
                self.shared.fail(Operation::Write, &error);
                Err(Skip::Failed)
            }
        }
    }

    /// A large body stays where it is, and only its record is written anew.
    fn refresh(&mut self, key: &Key, stored: &StoredResponse, own: &OnDisk, order: u64) -> Result<(), Skip> {
        let lying = own.place().ok_or(Skip::Failed)?;
        let same_file = |form: &Arc<Form>| match &form.body {
            Content::Disk(on_disk) => on_disk
                .place()
                .filter(|at| at.file == lying.file)
                .map(|at| form_at(form, at.first, at.length)),
            Content::Memory(_) => None,
        };
        let draft = Draft {
            key,
            head: &stored.head,
            forms: stored.forms.iter().filter_map(same_file).collect(),
            order,
        };
        if self.external(&draft, lying.file, lying.total, false) {
            Ok(())
        } else {
            Err(Skip::Failed)
        }
    }

    /// Whether the disk has this very body under a head that is nearly as new: then it is not written again.
    fn is_fresh_enough(&self, key: &Key, stored: &StoredResponse, forms: &[FormAt], body: &[u8]) -> bool {
        if body.len() as u64 <= REFRESHED_BYTES {
            return false;
        }
        let variant = variant(&stored.head);
        let known = self.shared.index().find(fingerprint(key));
        let Some(slot) = known.into_iter().find(|slot| slot.variant == variant) else {
            return false;
        };
        let age = self.shared.seconds().checked_sub(slot.written);
        if age.is_none_or(|age| age >= REFRESHED_AFTER) {
            return false;
        }
        let read = super::log::read(&self.shared, &slot);
        let Ok(Some(Read {
            record,
            meta: held,
            body: behind,
        })) = read
        else {
            return false;
        };
        let is_alike = |held: meta::Meta| {
            held.key == *key && held.forms == forms && held.head.position == stored.head.position
        };
        if !meta::decode(&held).is_some_and(is_alike) || record.body_length != body.len() as u64 {
            return false;
        }
        // An entity tag may lie; bytes do not, and to read them costs less than to write them.
        let held = match record.kind {
            Kind::External => bodies::read_whole(&self.shared, slot.body_file, record.body_length)
                .ok()
                .flatten(),
            _ => super::frame::read_chunks(behind, self.shared.place(slot.log, slot.offset), 0),
        };
        held.as_deref() == Some(body)
    }

    fn inline(&mut self, draft: &Draft<'_>, body: &[u8]) -> io::Result<bool> {
        let Some(meta) = meta::encode(draft.key, draft.head, &draft.forms) else {
            return Ok(false);
        };
        let record = self.record(draft, Kind::Inline, &meta, body.len() as u64, 0);
        self.append(draft, record, &meta, body)?;
        self.shared.metrics.writes.inc(Written::Inline);
        Ok(true)
    }

    /// Writes a body that came through memory into a file of its own.
    fn body_file(&mut self, draft: &Draft<'_>, body: &[u8]) -> io::Result<bool> {
        let bytes = FILE_HEADER as u64 + chunked(body.len() as u64);
        if !self.log.make_room(bytes) {
            return Ok(false);
        }
        let file = self.shared.next_id();
        let written = fill::write_whole(&self.shared, file, body);
        self.shared.index().bytes += bytes;
        let committed = written.map(|()| {
            let length = body.len() as u64;
            self.external(draft, file, length, true)
        });
        match committed {
            Ok(true) => Ok(true),
            other => {
                let mut index = self.shared.index();
                index.bytes = index.bytes.saturating_sub(bytes);
                drop(index);
                // Nothing refers to it; what cannot be removed is swept at the next start.
                let _ = self.shared.io.remove(&super::shared::body_name(file));
                other
            }
        }
    }

    /// Writes the record of a body in a file of its own: a new one, or one that is there already.
    fn external(&mut self, draft: &Draft<'_>, file: u32, length: u64, is_new: bool) -> bool {
        let Some(meta) = meta::encode(draft.key, draft.head, &draft.forms) else {
            return false;
        };
        let record = self.record(draft, Kind::External, &meta, length, file);
        {
            let mut index = self.shared.index();
            if !is_new && !index.bodies.contains_key(&file) {
                // Evicted meanwhile.
                return false;
            }
            if is_new {
                index.bodies.insert(
                    file,
                    BodyFile {
                        bytes: FILE_HEADER as u64 + chunked(length),
                        fingerprint: record.fingerprint,
                        variant: record.variant,
                    },
                );
                index.queue.push_back(Unit::Body(file));
            }
        }
        match self.append(draft, record, &meta, &[]) {
            Ok(()) => {
                self.shared.metrics.writes.inc(Written::External);
                true
            }
            Err(error) => {
                self.shared.fail(Operation::Write, &error);
                let mut index = self.shared.index();
                let slots = index.find(record.fingerprint);
                if !slots.iter().any(|slot| slot.body_file == file) {
                    index.bodies.remove(&file);
                }
                false
            }
        }
    }

    fn record(&self, draft: &Draft<'_>, kind: Kind, meta: &[u8], body_length: u64, body_file: u32) -> Record {
        Record {
            kind,
            fingerprint: fingerprint(draft.key),
            variant: variant(draft.head),
            meta_length: u32::try_from(meta.len()).unwrap_or(u32::MAX),
            body_length,
            body_file,
            written: self.shared.seconds(),
        }
    }

    /// Appends a record and makes it visible, unless its key was removed after it was queued.
    fn append(&mut self, draft: &Draft<'_>, record: Record, meta: &[u8], body: &[u8]) -> io::Result<()> {
        self.pay();
        if !self.log.make_room(record.length()) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let site = self.shared.index().site(draft.key.host());
        let slot = self.log.append(&Entry {
            record,
            meta,
            body,
            site,
            position: draft.head.position.number(),
        })?;
        self.shared.succeed();
        self.show(draft, record.fingerprint, slot);
        Ok(())
    }

    fn show(&self, draft: &Draft<'_>, fingerprint: u64, slot: Slot) {
        let mut index = self.shared.index();
        let barrier = index.barriers.get(&fingerprint);
        if barrier.is_some_and(|removed| draft.order < *removed) {
            // The removal stands behind in the queue, and will be behind in the log.
            drop(index);
            self.shared.drop_body(slot.body_file);
            return;
        }
        let replaced = index.put(fingerprint, slot);
        drop(index);
        if let Some(replaced) = replaced.filter(|replaced| replaced.body_file != slot.body_file) {
            self.shared.drop_body(replaced.body_file);
        }
    }

    /// The disk's copy of what memory has newer is taken away.
    fn overtaken(&mut self, key: &Key, head: &Head) {
        let fingerprint = fingerprint(key);
        let removed = self.shared.index().remove_variant(fingerprint, variant(head));
        if let Some(removed) = removed {
            self.gone(fingerprint, 0, &[removed.body_file]);
        }
    }

    fn gone(&mut self, fingerprint: u64, order: u64, bodies: &[u32]) {
        bodies.iter().for_each(|file| self.shared.drop_body(*file));
        if self.owed.len() < OWED_MAX {
            self.owed.push(fingerprint);
        }
        self.pay();
        let mut index = self.shared.index();
        if index
            .barriers
            .get(&fingerprint)
            .is_some_and(|barrier| *barrier <= order)
        {
            index.barriers.remove(&fingerprint);
        }
    }

    /// Writes the removals down that are owed, as far as that goes.
    fn pay(&mut self) {
        while let Some(fingerprint) = self.owed.last().copied() {
            let record = Record {
                kind: Kind::Gone,
                fingerprint,
                variant: 0,
                meta_length: 0,
                body_length: 0,
                body_file: 0,
                written: self.shared.seconds(),
            };
            let entry = Entry {
                record,
                meta: &[],
                body: &[],
                site: 0,
                position: 0,
            };
            if self.shared.is_suspended() {
                return;
            }
            if let Err(error) = self.log.append(&entry) {
                self.shared.fail(Operation::Write, &error);
                return;
            }
            self.shared.metrics.writes.inc(Written::Gone);
            self.owed.pop();
        }
    }
}
