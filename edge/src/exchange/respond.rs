//! From a stored or arriving response to an answer: which form, then preconditions, then range, then the fields that
//! are made anew each time (RFC 9110 sections 12, 13, 14).

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, AGE, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_TYPE, DATE, ETAG, IF_RANGE, RANGE, VIA,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::message::{Body, Request, Response, Scheme};
use super::record::Record;
use super::select::{Plan, Subject, plan, takes_own};
use super::{Exchange, Routed, error, intake, recode};
use crate::cache::inflight::Reader;
use crate::cache::policy::freshness;
use crate::cache::status::{Outcome, Status};
use crate::cache::store::{Form, Head};
use crate::clock::Timestamp;
use crate::fields::dates;
use crate::representation::coding::Coding;
use crate::representation::encoder::{self};
use crate::representation::precondition::{self, Current};
use crate::representation::range::{self, Multipart, Selection};

const X_CACHE: HeaderName = HeaderName::from_static("x-cache");

/// The suffixes of every form that may have been given out, the decoded one among them.
const SUFFIXES: [&str; 1 + encoder::SUFFIXES.len()] = {
    let [a, b, c, d, e, f] = encoder::SUFFIXES;
    [recode::DECODED, a, b, c, d, e, f]
};

impl Exchange {
    /// Answers `request` with `subject`.
    pub(super) async fn respond(
        self: &Arc<Self>,
        request: Request,
        routed: &Routed,
        subject: Subject,
        status: Status,
        outcome: Outcome,
    ) -> Response {
        let head = Arc::clone(subject.head());
        let plan = plan(&request.headers, &subject);
        let etag = match &plan {
            Plan::Ready(form) => form.fields.get(ETAG).cloned(),
            Plan::AsItComes => head.etag.clone(),
            Plan::Coded(_, suffix) => intake::form_etag(&head, suffix),
            Plan::Refused => return self.fail(request, Some(&routed.site), error::Failure::NotAcceptable),
        };
        let conditions = match head.status {
            StatusCode::OK => evaluate(&request, &head, etag.as_ref()),
            _ => precondition::Outcome::Proceed,
        };
        let mut answer = match conditions {
            precondition::Outcome::Failed => Answer::bare(StatusCode::PRECONDITION_FAILED, HeaderMap::new()),
            precondition::Outcome::NotModified(etag) => Answer::not_modified(&head, etag),
            precondition::Outcome::Proceed => match self
                .realise(&request, routed, &subject, plan, etag.as_ref())
                .await
            {
                Ok(answer) => answer,
                Err(failure) => return self.fail(request, Some(&routed.site), failure),
            },
        };
        self.finish_fields(&mut answer, &request, routed, &head, status, outcome);
        let head_only = request.method == Method::HEAD;
        let mut record = Record::new(
            &self.sinks,
            request,
            &routed.site_name,
            answer.status,
            Some(outcome),
        );
        record.set_coding(answer.coding);
        let body = if head_only { Body::Empty } else { answer.body };
        Response {
            status: answer.status,
            headers: answer.fields,
            body,
            record: Box::new(record),
        }
    }

    /// Turns the plan into fields and a body.
    async fn realise(
        self: &Arc<Self>,
        request: &Request,
        routed: &Routed,
        subject: &Subject,
        plan: Plan,
        etag: Option<&HeaderValue>,
    ) -> Result<Answer, error::Failure> {
        let head = subject.head();
        let is_head = request.method == Method::HEAD;
        match (plan, subject) {
            (Plan::Ready(form), _) => Ok(whole(request, routed, head, &form, etag)),
            (Plan::AsItComes, Subject::Arriving(arriving)) => {
                let mut fields = intake::form_fields(head, head.coding, "");
                if is_missing(head.status, routed) {
                    return Ok(missing(head, fields, routed));
                }
                if let Some(length) = arriving.length {
                    fields.insert(CONTENT_LENGTH, HeaderValue::from(length));
                }
                let reader = if is_head {
                    None
                } else {
                    Some(arriving.reader().ok_or_else(error::no_origin)?)
                };
                Ok(arriving_answer(
                    request,
                    head,
                    fields,
                    arriving.length,
                    reader,
                    etag,
                ))
            }
            (Plan::Coded(coding, suffix), _) => {
                if is_head {
                    let fields = intake::form_fields(head, coding, suffix);
                    return Ok(Answer {
                        status: head.status,
                        fields,
                        body: Body::Empty,
                        coding,
                    });
                }
                self.coded(request, routed, subject, coding, suffix, etag).await
            }
            (Plan::AsItComes | Plan::Refused, _) => Err(error::Failure::NotAcceptable),
        }
    }

