//! Certificates that are ordered from a CA and shared by a fleet: the keeper of `certs`, joined with this node's tasks,
//! metrics and readiness. When and how they are ordered is the keeper's business.

use std::sync::{Arc, Mutex, PoisonError};

use certs::keeper::Status;
use certs::{Keeper, Settings};
use tokio_util::sync::CancellationToken;

use super::reload::Certificates;
use crate::clock::{Clock, Timestamp};
use crate::drain::Drain;
use crate::telemetry::metrics::Registry;

/// The keeper of the configuration, if it has one, and the tasks that attend its certificates.
#[derive(Debug, Default)]
pub(super) struct Managed(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    keeper: Option<Arc<Keeper>>,
    stop: CancellationToken,
    drain: Option<Drain>,
}

impl Managed {
    pub(super) fn keeper(&self) -> Option<Arc<Keeper>> {
        self.lock().keeper.clone()
    }

    /// Goes over to other settings. What is the same is looked at once more, and nothing else.
    pub(super) fn configure(&self, settings: Option<&Settings>, clock: &Clock, certificates: &Certificates) {
        let mut state = self.lock();
        if let Some(keeper) = &state.keeper
            && Some(keeper.settings()) == settings
        {
            keeper.wake();
            return;
        }
        state.stop.cancel();
        state.stop = CancellationToken::new();
        state.keeper = settings.and_then(|settings| open(settings, clock, certificates));
        state.start();
    }

    /// Starts the tasks that attend the certificates, now and after each change of the settings. They end with the drain.
    pub(super) fn watch(&self, drain: &Drain) {
        let mut state = self.lock();
        state.drain = Some(drain.clone());
        state.start();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn start(&self) {
        let (Some(keeper), Some(drain)) = (&self.keeper, &self.drain) else {
            return;
        };
        for at in 0..keeper.len() {
            let keeper = Arc::clone(keeper);
            self.spawn(
                drain,
                "managed certificate",
                async move { keeper.follow(at).await },
            );
        }
        let keeper = Arc::clone(keeper);
        self.spawn(drain, "certificate accounts", async move {
            keeper.look_for_accounts().await;
        });
    }

    fn spawn(&self, drain: &Drain, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let (told, stop) = (drain.clone(), self.stop.clone());
        drain.spawn(name, async move {
            tokio::select! {
                () = told.begun() => {}
                () = stop.cancelled() => {}
                () = task => {}
            }
        });
    }
}

fn open(settings: &Settings, clock: &Clock, certificates: &Certificates) -> Option<Arc<Keeper>> {
    let clock = clock.clone();
    let changed = certificates.downgrade();
    let keeper = Keeper::open(
        settings.clone(),
        Arc::new(move || clock.now().to_system_time()),
        Box::new(move || changed.rejoin()),
    );
    keeper
        .inspect_err(|error| tracing::error!(%error, "the keys of the certificate store cannot be used"))
        .ok()
        .map(Arc::new)
}

/// Registers what is known of each managed certificate.
pub(super) fn register(registry: &Registry, certificates: &Certificates) {
    let each = |name, help, value: fn(&Status) -> Option<f64>| {
        let certificates = certificates.downgrade();
        registry.gauge_each(name, help, &["certificate"], move || {
            let keeper = certificates.keeper();
            let status = keeper.map(|keeper| keeper.status()).unwrap_or_default();
            status
                .iter()
                .filter_map(|status| Some((vec![status.id.clone()], value(status)?)))
                .collect()
        });
    };
    each(
        "edge_managed_certificate_expiry_timestamp_seconds",
        "When a managed certificate expires; 0 while there is none.",
        |status| {
            let end = status
                .served
                .as_ref()
                .map(|bundle| Timestamp::from(bundle.not_after));
            Some(end.map_or(0, Timestamp::unix_seconds) as f64)
        },
    );
    each(
        "edge_managed_certificate_failures",
        "Orders of a certificate that failed in a row, on whichever node.",
        |status| Some(f64::from(status.failures)),
    );
    each(
        "edge_managed_certificate_last_order_success",
        "Whether the last order of this node came to something; missing until it placed one.",
        |status| status.last.map(|(_, success)| f64::from(u8::from(success))),
    );
    each(
        "edge_managed_certificate_last_order_timestamp_seconds",
        "When this node last ordered the certificate; missing until it did.",
        |status| {
            status
                .last
                .map(|(at, _)| Timestamp::from(at).unix_seconds() as f64)
        },
    );
    each(
        "edge_managed_certificate_lease_held",
        "Whether this node holds the lease of the certificate.",
        |status| Some(f64::from(u8::from(status.holding))),
    );
    each(
        "edge_managed_certificate_refused",
        "Whether what the store holds is refused, so that the last good certificate serves.",
        |status| Some(f64::from(u8::from(status.refused.is_some()))),
    );
    each(
        "edge_managed_certificate_store_up",
        "Whether the store answered when the certificate was last looked at.",
        |status| Some(f64::from(u8::from(status.store_ok))),
    );
}
