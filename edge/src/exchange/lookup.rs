//! Stored responses, policy and the time: one closed answer with its reason.

use std::sync::Arc;

use http::Method;

use crate::cache::epoch::{Epochs, Standing};
use crate::cache::key::{Key, Sought};
use crate::cache::policy::directives::RequestDirectives;
use crate::cache::policy::partial::Part;
use crate::cache::policy::staleness::{self, Verdict, Why};
use crate::cache::status::Forward;
use crate::cache::store::{Entry, Memory, StoredResponse};
use crate::clock::Timestamp;

use super::answer;
use super::asks::Asks;
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
        /// What is there for other requests: the origin may say that one of these will do (RFC 9111 section 4.1).
        others: Vec<Arc<StoredResponse>>,
        /// A part of what is asked for, which may be completed.
        part: Option<Arc<StoredResponse>>,
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
    /// Whether it may be served if the origin gives no answer at all.
    pub when_silent: bool,
    /// Whether an operator's soft purge made it stale.
    pub purged: bool,
}

/// Looks `sought` up for `request`, which `asks` for something.
pub fn lookup(
    memory: &Memory,
    epochs: &Epochs,
    sought: &Sought<'_>,
    (request, asks): (&Request, Asks),
    heeds: bool,
    now: Timestamp,
) -> Lookup {
    match memory.find(sought) {
        Some(entry) => choose(&entry, epochs, sought, (request, asks), heeds, now),
        None => absent(&directives(request, asks), Vec::new(), None),
    }
}

fn directives(request: &Request, asks: Asks) -> RequestDirectives {
    match asks.of_caches() {
        true => RequestDirectives::parse(&request.headers),
        false => RequestDirectives::default(),
    }
}

/// What `entry`, which is stored under `sought`, has to say to `request`.
pub fn choose(
    entry: &Entry,
    epochs: &Epochs,
    sought: &Sought<'_>,
    (request, asks): (&Request, Asks),
    heeds: bool,
    now: Timestamp,
) -> Lookup {
    let directives = directives(request, asks);
    let (mut others, mut part) = (Vec::new(), None);
    for stored in entry.variants() {
        let standing = match stored.is_vetted(epochs.last()) {
            true => Standing::Valid { as_of: epochs.last() },
            false => standing(epochs, &sought.to_key(), stored),
        };
        if standing == Standing::Purged {
            continue;
        }
        if !stored.head.suits(&request.headers) {
            if stored.head.part.is_none() {
                others.push(Arc::clone(stored));
            }
            continue;
        }
        let purged = standing == Standing::SoftlyPurged;
        let found = weigh(stored, &directives, purged, heeds, now);
        let Some(held) = &stored.head.part else {
            return found;
        };
        if matches!(found, Lookup::Fresh(_)) && serves(held, request, stored) {
            return found;
        }
        part = Some(Arc::clone(stored));
    }
    absent(&directives, others, part)
}

/// Nothing that is stored serves the request.
fn absent(
    directives: &RequestDirectives,
    others: Vec<Arc<StoredResponse>>,
    part: Option<Arc<StoredResponse>>,
) -> Lookup {
    if directives.only_if_cached {
        return Lookup::OnlyIfCached;
    }
    let why = match (&part, others.is_empty()) {
        (Some(_), _) => Forward::Partial,
        (None, true) => Forward::UriMiss,
        (None, false) => Forward::VaryMiss,
    };
    Lookup::Forward {
        why,
        stale: None,
        others,
        part,
    }
}

/// Whether a part holds the range that a request asks for (RFC 9111 section 3.3).
fn serves(part: &Part, request: &Request, stored: &StoredResponse) -> bool {
    request.method == Method::GET
        && part.serves(&request.headers).is_some()
        && answer::if_range_holds(request, &stored.head)
}

fn weigh(
    stored: &Arc<StoredResponse>,
    request: &RequestDirectives,
    purged: bool,
    heeds: bool,
    now: Timestamp,
) -> Lookup {
    let stored = Arc::clone(stored);
    let (lifetime, age) = (&stored.head.lifetime, stored.head.age(now));
    // Other sites say themselves how long they serve stale when the origin fails.
    let when_silent = heeds && staleness::may_serve_when_silent(lifetime, age);
    match staleness::judge(lifetime, age, request, purged, heeds) {
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
                when_silent,
                purged,
            }),
            others: Vec::new(),
            part: None,
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
