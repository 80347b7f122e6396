//! DNS-01: the proof is a TXT record. Who holds the zone is asked through a [`Provider`].

pub mod rfc2136;
pub mod route53;

use std::fmt;

use crate::settings::Dns;
use crate::store::Boxed;
use crate::tickets::Now;

pub use rfc2136::Rfc2136;
pub use route53::Route53;

/// Holds a zone.
pub trait Provider: fmt::Debug + Send + Sync {
    /// Puts these values, all of those of the name, into TXT records.
    fn present<'a>(&'a self, name: &'a str, values: &'a [String]) -> Boxed<'a, Result<(), Error>>;

    /// Waits until all servers of the zone have what was put there.
    fn settle(&self) -> Boxed<'_, Result<(), Error>>;

    /// Takes the values away again.
    fn clear<'a>(&'a self, name: &'a str, values: &'a [String]) -> Boxed<'a, Result<(), Error>>;
}

/// The provider that `dns` names.
pub async fn provider(dns: &Dns, now: Now) -> Result<Box<dyn Provider>, Error> {
    Ok(match dns {
        Dns::Rfc2136(settings) => Box::new(Rfc2136::new(settings, now)?),
        Dns::Route53(settings) => Box::new(Route53::open(settings).await),
    })
}

/// Where the proof for `name` stands (RFC 8555 section 8.4); a wildcard's stands where its parent's does.
pub(super) fn record_name(name: &str) -> String {
    format!(
        "_acme-challenge.{}.",
        name.trim_start_matches("*.").trim_end_matches('.')
    )
}

/// Why a record was not written.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message says what its variant means")]
pub enum Error {
    #[error("{0}: is not a name, or not one of the zone")]
    Name(String),
    #[error("the key of the zone cannot be used: {0}")]
    Key(String),
    #[error("the server of the zone cannot be reached")]
    Network(#[source] std::io::Error),
    #[error("the server of the zone refuses: {0}")]
    Refused(String),
    #[error("Route 53 cannot be asked")]
    Route53(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the record did not reach all servers in time")]
    Unsettled,
}
