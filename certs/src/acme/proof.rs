//! How names are proved to a CA: every proof is shown where it looks before it is told of the first, and taken away after.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use instant_acme::{
    AuthorizationStatus, ChallengeStatus, ChallengeType, Identifier, KeyAuthorization, Order, RetryPolicy,
};

use super::Error;
use super::answers::{Answers, Shown};
use super::dns::{self, Provider};
use super::http::Http;
use crate::settings::Challenge;

/// How long one wait for the CA may take: for its validation, then for its certificate.
pub(super) const POLLS: RetryPolicy = RetryPolicy::new().timeout(Duration::from_secs(120));
/// Proves every name that is not proved yet, all at once.
pub(super) async fn prove(
    http: &Http,
    challenge: &Challenge,
    order: &mut Order,
    answers: &Arc<Answers>,
    provider: Option<&dyn Provider>,
) -> Result<(), Error> {
    let mut proofs = Proofs::default();
    let proved = present(http, challenge, order, answers, provider, &mut proofs).await;
    if let Some(provider) = provider {
        for (name, values) in &proofs.records {
            if let Err(error) = provider.clear(name, values).await {
                tracing::warn!(
                    name,
                    error = &error as &dyn std::error::Error,
                    "a record is left in the DNS"
                );
            }
        }
    }
    proved
}

/// Puts every proof where the CA looks, tells it to look, and waits for what it says.
async fn present(
    http: &Http,
    challenge: &Challenge,
    order: &mut Order,
    answers: &Arc<Answers>,
    provider: Option<&dyn Provider>,
    proofs: &mut Proofs,
) -> Result<(), Error> {
    each_challenge(http, challenge, order, Pass::Show(answers, proofs)).await?;
    if let Some(provider) = provider {
        for (name, values) in &proofs.records {
            provider.present(name, values).await?;
        }
        provider.settle().await?;
    }
    each_challenge(http, challenge, order, Pass::SetReady).await?;
    let polled = order.poll_ready(&POLLS).await;
    polled.map(|_| ()).map_err(|error| http.failed(error))
}

/// What was put where a CA looks.
#[derive(Default)]
struct Proofs {
    shown: Vec<Shown>,
    records: BTreeMap<String, Vec<String>>,
}

/// What is done with each challenge: all proofs are shown before the CA is told of the first.
enum Pass<'a> {
    Show(&'a Arc<Answers>, &'a mut Proofs),
    SetReady,
}

/// Goes through the challenges of the names that are not proved yet.
async fn each_challenge(
    http: &Http,
    challenge: &Challenge,
    order: &mut Order,
    mut pass: Pass<'_>,
) -> Result<(), Error> {
    let mut authorizations = order.authorizations();
    while let Some(found) = authorizations.next().await {
        let mut authorization = found.map_err(|error| http.failed(error))?;
        if authorization.status != AuthorizationStatus::Pending {
            continue;
        }
        let name = match authorization.identifier().identifier {
            Identifier::Dns(name) => name.clone(),
            other => format!("{other:?}"),
        };
        let Some(mut handle) = authorization.challenge(kind(challenge)) else {
            return Err(Error::NoChallenge {
                name,
                challenge: challenge.token(),
            });
        };
        if handle.status != ChallengeStatus::Pending {
            continue;
        }
        match &mut pass {
            Pass::Show(answers, proofs) => {
                proofs.show(answers, challenge, &name, &handle.key_authorization())?;
            }
            Pass::SetReady => {
                let told = handle.set_ready().await;
                told.map_err(|error| http.failed(error))?;
            }
        }
    }
    Ok(())
}

impl Proofs {
    fn show(
        &mut self,
        answers: &Arc<Answers>,
        challenge: &Challenge,
        name: &str,
        authorization: &KeyAuthorization,
    ) -> Result<(), Error> {
        match challenge {
            // Every node answers by itself.
            Challenge::Http01 => {}
            Challenge::TlsAlpn01 => self
                .shown
                .push(answers.show(name, authorization.digest().as_ref())?),
            Challenge::Dns01(_) => {
                let values = self.records.entry(dns::record_name(name)).or_default();
                values.push(authorization.dns_value());
            }
        }
        Ok(())
    }
}

fn kind(challenge: &Challenge) -> ChallengeType {
    match challenge {
        Challenge::Dns01(_) => ChallengeType::Dns01,
        Challenge::Http01 => ChallengeType::Http01,
        Challenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
    }
}

/// Why the CA would not have it: the first proof that it found fault with.
pub(super) async fn refusal(order: &mut Order) -> String {
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let Ok(state) = authorization.refresh().await else {
            continue;
        };
        let error = state
            .challenges
            .iter()
            .find_map(|challenge| challenge.error.as_ref());
        if let Some(error) = error {
            return error.to_string();
        }
    }
    "the CA gives no reason".to_owned()
}
