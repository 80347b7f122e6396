//! What is stored for a URL, in every tier, and what would be done with it now: the arithmetic of its freshness, its
//! variants, the purges that it has met, its forms.
//!
//! For the operator's side. It asks the same questions as a lookup and answers none of them by itself.

use std::sync::Arc;

use http::HeaderMap;
use serde_json::{Value, json};

use super::Exchange;
use super::asks::Asks;
use super::lookup::{self, Lookup};
use super::tier;
use super::warm::{self, BadUrl};
use crate::cache::epoch::Standing;
use crate::cache::key::Key;
use crate::cache::policy::directives::RequestDirectives;
use crate::cache::policy::freshness::Lifetime;
use crate::cache::policy::staleness::{self, Verdict, Why};
use crate::cache::store::{Form, StoredResponse};
use crate::clock::Timestamp;
use crate::fields::dates;

impl Exchange {
    /// What is stored for `url`, as JSON. What is on the disk is read and proved for it.
    ///
    /// # Errors
    ///
    /// When the URL leads nowhere.
    pub async fn inspect(&self, url: &str) -> Result<Value, BadUrl> {
        let request = warm::plain(url, HeaderMap::new(), self.clock.now())?;
        let (host, target) = (&request.host, &request.target);
        let site = self.routes().router.route(host).cloned().ok_or(BadUrl::NoSite)?;
        let key = site.key(target.path(), target.query())?;
        let mut on_disk = Vec::new();
        if let Some(disk) = &self.cache.disk {
            let loaded = disk.load(&key).await;
            on_disk.extend(loaded.into_iter().map(|loaded| Arc::new(self.revive(loaded))));
        }
        let now = self.clock.now();
        let entry = self.cache.memory.find(&key);
        let in_memory = entry.iter().flat_map(|entry| entry.variants());
        let tiers = in_memory
            .map(|stored| ("memory", stored))
            .chain(on_disk.iter().map(|stored| ("disk", stored)));
        let stored: Vec<Value> = tiers
            .map(|(tier, stored)| self.shown(tier, &key, stored, now))
            .collect();
        let heeds = site.settings().terms.request_directives;
        let (memory, epochs) = (&self.cache.memory, &self.cache.epochs);
        let found = lookup::lookup(
            memory,
            epochs,
            &key.sought(),
            (&request, Asks::default()),
            heeds,
            now,
        );
        let usable =
            |stored: &Arc<StoredResponse>| lookup::standing(epochs, &key, stored) != Standing::Purged;
        Ok(json!({
            "url": url,
            "site": site.name(),
            "origin": key.origin(),
            "key": key.as_str(),
            "strict": site.settings().terms.strict,
            "purges": self.cache.epochs.last().number(),
            "being_fetched": self.cache.flights.contains(&key),
            "on_disk": self.cache.disk.as_ref().is_some_and(|disk| disk.has(&key)),
            "plain_get": outlook(&found, on_disk.iter().any(usable)),
            "stored": stored,
        }))
    }

    fn shown(&self, tier: &str, key: &Key, stored: &Arc<StoredResponse>, now: Timestamp) -> Value {
        let head = &stored.head;
        let standing = lookup::standing(&self.cache.epochs, key, stored);
        let age = head.age(now);
        let vary = head.vary.as_ref().map(|vary| {
            let shown = vary
                .shown()
                .map(|(name, value)| (name.as_str().to_owned(), json!(value)));
            Value::Object(shown.collect())
        });
        json!({
            "tier": tier,
            "bytes_in": if tier::is_on_disk(stored) { "disk" } else { "memory" },
            "status": head.status.as_u16(),
            "part": head.part.map(|part| format!("{} bytes from {} of {}", part.length, part.first, part.total)),
            "source": &*head.source,
            "vary": vary,
            "served": served(&head.lifetime, age, standing),
            "age_ms": millis(age),
            "age_on_arrival_ms": millis(head.initial_age),
            "arrived": dates::format(head.response_time),
            "lifetime": lifetime(&head.lifetime),
            "ttl": head.lifetime.ttl(age),
            "fetched_at_purge": head.position.number(),
            "purged": match standing {
                Standing::Purged => "hard",
                Standing::SoftlyPurged => "soft",
                Standing::Valid { .. } => "no",
            },
            "tags": head.tags.iter().map(|tag| tag.as_str()).collect::<Vec<_>>(),
            "forms": stored.forms.iter().map(|form| shown_form(form)).collect::<Vec<_>>(),
            "bytes": stored.bytes(),
        })
    }
}

/// What a GET without any fields of its own would meet now, by the law that it would meet it by. `is_on_disk` is whether
/// the disk has something that is not purged.
fn outlook(found: &Lookup, is_on_disk: bool) -> String {
    match found {
        _ if found.is_nothing() && is_on_disk => "looked for on the disk first".into(),
        Lookup::Fresh(_) => "a hit".into(),
        Lookup::StaleAllowed(_) => "a hit, stale".into(),
        Lookup::WhileRevalidating(_) => "a hit, stale, and the origin is asked behind it".into(),
        Lookup::Forward { why, .. } => format!("the origin is asked: {}", why.token()),
        Lookup::OnlyIfCached => "refused".into(),
    }
}

/// What a plain GET would get of it, in one word.
fn served(lifetime: &Lifetime, age: std::time::Duration, standing: Standing) -> &'static str {
    let softly = standing == Standing::SoftlyPurged;
    if standing == Standing::Purged {
        return "never: purged";
    }
    let plain = RequestDirectives::parse(&HeaderMap::new());
    match staleness::judge(lifetime, age, &plain, softly, true) {
        Verdict::Fresh => "yes: fresh",
        Verdict::StaleAllowed | Verdict::StaleWhileRevalidate => "yes: stale while it is revalidated",
        Verdict::OnlyIfCached => "no",
        Verdict::MustValidate {
            why,
            stale_if_error_left,
        } => match (why, stale_if_error_left) {
            (Why::NoCache, _) => "after validation: no-cache",
            (Why::Request, _) => "after validation: the request asks for it",
            (Why::SoftlyPurged, true) => "after validation, or if the origin fails: softly purged",
            (Why::SoftlyPurged, false) => "after validation: softly purged",
            (Why::Stale, true) => "after validation, or if the origin fails: stale",
            (Why::Stale, false) => "after validation: stale",
        },
    }
}

fn lifetime(lifetime: &Lifetime) -> Value {
    json!({
        "fresh_ms": millis(lifetime.fresh),
        "from": lifetime.source.token(),
        "stale_while_revalidate_ms": millis(lifetime.stale_while_revalidate),
        "stale_if_error_ms": millis(lifetime.stale_if_error),
        "must_revalidate": lifetime.must_revalidate,
        "no_cache": lifetime.no_cache,
    })
}

fn shown_form(form: &Form) -> Value {
    let etag = form
        .etag
        .as_ref()
        .map(|etag| String::from_utf8_lossy(etag.as_bytes()));
    json!({
        "coding": form.coding.token(),
        "made_by": if form.suffix.is_empty() { "the origin" } else { form.suffix },
        "bytes": form.body.len(),
        "etag": etag,
        "may_be_bettered": form.improvable,
    })
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
