//! One count of the bytes that stored bodies, bodies in flight, readers and coders hold together.
//!
//! What is set aside is given back by `Drop`, wherever the bytes end: a stored body carries its reservation with its bytes
//! ([`Reservation::hold`]), so that one which was evicted counts for as long as a slow client, or the disk's queue, still
//! holds it. The memory tier takes at most its share of the cap; what is left for the rest is a quarter of it, but of a
//! small cap up to a half; and half of that is kept free of bodies that are to be stored, so that others can still stream past.
//! Whoever gets nothing does without, by a rule of its own: a body streams past and is not stored, and a form is not made. Where
//! there is no room even for a stream, it waits for its turn, as what is read from the disk does; the answer is 503 when none comes. Bodies of at most 64 KiB have
//! a sixteenth of the cap that the others leave to them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;

/// What is left to bodies in flight of a cap that is not small.
const FREE_BYTES: u64 = 64 * 1024 * 1024;

/// What a body takes that streams past, besides what its source holds ready: its window, a piece that is being put there and
/// one that is being sent.
pub const WINDOW_BYTES: u64 = 256 * 1024;

/// A body of so few bytes has room where a longer one has not.
const SMALL_BYTES: u64 = 64 * 1024;

/// Of the bytes of a cap, so many for each that waits: what its connection holds meanwhile is little, but not nothing.
const WAITING_BYTES: u64 = 64 * 1024;

/// Each release wakes all who wait, so they are never many.
const WAITING_MAX: usize = 256;

/// What a body that is kept takes besides itself while it arrives.
const ARRIVING_BYTES: u64 = 512 * 1024;

/// The bytes that may be held. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    capacity: u64,
    patience: Duration,
    used: AtomicU64,
    /// How many wait for room, and where.
    waiting: AtomicUsize,
    turn: Notify,
}

impl Inner {
    fn release(&self, bytes: u64) {
        // Whoever got nothing gives nothing back, and wakes nobody.
        if bytes == 0 {
            return;
        }
        self.used.fetch_sub(bytes, Ordering::SeqCst);
        // Looked at after the release, as whoever waits looks for room after saying so.
        if self.waiting.load(Ordering::SeqCst) > 0 {
            // All of them: what is not enough for the first may be enough for another.
            self.turn.notify_waiters();
        }
    }
}

impl Budget {
    /// A budget of `capacity` bytes, for room in which nobody waits.
    pub fn new(capacity: u64) -> Self {
        Self::with_patience(capacity, Duration::ZERO)
    }

