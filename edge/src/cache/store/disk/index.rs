//! What is on the disk and where, held in memory: about 70 bytes for each stored response, and nothing of its fields.
//!
//! It also counts: bytes by file and by site, and how often each response was read, which is what eviction goes by.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

/// Where one stored response lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    /// The log that holds its record.
    pub(super) log: u32,
    /// The record's place in it.
    pub(super) offset: u32,
    /// The record's length.
    pub(super) length: u32,
    /// Which of the key's responses it is.
    pub(super) variant: u32,
    /// When it was written, in seconds since 1970.
    pub(super) written: u32,
    /// The file of its body; 0 when that lies behind the record.
    pub(super) body_file: u32,
    /// Its site, as a place in the list of names.
    pub(super) site: u16,
    /// How often it was read since it was written or last spared.
    pub(super) reads: u8,
}

impl Slot {
    fn is_at(&self, log: u32, offset: u32) -> bool {
        self.log == log && self.offset == offset
    }
}

/// The responses of one key: nearly always one.
#[derive(Clone, Debug)]
enum Slots {
    One(Slot),
    #[expect(clippy::box_collection, reason = "keeps the nearly always small case small")]
    Many(Box<Vec<Slot>>),
}

impl Slots {
    fn as_slice(&self) -> &[Slot] {
        match self {
            Self::One(slot) => std::slice::from_ref(slot),
            Self::Many(slots) => slots,
        }
    }

    fn as_mut_slice(&mut self) -> &mut [Slot] {
        match self {
            Self::One(slot) => std::slice::from_mut(slot),
            Self::Many(slots) => slots,
        }
    }
}

/// Something that is evicted as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// A full log.
    Log(u32),
    /// A body.
    Body(u32),
}

/// A body's file.
#[derive(Clone, Copy, Debug)]
pub(super) struct BodyFile {
    /// Its bytes on the disk.
    pub(super) bytes: u64,
    /// Whose it is.
    pub(super) fingerprint: u64,
    pub(super) variant: u32,
}

/// What a site has on the disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SiteTotal {
    /// The site's own host.
    pub name: Box<str>,
    /// Stored responses.
    pub entries: u64,
    /// Their bytes, records and bodies.
    pub bytes: u64,
}

/// Fingerprints are digests already.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Passed(u64);

impl Hasher for Passed {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// The index.
#[derive(Debug, Default)]
pub(super) struct Index {
    slots: HashMap<u64, Slots, BuildHasherDefault<Passed>>,
    /// Bytes of each log.
    pub(super) logs: HashMap<u32, u64>,
    /// Every body that belongs to a response.
    pub(super) bodies: HashMap<u32, BodyFile>,
    /// What is evicted next, at the front.
    pub(super) queue: VecDeque<Unit>,
    sites: Vec<SiteTotal>,
    entries: u64,
    /// Bytes of all files, and of those that were promised to bodies under way.
    pub(super) bytes: u64,
    /// Removals that are in the queue: what was queued before them must not come back.
    pub(super) barriers: HashMap<u64, u64>,
}

impl Index {
    /// Room for so many, so that a start does not grow it step by step.
    pub(super) fn reserve(&mut self, entries: usize) {
        self.slots.reserve(entries);
    }

    /// The place of a site in the list of names.
    pub(super) fn site(&mut self, name: &str) -> u16 {
        let place = self.sites.iter().position(|site| &*site.name == name);
        let place = place.unwrap_or_else(|| {
            self.sites.push(SiteTotal {
                name: name.into(),
                ..SiteTotal::default()
            });
            self.sites.len() - 1
        });
        u16::try_from(place).unwrap_or(u16::MAX)
    }

    /// What each site has.
    pub(super) fn sites(&self) -> &[SiteTotal] {
        &self.sites
    }

    /// Stored responses.
    pub(super) fn entries(&self) -> u64 {
        self.entries
    }

    /// Whether anything is stored under the fingerprint.
    pub(super) fn has(&self, fingerprint: u64) -> bool {
        self.slots.contains_key(&fingerprint)
    }

    /// What is stored under the fingerprint.
    pub(super) fn find(&self, fingerprint: u64) -> Vec<Slot> {
        self.slots
            .get(&fingerprint)
            .map_or_else(Vec::new, |slots| slots.as_slice().to_vec())
    }

    /// The response that alone is stored under the fingerprint.
    pub(super) fn only(&self, fingerprint: u64) -> Option<Slot> {
        match self.slots.get(&fingerprint)?.as_slice() {
            [only] => Some(*only),
            _ => None,
        }
    }

    /// Whether the response is still the one at this place.
    pub(super) fn live(&self, fingerprint: u64, log: u32, offset: u32) -> Option<Slot> {
        let slots = self.slots.get(&fingerprint)?.as_slice();
        slots.iter().find(|slot| slot.is_at(log, offset)).copied()
    }

    /// Notes that it was read.
    pub(super) fn count_read(&mut self, fingerprint: u64, variant: u32) {
        let slots = self.slots.get_mut(&fingerprint).map(Slots::as_mut_slice);
        for slot in slots.into_iter().flatten().filter(|slot| slot.variant == variant) {
            slot.reads = slot.reads.saturating_add(1);
        }
    }

