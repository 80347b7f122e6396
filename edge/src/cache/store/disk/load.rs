//! From the disk to memory: every response of a key, proved.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::bodies::{self, OnDisk};
use super::frame::{Kind, Record, read_chunks};
use super::handles::is_shortage;
use super::index::Slot;
use super::log::{Read, proved, read_from};
use super::meta::{self, FormAt, Meta};
use super::metrics::{Damage, Found, Operation};
use super::shared::{Shared, believable, fingerprint};
use super::{Disk, Inner};
use crate::cache::key::Key;
use crate::cache::store::{Content, Head, Reservation};

/// The longest record that a thread of the data plane reads by itself: copying and proving it takes some ten microseconds.
const AT_HAND_BYTES: u32 = 128 * 1024;

/// A stored response as it was found.
#[derive(Debug)]
pub struct Loaded {
    /// Its head.
    pub head: Head,
    /// Its forms with their bytes, the origin's own first.
    pub forms: Vec<(FormAt, Content)>,
}

impl Disk {
    /// What is stored under `key`, where that is one small response that the page cache has: nothing is waited for.
    pub fn at_hand(&self, key: &Key) -> Option<Loaded> {
        let shared = &self.0.shared;
        let fingerprint = fingerprint(key);
        let slot = shared.index().only(fingerprint)?;
        if slot.body_file != 0 || slot.length > AT_HAND_BYTES {
            return None;
        }
        let log = shared.handles.held_log(slot.log)?;
        let bytes = self.room_for(&slot);
        let held = shared.memory.budget().keep(bytes, bytes)?;
        let read = log.read_at_once(u64::from(slot.offset), slot.length as usize)?;
        let found = proved(shared, &slot, read);
        let (record, meta, body) = understood(shared, key, fingerprint, &slot, found)?;
        if record.kind != Kind::Inline {
            return None;
        }
        let body = read_chunks(body, shared.place(slot.log, slot.offset), 0);
        let loaded = kept(shared, fingerprint, &slot, meta, body, held);
        shared.metrics.lookups.inc(match loaded {
            Some(_) => Found::Hit,
            None => Found::Miss,
        });
        loaded
    }

    /// Every response stored under `key`, the oldest first; none when the disk is too slow to say. One that there is no room
    /// for is left out, once its turn has not come.
    pub async fn load(&self, key: &Key) -> Vec<Loaded> {
        let (shared, fingerprint) = (&self.0.shared, fingerprint(key));
        let mut slots = shared.index().find(fingerprint);
        slots.sort_unstable_by_key(|slot| (slot.log, slot.offset));
        let mut loaded = Vec::new();
        let mut has_waited = false;
        // One after the other: who holds room for the first, and waits for the second, could wait for itself.
        for slot in slots {
            let (budget, bytes) = (shared.memory.budget(), self.room_for(&slot));
            // Who waited in vain does not wait again.
            let room = match has_waited {
                true => budget.keep(bytes, bytes),
                false => budget.keep_soon(bytes).await,
            };
            let Some(room) = room else {
                has_waited = true;
                shared.metrics.lookups.inc(Found::Overloaded);
                continue;
            };
            match self.load_one(key, fingerprint, slot, room).await {
                Some(found) => loaded.extend(found),
                None => {
                    shared.metrics.lookups.inc(Found::Overloaded);
                    return loaded;
                }
            }
        }
        shared.metrics.lookups.inc(match loaded.is_empty() {
            true => Found::Miss,
            false => Found::Hit,
        });
        loaded
    }

    /// What is read of a response, and what is proved of it.
    fn room_for(&self, slot: &Slot) -> u64 {
        let shared = &self.0.shared;
        let body = match slot.body_file {
            0 => 0,
            file => shared.index().bodies.get(&file).map_or(0, |body| body.bytes),
        };
        // A longer one streams.
        let promoted = Some(body).filter(|body| *body <= shared.limits.promoted_max);
        2 * (u64::from(slot.length) + promoted.unwrap_or(0))
    }

    /// What a reading thread finds; `None` when it takes too long.
    async fn load_one(
        &self,
        key: &Key,
        fingerprint: u64,
        slot: Slot,
        room: Reservation,
    ) -> Option<Option<Loaded>> {
        // The read takes the room when it begins. One that waits behind a disk that hangs does not keep it.
        let room = Arc::new(Mutex::new(Some(room)));
        let take =
            |room: &Mutex<Option<Reservation>>| room.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (inner, key, given) = (Arc::clone(&self.0), key.clone(), Arc::clone(&room));
        let job = move || load(&inner, &key, fingerprint, &slot, take(&given)?);
        let read = tokio::time::timeout(self.0.patience, self.0.reads.run(job)).await;
        drop(take(&room));
        read.ok().flatten()
    }
}

