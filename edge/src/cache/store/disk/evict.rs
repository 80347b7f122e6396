//! Room: the oldest log or body goes first, and what was read since it was written, or is in memory, is spared once more.
//!
//! Logs are evicted whole, as they were written: sequentially. Of a log at most half is spared, by writing it anew; a body
//! is spared by putting it last, without touching it. So room is always found, and what is asked for often stays.

use std::io;

use super::frame::{Kind, Listed, read_chunks};
use super::index::{Slot, Unit};
use super::log::{Entry, Log, Read, listing, read};
use super::meta;
use super::metrics::{Evicted, Operation, Written};

impl Log {
    /// Evicts until `bytes` more have room. `false` when they cannot have it.
    pub(super) fn make_room(&mut self, bytes: u64) -> bool {
        let capacity = self.shared.limits.capacity;
        if bytes > capacity {
            return false;
        }
        // A body may be spared several times, and a log leaves at most half of itself: this ends.
        let mut tries = {
            let index = self.shared.index();
            index.queue.len().saturating_mul(10) + 64
        };
        loop {
            let unit = {
                let mut index = self.shared.index();
                if index.bytes + bytes <= capacity {
                    return true;
                }
                index.queue.pop_front()
            };
            self.shared.full.store(true, std::sync::atomic::Ordering::Relaxed);
            match unit {
                Some(Unit::Body(file)) => self.evict_body(file),
                Some(Unit::Log(log)) => self.evict_log(log),
                None => return false,
            }
            tries -= 1;
            if tries == 0 {
                return false;
            }
        }
    }

    fn evict_body(&self, file: u32) {
        let mut index = self.shared.index();
        let Some(body) = index.bodies.get(&file).copied() else {
            return;
        };
        if index.take_reads(body.fingerprint, body.variant) > 0 {
            index.queue.push_back(Unit::Body(file));
            self.shared.metrics.evicted.inc(Evicted::Spared);
            return;
        }
        let slots = index.find(body.fingerprint);
        if let Some(slot) = slots.iter().find(|slot| slot.body_file == file) {
            index.remove_at(body.fingerprint, slot.log, slot.offset);
        }
        drop(index);
        self.shared.drop_body(file);
        self.shared.metrics.evicted.inc(Evicted::Removed);
    }

    fn evict_log(&mut self, log: u32) {
        let listed = match listing(&self.shared.io, self.shared.store, log) {
            Ok((directory, _)) => directory.listed,
            Err(error) => {
                // It is going to be removed; what the index says of it is found to be gone when it is asked for.
                self.shared.metrics.errors.inc(Operation::Read);
                tracing::warn!(%error, log, "a log cannot be read; what it holds is dropped");
                Vec::new()
            }
        };
        let mut spare_bytes = self.shared.limits.log_bytes / 2;
        for listed in listed {
            let record = listed.record;
            let Some(slot) = self.shared.index().live(record.fingerprint, log, listed.offset) else {
                continue;
            };
            let length = u64::from(slot.length);
            if length <= spare_bytes && self.spare(&listed, &slot).unwrap_or(false) {
                spare_bytes -= length;
                self.shared.metrics.evicted.inc(Evicted::Spared);
                continue;
            }
            let removed = self
                .shared
                .index()
                .remove_at(record.fingerprint, log, listed.offset);
            if let Some(removed) = removed {
                self.shared.drop_body(removed.body_file);
                self.shared.metrics.evicted.inc(Evicted::Removed);
            }
        }
        self.shared.drop_log(log);
    }

    /// Writes a record anew, if it is worth it and as it was written. A record whose body is a file of its own is always
    /// worth it: when it goes, its body says.
    fn spare(&mut self, listed: &Listed, slot: &Slot) -> io::Result<bool> {
        let is_external = listed.record.kind == Kind::External;
        let Some(Read { record, meta, body }) = read(&self.shared, slot)? else {
            return Ok(false);
        };
        let Some(known) = meta::decode(&meta) else {
            return Ok(false);
        };
        if slot.reads == 0 && !is_external && !self.shared.memory.contains(&known.key) {
            return Ok(false);
        }
        let place = self.shared.place(slot.log, slot.offset);
        let Some(body) = read_chunks(body, place, 0) else {
            return Ok(false);
        };
        let entry = Entry {
            record,
            meta: &meta,
            body: &body,
            site: slot.site,
            position: known.head.position.number(),
        };
        let mut moved = match self.append(&entry) {
            Ok(moved) => moved,
            Err(error) => {
                self.shared.fail(Operation::Write, &error);
                return Ok(false);
            }
        };
        self.shared.metrics.writes.inc(Written::Spared);
        // A large body's own reads are spent where the body is considered.
        moved.reads = if is_external { slot.reads } else { slot.reads / 2 };
        let mut index = self.shared.index();
        // Somebody may have removed it while it was read.
        if index.live(record.fingerprint, slot.log, slot.offset).is_some() {
            index.put(record.fingerprint, moved);
        }
        Ok(true)
    }
}