    /// A form that is being made: small ones are waited for, large ones are followed.
    async fn coded(
        self: &Arc<Self>,
        request: &Request,
        routed: &Routed,
        subject: &Subject,
        coding: Coding,
        suffix: &'static str,
        etag: Option<&HeaderValue>,
    ) -> Result<Answer, error::Failure> {
        let head = subject.head();
        match self.follow_form(&routed.key, subject, coding).await {
            Some(recode::Following::Made(form)) => Ok(whole(request, routed, head, &form, etag)),
            Some(recode::Following::Reader(reader)) => {
                let fields = intake::form_fields(head, coding, suffix);
                Ok(Answer {
                    status: head.status,
                    fields,
                    body: Body::Inflight(reader),
                    coding,
                })
            }
            None if !takes_own(&request.headers, head) => Err(error::Failure::NotCoded),
            // Too many forms are being made, or the coder failed: the origin's own will do.
            None => match subject {
                Subject::Stored(stored) => {
                    let own = stored.own_form().ok_or_else(error::no_origin)?;
                    let etag = own.fields.get(ETAG).cloned();
                    Ok(whole(request, routed, head, own, etag.as_ref()))
                }
                Subject::Arriving(arriving) => {
                    let reader = arriving.reader().ok_or_else(error::no_origin)?;
                    let fields = intake::form_fields(head, head.coding, "");
                    Ok(arriving_answer(
                        request,
                        head,
                        fields,
                        arriving.length,
                        Some(reader),
                        head.etag.as_ref(),
                    ))
                }
            },
        }
    }

    /// The fields that each answer gets anew, and those of the site.
    fn finish_fields(
        &self,
        answer: &mut Answer,
        request: &Request,
        routed: &Routed,
        head: &Head,
        status: Status,
        outcome: Outcome,
    ) {
        let now = self.clock.now();
        let age = freshness::current_age(head.initial_age, head.response_time, now).as_secs();
        // RFC 9111 section 5.1: an Age says that this was not made for the client just now.
        if age > 0 || !matches!(outcome, Outcome::Miss | Outcome::Collapsed) {
            answer.fields.insert(AGE, HeaderValue::from(age));
        }
        self.dress(answer, routed, request.scheme);
        let fields = &mut answer.fields;
        fields.insert(CACHE_STATUS, status.write(&routed.routes.name));
        if routed.site.settings().x_cache {
            fields.insert(
                X_CACHE,
                HeaderValue::from_static(crate::telemetry::metrics::Label::token(outcome)),
            );
        }
        if !fields.contains_key(DATE) {
            fields.insert(DATE, dates::to_value(head.response_time));
        }
    }

    /// The fields of the site and of this node.
    fn dress(&self, answer: &mut Answer, routed: &Routed, scheme: Scheme) {
        let rule = routed.site.rule(routed.key.path());
        // What a rule says of caching is said of content, not of a 404 in its place.
        let is_content = matches!(
            answer.status,
            StatusCode::OK | StatusCode::PARTIAL_CONTENT | StatusCode::NOT_MODIFIED
        );
        for (name, value) in rule.fields(scheme == Scheme::Https) {
            if is_content || name != CACHE_CONTROL {
                answer.fields.insert(name.clone(), value.clone());
            }
        }
        answer.fields.insert(VIA, routed.routes.via.clone());
    }
}

/// `Cache-Status` (RFC 9211).
pub(super) const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// An answer in the making.
struct Answer {
    status: StatusCode,
    fields: HeaderMap,
    body: Body,
    coding: Coding,
}

impl Answer {
    fn bare(status: StatusCode, fields: HeaderMap) -> Self {
        Self {
            status,
            fields,
            body: Body::Empty,
            coding: Coding::Identity,
        }
    }