fn load(
    inner: &Arc<Inner>,
    key: &Key,
    fingerprint: u64,
    slot: &Slot,
    mut held: Reservation,
) -> Option<Loaded> {
    let shared = &inner.shared;
    let gone = |error: &io::Error| {
        // Evicted between the index and the file: that is no damage.
        let is_gone = shared.index().live(fingerprint, slot.log, slot.offset).is_none();
        if is_shortage(error) {
            shared.metrics.errors.inc(Operation::Read);
            shared.metrics.lookups.inc(Found::Overloaded);
        } else if !is_gone {
            shared.metrics.errors.inc(Operation::Read);
            tracing::warn!(%error, log = slot.log, "a stored response cannot be read");
            shared.damaged(fingerprint, slot, Damage::File);
        }
    };
    let is_there = || shared.index().logs.contains_key(&slot.log);
    let log = shared.handles.open_log(&shared.io, slot.log, is_there);
    let found = log
        .and_then(|log| read_from(shared, &log, slot))
        .inspect_err(gone)
        .ok()?;
    let (record, meta, body) = understood(shared, key, fingerprint, slot, found)?;
    let body = match record.kind {
        Kind::Inline => read_chunks(body, shared.place(slot.log, slot.offset), 0),
        Kind::External => {
            let is_small = record.body_length <= shared.limits.promoted_max;
            if !is_small || !held.grow_to(2 * record.body_length) {
                shared.index().count_read(fingerprint, slot.variant);
                return Some(streaming(inner, meta, record.body_length, fingerprint, slot));
            }
            bodies::read_whole(shared, slot.body_file, record.body_length)
                .inspect_err(gone)
                .ok()?
        }
        Kind::Gone => None,
    };
    kept(shared, fingerprint, slot, meta, body, held)
}

/// What a record says, if it is the one of `key`. What nobody can understand is dropped.
fn understood(
    shared: &Shared,
    key: &Key,
    fingerprint: u64,
    slot: &Slot,
    found: Option<Read>,
) -> Option<(Record, Meta, Vec<u8>)> {
    let Some((meta, found)) = found.and_then(|found| Some((meta::decode(&found.meta)?, found))) else {
        shared.damaged(fingerprint, slot, Damage::Record);
        return None;
    };
    if meta.key != *key {
        shared.metrics.lookups.inc(Found::Foreign);
        return None;
    }
    Some((found.record, meta, found.body))
}

/// A response whose bytes are in memory now. A body that was not as it was written is dropped.
fn kept(
    shared: &Shared,
    fingerprint: u64,
    slot: &Slot,
    meta: Meta,
    body: Option<Vec<u8>>,
    held: Reservation,
) -> Option<Loaded> {
    let loaded = body.and_then(|body| in_memory(shared, meta, held.hold(body)));
    if loaded.is_none() {
        shared.damaged(fingerprint, slot, Damage::Body);
    }
    shared.index().count_read(fingerprint, slot.variant);
    loaded
}

fn in_memory(shared: &Shared, meta: Meta, body: Bytes) -> Option<Loaded> {
    let window = |form: FormAt| {
        let first = usize::try_from(form.first).ok()?;
        let end = first.checked_add(usize::try_from(form.length).ok()?)?;
        // A copy, so that a form that leaves memory takes its bytes with it. Together they take no more than was read.
        let copy = body.get(first..end)?.to_vec();
        let held = shared.memory.budget().count(form.length);
        Some((form, Content::Memory(held.hold(copy))))
    };
    let forms = if let [only] = meta.forms.as_slice()
        && only.first == 0
        && only.length == body.len() as u64
    {
        vec![(only.clone(), Content::Memory(body))]
    } else {
        meta.forms.into_iter().map(window).collect::<Option<_>>()?
    };
    Some(Loaded {
        head: aged(shared, meta.head),
        forms,
    })
}

fn streaming(inner: &Arc<Inner>, meta: Meta, total: u64, fingerprint: u64, slot: &Slot) -> Loaded {
    let window = |form: FormAt| {
        let at = (form.first, form.length);
        let owner = (fingerprint, slot.variant);
        let body = OnDisk::new(Disk(Arc::clone(inner)), slot.body_file, total, at, owner);
        (form, Content::Disk(Box::new(body)))
    };
    Loaded {
        head: aged(&inner.shared, meta.head),
        forms: meta.forms.into_iter().map(window).collect(),
    }
}

/// A head as it may be believed: when the clock was set back since it was written, nobody knows how old it is, and it counts
/// as just stale, which a validation mends.
fn aged(shared: &Shared, mut head: Head) -> Head {
    let now = shared.clock.now();
    if !believable(head.response_time, now) {
        head.response_time = now;
        head.initial_age = head.initial_age.max(head.lifetime.fresh);
    }
    head
}
