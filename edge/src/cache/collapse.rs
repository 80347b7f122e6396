//! Request collapsing (RFC 9111 section 4): many requests for one key become one fetch.
//!
//! The first request for a key makes a `Flight` and gets the [`Leader`], which it hands to the control plane; from
//! then on it waits like everybody else. So a fetch belongs to this table and to no client: one that leaves neither
//! slows nor ends it. Every [`Follower`] gets an answer: what was fetched, the failure, or leave to fetch alone. The
//! last also when the leader is dropped without a word.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{oneshot, watch};

use super::epoch::Position;
use super::key::Key;

/// The flights that are under way, by key. `H` is what followers are told once the origin's head is there, `S` what
/// they are told when the answer is in the store, and `E` the failure.
#[derive(Debug)]
pub struct Collapse<H, S, E>(Table<H, S, E>);

type Table<H, S, E> = Arc<Mutex<HashMap<Key, Arc<Flight<H, S, E>>>>>;

/// A way in: to wait, and for the first one the duty to fetch.
type Entered<H, S, E> = (Follower<H, S, E>, Option<Leader<H, S, E>>);

/// What a flight has come to.
#[derive(Debug)]
pub enum Progress<H, S, E> {
    /// The origin has not answered yet.
    Asked,
    /// The origin's head is there, and the body can be followed by all.
    Arriving(H),
    /// The answer is one that was stored, or confirmed.
    Stored(S),
    /// The origin failed.
    Failed(E),
    /// The answer is for one client only: fetch alone.
    Alone,
}

impl<H: Clone, S: Clone, E: Clone> Clone for Progress<H, S, E> {
    fn clone(&self) -> Self {
        match self {
            Self::Asked => Self::Asked,
            Self::Arriving(head) => Self::Arriving(head.clone()),
            Self::Stored(stored) => Self::Stored(stored.clone()),
            Self::Failed(error) => Self::Failed(error.clone()),
            Self::Alone => Self::Alone,
        }
    }
}

#[derive(Debug)]
struct Flight<H, S, E> {
    position: Position,
    slow: Arc<AtomicBool>,
    progress: watch::Receiver<Progress<H, S, E>>,
}

/// Waits for a flight.
#[derive(Debug)]
pub struct Follower<H, S, E> {
    progress: watch::Receiver<Progress<H, S, E>>,
    /// Whether somebody lost patience with the flight.
    slow: Arc<AtomicBool>,
    /// What the first request gets when the answer is for it alone.
    own: Option<oneshot::Receiver<H>>,
}

/// The duty to answer a flight. Dropped, it tells all followers to fetch alone.
#[derive(Debug)]
pub struct Leader<H, S, E> {
    key: Key,
    flight: Arc<Flight<H, S, E>>,
    progress: watch::Sender<Progress<H, S, E>>,
    own: Option<oneshot::Sender<H>>,
    table: Table<H, S, E>,
    /// The epoch at which the fetch begins.
    pub position: Position,
}

/// What a follower is given in the end.
#[derive(Debug)]
pub enum Landing<H, S, E> {
    /// The body is arriving, for all who asked.
    Arriving(H),
    /// The body is arriving, for this follower only.
    Own(H),
    /// It is stored.
    Stored(S),
    /// The origin failed.
    Failed(E),
    /// Fetch alone.
    Alone,
}

impl<H, S, E> Clone for Collapse<H, S, E> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<H, S, E> Default for Collapse<H, S, E> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(HashMap::new())))
    }
}

impl<H: Clone, S: Clone, E: Clone> Collapse<H, S, E> {
    /// Joins the flight for `key`, or makes it. A flight that began before the epoch `now` is not joined, for a purge
    /// may stand between; it goes on for those who wait for it, and a new one takes its place.
    pub fn enter(&self, key: &Key, now: Position) -> Entered<H, S, E> {
        let mut table = lock(&self.0);
        if let Some(flight) = table.get(key)
            && flight.position >= now
        {
            return (
                Follower {
                    progress: flight.progress.clone(),
                    slow: Arc::clone(&flight.slow),
                    own: None,
                },
                None,
            );
        }
        let (follower, leader) = self.alone(key, now);
        table.insert(key.clone(), Arc::clone(&leader.flight));
        (follower, Some(leader))
    }