    /// RFC 9110 15.4.5: the fields that a 200 would have had, but for those that describe a content.
    fn not_modified(head: &Head, etag: Option<HeaderValue>) -> Self {
        let mut fields = head.fields.clone();
        for name in [
            CONTENT_TYPE,
            CONTENT_LANGUAGE,
            CONTENT_ENCODING,
            CONTENT_LENGTH,
            CONTENT_RANGE,
        ] {
            fields.remove(name);
        }
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

fn evaluate(request: &Request, head: &Head, etag: Option<&HeaderValue>) -> precondition::Outcome {
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

/// The answer with a form that is all there.
fn whole(request: &Request, routed: &Routed, head: &Head, form: &Form, etag: Option<&HeaderValue>) -> Answer {
    let mut fields = form.fields.clone();
    let mut body = form.body.clone();
    let mut status = head.status;
    if status == StatusCode::OK {
        fields.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    } else if body.is_empty() && is_missing(status, routed) {
        body = error::fill(&mut fields, status, request.target.path());
        fields.insert(CONTENT_LENGTH, HeaderValue::from(body.len() as u64));
    }
    let total = body.len() as u64;
    match selection(request, head, etag, total) {
        Selection::Whole => {}
        Selection::Unsatisfiable => return Answer::unsatisfiable(total),
        Selection::Single(part) => {
            status = StatusCode::PARTIAL_CONTENT;
            fields.insert(CONTENT_RANGE, range::content_range(&part, total));
            fields.insert(CONTENT_LENGTH, HeaderValue::from(part.end - part.start));
            body = slice(&body, part.start, part.end);
        }
        Selection::Multiple(parts) => return multipart(fields, &body, etag, parts, form.coding),
    }
    let body = match request.method == Method::HEAD || body.is_empty() {
        true => Body::Empty,
        false => Body::Full(body),
    };
    Answer {
        status,
        fields,
        body,
        coding: form.coding,
    }
}

/// RFC 9110 14.6.
fn multipart(
    mut fields: HeaderMap,
    body: &Bytes,
    etag: Option<&HeaderValue>,
    parts: Vec<std::ops::Range<u64>>,
    coding: Coding,
) -> Answer {
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
        fields,
        body: Body::Parts(pieces),
        coding,
    }
}

/// The answer with the origin's own form while it arrives. Several ranges are answered with the whole: RFC 9110 14.2
/// leaves that to us, and the parts would have to wait for one another.
fn arriving_answer(
    request: &Request,
    head: &Head,
    mut fields: HeaderMap,
    length: Option<u64>,
    reader: Option<Reader>,
    etag: Option<&HeaderValue>,
) -> Answer {
    let mut status = head.status;
    let mut reader = reader;
    if status == StatusCode::OK {
        fields.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    }
    if let Some(total) = length {
        match selection(request, head, etag, total) {
            Selection::Whole | Selection::Multiple(_) => {}
            Selection::Unsatisfiable => return Answer::unsatisfiable(total),
            Selection::Single(part) => {
                status = StatusCode::PARTIAL_CONTENT;
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
    }
}

/// Whether it is a bucket's word for what it does not hold. What an application says of that goes on as it is.
fn is_missing(status: StatusCode, routed: &Routed) -> bool {
    let is_gone = status == StatusCode::NOT_FOUND || status == StatusCode::GONE;
    is_gone && !routed.site.settings().relays
}

/// A 404 or 410 that has just come: S3's own body is XML for machines, so it gets one that suits the path.
fn missing(head: &Head, mut fields: HeaderMap, routed: &Routed) -> Answer {
    let body = error::fill(&mut fields, head.status, routed.key.path());
    fields.insert(CONTENT_LENGTH, HeaderValue::from(body.len() as u64));
    Answer {
        status: head.status,
        fields,
        body: Body::Full(body),
        coding: Coding::Identity,
    }
}

fn slice(body: &Bytes, start: u64, end: u64) -> Bytes {
    let at = |place: u64| usize::try_from(place).unwrap_or(usize::MAX).min(body.len());
    body.slice(at(start)..at(end).max(at(start)))
}
