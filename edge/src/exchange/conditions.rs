//! What a request asks of a representation besides itself: preconditions, and a range (RFC 9110 sections 13 and 14).

use http::header::{DATE, IF_RANGE, RANGE};
use http::{HeaderValue, Method, StatusCode};

use super::message::Request;
use super::recode;
use crate::cache::store::Head;
use crate::clock::Timestamp;
use crate::fields::dates;
use crate::representation::encoder;
use crate::representation::precondition::{self, Current};
use crate::representation::range::{self, Selection};

/// The suffixes of every form that may have been given out, the decoded one among them.
const SUFFIXES: [&str; 1 + encoder::SUFFIXES.len()] = {
    let [a, b, c, d, e, f] = encoder::SUFFIXES;
    [recode::DECODED, a, b, c, d, e, f]
};

/// What the request's preconditions say (RFC 9110 section 13).
pub(super) fn evaluate(request: &Request, head: &Head, etag: Option<&HeaderValue>) -> precondition::Outcome {
    let current = Current {
        etag,
        base: head.etag.as_ref(),
        suffixes: &SUFFIXES,
        last_modified: head.last_modified.or_else(|| date_of(head)),
    };
    precondition::evaluate(&request.method, &request.headers, &current)
}

/// Whether the `If-Range` of a request, if there is one, names the origin's own form of `head`.
pub(super) fn if_range_holds(request: &Request, head: &Head) -> bool {
    precondition::if_range(
        &request.headers,
        head.etag.as_ref(),
        head.last_modified,
        date_of(head),
    )
}

fn date_of(head: &Head) -> Option<Timestamp> {
    head.origin_fields.get(DATE).and_then(dates::parse)
}

/// What the request's `Range` selects of `length` bytes: RFC 9110 14.2 and 13.1.5.
pub(super) fn selection(
    request: &Request,
    head: &Head,
    etag: Option<&HeaderValue>,
    length: u64,
) -> Selection {
    let Some(asked) = request.headers.get(RANGE) else {
        return Selection::Whole;
    };
    let suits = head.status == StatusCode::OK && request.method == Method::GET;
    let holds = || precondition::if_range(&request.headers, etag, head.last_modified, date_of(head));
    if suits && (!request.headers.contains_key(IF_RANGE) || holds()) {
        range::select(asked, length)
    } else {
        Selection::Whole
    }
}