    /// A flight that nobody else can join.
    pub fn alone(&self, key: &Key, now: Position) -> (Follower<H, S, E>, Leader<H, S, E>) {
        let (sender, receiver) = watch::channel(Progress::Asked);
        let (own_sender, own_receiver) = oneshot::channel();
        let slow = Arc::<AtomicBool>::default();
        let leader = Leader {
            key: key.clone(),
            flight: Arc::new(Flight {
                position: now,
                slow: Arc::clone(&slow),
                progress: receiver.clone(),
            }),
            progress: sender,
            own: Some(own_sender),
            table: Arc::clone(&self.0),
            position: now,
        };
        (
            Follower {
                progress: receiver,
                slow,
                own: Some(own_receiver),
            },
            leader,
        )
    }

    /// Whether a flight for `key` is under way.
    pub fn contains(&self, key: &Key) -> bool {
        lock(&self.0).contains_key(key)
    }

    /// How many flights are under way.
    pub fn len(&self) -> usize {
        lock(&self.0).len()
    }

    /// Whether no flight is under way.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<H, S, E> Leader<H, S, E> {
    /// The head is there, and everybody may follow the body.
    pub fn arriving(&mut self, head: H) {
        self.own = None;
        self.progress.send_replace(Progress::Arriving(head));
    }

    /// Takes the flight out of the table: who comes from now on does not join it. Those who wait for it still land.
    pub fn leave(&self) {
        let mut table = lock(&self.table);
        if table
            .get(&self.key)
            .is_some_and(|flight| Arc::ptr_eq(flight, &self.flight))
        {
            table.remove(&self.key);
        }
    }

    /// The answer is for the request that began the flight; the others fetch alone. `false` when that one is gone.
    pub fn own(mut self, head: H) -> bool {
        self.leave();
        let taken = self.own.take().is_some_and(|own| own.send(head).is_ok());
        self.progress.send_replace(Progress::Alone);
        taken
    }

    /// The answer is stored.
    pub fn stored(self, stored: S) {
        self.leave();
        self.progress.send_replace(Progress::Stored(stored));
    }

    /// The origin failed. The flight stays in the table, so that nobody asks again, until the leader is dropped.
    pub fn failed(&mut self, error: E) {
        self.own = None;
        self.progress.send_replace(Progress::Failed(error));
    }
}

impl<H, S, E> Drop for Leader<H, S, E> {
    fn drop(&mut self) {
        self.progress.send_if_modified(|progress| {
            let silent = matches!(progress, Progress::Asked);
            if silent {
                *progress = Progress::Alone;
            }
            silent
        });
        self.leave();
    }
}

impl<H: Clone, S: Clone, E: Clone> Follower<H, S, E> {
    /// Whether this is the request that began the flight.
    pub fn is_first(&self) -> bool {
        self.own.is_some()
    }

    /// Notes that the flight takes its time, for those who come later.
    pub fn lose_patience(&self) {
        self.slow.store(true, Ordering::Relaxed);
    }

    /// Whether somebody waited for the flight in vain already.
    pub fn is_slow(&self) -> bool {
        self.slow.load(Ordering::Relaxed)
    }

