//! Taking over what another node published: fetched, opened, checked, swapped in; what served last stays otherwise.

use std::sync::Arc;

use super::{Keeper, Tended, chain};
use crate::bundle::Bundle;
use crate::material::Refused;
use crate::store::seal::SealError;
use crate::store::{Error, Shared, Slot};

/// What is noted when this node lacks the key that a bundle is sealed with.
pub(super) const NO_KEY: &str = "no-key";

impl Keeper {
    /// Serves what the slot names, if it is good and new. An error means that the store did not answer.
    pub(super) async fn adopt(&self, tended: &Tended, shared: &Shared, slot: &Slot) -> Result<(), Error> {
        tended.state().slot = slot.clone();
        let Some(current) = &slot.current else {
            tended.state().refused = None;
            return Ok(());
        };
        let is_served = |served: &Arc<Bundle>| served.serial == current.serial;
        if tended.state().served.as_ref().is_some_and(is_served) {
            tended.state().refused = None;
            return Ok(());
        }
        let sealed = match shared.sealed(&tended.id, &current.serial).await {
            Ok(sealed) => sealed,
            Err(error @ Error::Unavailable { .. }) => return Err(error),
            Err(error) => {
                self.refuse(tended, &Refused::Store(error));
                return Ok(());
            }
        };
        let opened = shared
            .open(&tended.id, &current.serial, &sealed)
            .map_err(Refused::Store)
            .and_then(|material| material.bundle(tended.managed.name(), &current.serial, (self.now)()));
        match opened {
            Ok(bundle) => self.serve(tended, bundle, &sealed).await,
            Err(refused) => self.refuse(tended, &refused),
        }
        Ok(())
    }

    async fn serve(&self, tended: &Tended, bundle: Arc<Bundle>, sealed: &[u8]) {
        self.local.keep(&tended.id, &bundle.serial, sealed).await;
        tracing::info!(
            id = tended.id,
            serial = bundle.serial,
            "a certificate of the shared store is served"
        );
        {
            let mut state = tended.state();
            state.served = Some(bundle);
            state.refused = None;
            state.window = None;
            state.ari_at = None;
        }
        (self.changed)();
    }

    fn refuse(&self, tended: &Tended, refused: &Refused) {
        let token = match refused {
            Refused::Store(Error::Sealed {
                source: SealError::UnknownKey,
                ..
            }) => NO_KEY,
            other => other.token(),
        };
        let before = tended.state().refused.replace(token);
        if before != Some(token) {
            tracing::error!(
                id = tended.id,
                reason = chain(refused),
                "what the store holds is refused; the last good certificate goes on serving"
            );
        }
    }
}
