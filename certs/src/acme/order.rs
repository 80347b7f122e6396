//! One order, from its first request to a chain: it can be taken up where another node left it.
//!
//! Everything here may be done twice: an order that is ready is not proved again, one that is valid is only fetched.

use std::sync::Arc;
use std::time::Duration;

use instant_acme::{
    Account, CertificateIdentifier, Error as AcmeError, Identifier, NewOrder, Order, OrderStatus,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use super::Error;
use super::account::AccountKey;
use super::answers::Answers;
use super::dns::Provider;
use super::http::Http;
use super::proof::{POLLS, prove, refusal};
use crate::bundle::{Bundle, system_time};
use crate::renewal::Window;
use crate::settings::{Acme, KeyKind, Managed};
use crate::store::Shared;
use crate::tickets::Now;

/// How often a request is made again whose nonce the CA did not like, beyond the three tries of instant-acme.
const NONCE_TRIES: u32 = 8;

/// An account that orders can be placed with.
pub(crate) struct Connected {
    pub(super) account: Account,
    pub(super) http: Http,
    /// By which HTTP-01 is answered; `None` when the store held no key.
    pub(crate) thumbprint: Option<String>,
}

/// What is kept of an order under way.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Pending {
    /// The order.
    pub(crate) url: String,
    /// The key that it is for, as PEM.
    pub(crate) key: String,
    /// The names that it is for.
    pub(crate) names: Vec<String>,
    /// The CA that has it.
    pub(crate) directory: String,
}

/// A chain, and the key that it is for.
pub(crate) struct Ready {
    pub(crate) chain: String,
    pub(crate) key: String,
}

/// Opens the account of `managed`. Registers it first where the CA binds accounts to others.
pub(crate) async fn connect(shared: &Shared, acme: &Acme, now: Now) -> Result<Connected, Error> {
    let http = Http::new(acme, now)?;
    let found = AccountKey::find(shared, acme)
        .await
        .map_err(|error| Error::Account(error.into()))?;
    let mut tries = 0;
    loop {
        let key = match (&found, &acme.binding) {
            (Some(key), _) => Ok(key.clone()),
            (None, Some(binding)) => AccountKey::bind(shared, acme, binding, &http).await,
            (None, None) => return Err(Error::Account("there is no account".into())),
        };
        let opened = match key {
            Ok(key) => key
                .account(acme, &http)
                .await
                .map(|account| (account, key.thumbprint())),
            Err(error) => Err(error),
        };
        match opened {
            Ok((account, thumbprint)) => {
                return Ok(Connected {
                    account,
                    http,
                    thumbprint,
                });
            }
            Err(error) if error.is_bad_nonce() && tries < NONCE_TRIES => tries += 1,
            Err(error) => return Err(error),
        }
    }
}

/// Opens the fleet's account at another CA, with the same key: so that every node answers for it too.
pub(crate) async fn connect_elsewhere(
    shared: &Shared,
    acme: &Acme,
    directory: &str,
    now: Now,
) -> Result<Connected, Error> {
    let found = AccountKey::find(shared, acme).await;
    let key = found.map_err(|error| Error::Account(error.into()))?;
    let key = key.ok_or_else(|| Error::Account("there is no account".into()))?;
    let elsewhere = Acme {
        directory: directory.to_owned(),
        ..acme.clone()
    };
    let http = Http::new(&elsewhere, now)?;
    let key = key.elsewhere();
    let account = key.account(&elsewhere, &http).await?;
    Ok(Connected {
        account,
        http,
        thumbprint: key.thumbprint(),
    })
}

/// Places an order, or takes up the one that was left. The certificate that it replaces is named to CAs that want to know
/// (RFC 9773 section 5).
pub(crate) async fn open(
    connected: &Connected,
    managed: &Managed,
    kind: KeyKind,
    left: Option<Pending>,
    replaces: Option<&Bundle>,
) -> Result<(Order, Pending), Error> {
    let acme = &managed.acme;
    if let Some(left) = left.filter(|left| left.names == managed.names && left.directory == acme.directory)
        && let Ok(mut order) = connected.account.order(left.url.clone()).await
        && order.state().status != OrderStatus::Invalid
    {
        return Ok((order, left));
    }
    let identifiers: Vec<Identifier> = managed
        .names
        .iter()
        .map(|name| Identifier::Dns(name.clone()))
        .collect();
    let key = KeyPair::generate_for(match kind {
        KeyKind::Ecdsa => &PKCS_ECDSA_P256_SHA256,
        KeyKind::Rsa => &PKCS_RSA_SHA256,
    })?;
    let mut replaces = replaces.and_then(identifier);
    let mut tries = 0;
    loop {
        let mut new = NewOrder::new(&identifiers);
        if let Some(profile) = &acme.profile {
            new = new.profile(profile);
        }
        if let Some(replaced) = &replaces {
            new = new.replaces(replaced.clone());
        }
        match connected.account.new_order(&new).await {
            Ok(order) => {
                let pending = Pending {
                    url: order.url().to_owned(),
                    key: key.serialize_pem(),
                    names: managed.names.clone(),
                    directory: acme.directory.clone(),
                };
                return Ok((order, pending));
            }
            // RFC 9773 section 5: a CA without renewal information, or one that knows of a replacement already, must
            // not keep us from ordering.
            Err(AcmeError::Unsupported(_)) if replaces.is_some() => replaces = None,
            Err(AcmeError::Api(problem)) if replaces.is_some() && is_about_replaces(&problem) => {
                replaces = None;
            }
            Err(error) => {
                let error = connected.http.failed(error);
                if !error.is_bad_nonce() || tries == NONCE_TRIES {
                    return Err(error);
                }
                tries += 1;
            }
        }
    }
}

