//! The memory tier: moka, weighed in bytes.

use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use moka::Equivalent;
use moka::notification::RemovalCause;
use moka::ops::compute::Op;
use moka::sync::Cache;

use super::{Budget, StoredResponse};
use crate::cache::key::Key;
use crate::telemetry::metrics::{Family, Label, Registry};

/// How many stored responses one key may hold: by Vary, and by bucket. The oldest goes first.
const VARIANTS_MAX: usize = 8;

/// All stored responses of one key, the newest first. Never empty.
#[derive(Clone, Debug)]
pub struct Entry(Arc<[Arc<StoredResponse>]>);

impl Entry {
    /// What was found elsewhere, the newest first.
    pub fn new(variants: Vec<Arc<StoredResponse>>) -> Self {
        Self(variants.into())
    }

    /// The stored responses, the newest first.
    pub fn variants(&self) -> &[Arc<StoredResponse>] {
        &self.0
    }

    fn bytes(&self, key: &Key) -> u64 {
        self.0.iter().map(|stored| stored.bytes()).sum::<u64>() + place_bytes(key)
    }
}

/// What the place of an entry takes besides the responses.
fn place_bytes(key: &Key) -> u64 {
    key.as_str().len() as u64 + 256
}

/// The memory tier. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Memory {
    cache: Cache<Key, Entry, Hashed>,
    budget: Budget,
}

impl Memory {
    /// A store that takes its share of `budget`. The bodies that it is given carry their reservation; the rest of a response
    /// is counted here.
    pub fn new(budget: Budget, registry: &Registry) -> Self {
        let removed: Family<Removal> = registry.family(
            "edge_cache_removed_total",
            "Entries that left the memory tier, by cause.",
        );
        let cache = Cache::builder()
            .max_capacity(Budget::stored_share(budget.capacity()))
            .weigher(|key: &Key, entry: &Entry| u32::try_from(entry.bytes(key)).unwrap_or(u32::MAX))
            .eviction_listener(move |_, _, cause| removed.inc(Removal::of(cause)))
            .build_with_hasher(Hashed);
        let (bytes, entries) = (cache.clone(), cache.clone());
        registry.gauge_fn(
            "edge_cache_memory_bytes",
            "Bytes stored in the memory tier.",
            move || bytes.weighted_size() as f64,
        );
        registry.gauge_fn(
            "edge_cache_memory_entries",
            "Keys stored in the memory tier.",
            move || entries.entry_count() as f64,
        );
        Self { cache, budget }
    }

    /// The budget that it takes its share of.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// What is stored under `key`.
    pub fn find<Q>(&self, key: &Q) -> Option<Entry>
    where
        Q: Equivalent<Key> + Hash + ?Sized,
    {
        self.cache.get(key)
    }

    /// Stores `response` under `key`, in place of those it `replaces` (the same bucket and the same Vary).
    pub fn insert(&self, key: &Key, response: Arc<StoredResponse>) {
        response.count(&self.budget, place_bytes(key));
        self.cache.entry(key.clone()).and_upsert_with(|held| {
            let held = held.map(moka::Entry::into_value);
            let overtaken = |old: &Arc<StoredResponse>| {
                replaces(&response, old) && old.head.position > response.head.position
            };
            // A fetch that a purge overtook does not push out what was fetched after that purge.
            if let Some(held) = held.as_ref().filter(|held| held.variants().iter().any(overtaken)) {
                return held.clone();
            }
            let kept = held
                .iter()
                .flat_map(|entry| entry.variants())
                .filter(|old| !replaces(&response, old))
                .cloned();
            let mut variants = vec![Arc::clone(&response)];
            variants.extend(kept.take(VARIANTS_MAX - 1));
            Entry(variants.into())
        });
        self.cache.run_pending_tasks();
    }

    /// Puts a response that was found on disk beside what is stored under `key`, unless its like is there already: that is
    /// as new, or newer.
    pub fn restore(&self, key: &Key, response: Arc<StoredResponse>) {
        response.count(&self.budget, place_bytes(key));
        self.cache.entry(key.clone()).and_compute_with(|held| {
            let held = held.map(moka::Entry::into_value);
            let held = held.as_ref().map(Entry::variants).unwrap_or_default();
            if held.iter().any(|old| replaces(&response, old)) {
                return Op::Nop;
            }
            let mut variants = held.to_vec();
            variants.truncate(VARIANTS_MAX - 1);
            variants.push(Arc::clone(&response));
            Op::Put(Entry(variants.into()))
        });
        self.cache.run_pending_tasks();
    }

    /// Whether anything is stored under `key`. This is no use of it.
    pub fn contains(&self, key: &Key) -> bool {
        self.cache.contains_key(key)
    }

    /// Puts `change(stored)` in the place of the stored response with the head `id`. Does nothing when it is gone.
    pub fn update<F>(&self, key: &Key, id: u64, change: F)
    where
        F: Fn(&StoredResponse) -> StoredResponse,
    {
        self.cache.entry_by_ref(key).and_compute_with(|held| {
            let Some(held) = held.map(moka::Entry::into_value) else {
                return Op::Nop;
            };
            if !held.variants().iter().any(|stored| stored.head.id == id) {
                return Op::Nop;
            }
            let changed = |stored: &Arc<StoredResponse>| {
                if stored.head.id == id {
                    let changed = Arc::new(change(stored));
                    changed.count(&self.budget, place_bytes(key));
                    changed
                } else {
                    Arc::clone(stored)
                }
            };
            Op::Put(Entry(held.variants().iter().map(changed).collect()))
        });
        self.cache.run_pending_tasks();
    }

    /// Drops everything under `key`: an unsafe method invalidated it, or nothing of it may be used any more.
    pub fn remove(&self, key: &Key) {
        self.cache.invalidate(key);
    }

    /// Bytes stored.
    pub fn bytes(&self) -> u64 {
        self.cache.run_pending_tasks();
        self.cache.weighted_size()
    }

    /// Keys stored.
    pub fn entries(&self) -> u64 {
        self.cache.run_pending_tasks();
        self.cache.entry_count()
    }
}

/// A part never takes the place of a whole.
fn replaces(new: &StoredResponse, old: &StoredResponse) -> bool {
    new.head.source == old.head.source
        && new.head.vary == old.head.vary
        && (new.head.part.is_none() || old.head.part.is_some())
}

/// Why an entry left.
#[derive(Clone, Copy, Debug)]
enum Removal {
    Evicted,
    Replaced,
    Removed,
}

impl Removal {
    fn of(cause: RemovalCause) -> Self {
        match cause {
            RemovalCause::Size | RemovalCause::Expired => Self::Evicted,
            RemovalCause::Replaced => Self::Replaced,
            RemovalCause::Explicit => Self::Removed,
        }
    }
}

impl Label for Removal {
    const NAME: &'static str = "cause";
    const VALUES: &'static [&'static str] = &["evicted", "replaced", "removed"];

    fn index(self) -> usize {
        self as usize
    }
}

/// Keys bring their own hash, seeded for this process; this only passes it on.
#[derive(Clone, Copy, Debug, Default)]
struct Hashed;

impl BuildHasher for Hashed {
    type Hasher = Passed;

    fn build_hasher(&self) -> Passed {
        Passed(0)
    }
}

#[derive(Debug)]
struct Passed(u64);

impl Hasher for Passed {
    fn write(&mut self, bytes: &[u8]) {
        // Keys only ever write one u64; anything else is folded so that the hasher stays a hasher.
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
