//! What an answer means for what is stored already: a 304 confirms one of the stored responses, and an error of the
//! origin is no answer while something stale may be served (RFC 9111 sections 4.3.3 and 4.3.4, RFC 5861 section 4).

use std::sync::Arc;

use http::header::{AGE, DATE, ETAG, RETRY_AFTER};
use http::{HeaderMap, StatusCode};

use super::Exchange;
use super::intake::{self, Provenance};
use super::order::Order;
use crate::cache::epoch::{Position, Standing};
use crate::cache::policy::directives::{self, RequestDirectives};
use crate::cache::policy::freshness::Times;
use crate::cache::policy::staleness;
use crate::cache::policy::storability::NotStored;
use crate::cache::policy::validation::{self, Confirmed};
use crate::cache::store::StoredResponse;
use crate::origin::{self, Answer};

impl Exchange {
    /// The stored response that a 304 confirms, freshened and stored anew; `None` when it is about none that was asked
    /// about.
    pub(super) fn confirm(
        &self,
        order: &Order,
        answer: &Answer,
        times: Times,
        position: Position,
    ) -> Option<Arc<StoredResponse>> {
        let asked: Vec<_> = order.asked_back().collect();
        let fields: Vec<_> = asked.iter().map(|stored| &stored.head.origin_fields).collect();
        let nothing_new;
        // One that was stored for another request serves this one only if the origin names it, or was asked about no
        // other: then the one tag of the question is that of the answer (RFC 9110 section 13.1.2).
        let is_named = order.stored.is_some() || answer.headers.contains_key(ETAG);
        let (at, news) = match validation::confirmed(&fields, &answer.headers) {
            Confirmed::None => return None,
            Confirmed::Updated(0) if !is_named && fields.len() == 1 => {
                // It has no validator of its own, so it updates nothing (RFC 9111 section 4.3.4).
                nothing_new = times_of(&answer.headers);
                (0, &nothing_new)
            }
            _ if !is_named => return None,
            Confirmed::Unchanged(_) if order.stored.is_none() => return None,
            Confirmed::Updated(at) => (at, &answer.headers),
            Confirmed::Unchanged(at) => {
                tracing::debug!(
                    key = order.key.as_str(),
                    "a 304 with validators that were not asked about"
                );
                nothing_new = times_of(&answer.headers);
                (at, &nothing_new)
            }
        };
        let stored = asked.get(at)?;
        let from = Provenance {
            // Chosen for another request than it came for, it is one more response, with a Vary of its own.
            id: match &order.stored {
                Some(stored) => stored.head.id,
                None => self.next_id(),
            },
            source: Arc::clone(&answer.source),
            times,
            position,
        };
        let (freshened, verdict) = intake::freshened(stored, order, news, from);
        let freshened = Arc::new(freshened);
        match verdict {
            // A purge of what it was tagged with came meanwhile: the new tags do not take that back.
            Ok(()) if self.purged_since(order, stored, position) => {}
            Ok(()) => {
                self.cache.memory.insert(&order.key, Arc::clone(&freshened));
                self.store_on_disk(&order.key, &freshened);
            }
            // RFC 9111 section 4.3.4: what is confirmed may have been forbidden to store meanwhile. What the request
            // alone forbids says nothing about what is there for others.
            Err(why) => {
                self.metrics().not_stored.inc(why);
                if !is_the_requests(why, order, &freshened) {
                    self.cache.remove(&order.key);
                }
            }
        }
        Some(freshened)
    }

    /// Whether a purge, hard or soft, that came after `position` concerns `stored` as it was.
    fn purged_since(&self, order: &Order, stored: &StoredResponse, position: Position) -> bool {
        let standing = self.cache.epochs.judge(&order.key, &stored.head.tags, position);
        !matches!(standing, Standing::Valid { .. })
    }

    /// The failure that an answer is while a stale response may be served in its place: RFC 5861 section 4 names the
    /// statuses, and RFC 9111 section 4.3.3 lets us act as if the origin had not answered.
    pub(super) fn failure_in(&self, order: &Order, answer: &Answer) -> Option<origin::Error> {
        let stored = order.stored.as_ref().filter(|_| is_error(answer.status))?;
        let head = &stored.head;
        let asked = RequestDirectives::parse(&order.headers);
        if !staleness::may_serve_on_error(&head.lifetime, head.age(self.clock.now()), &asked) {
            return None;
        }
        let seconds = answer
            .headers
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.parse().ok());
        let error = origin::Error::new(origin::Kind::OriginStatus5xx, answer.status.as_str());
        Some(error.with_retry_after(seconds.map(std::time::Duration::from_secs)))
    }
}

/// Whether it is the request, and not the origin, that keeps the answer out of the store.
fn is_the_requests(why: NotStored, order: &Order, freshened: &StoredResponse) -> bool {
    let targeted = &order.site.settings().targeted;
    let said = || directives::effective(&freshened.head.origin_fields, targeted, None);
    match why {
        NotStored::Authorization => true,
        NotStored::NoStore => !said().no_store && !said().private.is_whole(),
        _ => false,
    }
}

/// The statuses that RFC 5861 section 4 calls errors.
fn is_error(status: StatusCode) -> bool {
    matches!(status.as_u16(), 500 | 502 | 503 | 504)
}

/// What is true of the 304 itself, whatever it is about.
fn times_of(headers: &HeaderMap) -> HeaderMap {
    let named = [AGE, DATE].into_iter();
    named
        .filter_map(|name| headers.get(&name).cloned().map(|value| (name, value)))
        .collect()
}