/// Proves the names, asks for the certificate, and fetches it.
pub(crate) async fn complete(
    connected: &Connected,
    managed: &Managed,
    mut order: Order,
    pending: &Pending,
    answers: &Arc<Answers>,
    provider: Option<&dyn Provider>,
) -> Result<Ready, Error> {
    let whole = async {
        let mut tries = 0;
        loop {
            let error = match step(connected, managed, &mut order, pending, answers, provider).await {
                Ok(chain) => return Ok(chain),
                Err(error) => error,
            };
            if !error.is_bad_nonce() || tries == NONCE_TRIES {
                return Err(error);
            }
            tries += 1;
            // Everything below may be done again; what the CA thinks of it is asked first.
            if let Ok(again) = connected.account.order(pending.url.clone()).await {
                order = again;
            }
        }
    };
    let late = |_| Error::Stuck;
    let chain = tokio::time::timeout(managed.acme.patience, whole)
        .await
        .map_err(late)??;
    let chain = preferred(connected, chain, managed.acme.preferred_chain.as_deref()).await;
    Ok(Ready {
        chain,
        key: pending.key.clone(),
    })
}

/// What the CA says about when to renew `bundle`, and when to ask it again. `None` where it says nothing.
pub(crate) async fn ari(connected: &Connected, bundle: &Bundle) -> Option<(Window, Duration)> {
    let (info, again) = connected.account.renewal_info(&identifier(bundle)?).await.ok()?;
    let window = info.suggested_window;
    let window = Window {
        start: system_time(window.start.unix_timestamp()),
        end: system_time(window.end.unix_timestamp()),
    };
    // RFC 9773 section 4.3.3: neither every second nor never.
    Some((
        window,
        again.clamp(Duration::from_secs(60), Duration::from_secs(86_400)),
    ))
}

async fn step(
    connected: &Connected,
    managed: &Managed,
    order: &mut Order,
    pending: &Pending,
    answers: &Arc<Answers>,
    provider: Option<&dyn Provider>,
) -> Result<String, Error> {
    let failed = |error| connected.http.failed(error);
    if order.state().status == OrderStatus::Pending {
        prove(&connected.http, &managed.acme.challenge, order, answers, provider).await?;
    }
    if order.state().status == OrderStatus::Invalid {
        return Err(Error::Invalid(refusal(order).await));
    }
    if order.state().status == OrderStatus::Ready {
        let key = KeyPair::from_pem(&pending.key)?;
        let mut params = CertificateParams::new(pending.names.clone())?;
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&key)?;
        order.finalize_csr(request.der()).await.map_err(failed)?;
    }
    order.poll_certificate(&POLLS).await.map_err(failed)
}

/// Of the chains that the CA offers, the one that ends with an issuer of this name; else the first.
async fn preferred(connected: &Connected, first: String, issuer: Option<&str>) -> String {
    let Some(issuer) = issuer else {
        return first;
    };
    let (_, others) = connected.http.take_chain();
    if ends_with(&first, issuer) {
        return first;
    }
    for url in others {
        // instant-acme fetches only what it takes for an order; that this is a chain is heard on the way.
        let _ = connected.account.order(url).await;
        if let (Some(chain), _) = connected.http.take_chain()
            && ends_with(&chain, issuer)
        {
            return chain;
        }
    }
    tracing::warn!(issuer, "the CA offers no chain of the preferred issuer");
    first
}

/// Whether the last certificate of a chain was issued by `issuer`.
fn ends_with(chain: &str, issuer: &str) -> bool {
    let certificates = CertificateDer::pem_slice_iter(chain.as_bytes()).filter_map(Result::ok);
    certificates.last().is_some_and(|der| {
        X509Certificate::from_der(&der).is_ok_and(|(_, last)| {
            last.issuer()
                .iter_common_name()
                .any(|name| name.as_str().is_ok_and(|name| name == issuer))
        })
    })
}

fn identifier(bundle: &Bundle) -> Option<CertificateIdentifier<'static>> {
    let leaf = bundle.certified_key.cert.first()?;
    CertificateIdentifier::try_from(leaf).ok()
}

/// A CA that says `alreadyReplaced`, or that does not know what is replaced.
fn is_about_replaces(problem: &instant_acme::Problem) -> bool {
    let kind = problem.r#type.as_deref().unwrap_or_default();
    let detail = problem.detail.as_deref().unwrap_or_default();
    kind.ends_with(":alreadyReplaced") || detail.contains("replaces") || detail.contains("replaced")
}
