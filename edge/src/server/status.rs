//! What `/v1/status` says of the parts that the admin side does not know: listeners, cache, origins, certificates, sites.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use serde_json::{Map, Value, json};

use crate::cache::store::disk::SiteTotal;
use crate::clock::Timestamp;
use crate::exchange::Exchange;
use crate::http::Kind;
use crate::telemetry::access_log::rfc3339;
use crate::telemetry::metrics::Label as _;
use crate::tls::reload::Certificates;

/// Where the parts are. The exchange is held weakly, for it holds the admin side that asks.
#[derive(Debug)]
pub(super) struct Status {
    addresses: Vec<(Kind, SocketAddr)>,
    certificates: Certificates,
    exchange: Weak<Exchange>,
}

impl Status {
    pub(super) fn new(
        addresses: &[(Kind, SocketAddr)],
        certificates: &Certificates,
        exchange: &Arc<Exchange>,
    ) -> Self {
        Self {
            addresses: addresses.to_owned(),
            certificates: certificates.clone(),
            exchange: Arc::downgrade(exchange),
        }
    }

    /// The members, as JSON.
    pub(super) fn members(&self) -> Map<String, Value> {
        let mut members = Map::new();
        members.insert("listeners".to_owned(), self.listeners());
        members.insert("certificates".to_owned(), self.certificates());
        if let Some(exchange) = self.exchange.upgrade() {
            members.insert("cache".to_owned(), cache(&exchange));
            members.insert("origins".to_owned(), origins(&exchange));
            members.insert("sites".to_owned(), sites(&exchange));
        }
        members
    }

    fn listeners(&self) -> Value {
        let listener = |(kind, address): &(Kind, SocketAddr)| json!({"kind": kind.token(), "address": address.to_string()});
        self.addresses.iter().map(listener).collect()
    }

    fn certificates(&self) -> Value {
        let certificate = |bundle: &Arc<certs::Bundle>| json!({"names": bundle.names, "not_after": rfc3339(Timestamp::from(bundle.not_after))});
        self.certificates.bundles().iter().map(certificate).collect()
    }
}

fn cache(exchange: &Exchange) -> Value {
    let cache = exchange.cache();
    let disk = cache.disk.as_ref().map(|disk| {
        let totals = disk.totals();
        let site =
            |site: &SiteTotal| json!({"name": site.name, "entries": site.entries, "bytes": site.bytes});
        json!({
            "folder": disk.folder().display().to_string(),
            "working": totals.working,
            "entries": totals.entries,
            "bytes": totals.bytes,
            "bytes_max": totals.bytes_max,
            "sites": totals.sites.iter().map(site).collect::<Value>(),
        })
    });
    json!({
        "disk": disk,
        "entries": cache.memory.entries(),
        "bytes": cache.memory.bytes(),
        "bytes_in_flight": cache.budget.used().saturating_sub(cache.memory.bytes()),
        "bytes_in_flight_max": cache.budget.capacity(),
        "fetches": cache.flights.len(),
        "purges": cache.epochs.last().number(),
    })
}

fn origins(exchange: &Exchange) -> Value {
    let mut origins = Map::new();
    for (name, origin) in exchange.routes().origins.all() {
        let buckets = origin.status().into_iter().map(|bucket| {
            let error = bucket
                .last_error
                .map(|(at, error)| json!({"at": rfc3339(at), "error": error.kind.token()}));
            json!({
                "id": &*bucket.id,
                "breaker": bucket.breaker.token(),
                "last_success": bucket.last_success.map(rfc3339),
                "last_error": error,
            })
        });
        origins.insert(name.to_owned(), json!({"buckets": buckets.collect::<Value>()}));
    }
    Value::Object(origins)
}

fn sites(exchange: &Exchange) -> Value {
    let routes = exchange.routes();
    let site = |site: &Arc<crate::site::Site>| json!({"name": site.name(), "hosts": site.settings().hosts, "origin": site.settings().origin});
    routes.router.sites().iter().map(site).collect()
}
