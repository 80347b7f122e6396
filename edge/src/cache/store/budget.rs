//! Bytes in flight: what bodies that still arrive, and coders at work, may hold together.
//!
//! The memory cap is split once, at start: a quarter for bytes in flight, three quarters for what is stored. So the sum
//! cannot exceed the cap, whatever the load. A body that gets no allowance streams past and is not stored.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The bytes that may be in flight. Cheap to clone.
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
        let mut reservation = Reservation {
            budget: self.clone(),
            bytes: 0,
            bytes_max,
        };
        reservation.grow_to(bytes).then_some(reservation)
    }

    /// Bytes in flight now.
    pub fn used(&self) -> u64 {
        self.0.used.load(Ordering::Relaxed)
    }

    /// Bytes that may be in flight.
    pub fn capacity(&self) -> u64 {
        self.0.capacity
    }
}

/// Bytes set aside; given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    budget: Budget,
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
        let inner = &self.budget.0;
        let grown = inner
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(more).filter(|sum| *sum <= inner.capacity)
            });
        if grown.is_ok() {
            self.bytes = bytes;
        }
        grown.is_ok()
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
}
