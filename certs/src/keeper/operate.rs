//! What an operator does by hand: list, order, import, export.

use std::sync::Arc;
use std::time::SystemTime;

use super::renew::waits_until;
use super::{Keeper, Outcome, Tended, chain};
use crate::acme::{self, dns};
use crate::bundle::Bundle;
use crate::material::{Material, Refused};
use crate::settings::Challenge;
use crate::store::{Error, Taken};

/// Why an operator's order was not carried out.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message says what its variant means")]
pub enum OperateError {
    #[error("another node is at work on it: {0}")]
    Busy(String),
    #[error("{0}: there is none in the store")]
    Missing(String),
    #[error("the certificate")]
    Refused(#[from] Refused),
    #[error("the store")]
    Store(#[from] Error),
    #[error("{0}: no such certificate in the configuration")]
    Unknown(String),
}

/// A certificate as the store has it.
#[derive(Clone, Debug)]
pub struct Listed {
    /// What it is called.
    pub id: String,
    /// Its names, as configured.
    pub names: Vec<String>,
    /// What the store holds.
    pub bundle: Option<Arc<Bundle>>,
    /// Why what the store holds cannot serve.
    pub refused: Option<String>,
    /// The node that holds the lease.
    pub holder: Option<String>,
    /// Failures in a row, the last reason, and until when it waits.
    pub failure: Option<(u32, String, SystemTime)>,
}

impl Keeper {
    /// Every certificate of the configuration, as the store has it now.
    pub async fn list(&self) -> Result<Vec<Listed>, Error> {
        let (shared, now) = (self.shared().await, (self.now)());
        let mut listed = Vec::new();
        for tended in &self.tended {
            let slot = shared
                .read(&tended.id)
                .await?
                .map(|seen| seen.slot)
                .unwrap_or_default();
            let found = match &slot.current {
                Some(current) => Some(self.fetch(tended, &current.serial).await),
                None => None,
            };
            let (bundle, refused) = match found {
                Some(Ok((_, bundle))) => (Some(bundle), None),
                Some(Err(refused)) => (None, Some(chain(&refused))),
                None => (None, None),
            };
            listed.push(Listed {
                id: tended.id.clone(),
                names: tended.managed.names.clone(),
                bundle,
                refused,
                holder: slot.held(now, shared.lease_life()).map(|held| held.owner.clone()),
                failure: slot
                    .failure
                    .as_ref()
                    .and_then(|failure| Some((failure.count, failure.reason.clone(), waits_until(&slot)?))),
            });
        }
        Ok(listed)
    }

    /// Orders certificates now, those of `name` or all of them: where `force` says so, whether they are due or not.
    pub async fn order_now(
        &self,
        name: Option<&str>,
        force: bool,
    ) -> Result<Vec<(String, Outcome)>, OperateError> {
        let mut outcomes = Vec::new();
        for tended in self.chosen(name)? {
            outcomes.push((tended.id.clone(), self.attend_one(tended, force).await));
        }
        Ok(outcomes)
    }

    /// Orders certificates from another CA, and throws them away: to see whether it would work.
    pub async fn rehearse(
        &self,
        name: Option<&str>,
        directory: &str,
    ) -> Result<Vec<(String, Outcome)>, OperateError> {
        let mut outcomes = Vec::new();
        for tended in self.chosen(name)? {
            let outcome = match self.rehearse_one(tended, directory).await {
                Ok(()) => Outcome::Issued,
                Err(error) => Outcome::Failed(chain(&*error)),
            };
            outcomes.push((tended.id.clone(), outcome));
        }
        Ok(outcomes)
    }

    async fn rehearse_one(
        &self,
        tended: &Tended,
        directory: &str,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let (shared, now) = (self.shared().await, Arc::clone(&self.now));
        let connected =
            acme::connect_elsewhere(shared, &tended.managed.acme, directory, Arc::clone(&now)).await?;
        let mut managed = tended.managed.clone();
        managed.acme.directory = directory.to_owned();
        let (order, pending) = acme::open(&connected, &managed, tended.kind, None, None).await?;
        let provider = match &managed.acme.challenge {
            Challenge::Dns01(settings) => Some(dns::provider(settings, Arc::clone(&now)).await?),
            _ => None,
        };
        let answers = &self.answers;
        let completed = acme::complete(
            &connected,
            &managed,
            order,
            &pending,
            answers,
            provider.as_deref(),
        );
        let ready = completed.await?;
        Material::new(ready.chain, ready.key, managed.name(), now())?;
        Ok(())
    }

    /// Puts a chain and its key into the store, for the certificate of `name` with that kind of key.
    pub async fn import(&self, name: &str, chain: String, key: String) -> Result<Arc<Bundle>, OperateError> {
        let (shared, now) = (self.shared().await, (self.now)());
        let (material, bundle) = Material::new(chain, key, name, now)?;
        let rsa = bundle.algorithm() == rustls::SignatureAlgorithm::RSA;
        let chosen = self.chosen(Some(name))?;
        let fits = |tended: &&&Tended| (tended.kind == crate::settings::KeyKind::Rsa) == rsa;
        let tended = chosen.iter().find(fits).ok_or_else(|| {
            OperateError::Unknown(format!(
                "{name} with an {} key",
                if rsa { "RSA" } else { "ECDSA" }
            ))
        })?;
        match shared.take(&tended.id, now).await? {
            Taken::Theirs { owner } => Err(OperateError::Busy(owner)),
            Taken::Ours(lease) => {
                lease.publish(&material, now).await?;
                Ok(bundle)
            }
        }
    }

    /// The chains and keys of `name` as the store has them.
    pub async fn export(&self, name: &str) -> Result<Vec<(String, Material)>, OperateError> {
        let shared = self.shared().await;
        let mut found = Vec::new();
        for tended in self.chosen(Some(name))? {
            let slot = shared
                .read(&tended.id)
                .await?
                .map(|seen| seen.slot)
                .unwrap_or_default();
            if let Some(current) = &slot.current {
                found.push((tended.id.clone(), self.fetch(tended, &current.serial).await?.0));
            }
        }
        if found.is_empty() {
            return Err(OperateError::Missing(name.to_owned()));
        }
        Ok(found)
    }

    async fn fetch(&self, tended: &Tended, serial: &str) -> Result<(Material, Arc<Bundle>), Refused> {
        let shared = self.shared().await;
        let sealed = shared.sealed(&tended.id, serial).await.map_err(Refused::Store)?;
        let material = shared.open(&tended.id, serial, &sealed).map_err(Refused::Store)?;
        let bundle = material.bundle(tended.managed.name(), serial, (self.now)())?;
        Ok((material, bundle))
    }

    fn chosen(&self, name: Option<&str>) -> Result<Vec<&Tended>, OperateError> {
        let wanted = |tended: &&Tended| name.is_none_or(|name| tended.managed.name() == name);
        let chosen: Vec<_> = self.tended.iter().filter(wanted).collect();
        match name {
            Some(name) if chosen.is_empty() => Err(OperateError::Unknown(name.to_owned())),
            _ => Ok(chosen),
        }
    }
}

impl Listed {
    /// When what the store holds ends.
    pub fn not_after(&self) -> Option<SystemTime> {
        self.bundle.as_ref().map(|bundle| bundle.not_after)
    }
}
