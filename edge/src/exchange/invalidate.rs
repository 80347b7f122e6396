//! What the answer to an unsafe request makes unusable (RFC 9111 section 4.4, RFC 9875 section 3).
//!
//! `policy` names it, the epochs forget it: a fetch that began before is caught as well.

use std::sync::Arc;

use http::{HeaderMap, Method, StatusCode};

use super::Exchange;
use crate::cache::epoch::{Purge, Url};
use crate::cache::key::Key;
use crate::cache::policy::invalidation;
use crate::cache::tag;
use crate::site::Site;

impl Exchange {
    /// Invalidates what an answer with this status and these fields makes unusable, when it came for `method` at `key`
    /// and `host` was asked. Only what may be held is noted, so that requests to countless targets leave no records.
    pub async fn invalidate(
        &self,
        site: &Site,
        key: &Key,
        (method, host): (&Method, &str),
        (status, headers): (StatusCode, &HeaderMap),
    ) {
        if !invalidation::invalidates(method, status) {
            return;
        }
        let named = invalidation::named_targets(headers, host, key.path()).filter_map(|target| {
            let (path, query) = match target.split_once('?') {
                Some((path, query)) => (path, Some(query)),
                None => (target.as_str(), None),
            };
            site.key(path, query).ok()
        });
        let urls: Vec<Url> = std::iter::once(key.clone())
            .chain(named)
            .filter(|key| self.may_hold(key))
            .map(|key| Url {
                host: key.host().to_owned(),
                path: key.path().to_owned(),
                query: key.query().map(str::to_owned),
            })
            .collect();
        let groups = invalidation::named_groups(headers);
        let tags: Vec<_> = groups
            .iter()
            .filter_map(|group| tag::group(site.name(), group))
            .collect();
        if urls.is_empty() && tags.is_empty() {
            return;
        }
        let purge = Purge {
            urls,
            tags,
            ..Purge::default()
        };
        let epochs = Arc::clone(&self.cache.epochs);
        if epochs.has_journal() {
            // It goes to a file first. That it could not is logged there, and it holds all the same.
            let _ = tokio::task::spawn_blocking(move || epochs.purge(&purge)).await;
        } else {
            epochs.purge(&purge);
        }
    }

    /// Whether something may be stored under `key`, or is about to be.
    fn may_hold(&self, key: &Key) -> bool {
        let on_disk = self.cache.disk.as_ref().is_some_and(|disk| disk.has(key));
        on_disk || self.cache.memory.find(key).is_some() || self.cache.flights.contains(key)
    }
}