    /// Waits for the flight's outcome. Cancel-safe: it may be called again.
    pub async fn land(&mut self) -> Landing<H, S, E> {
        let known = self
            .progress
            .wait_for(|progress| !matches!(progress, Progress::Asked))
            .await;
        let progress = known.map_or(Progress::Alone, |progress| progress.clone());
        match progress {
            Progress::Arriving(head) => Landing::Arriving(head),
            Progress::Stored(stored) => Landing::Stored(stored),
            Progress::Failed(error) => Landing::Failed(error),
            Progress::Alone | Progress::Asked => {
                let own = self.own.take().and_then(|mut own| own.try_recv().ok());
                own.map_or(Landing::Alone, Landing::Own)
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::epoch::Epochs;

    type Flights = Collapse<&'static str, &'static str, &'static str>;

    fn key() -> Key {
        Key::new("assets", "cdn.example.com", "/a.js", None)
    }

    #[tokio::test]
    async fn many_enter_and_one_leads() {
        let (table, now) = (Flights::default(), Epochs::default().now());
        let (mut first, leader) = table.enter(&key(), now);
        let (mut second, none) = table.enter(&key(), now);
        assert!(none.is_none() && first.is_first() && !second.is_first());
        leader.unwrap().stored("body");
        assert!(matches!(first.land().await, Landing::Stored("body")));
        assert!(matches!(second.land().await, Landing::Stored("body")));
        assert!(table.is_empty());
    }

    #[tokio::test]
    async fn a_leader_that_dies_gives_every_follower_leave_to_go_alone() {
        let (table, now) = (Flights::default(), Epochs::default().now());
        let (mut first, leader) = table.enter(&key(), now);
        let (mut second, _) = table.enter(&key(), now);
        drop(leader);
        assert!(matches!(first.land().await, Landing::Alone));
        assert!(matches!(second.land().await, Landing::Alone));
        assert!(table.is_empty());
    }

    #[tokio::test]
    async fn a_private_answer_reaches_only_the_one_who_asked_first() {
        let (table, now) = (Flights::default(), Epochs::default().now());
        let (mut first, leader) = table.enter(&key(), now);
        let (mut second, _) = table.enter(&key(), now);
        assert!(leader.unwrap().own("mine"));
        assert!(matches!(first.land().await, Landing::Own("mine")));
        assert!(matches!(second.land().await, Landing::Alone));
    }

    #[tokio::test]
    async fn a_private_answer_for_a_client_that_left_is_refused() {
        let (table, now) = (Flights::default(), Epochs::default().now());
        let (first, leader) = table.enter(&key(), now);
        drop(first);
        assert!(!leader.unwrap().own("mine"));
    }

    #[tokio::test]
    async fn a_failure_is_told_to_late_comers_until_the_leader_goes() {
        let (table, now) = (Flights::default(), Epochs::default().now());
        let (_first, leader) = table.enter(&key(), now);
        let mut leader = leader.unwrap();
        leader.failed("down");
        let (mut late, none) = table.enter(&key(), now);
        assert!(none.is_none());
        assert!(matches!(late.land().await, Landing::Failed("down")));
        drop(leader);
        assert!(table.enter(&key(), now).1.is_some());
    }

    #[tokio::test]
    async fn who_comes_after_one_that_lost_patience_knows() {
        let (table, now) = (Flights::default(), Epochs::default().now());
        let (first, _leader) = table.enter(&key(), now);
        assert!(!table.enter(&key(), now).0.is_slow());
        first.lose_patience();
        assert!(table.enter(&key(), now).0.is_slow());
    }

    #[tokio::test]
    async fn a_request_after_a_purge_does_not_join_a_flight_from_before() {
        let (table, epochs) = (Flights::default(), Epochs::default());
        let (mut before, old) = table.enter(&key(), epochs.now());
        epochs.purge(&crate::cache::epoch::Purge {
            everything: true,
            ..Default::default()
        });
        let (mut after, new) = table.enter(&key(), epochs.now());
        old.unwrap().stored("old");
        assert_eq!(table.len(), 1, "the old leader leaves the new flight alone");
        new.unwrap().stored("new");
        assert!(matches!(before.land().await, Landing::Stored("old")));
        assert!(matches!(after.land().await, Landing::Stored("new")));
    }
}
