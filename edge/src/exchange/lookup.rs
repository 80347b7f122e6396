//! Stored responses, policy and the time: one closed answer with its reason.

use std::sync::Arc;

use crate::cache::epoch::{Epochs, Standing};
use crate::cache::key::Key;
use crate::cache::policy::directives::RequestDirectives;
use crate::cache::policy::freshness;
use crate::cache::policy::staleness::{self, Verdict, Why};
use crate::cache::status::Forward;
use crate::cache::store::{Memory, StoredResponse};
use crate::clock::Timestamp;

use super::message::Request;

/// What the cache has to say to a request.
#[derive(Debug)]
pub enum Lookup {
    /// Serve this.
    Fresh(Arc<StoredResponse>),
    /// Serve this; the client allows it, stale as it is.
    StaleAllowed(Arc<StoredResponse>),
    /// Serve this, and ask the origin behind the client's back.
    WhileRevalidating(Arc<StoredResponse>),
    /// Ask the origin.
    Forward {
        /// Why.
        why: Forward,
        /// What is there, to be validated.
        stale: Option<Stale>,
    },
    /// The origin would have to be asked, and the client forbids it.
    OnlyIfCached,
}

impl Lookup {
    /// Whether memory has nothing for the request.
    pub fn is_nothing(&self) -> bool {
        matches!(self, Self::Forward { stale: None, .. } | Self::OnlyIfCached)
    }
}

/// A stored response that must not be served as it is.
#[derive(Clone, Debug)]
pub struct Stale {
    /// The response.
    pub stored: Arc<StoredResponse>,
    /// Whether it may be served if the origin fails.
    pub on_error: bool,
    /// Whether an operator's soft purge made it stale.
    pub purged: bool,
}

/// Looks `key` up for `request`.
pub fn lookup(
    memory: &Memory,
    epochs: &Epochs,
    key: &Key,
    request: &Request,
    strict: bool,
    now: Timestamp,
) -> Lookup {
    let directives = RequestDirectives::parse(&request.headers);
    let absent = |why| match directives.only_if_cached {
        true => Lookup::OnlyIfCached,
        false => Lookup::Forward { why, stale: None },
    };
    let Some(entry) = memory.find(key) else {
        return absent(Forward::UriMiss);
    };
    let mut why = Forward::UriMiss;
    for stored in entry.variants() {
        let standing = standing(epochs, key, stored);
        if standing == Standing::Purged {
            continue;
        }
        if stored
            .head
            .vary
            .as_ref()
            .is_some_and(|vary| !vary.matches(&request.headers))
        {
            why = Forward::VaryMiss;
            continue;
        }
        return weigh(
            stored,
            &directives,
            standing == Standing::SoftlyPurged,
            strict,
            now,
        );
    }
    absent(why)
}

fn weigh(
    stored: &Arc<StoredResponse>,
    request: &RequestDirectives,
    purged: bool,
    strict: bool,
    now: Timestamp,
) -> Lookup {
    let stored = Arc::clone(stored);
    match staleness::judge(&stored.head.lifetime, age(&stored, now), request, purged, strict) {
        Verdict::Fresh => Lookup::Fresh(stored),
        Verdict::StaleAllowed => Lookup::StaleAllowed(stored),
        Verdict::StaleWhileRevalidate => Lookup::WhileRevalidating(stored),
        Verdict::OnlyIfCached => Lookup::OnlyIfCached,
        Verdict::MustValidate {
            why,
            stale_if_error_left,
        } => Lookup::Forward {
            why: if why == Why::Request {
                Forward::Request
            } else {
                Forward::Stale
            },
            stale: Some(Stale {
                stored,
                on_error: stale_if_error_left,
                purged,
            }),
        },
    }
}

/// How a purge left this response. A response that was looked at since the last purge costs one comparison.
pub fn standing(epochs: &Epochs, key: &Key, stored: &StoredResponse) -> Standing {
    let last = epochs.last();
    if stored.is_vetted(last) {
        return Standing::Valid { as_of: last };
    }
    let standing = epochs.judge(key, &stored.head.tags, stored.head.position);
    if let Standing::Valid { as_of } = standing {
        stored.vet(as_of);
    }
    standing
}

/// The age of a stored response (RFC 9111 4.2.3).
pub fn age(stored: &StoredResponse, now: Timestamp) -> std::time::Duration {
    freshness::current_age(stored.head.initial_age, stored.head.response_time, now)
}
