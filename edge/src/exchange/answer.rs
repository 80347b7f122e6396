//! The answer that a form or an arriving body makes: preconditions, a range, or everything (RFC 9110 sections 13 and 14).
//!
//! It decides nothing about codings, and adds nothing of the cache: see `respond`.

use std::collections::VecDeque;

use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, DATE,
    ETAG, IF_RANGE, RANGE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::asks::Asks;
use super::message::{Body, Request};
use super::{error, intake, recode};
use crate::cache::inflight::Reader;
use crate::cache::policy::partial::Part;
use crate::cache::store::{Form, Head};
use crate::clock::Timestamp;
use crate::fields::dates;
use crate::representation::coding::Coding;
use crate::representation::encoder::{self};
use crate::representation::precondition::{self, Current};
use crate::representation::range::{self, Multipart, Selection};
use crate::site::Site;

/// Digests of the content of this one message (RFC 9530 section 2): not those of a part of it.
static CONTENT_DIGESTS: [HeaderName; 2] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("content-md5"),
];

/// The suffixes of every form that may have been given out, the decoded one among them.
const SUFFIXES: [&str; 1 + encoder::SUFFIXES.len()] = {
    let [a, b, c, d, e, f] = encoder::SUFFIXES;
    [recode::DECODED, a, b, c, d, e, f]
};

/// An answer in the making.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) fields: HeaderMap,
    pub(super) body: Body,
    pub(super) coding: Coding,
    /// Whether the fields are those of a whole answer already, but for what each answer gets anew.
    pub(super) dressed: bool,
}

impl Answer {
    pub(super) fn bare(status: StatusCode, fields: HeaderMap) -> Self {
        Self {
            status,
            fields,
            body: Body::Empty,
            coding: Coding::Identity,
            dressed: false,
        }
    }

    /// RFC 9110 15.4.5: the fields that a 200 would have had, but for those that describe a content.
    pub(super) fn not_modified(head: &Head, etag: Option<HeaderValue>) -> Self {
        static OF_CONTENT: [HeaderName; 5] = [
            CONTENT_TYPE,
            CONTENT_LANGUAGE,
            CONTENT_ENCODING,
            CONTENT_LENGTH,
            CONTENT_RANGE,
        ];
        let mut fields = head.fields.clone();
        for name in &OF_CONTENT {
            fields.remove(name);
        }
        without_digests(&mut fields);
        if let Some(etag) = etag {
            fields.insert(ETAG, etag);
        }
        Self::bare(StatusCode::NOT_MODIFIED, fields)
    }