    /// As [`Budget::new`]; whoever waits for room waits for at most `patience`.
    pub fn with_patience(capacity: u64, patience: Duration) -> Self {
        Self(Arc::new(Inner {
            capacity,
            patience,
            used: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            turn: Notify::new(),
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

    /// Room for a body of `length` bytes, if that is known, that streams past from a source which may hold `ahead` bytes
    /// ready; `None` when there is not even that.
    pub fn stream(&self, length: Option<u64>, ahead: u64) -> Option<Reservation> {
        let (bytes, limit) = self.of_stream(length, ahead);
        self.within(limit, bytes, bytes)
    }

    /// What a stream takes, and how much may be in use with it.
    fn of_stream(&self, length: Option<u64>, ahead: u64) -> (u64, u64) {
        let most = WINDOW_BYTES + ahead;
        let bytes = length.map_or(most, |length| length.min(most));
        let for_small = if bytes > SMALL_BYTES {
            self.capacity() / 16
        } else {
            0
        };
        (bytes, self.capacity() - for_small)
    }

    /// As [`Budget::stream`], and waits for its turn when there is no room: not when too many wait already, or when there
    /// never will be room.
    pub async fn stream_soon(&self, length: Option<u64>, ahead: u64) -> Option<Reservation> {
        let (bytes, limit) = self.of_stream(length, ahead);
        self.soon(bytes <= limit, || self.stream(length, ahead)).await
    }

    /// As [`Budget::keep`], and waits for its turn as [`Budget::stream_soon`] does.
    pub async fn keep_soon(&self, bytes: u64) -> Option<Reservation> {
        // The store fills its share, and gives nothing of it back.
        let free = self.capacity() - Self::stored_share(self.capacity());
        self.soon(bytes <= free / 2, || self.keep(bytes, bytes)).await
    }

    async fn soon(
        &self,
        is_possible: bool,
        attempt: impl Fn() -> Option<Reservation>,
    ) -> Option<Reservation> {
        let room = attempt();
        if room.is_some() || !is_possible {
            return room;
        }
        let places =
            usize::try_from(self.capacity() / WAITING_BYTES).map_or(WAITING_MAX, |n| n.min(WAITING_MAX));
        let _waiting = Waiting::enter(self, places)?;
        tokio::time::timeout(self.0.patience, self.turn(attempt))
            .await
            .ok()
    }

    async fn turn(&self, attempt: impl Fn() -> Option<Reservation>) -> Reservation {
        loop {
            let mut released = std::pin::pin!(self.0.turn.notified());
            // Before the look, so that nothing is released unseen between that and the wait.
            released.as_mut().enable();
            if let Some(room) = attempt() {
                return room;
            }
            released.await;
        }
    }

    /// How many wait for room.
    pub fn waiting(&self) -> usize {
        self.0.waiting.load(Ordering::SeqCst)
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

/// A place among those who wait.
#[derive(Debug)]
struct Waiting(Budget);

impl Waiting {
    fn enter(budget: &Budget, places: usize) -> Option<Self> {
        let taken = budget.0.waiting.fetch_add(1, Ordering::SeqCst);
        let waiting = Self(budget.clone());
        (taken < places).then_some(waiting)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.0.waiting.fetch_sub(1, Ordering::SeqCst);
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
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |used| {
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
            self.budget.0.release(less);
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
        self.budget.0.release(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinSet;

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
        let stream = budget.stream(Some(250), 0);
        assert!(stream.is_some() && budget.stream(Some(1), 0).is_none());
    }

    #[test]
    fn a_stream_counts_with_what_its_source_holds_and_leaves_room_for_small_bodies() {
        const KIB: u64 = 1024;
        let budget = Budget::new(1024 * KIB);
        let first = budget.stream(None, 128 * KIB).unwrap();
        assert_eq!(budget.used(), WINDOW_BYTES + 128 * KIB);
        let second = budget.stream(Some(1 << 40), 256 * KIB).unwrap();
        assert_eq!(budget.used(), 2 * WINDOW_BYTES + 384 * KIB);
        drop(first);
        let _third = budget.stream(Some(448 * KIB), 256 * KIB).unwrap();
        assert!(
            budget.stream(Some(65 * KIB), 0).is_none(),
            "the last of it is for small ones"
        );
        let small = budget.stream(Some(64 * KIB), 0).unwrap();
        assert!(budget.stream(Some(1), 0).is_none());
        drop((second, small));
        assert!(budget.stream(Some(65 * KIB), 0).is_some());
    }

    #[tokio::test]
    async fn who_finds_no_room_waits_for_the_turn_and_not_for_ever() {
        const LONG: Duration = Duration::from_secs(3600);
        let hasty = Budget::new(1024 * 1024);
        let _all = hasty.count(1024 * 1024);
        assert!(hasty.stream_soon(Some(10), 0).await.is_none());
        let budget = Budget::with_patience(1024 * 1024, LONG);
        let all = budget.count(1024 * 1024);
        let never = budget.stream_soon(None, 1024 * 1024).await;
        assert!(never.is_none(), "nobody waits for what cannot come");
        assert_eq!(budget.waiting(), 0);
        let mut tasks = JoinSet::new();
        for _ in 0..20 {
            let budget = budget.clone();
            tasks.spawn(async move { budget.stream_soon(Some(10), 0).await.is_some() });
        }
        while budget.waiting() < 16 {
            tokio::task::yield_now().await;
        }
        // Sixteen may wait beside such a cap: the others were told so at once.
        tokio::task::yield_now().await;
        assert_eq!(budget.waiting(), 16);
        drop(all);
        let told = tasks.join_all().await;
        assert_eq!(told.iter().filter(|had_room| **had_room).count(), 16);
        assert_eq!((budget.used(), budget.waiting()), (0, 0));
    }

    #[tokio::test]
    async fn what_is_to_be_stored_waits_too_unless_the_store_holds_what_it_would_need() {
        const LONG: Duration = Duration::from_secs(3600);
        const KIB: u64 = 1024;
        let budget = Budget::with_patience(1024 * KIB, LONG);
        let store = budget.count(512 * KIB);
        let first = budget.keep_soon(256 * KIB).await.unwrap();
        assert!(
            budget.keep_soon(256 * KIB + 1).await.is_none(),
            "nobody waits for what cannot come"
        );
        let waits = budget.keep_soon(256 * KIB);
        let releases = async {
            while budget.waiting() == 0 {
                tokio::task::yield_now().await;
            }
            drop(first);
        };
        let (second, ()) = tokio::join!(waits, releases);
        assert_eq!(budget.used(), 768 * KIB);
        drop((store, second));
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
