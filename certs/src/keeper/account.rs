//! The accounts' thumbprints: learned before anything is ordered, kept on disk, answered on every node.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use super::Keeper;
use crate::acme::AccountKey;
use crate::settings::{Acme, Challenge};
use crate::store::{self, Shared};

impl Keeper {
    /// Finds the account's key in the store, or puts one there, unless this was done before.
    pub(super) async fn learn_account(&self, shared: &Shared, acme: &Acme) -> Result<(), store::Error> {
        if self.knows_account(acme) {
            return Ok(());
        }
        let Some(thumbprint) = AccountKey::find(shared, acme)
            .await?
            .and_then(|key| key.thumbprint())
        else {
            return Ok(());
        };
        let thumbprints = {
            let mut thumbprints = self.thumbprints.lock().unwrap_or_else(PoisonError::into_inner);
            thumbprints.insert(acme.directory.clone(), Arc::from(thumbprint));
            thumbprints.clone()
        };
        self.answer();
        self.local.keep_thumbprints(&thumbprints);
        Ok(())
    }

    pub(super) fn knows_account(&self, acme: &Acme) -> bool {
        let thumbprints = self.thumbprints.lock().unwrap_or_else(PoisonError::into_inner);
        thumbprints.contains_key(&acme.directory)
    }

    /// Answers with the thumbprints that are known, under the names that are proved that way.
    pub(super) fn answer(&self) {
        let thumbprints = self.thumbprints.lock().unwrap_or_else(PoisonError::into_inner);
        let mut by_name = HashMap::new();
        for managed in &self.settings.managed {
            let Some(thumbprint) = thumbprints.get(&managed.acme.directory) else {
                continue;
            };
            if managed.acme.challenge == Challenge::Http01 {
                let names = managed
                    .names
                    .iter()
                    .map(|name| (name.clone(), Arc::clone(thumbprint)));
                by_name.extend(names);
            }
        }
        drop(thumbprints);
        self.answers.set_thumbprints(by_name);
    }
}
