//! What the request path is made of, and what of it a reload changes.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use tokio::runtime::Handle;

use super::fetch::Flights;
use super::message::Request;
use super::record::Sinks;
use super::tier::Promotions;
use crate::cache::epoch::Epochs;
use crate::cache::key::Key;
use crate::cache::store::{Budget, Disk, Memory};
use crate::clock::Clock;
use crate::drain::{Drain, Readiness};
use crate::origin::Origins;
use crate::release::Releases;
use crate::site::Router;

/// What the exchange needs to begin.
#[derive(Debug)]
pub struct Parts {
    /// Sites and origins.
    pub routes: Routes,
    /// What is kept.
    pub cache: Cache,
    /// How `PURGE` is answered.
    pub purge_method: PurgeMethod,
    /// How a CA is answered that looks whether a host is ours.
    pub challenges: Challenges,
    /// Where records go.
    pub sinks: Arc<Sinks>,
    /// The time.
    pub clock: Clock,
    /// The control plane, where fetches and coders run.
    pub control: Handle,
    /// By which tasks are started.
    pub drain: Drain,
    /// What the public readiness path says.
    pub readiness: Readiness,
    /// The share of a core that may go into better forms, 0.0 to 1.0.
    pub recode_share: f64,
    /// How long to wait for the origin when something stale stands by.
    pub patience: Duration,
    /// The most content that a request may have.
    pub content_bytes_max: u64,
    /// How long nothing more of it may come.
    pub content_stall: Duration,
}

/// Answers the `PURGE` method on sites that allow it: the operator's side, which knows tokens.
pub struct PurgeMethod(pub Box<Purger>);

type Purger = dyn for<'a> Fn(&'a Request) -> Purging<'a> + Send + Sync;

/// A purge under way.
pub type Purging<'a> = Pin<Box<dyn Future<Output = http::Response<Bytes>> + Send + 'a>>;

impl std::fmt::Debug for PurgeMethod {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PurgeMethod(..)")
    }
}

/// Answers `/.well-known/acme-challenge/` (RFC 8555 section 8.3) from a host and a path: `None` where that is not asked, a
/// future of `None` where there is no answer. The TLS side knows, which stands above the exchange.
pub struct Challenges(pub Box<Challenger>);

/// See [`Challenges`].
pub type Challenger = dyn Fn(&str, &str) -> Option<Challenged> + Send + Sync;

/// An answer to a CA. It is waited for only while the account is not known here.
pub type Challenged = Pin<Box<dyn Future<Output = Option<String>> + Send>>;

impl std::fmt::Debug for Challenges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Challenges(..)")
    }
}

/// The cache's parts.
#[derive(Debug)]
pub struct Cache {
    /// The memory tier.
    pub memory: Memory,
    /// The disk tier, when there is one that can be used.
    pub disk: Option<Disk>,
    /// Responses on their way from the disk to memory.
    pub promotions: Promotions,
    /// The purges.
    pub epochs: Arc<Epochs>,
    /// Bytes in flight.
    pub budget: Budget,
    /// The largest body that is kept.
    pub object_bytes_max: u64,
    /// Fetches under way.
    pub flights: Flights,
}

impl Cache {
    /// Drops everything under `key`, in memory and on disk.
    pub fn remove(&self, key: &Key) {
        // First where it could come back from: what is read from there looks once more after it stands in memory.
        if let Some(disk) = &self.disk {
            disk.remove(key);
        }
        self.memory.remove(key);
    }
}

/// What a configuration says about requests; swapped whole by a reload.
#[derive(Debug)]
pub struct Routes {
    /// Host and path to site and rule.
    pub router: Arc<Router>,
    /// Origins by name.
    pub origins: Origins,
    /// What is released on which site.
    pub releases: Releases,
    /// The cache's name in Cache-Status.
    pub name: String,
    /// The value of Via.
    pub via: HeaderValue,
    /// The port that redirects name.
    pub https_port: u16,
}
