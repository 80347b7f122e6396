//! Parts of responses in the store: a range that is there is served from it, parts that touch become one, and a part of
//! which one range is missing is completed by it (RFC 9111 sections 3.3 and 3.4).
//!
//! Everything is bounded by what any body is: a part, and what parts become, is at most as long as the largest body
//! that is kept, and a key holds parts among its few variants.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_RANGE, IF_RANGE, RANGE};
use http::{HeaderMap, Method, StatusCode};

use super::Exchange;
use super::intake;
use super::lookup;
use super::message::Request;
use super::order::Order;
use crate::cache::epoch::Standing;
use crate::cache::policy::partial::{self, Part};
use crate::cache::policy::validation;
use crate::cache::store::{Budget, Head, StoredResponse};
use crate::origin::{Answer, AskedRange};

/// The range that the origin is asked for in place of the whole, where nothing is stored. With If-Range the whole might
/// have to be given, so that is what is asked for.
pub(super) fn forwarded(request: &Request) -> Option<AskedRange> {
    if request.method != Method::GET || request.headers.contains_key(IF_RANGE) {
        return None;
    }
    let mut lines = request.headers.get_all(RANGE).iter();
    let (unit, set) = lines.next()?.to_str().ok()?.split_once('=')?;
    let (first, last) = set.trim().split_once('-')?;
    if lines.next().is_some() || !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    match (number(first), number(last)) {
        (None, Some(length)) if first.is_empty() => Some(AskedRange::Suffix(length)),
        (Some(first), None) if last.is_empty() => Some(AskedRange::From { first, last: None }),
        (Some(first), Some(last)) if first <= last => Some(AskedRange::From {
            first,
            last: Some(last),
        }),
        _ => None,
    }
}

fn number(digits: &str) -> Option<u64> {
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

/// What stands before and behind the bytes that arrive.
#[derive(Debug, Default)]
pub(super) struct Around {
    pub(super) before: Bytes,
    pub(super) behind: Bytes,
}

impl Around {
    pub(super) fn len(&self) -> u64 {
        (self.before.len() + self.behind.len()) as u64
    }
}

/// The whole that `answer` and the part held make together, as if the origin had sent it; or the order to ask anew for
/// all of it, when they do not belong together. Where nothing was to be completed, the answer as it is.
pub(super) fn completed(mut order: Order, mut answer: Answer) -> Result<(Order, Answer, Around), Box<Order>> {
    let Some(held) = order.part.take() else {
        return Ok((order, answer, Around::default()));
    };
    order.range = None;
    match answer.status {
        StatusCode::PARTIAL_CONTENT => {}
        StatusCode::RANGE_NOT_SATISFIABLE => return Err(Box::new(order)),
        _ => return Ok((order, answer, Around::default())),
    }
    let fields = &held.head.origin_fields;
    let new = Part::from_fields(&answer.headers, answer.length);
    let (Some(old), Some(new), Some(form)) = (held.head.part, new, in_memory(&held)) else {
        return Err(Box::new(order));
    };
    let belongs = old
        .join(&new)
        .filter(|joined| joined.overlap == 0 && joined.part.is_whole());
    let Some(joined) = belongs.filter(|_| partial::combinable(fields, &answer.headers)) else {
        return Err(Box::new(order));
    };
    // RFC 9111 section 3.4: the new fields over the stored ones.
    answer.headers = validation::freshen(fields, &answer.headers);
    answer.headers.remove(CONTENT_RANGE);
    answer.status = StatusCode::OK;
    let (before, behind) = match joined.in_front {
        true => (form.clone(), Bytes::new()),
        false => (Bytes::new(), form.clone()),
    };
    Ok((order, answer, Around { before, behind }))
}

impl Exchange {
    /// A response that has come whole, as it is stored: a part together with the part that is there already.
    pub(super) fn kept(&self, order: &Order, head: &Arc<Head>, body: Bytes) -> StoredResponse {
        let new = StoredResponse::new(Arc::clone(head), intake::own_form(head, body));
        if head.part.is_none() {
            return new;
        }
        let belongs = |old: &&Arc<StoredResponse>| {
            let standing = lookup::standing(&self.cache.epochs, &order.key, old);
            old.head.source == head.source
                && old.head.vary == head.vary
                && matches!(standing, Standing::Valid { .. })
                && partial::combinable(&old.head.origin_fields, &head.origin_fields)
        };
        let entry = self.cache.memory.find(&order.key);
        let held = entry.iter().flat_map(|entry| entry.variants()).find(belongs);
        let bytes_max = self.cache.object_bytes_max;
        held.and_then(|held| joined(held, &new, bytes_max, &self.cache.budget))
            .unwrap_or(new)
    }
}

/// The bytes that the origin sent; a part's are always here.
fn in_memory(stored: &StoredResponse) -> Option<&Bytes> {
    stored.own_form()?.body.in_memory()
}

/// Two parts in one, if they touch and are not too long together, and there is room for both and the one.
fn joined(
    old: &StoredResponse,
    new: &StoredResponse,
    bytes_max: u64,
    budget: &Budget,
) -> Option<StoredResponse> {
    let joined = new.head.part?.join(&old.head.part?)?;
    if joined.part.length > bytes_max {
        return None;
    }
    let (old_body, new_body) = (in_memory(old)?, in_memory(new)?);
    let (front, behind) = match joined.in_front {
        true => (new_body, old_body),
        false => (old_body, new_body),
    };
    let skipped = usize::try_from(joined.overlap).ok()?.min(behind.len());
    let length = front.len() + behind.len() - skipped;
    let room = budget.keep(length as u64, length as u64)?;
    let mut body = Vec::with_capacity(length);
    body.extend_from_slice(front);
    body.extend_from_slice(behind.get(skipped..)?);
    let mut head = (*new.head).clone();
    add_missing(&mut head.fields, &old.head.fields);
    add_missing(&mut head.origin_fields, &old.head.origin_fields);
    head.part = (!joined.part.is_whole()).then_some(joined.part);
    if head.part.is_none() {
        head.status = StatusCode::OK;
        head.origin_fields.remove(CONTENT_RANGE);
    }
    let head = Arc::new(head);
    Some(StoredResponse::new(
        Arc::clone(&head),
        intake::own_form(&head, room.hold(body)),
    ))
}

/// Fields that a later part need not repeat (RFC 9110 section 15.3.7).
fn add_missing(fields: &mut HeaderMap, earlier: &HeaderMap) {
    for name in earlier.keys() {
        if !fields.contains_key(name) {
            for value in earlier.get_all(name) {
                fields.append(name.clone(), value.clone());
            }
        }
    }
}