    fn unsatisfiable(length: u64) -> Self {
        let mut answer = Self::bare(StatusCode::RANGE_NOT_SATISFIABLE, HeaderMap::new());
        answer
            .fields
            .insert(CONTENT_RANGE, range::unsatisfied_range(length));
        answer
    }
}

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
fn selection(request: &Request, head: &Head, etag: Option<&HeaderValue>, length: u64) -> Selection {
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

/// The fields of an answer with all of a form.
pub(super) fn form_fields(head: &Head, form: &Form) -> HeaderMap {
    let mut fields = intake::form_fields(head, form.coding, form.suffix);
    fields.insert(CONTENT_LENGTH, HeaderValue::from(form.body.len()));
    if head.status == StatusCode::OK {
        fields.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    }
    fields
}

/// The answer with a form whose bytes, `body`, are in memory; `fields` are those of an answer with all of it.
pub(super) fn whole(
    request: &Request,
    asks: Asks,
    head: &Head,
    form: &Form,
    fields: HeaderMap,
    body: Bytes,
) -> Answer {
    let mut answer = Answer {
        status: head.status,
        fields,
        body: Body::Empty,
        coding: form.coding,
        dressed: true,
    };
    if let Some(held) = &head.part {
        return part(request, held, answer, &body);
    }
    let total = body.len() as u64;
    let selected = match asks.for_range() {
        true => selection(request, head, form.etag.as_ref(), total),
        false => Selection::Whole,
    };
    let body = match selected {
        Selection::Whole => body,
        Selection::Unsatisfiable => return Answer::unsatisfiable(total),
        Selection::Single(part) => {
            answer.status = StatusCode::PARTIAL_CONTENT;
            without_digests(&mut answer.fields);
            answer
                .fields
                .insert(CONTENT_RANGE, range::content_range(&part, total));
            answer
                .fields
                .insert(CONTENT_LENGTH, HeaderValue::from(part.end - part.start));
            slice(&body, part.start, part.end)
        }
        Selection::Multiple(parts) => return multipart(answer, &body, form.etag.as_ref(), parts),
    };
    if request.method != Method::HEAD && !body.is_empty() {
        answer.body = Body::Full(body);
    }
    answer
}

/// The answer out of a part: the range within it, or all of it (RFC 9111 section 3.3).
fn part(request: &Request, held: &Part, mut answer: Answer, body: &Bytes) -> Answer {
    let asked = held.serves(&request.headers).unwrap_or(held.first..held.end());
    without_digests(&mut answer.fields);
    answer
        .fields
        .insert(CONTENT_RANGE, range::content_range(&asked, held.total));
    answer
        .fields
        .insert(CONTENT_LENGTH, HeaderValue::from(asked.end - asked.start));
    let (start, end) = (
        asked.start.saturating_sub(held.first),
        asked.end.saturating_sub(held.first),
    );
    Answer {
        status: StatusCode::PARTIAL_CONTENT,
        body: Body::Full(slice(body, start, end)),
        coding: Coding::Identity,
        ..answer
    }
}

/// RFC 9110 14.6.
fn multipart(
    mut answer: Answer,
    body: &Bytes,
    etag: Option<&HeaderValue>,
    parts: Vec<std::ops::Range<u64>>,
) -> Answer {
    let fields = &mut answer.fields;
    without_digests(fields);
    let seed = etag.map_or(&b""[..], HeaderValue::as_bytes);
    let multipart = Multipart::new(seed, fields.get(CONTENT_TYPE), body.len() as u64, parts);
    fields.insert(CONTENT_TYPE, multipart.content_type().clone());
    fields.insert(CONTENT_LENGTH, HeaderValue::from(multipart.content_length()));
    let mut pieces = VecDeque::with_capacity(multipart.parts().len() * 2 + 1);
    for part in multipart.parts() {
        pieces.push_back(part.head.clone());
        pieces.push_back(slice(body, part.range.start, part.range.end));
    }
    pieces.push_back(multipart.tail());
    Answer {
        status: StatusCode::PARTIAL_CONTENT,
        body: Body::Parts(pieces),
        ..answer
    }
}

/// The answer with the origin's own form while it arrives. Several ranges are answered with the whole: RFC 9110 14.2
/// leaves that to us, and the parts would have to wait for one another.
pub(super) fn arriving_answer(
    request: &Request,
    head: &Head,
    mut fields: HeaderMap,
    length: Option<u64>,
    reader: Option<Reader>,
    etag: Option<&HeaderValue>,
) -> Answer {
    let mut status = head.status;
    let mut reader = reader;
    if let Some(part) = &head.part {
        let bytes = part.first..part.end();
        fields.insert(CONTENT_RANGE, range::content_range(&bytes, part.total));
    }
    if status == StatusCode::OK {
        fields.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    }
    if let Some(total) = length {
        match selection(request, head, etag, total) {
            Selection::Whole | Selection::Multiple(_) => {}
            Selection::Unsatisfiable => return Answer::unsatisfiable(total),
            Selection::Single(part) => {
                status = StatusCode::PARTIAL_CONTENT;
                without_digests(&mut fields);
                fields.insert(CONTENT_RANGE, range::content_range(&part, total));
                fields.insert(CONTENT_LENGTH, HeaderValue::from(part.end - part.start));
                reader = reader.map(|reader| reader.narrowed(part.start, part.end - part.start));
            }
        }
    }
    let body = reader.map_or(Body::Empty, Body::Inflight);
    Answer {
        status,
        fields,
        body,
        coding: head.coding,
        dressed: false,
    }
}

/// Whether it is a bucket's word for what it does not hold. What an application says of that goes on as it is.
pub(super) fn is_missing(status: StatusCode, site: &Site) -> bool {
    let is_gone = status == StatusCode::NOT_FOUND || status == StatusCode::GONE;
    is_gone && !site.settings().relays
}

/// A 404 or 410 that has just come: S3's own body is XML for machines, so it gets one that suits the path.
pub(super) fn missing(head: &Head, mut fields: HeaderMap, path: &str) -> Answer {
    let body = error::fill(&mut fields, head.status, path);
    fields.insert(CONTENT_LENGTH, HeaderValue::from(body.len() as u64));
    Answer {
        status: head.status,
        fields,
        body: Body::Full(body),
        coding: Coding::Identity,
        dressed: false,
    }
}

fn without_digests(fields: &mut HeaderMap) {
    for name in &CONTENT_DIGESTS {
        fields.remove(name);
    }
}

fn slice(body: &Bytes, start: u64, end: u64) -> Bytes {
    let at = |place: u64| usize::try_from(place).unwrap_or(usize::MAX).min(body.len());
    body.slice(at(start)..at(end).max(at(start)))
}
