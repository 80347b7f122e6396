//! A renewal: the lease, an order (or the one that was left), and publication. A failure is noted for the whole fleet.

use std::sync::Arc;
use std::time::SystemTime;

use super::{Keeper, Outcome, Tended, chain, spread};
use crate::acme::{self, AccountKey, Pending, dns};
use crate::material::{Material, Refused};
use crate::renewal;
use crate::settings::Challenge;
use crate::store::slot::{from_unix, unix};
use crate::store::{Error, Failure, Lease, Shared, Slot, Taken};

/// Why a renewal came to nothing.
enum Stop {
    /// The order.
    Acme(acme::Error),
    /// The CA issued something that cannot serve.
    Chain(Refused),
    /// The lease, or the store with it.
    Lease(Error),
    /// The account is not the one that was answered for until now: the other nodes have to learn of it first.
    OtherAccount(SystemTime),
}

impl Keeper {
    /// Renews a certificate whose slot was `seen`.
    pub(super) async fn renew(&self, tended: &Tended, shared: &Shared, seen: &Slot, force: bool) -> Outcome {
        let lease = match shared.take(&tended.id, (self.now)()).await {
            Ok(Taken::Ours(lease)) => *lease,
            Ok(Taken::Theirs { owner }) => return Outcome::Busy(owner),
            Err(error) => return Outcome::StoreDown(chain(&error)),
        };
        let failed_meanwhile =
            !force && lease.slot().failure != seen.failure && lease.slot().failure.is_some();
        if lease.slot().current != seen.current || failed_meanwhile {
            // Somebody was faster, between our look and our lease.
            return match lease.release().await {
                Ok(slot) => {
                    let _ = self.adopt(tended, shared, &slot).await;
                    Outcome::Waiting((self.now)())
                }
                Err(error) => Outcome::StoreDown(chain(&error)),
            };
        }
        tended.state().slot = lease.slot().clone();
        self.renew_under(tended, shared, lease).await
    }

    async fn renew_under(&self, tended: &Tended, shared: &Shared, mut lease: Lease) -> Outcome {
        let stop = match self.order(tended, shared, &mut lease).await {
            Ok(material) => match lease.publish(&material, (self.now)()).await {
                Ok(slot) => {
                    let _ = self.adopt(tended, shared, &slot).await;
                    return Outcome::Issued;
                }
                Err(error) => return lost(&error),
            },
            Err(stop) => stop,
        };
        let now = (self.now)();
        let (reason, retry_after, keep) = match stop {
            Stop::Lease(error) => return lost(&error),
            Stop::OtherAccount(until) => {
                let _ = lease.release().await;
                return Outcome::Waiting(until);
            }
            Stop::Acme(error) => (chain(&error), error.retry_after(), !error.is_over()),
            Stop::Chain(refused) => (format!("the CA's certificate {}", chain(&refused)), None, false),
        };
        let failure = self.failure(tended, lease.slot(), reason.clone(), retry_after, now);
        match lease.fail(failure, keep).await {
            Ok(slot) => tended.state().slot = slot,
            Err(error) if error.is_conflict() => return Outcome::Lost,
            Err(_) => {}
        }
        Outcome::Failed(reason)
    }

    fn failure(
        &self,
        tended: &Tended,
        slot: &Slot,
        reason: String,
        retry_after: Option<std::time::Duration>,
        now: SystemTime,
    ) -> Failure {
        let count = slot
            .failure
            .as_ref()
            .map_or(0, |failure| failure.count)
            .saturating_add(1);
        let served = tended.state().served.clone();
        let remaining = served.as_ref().map(|bundle| bundle.remaining(now));
        let spread = served.map_or_else(|| fastrand::u8(..), |bundle| spread(&bundle));
        Failure {
            count,
            retry_at: unix(renewal::retry_at(count, retry_after, remaining, spread, now)),
            reason: reason.chars().take(500).collect(),
        }
    }

    async fn order(&self, tended: &Tended, shared: &Shared, lease: &mut Lease) -> Result<Material, Stop> {
        let (managed, now) = (&tended.managed, &self.now);
        let connected = lease
            .hold(&**now, acme::connect(shared, &managed.acme, Arc::clone(now)))
            .await
            .map_err(Stop::Lease)?
            .map_err(Stop::Acme)?;
        self.know_account(&managed.acme.directory, connected.thumbprint.clone());
        if let Some(until) = self.settles(&managed.acme) {
            return Err(Stop::OtherAccount(until));
        }
        // With the bundle that this order brings, nothing of the certificate stays under a key that is on its way out.
        if let Err(error) = AccountKey::reseal(shared, &managed.acme.directory).await {
            tracing::warn!(id = tended.id, %error, "the account stays sealed as it was");
        }
        let left = lease
            .pending()
            .and_then(|text| serde_json::from_slice::<Pending>(&text).ok());
        let served = tended.state().served.clone();
        let opened = acme::open(&connected, managed, tended.kind, left, served.as_deref());
        let opened = lease.hold(&**now, opened).await.map_err(Stop::Lease)?;
        let (order, pending) = opened.map_err(Stop::Acme)?;
        let note = serde_json::to_vec(&pending).unwrap_or_default();
        lease.remember(&note, now()).await.map_err(Stop::Lease)?;
        let provider = match &managed.acme.challenge {
            Challenge::Dns01(settings) => {
                let made = dns::provider(settings, Arc::clone(now)).await;
                Some(made.map_err(|error| Stop::Acme(error.into()))?)
            }
            _ => None,
        };
        let completed = acme::complete(
            &connected,
            managed,
            order,
            &pending,
            &self.answers,
            provider.as_deref(),
        );
        let ready = lease.hold(&**now, completed).await.map_err(Stop::Lease)?;
        let ready = ready.map_err(Stop::Acme)?;
        let (material, bundle) =
            Material::new(ready.chain, ready.key, managed.name(), now()).map_err(Stop::Chain)?;
        if !managed.names.iter().all(|name| bundle.covers(name)) {
            return Err(Stop::Chain(Refused::Foreign));
        }
        Ok(material)
    }

    /// Asks the CA when it would like the served certificate renewed, if it is time to ask.
    pub(super) async fn ask_ari(&self, tended: &Tended, shared: &Shared, now: SystemTime) {
        let state = tended.state().clone();
        let Some(bundle) = state.served.filter(|_| state.ari_at.is_none_or(|at| at <= now)) else {
            return;
        };
        // Most answers are the same; a CA that is down is asked as often as one without renewal information.
        let mut again = std::time::Duration::from_secs(6 * 3600);
        let mut window = None;
        if let Ok(connected) = acme::connect(shared, &tended.managed.acme, Arc::clone(&self.now)).await
            && let Some(told) = acme::ari(&connected, &bundle).await
        {
            (window, again) = (Some(told.0), told.1);
        }
        let mut state = tended.state();
        state.window = window.or(state.window);
        state.ari_at = Some(now + again);
    }
}

fn lost(error: &Error) -> Outcome {
    if error.is_conflict() {
        Outcome::Lost
    } else {
        Outcome::StoreDown(chain(error))
    }
}

/// Until when a failure asks everyone to wait.
pub(super) fn waits_until(slot: &Slot) -> Option<SystemTime> {
    slot.failure.as_ref().map(|failure| from_unix(failure.retry_at))
}
