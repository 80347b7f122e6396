//! Keeps the certificates of a node: follows the shared store, and renews what is due when it gets the lease.
//!
//! Each certificate is attended on its own, so an order that gets stuck holds up no other. Whatever comes from the store is
//! checked before it serves; what served last stays otherwise. What is served is also kept on this node's disk, so that it can
//! start while the store is down. When to look again is slept here; tasks are started by the caller.

mod account;
mod adopt;
mod local;
mod operate;
mod renew;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, OnceCell, Semaphore};

use self::account::{Account, Looks};
use self::local::Local;
use crate::acme::Answers;
use crate::bundle::Bundle;
use crate::renewal::{Decision, Life, Situation, Window, decide};
use crate::settings::{KeyKind, Managed, Settings, StorePlace};
use crate::store::seal::KeyError;
use crate::store::slot::from_unix;
use crate::store::{Bucket, Folder, Keyring, Objects, Shared, Slot};
use crate::tickets::Now;

pub use self::operate::{Listed, OperateError};

/// Orders of one node at a time; the others wait.
const ORDERS_MAX: usize = 4;

/// Called after what is served has changed, or whether this node is behind the others.
pub type Changed = Box<dyn Fn() + Send + Sync>;

/// Keeps certificates.
pub struct Keeper {
    settings: Settings,
    keys: Keyring,
    tended: Vec<Tended>,
    shared: OnceCell<Shared>,
    answers: Arc<Answers>,
    /// By the directory of their CA.
    accounts: Mutex<HashMap<String, Account>>,
    looks: Looks,
    local: Local,
    orders: Semaphore,
    now: Now,
    changed: Changed,
}

/// One certificate: one set of names and one kind of key.
struct Tended {
    managed: Managed,
    kind: KeyKind,
    id: String,
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Clone, Debug, Default)]
struct State {
    served: Option<Arc<Bundle>>,
    slot: Slot,
    window: Option<Window>,
    /// The renewal information is asked for again then.
    ari_at: Option<SystemTime>,
    refused: Option<&'static str>,
    last: Option<(SystemTime, bool)>,
    holding: bool,
    store_ok: bool,
    /// Whether the store was ever read.
    looked: bool,
}

/// What came of attending a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Another node is at work.
    Busy(String),
    /// It was ordered, and failed.
    Failed(String),
    /// It was ordered, and is published.
    Issued,
    /// The lease was lost meanwhile: what was done for it counts for nothing.
    Lost,
    /// What the store holds cannot be read with the keys of this node: an order would not mend that.
    NoKey,
    /// The store does not answer.
    StoreDown(String),
    /// Nothing to do before then.
    Waiting(SystemTime),
}

impl Outcome {
    /// Whether nothing is left to be done now.
    pub fn is_settled(&self) -> bool {
        matches!(self, Self::Issued | Self::Waiting(_))
    }
}

/// How a certificate is, for metrics and status.
#[derive(Clone, Debug)]
pub struct Status {
    /// What it is called in the store.
    pub id: String,
    /// What is served.
    pub served: Option<Arc<Bundle>>,
    /// The node that holds the lease, as far as this one knows.
    pub holder: Option<String>,
    /// Whether this node is at work on it.
    pub holding: bool,
    /// When this node last ordered, and whether it came to something.
    pub last: Option<(SystemTime, bool)>,
    /// Failures in a row, of all nodes.
    pub failures: u32,
    /// What the last one said.
    pub reason: Option<String>,
    /// Why what is in the store is not served, if so.
    pub refused: Option<&'static str>,
    /// Whether the store answered last time.
    pub store_ok: bool,
}

impl Keeper {
    /// A keeper of `settings`, with what is on this node's disk.
    pub fn open(settings: Settings, now: Now, changed: Changed) -> Result<Self, KeyError> {
        let keys = Keyring::parse(&settings.store.keys.0)?;
        let local = Local::new(&settings.store.state, keys.clone());
        let tended = settings.managed.iter().flat_map(|managed| {
            managed.keys.iter().map(|kind| Tended {
                managed: managed.clone(),
                kind: *kind,
                id: managed.id(*kind),
                state: Mutex::default(),
                wake: Notify::new(),
            })
        });
        let remembered = local.thumbprints().into_iter();
        let remembered = remembered.map(|(directory, print)| (directory, Account::remembered(print)));
        let keeper = Self {
            tended: tended.collect(),
            keys,
            shared: OnceCell::new(),
            answers: Arc::default(),
            accounts: Mutex::new(remembered.collect()),
            looks: Looks::default(),
            local,
            orders: Semaphore::new(ORDERS_MAX),
            now,
            changed,
            settings,
        };
        let at = (keeper.now)();
        for tended in &keeper.tended {
            tended.state().served = keeper.local.bundle(&tended.id, tended.managed.name(), at);
        }
        keeper.answer();
        Ok(keeper)
    }

