//! HEAD where an application answers: the request goes on as what it is, for a GET in its place may cost more, and what
//! comes back updates what is stored (RFC 9111 section 4.3.5). From a bucket, HEAD is answered out of a GET.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, StatusCode};

use super::Exchange;
use super::fetch::{Arriving, Leading};
use super::intake::{self, Judged, Provenance};
use super::order::Order;
use crate::cache::policy::freshness::{Lifetime, Times};
use crate::cache::policy::storability::NotStored;
use crate::cache::policy::validation;
use crate::cache::store::{Head, StoredResponse};
use crate::origin::Answer;

impl Exchange {
    /// Takes the answer to a HEAD request in: the stored response that it is about is freshened or made stale, and the
    /// one who asked gets the fields.
    pub(super) fn receive_head(&self, order: &Order, answer: Answer, times: Times, leader: Leading) {
        let Answer {
            status,
            headers,
            length,
            source,
            ..
        } = answer;
        let from = Provenance {
            id: self.next_id(),
            source,
            times,
            position: leader.position,
        };
        if let Some(stored) = &order.stored {
            self.update(order, stored, (status, &headers, length), from.clone());
        }
        let Judged { head, .. } = intake::judge(order, status, &headers, length, from);
        leader.own(Arc::new(Arriving::bodiless(head, length, NotStored::Method)));
    }

    fn update(
        &self,
        order: &Order,
        stored: &Arc<StoredResponse>,
        (status, headers, length): (StatusCode, &HeaderMap, Option<u64>),
        from: Provenance,
    ) {
        let id = stored.head.id;
        let own_length = stored.own_form().map(|form| form.body.len());
        let lengths_agree = length.is_none() || length == own_length;
        let is_same = status == stored.head.status && status == StatusCode::OK;
        if is_same && lengths_agree && validation::head_updates(&stored.head.origin_fields, headers) {
            let (freshened, verdict) = intake::freshened(stored, order, headers, Provenance { id, ..from });
            match verdict {
                Ok(()) => self.cache.memory.insert(&order.key, Arc::new(freshened)),
                Err(_) => self.cache.memory.remove(&order.key),
            }
            return;
        }
        if matches!(status, StatusCode::OK | StatusCode::NOT_FOUND | StatusCode::GONE) {
            self.cache.memory.update(&order.key, id, |stored| {
                let lifetime = Lifetime {
                    fresh: Duration::ZERO,
                    ..stored.head.lifetime
                };
                let head = Head {
                    lifetime,
                    ..(*stored.head).clone()
                };
                StoredResponse::with_forms(Arc::new(head), stored.forms.clone())
            });
        }
    }
}