    /// Halves the reads of a body's owner; what they were.
    pub(super) fn take_reads(&mut self, fingerprint: u64, variant: u32) -> u8 {
        let slots = self.slots.get_mut(&fingerprint).map(Slots::as_mut_slice);
        let mut slots = slots.into_iter().flatten();
        let Some(slot) = slots.find(|slot| slot.variant == variant) else {
            return 0;
        };
        let reads = slot.reads;
        slot.reads /= 2;
        reads
    }

    /// Puts a slot in the place of the one of the same variant, which is given back.
    pub(super) fn put(&mut self, fingerprint: u64, slot: Slot) -> Option<Slot> {
        let new = match self.slots.entry(fingerprint) {
            // Nearly always, and one look at the table: a start does this for every response there is.
            Entry::Vacant(vacant) => {
                vacant.insert(Slots::One(slot));
                true
            }
            Entry::Occupied(_) => false,
        };
        if new {
            self.count(&slot, true);
            return None;
        }
        let replaced = self.take(fingerprint, |held| held.variant == slot.variant).pop();
        match self.slots.get_mut(&fingerprint) {
            None => {
                self.slots.insert(fingerprint, Slots::One(slot));
            }
            Some(Slots::Many(slots)) => slots.push(slot),
            Some(slots) => {
                let mut many = slots.as_slice().to_vec();
                many.push(slot);
                *slots = Slots::Many(Box::new(many));
            }
        }
        self.count(&slot, true);
        replaced
    }

    /// Removes what is stored under the fingerprint and at this place.
    pub(super) fn remove_at(&mut self, fingerprint: u64, log: u32, offset: u32) -> Option<Slot> {
        self.take(fingerprint, |slot| slot.is_at(log, offset)).pop()
    }

    /// Removes one response of a key.
    pub(super) fn remove_variant(&mut self, fingerprint: u64, variant: u32) -> Option<Slot> {
        self.take(fingerprint, |slot| slot.variant == variant).pop()
    }

    /// Removes everything under the fingerprint.
    pub(super) fn remove(&mut self, fingerprint: u64) -> Vec<Slot> {
        self.take(fingerprint, |_| true)
    }

    /// The fingerprints and slots of everything: for verification.
    pub(super) fn all(&self) -> Vec<(u64, Slot)> {
        let each = |(fingerprint, slots): (&u64, &Slots)| -> Vec<(u64, Slot)> {
            slots
                .as_slice()
                .iter()
                .map(|slot| (*fingerprint, *slot))
                .collect()
        };
        self.slots.iter().flat_map(each).collect()
    }

    fn take(&mut self, fingerprint: u64, which: impl Fn(&Slot) -> bool) -> Vec<Slot> {
        let Some(slots) = self.slots.get_mut(&fingerprint) else {
            return Vec::new();
        };
        let (taken, kept): (Vec<Slot>, Vec<Slot>) = slots.as_slice().iter().partition(|slot| which(slot));
        match kept.as_slice() {
            [] => {
                self.slots.remove(&fingerprint);
            }
            [one] => *slots = Slots::One(*one),
            _ => *slots = Slots::Many(Box::new(kept)),
        }
        for slot in &taken {
            self.count(slot, false);
        }
        taken
    }

    fn count(&mut self, slot: &Slot, more: bool) {
        let body = match slot.body_file {
            0 => 0,
            file => self.bodies.get(&file).map_or(0, |body| body.bytes),
        };
        let bytes = u64::from(slot.length) + body;
        let site = self.sites.get_mut(usize::from(slot.site));
        if more {
            self.entries += 1;
        } else {
            self.entries = self.entries.saturating_sub(1);
        }
        if let Some(site) = site {
            if more {
                site.entries += 1;
                site.bytes += bytes;
            } else {
                site.entries = site.entries.saturating_sub(1);
                site.bytes = site.bytes.saturating_sub(bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(variant: u32, offset: u32) -> Slot {
        Slot {
            log: 1,
            offset,
            length: 100,
            variant,
            written: 0,
            body_file: 0,
            site: 0,
            reads: 0,
        }
    }

    #[test]
    fn a_slot_is_small() {
        assert!(size_of::<(u64, Slots)>() <= 40, "{}", size_of::<(u64, Slots)>());
    }

    #[test]
    fn variants_replace_their_like_and_totals_follow() {
        let mut index = Index::default();
        assert_eq!(index.site("cdn.example"), 0);
        assert_eq!(index.put(7, slot(1, 32)), None);
        assert_eq!(index.put(7, slot(2, 64)), None);
        assert_eq!(index.put(7, slot(1, 96)), Some(slot(1, 32)));
        assert_eq!((index.entries(), index.sites()[0].bytes), (2, 200));
        assert_eq!(index.live(7, 1, 32), None);
        assert_eq!(index.live(7, 1, 96), Some(slot(1, 96)));
        assert_eq!(index.remove_at(7, 1, 32), None, "another stands there now");
        assert_eq!(index.remove(7).len(), 2);
        assert_eq!((index.entries(), index.sites()[0].bytes), (0, 0));
        assert!(!index.has(7));
    }

    #[test]
    fn reads_are_counted_and_spent() {
        let mut index = Index::default();
        index.put(7, slot(1, 32));
        for _ in 0..3 {
            index.count_read(7, 1);
        }
        assert_eq!(index.take_reads(7, 1), 3);
        assert_eq!(index.take_reads(7, 1), 1);
        assert_eq!(index.take_reads(7, 1), 0);
        assert_eq!(index.take_reads(8, 1), 0);
    }
}