    /// As [`Keeper::open`], with a store that is open already.
    pub fn with_objects(
        settings: Settings,
        objects: Arc<dyn Objects>,
        now: Now,
        changed: Changed,
    ) -> Result<Self, KeyError> {
        let keeper = Self::open(settings, now, changed)?;
        let shared = keeper.sharing(objects);
        Ok(Self {
            shared: OnceCell::new_with(Some(shared)),
            ..keeper
        })
    }

    /// What this node answers a CA.
    pub fn answers(&self) -> &Arc<Answers> {
        &self.answers
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// How many certificates there are to attend.
    pub fn len(&self) -> usize {
        self.tended.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.tended.is_empty()
    }

    /// What serves now, each with whether it is the default.
    pub fn good(&self) -> Vec<(Arc<Bundle>, bool)> {
        self.tended
            .iter()
            .filter_map(|tended| Some((tended.state().served.clone()?, tended.managed.default)))
            .collect()
    }

    /// Whether this node lacks a certificate that other nodes may have: there is one in the store, or the store could not
    /// be asked yet. One that nobody has is no reason to send clients elsewhere.
    pub fn is_behind(&self) -> bool {
        self.tended.iter().any(|tended| {
            let state = tended.state();
            state.served.is_none() && (!state.looked || state.slot.current.is_some())
        })
    }

    /// How each certificate is.
    pub fn status(&self) -> Vec<Status> {
        self.tended
            .iter()
            .map(|tended| tended.status((self.now)(), self.settings.store.lease))
            .collect()
    }

    /// Attends one certificate for ever: at once, then at every look at the store.
    pub async fn follow(&self, at: usize) {
        let Some(tended) = self.tended.get(at) else {
            return;
        };
        loop {
            self.attend_one(tended, false).await;
            // A fifth either way, so that the nodes of a fleet do not ask at the same moment.
            let pause = self.settings.store.poll.mul_f64(0.8 + 0.4 * fastrand::f64());
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = tended.wake.notified() => {}
            }
        }
    }

    /// Looks at every certificate once more, soon.
    pub fn wake(&self) {
        for tended in &self.tended {
            tended.wake.notify_one();
        }
    }

    /// Attends one certificate once.
    pub async fn attend(&self, at: usize) -> Option<Outcome> {
        Some(self.attend_one(self.tended.get(at)?, false).await)
    }

    async fn attend_one(&self, tended: &Tended, force: bool) -> Outcome {
        let behind = self.is_behind();
        let outcome = self.try_attend(tended, force).await;
        {
            let mut state = tended.state();
            state.store_ok = !matches!(outcome, Outcome::StoreDown(_));
            state.looked |= state.store_ok;
        }
        if self.is_behind() != behind {
            (self.changed)();
        }
        match &outcome {
            Outcome::StoreDown(reason) => {
                tracing::warn!(
                    id = tended.id,
                    reason,
                    "the certificate store cannot be asked; what is served stays"
                );
            }
            Outcome::Failed(reason) => {
                tracing::error!(id = tended.id, reason, "the certificate was not renewed");
            }
            Outcome::Issued => tracing::info!(id = tended.id, "a certificate was issued and published"),
            Outcome::Lost => {
                tracing::warn!(
                    id = tended.id,
                    "the lease was lost; another node goes on with the certificate"
                );
            }
            Outcome::NoKey => {
                tracing::error!(
                    id = tended.id,
                    "the store's keys of this node do not open the certificate"
                );
            }
            Outcome::Busy(_) | Outcome::Waiting(_) => {}
        }
        outcome
    }

