//! One count of the bytes that stored bodies, bodies in flight, readers and coders hold together.
//!
//! What is set aside is given back by `Drop`, wherever the bytes end: a stored body carries its reservation with its bytes
//! ([`Reservation::hold`]), so that one which was evicted counts for as long as a slow client, or the disk's queue, still
//! holds it. The memory tier takes at most its share of the cap; what is left for the rest is a quarter of it, but of a
//! small cap up to a half; and half of that is kept free of bodies that are to be stored, so that others can still stream past.
//! Whoever gets nothing does without, by a rule of its own: a body streams past and is not stored, a form is not made, and
//! where there is no room even for a stream the answer is 503.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

/// What is left to bodies in flight of a cap that is not small.
const FREE_BYTES: u64 = 64 * 1024 * 1024;

/// What a body takes that streams past: its window, and the pieces that the origin's connection holds ready, of which each
/// may have 400 KiB.
pub const STREAM_BYTES: u64 = 1024 * 1024;

/// What a body that is kept takes besides itself while it arrives.
const ARRIVING_BYTES: u64 = 512 * 1024;

/// The bytes that may be held. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    capacity: u64,
    used: AtomicU64,
}

impl Budget {
    /// A budget of `capacity` bytes.
    pub fn new(capacity: u64) -> Self {
        Self(Arc::new(Inner {
            capacity,
            used: AtomicU64::new(0),
        }))
    }

    /// Sets `bytes` aside, to grow up to `bytes_max`; `None` when the budget has not so much left.
    pub fn reserve(&self, bytes: u64, bytes_max: u64) -> Option<Reservation> {
        self.within(self.capacity(), bytes, bytes_max)
    }

    /// As [`Budget::reserve`], for what is to be stored: leaves room for streams.
    pub fn keep(&self, bytes: u64, bytes_max: u64) -> Option<Reservation> {
        let free = self.capacity() - Self::stored_share(self.capacity());
        self.within(self.capacity() - free / 2, bytes, bytes_max)
    }

    /// Room for a body of `length` bytes that arrives, and is to be stored.
    pub fn arriving(&self, length: u64) -> Option<Reservation> {
        let bytes = length.saturating_add(length.min(ARRIVING_BYTES));
        self.keep(bytes, bytes)
    }

    fn within(&self, limit: u64, bytes: u64, bytes_max: u64) -> Option<Reservation> {
        let mut reservation = Reservation {
            budget: self.clone(),
            limit,
            bytes: 0,
            bytes_max,
        };
        reservation.grow_to(bytes).then_some(reservation)
    }

    /// The memory tier's share of a cap of `capacity` bytes.
    pub fn stored_share(capacity: u64) -> u64 {
        capacity - (capacity / 4).max(FREE_BYTES.min(capacity / 2))
    }

    /// Room for a body of `length` bytes, if that is known, that streams past; `None` when there is not even that.
    pub fn stream(&self, length: Option<u64>) -> Option<Reservation> {
        let bytes = length.map_or(STREAM_BYTES, |length| length.min(STREAM_BYTES));
        self.reserve(bytes, bytes)
    }

    /// Counts `bytes` that are held in any case, and bounded by somebody else. The budget may be exceeded by it, and then
    /// gives nothing more until it is not.
    pub fn count(&self, bytes: u64) -> Reservation {
        self.0.used.fetch_add(bytes, Ordering::Relaxed);
        Reservation {
            budget: self.clone(),
            limit: self.capacity(),
            bytes,
            bytes_max: bytes,
        }
    }

    /// Bytes held now.
    pub fn used(&self) -> u64 {
        self.0.used.load(Ordering::Relaxed)
    }

    /// Bytes that may be held.
    pub fn capacity(&self) -> u64 {
        self.0.capacity
    }
}

/// Bytes set aside; given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    budget: Budget,
    /// What the budget may have in use for this one to grow.
    limit: u64,
    bytes: u64,
    bytes_max: u64,
}

impl Reservation {
    /// Grows to `bytes` in all. `false`, and unchanged, when that is more than its own limit or the budget's.
    pub fn grow_to(&mut self, bytes: u64) -> bool {
        if bytes <= self.bytes {
            return true;
        }
        if bytes > self.bytes_max {
            return false;
        }
        let more = bytes - self.bytes;
        let (inner, limit) = (&self.budget.0, self.limit);
        let grown = inner
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(more).filter(|sum| *sum <= limit)
            });
        if grown.is_ok() {
            self.bytes = bytes;
        }
        grown.is_ok()
    }

    /// Gives back what is more than `bytes`.
    pub fn shrink_to(&mut self, bytes: u64) {
        if let Some(less) = self.bytes.checked_sub(bytes) {
            self.budget.0.used.fetch_sub(less, Ordering::Relaxed);
            self.bytes = bytes;
        }
    }

    /// The budget that it is part of.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// `bytes`, which count from now on for as long as anybody holds any of them.
    pub fn hold(mut self, mut bytes: Vec<u8>) -> Bytes {
        if bytes.is_empty() {
            return Bytes::new();
        }
        bytes.shrink_to_fit();
        self.shrink_to(bytes.len() as u64);
        Bytes::from_owner(Held {
            bytes,
            _reservation: self,
        })
    }
}

/// Bytes, and what was set aside for them.
struct Held {
    bytes: Vec<u8>,
    _reservation: Reservation,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.0.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_never_exceeded_and_always_given_back() {
        let budget = Budget::new(100);
        let mut first = budget.reserve(40, 80).unwrap();
        assert!(budget.reserve(61, 100).is_none());
        assert!(!first.grow_to(81), "its own limit");
        assert!(first.grow_to(80));
        assert!(budget.reserve(21, 100).is_none());
        let second = budget.reserve(20, 20).unwrap();
        assert_eq!(budget.used(), 100);
        drop((first, second));
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn bytes_count_until_the_last_who_holds_any_lets_go() {
        let budget = Budget::new(100);
        let mut body = budget.reserve(60, 60).unwrap().hold(vec![7; 40]);
        assert_eq!(budget.used(), 40);
        let slow = body.split_off(30);
        drop(body);
        assert_eq!(budget.used(), 40, "some of it is still to be sent");
        drop(slow);
        assert_eq!(budget.used(), 0);
        let counted = budget.count(150);
        assert!(budget.reserve(1, 1).is_none());
        drop(counted);
        assert!(budget.reserve(1, 1).is_some());
    }

    #[test]
    fn what_is_to_be_stored_leaves_room_for_streams() {
        let budget = Budget::new(1000);
        let mut kept = budget.keep(700, 900).unwrap();
        assert!(
            !kept.grow_to(751),
            "a half is the store's, and half of the rest the streams'"
        );
        assert!(kept.grow_to(750));
        assert!(budget.keep(1, 1).is_none());
        let stream = budget.stream(Some(250));
        assert!(stream.is_some() && budget.stream(Some(1)).is_none());
    }

    #[test]
    fn what_is_left_beside_the_store_is_enough_for_streams() {
        const MIB: u64 = 1024 * 1024;
        let check =
            |cap: u64, stored: u64| assert_eq!(Budget::stored_share(cap * MIB), stored * MIB, "{cap}");
        check(4, 2);
        check(64, 32);
        check(512, 384);
        check(256, 192);
        check(160, 96);
    }
}