    async fn try_attend(&self, tended: &Tended, force: bool) -> Outcome {
        let shared = self.shared().await;
        let down = |error: crate::store::Error| Outcome::StoreDown(chain(&error));
        // Without the account nothing can be ordered. What others have ordered can be served all the same.
        let learned = self.learn_account(shared, &tended.managed.acme).await;
        let slot = match shared.read(&tended.id).await {
            Ok(seen) => seen.map(|seen| seen.slot).unwrap_or_default(),
            Err(error) => return down(error),
        };
        if let Err(error) = self.adopt(tended, shared, &slot).await {
            return down(error);
        }
        // Whatever becomes of an order: what the store has is known here, and is no reason to keep clients away.
        tended.state().looked = true;
        let now = (self.now)();
        if !force && let Some(outcome) = self.no_order(tended, shared, &slot, now).await {
            return outcome;
        }
        if let Err(error) = learned {
            return down(error);
        }
        if let Some(until) = self.settles(&tended.managed.acme) {
            return Outcome::Waiting(until);
        }
        let Ok(_permit) = self.orders.acquire().await else {
            return Outcome::Waiting(now);
        };
        tended.state().holding = true;
        let outcome = self.renew(tended, shared, &slot, force).await;
        let mut state = tended.state();
        state.holding = false;
        match outcome {
            Outcome::Issued => state.last = Some(((self.now)(), true)),
            Outcome::Failed(_) => state.last = Some(((self.now)(), false)),
            _ => {}
        }
        outcome
    }

    /// Why nothing is to be ordered now, if so.
    async fn no_order(
        &self,
        tended: &Tended,
        shared: &Shared,
        slot: &Slot,
        now: SystemTime,
    ) -> Option<Outcome> {
        if tended.state().refused == Some(adopt::NO_KEY) {
            return Some(Outcome::NoKey);
        }
        self.ask_ari(tended, shared, now).await;
        if let Decision::Wait(until) = decide(&tended.situation(slot), now) {
            return Some(Outcome::Waiting(until));
        }
        let held = slot.held(now, shared.lease_life())?;
        Some(Outcome::Busy(held.owner.clone()))
    }

    async fn shared(&self) -> &Shared {
        let open = || async {
            let objects: Arc<dyn Objects> = match &self.settings.store.place {
                StorePlace::Bucket(bucket) => Arc::new(Bucket::open(bucket).await),
                StorePlace::Folder(folder) => Arc::new(Folder::new(folder)),
            };
            self.sharing(objects)
        };
        self.shared.get_or_init(open).await
    }

    fn sharing(&self, objects: Arc<dyn Objects>) -> Shared {
        let store = &self.settings.store;
        Shared::new(objects, self.keys.clone(), store.owner.clone(), store.lease)
    }
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keeper({} certificates)", self.tended.len())
    }
}

impl Tended {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn situation(&self, slot: &Slot) -> Situation {
        let state = self.state();
        let served = state.served.as_ref();
        Situation {
            served: served.map(|bundle| life(bundle)),
            window: state.window,
            incomplete: served
                .is_some_and(|bundle| !self.managed.names.iter().all(|name| bundle.covers(name))),
            issued: slot.current.as_ref().map(|current| from_unix(current.issued)),
            retry_at: slot.failure.as_ref().map(|failure| from_unix(failure.retry_at)),
        }
    }

    fn status(&self, now: SystemTime, lease: Duration) -> Status {
        let state = self.state();
        Status {
            id: self.id.clone(),
            served: state.served.clone(),
            holder: state.slot.held(now, lease).map(|held| held.owner.clone()),
            holding: state.holding,
            last: state.last,
            failures: state.slot.failure.as_ref().map_or(0, |failure| failure.count),
            reason: state.slot.failure.as_ref().map(|failure| failure.reason.clone()),
            refused: state.refused,
            store_ok: state.store_ok,
        }
    }
}

impl Managed {
    /// The name that the certificate is called by.
    pub fn name(&self) -> &str {
        self.names.first().map(String::as_str).unwrap_or_default()
    }
}

fn life(bundle: &Bundle) -> Life {
    Life {
        not_before: bundle.not_before,
        not_after: bundle.not_after,
        spread: spread(bundle),
    }
}

/// A number that every node has for the same certificate.
fn spread(bundle: &Bundle) -> u8 {
    bundle.fingerprint.0.first().copied().unwrap_or_default()
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
