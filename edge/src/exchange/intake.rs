//! From an origin's answer to what is stored: which fields are kept, for how long, and whether at all.
//!
//! Policy decides; here its questions are asked in order and the answers put together. Nothing is fetched or stored.

use std::sync::Arc;

use http::header::{
    ACCEPT_RANGES, AGE, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG,
    VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::order::{Order, SURROGATE_CAPABILITY};
use crate::cache::epoch::Position;
use crate::cache::policy::directives::{self, RequestDirectives, ResponseDirectives};
use crate::cache::policy::freshness::{self, Times};
use crate::cache::policy::partial::Part;
use crate::cache::policy::storability::{self, NotStored, RequestFacts};
use crate::cache::policy::{validation, vary};
use crate::cache::store::{Content, Dressed, Form, Head, StoredResponse};
use crate::cache::tag;
use crate::fields::{lists, packed};
use crate::representation::coding::{self, Coding};
use crate::representation::validator::{self, Validators};

/// Fields of the origin that do not go on: made anew for each answer, belonging to one form, or meant for us alone.
const NOT_SENT_ON: [HeaderName; 7] = [
    AGE,
    ETAG,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    ACCEPT_RANGES,
    HeaderName::from_static("surrogate-key"),
    HeaderName::from_static("cache-tag"),
];

/// The one field among those that speak to a cache like this one which speaks to every such cache on the way.
const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");

/// Digests of the coded bytes, which are others in a form of our own (RFC 9530 sections 2 and 3). Unencoded-Digest is
/// that of every form, and stays.
const DIGESTS: [HeaderName; 4] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("repr-digest"),
];

/// What becomes of an answer.
#[derive(Debug)]
pub struct Judged {
    /// The response without its body.
    pub head: Head,
    /// Whether it may be stored.
    pub verdict: Result<(), NotStored>,
}

/// When and whence an answer came.
#[derive(Clone, Debug)]
pub struct Provenance {
    /// The response's name among all.
    pub id: u64,
    /// The bucket.
    pub source: Arc<str>,
    /// When it was asked for and came.
    pub times: Times,
    /// The epoch at which its fetch began.
    pub position: Position,
}

/// Judges an answer with these fields, whose body has `length` bytes if that is known.
pub fn judge(
    order: &Order,
    status: StatusCode,
    headers: &HeaderMap,
    length: Option<u64>,
    from: Provenance,
) -> Judged {
    let headers = packed(headers);
    let settings = order.site.settings();
    let rule = order.site.rule(order.key.path());
    let lifetimes = &rule.lifetimes;
    let directives = directives::effective(&headers, &settings.targeted, device(&order.headers));
    let asked = RequestDirectives::parse(&order.headers);
    let facts = RequestFacts::new(&Method::GET, &order.headers, &asked);
    let (mut fields, mut withheld) = storability::stored_fields(&headers, &directives);
    order.site.strip(order.key.path(), &mut withheld);
    order.site.strip(order.key.path(), &mut fields);
    let vary = vary::vary(&fields, &order.headers, &[]).stored();
    let coding = coding_of(&headers);
    let part = part_of(order, status, &headers, length).filter(|_| coding == Some(Coding::Identity));
    // A part is kept by the law of the whole (RFC 9111 section 3.3).
    let lawful = part.map_or(status, |_| StatusCode::OK);
    let verdict = match &vary {
        // The range is no part of the key, so what is only said of the range is for nobody else: a 416 above all.
        _ if order.range.is_some() && may_be_of_range(lawful) => Err(NotStored::Partial),
        Ok(_) => storability::storable(&facts, lawful, &headers, &directives, lifetimes, settings.terms),
        Err(why) => Err(*why),
    };
    let codable = rule.coding && is_codable(status, &headers, &directives, coding, length);
    let validators = Validators::from_fields(&headers);
    for name in settings
        .targeted
        .iter()
        .filter(|name| **name != CDN_CACHE_CONTROL)
    {
        fields.remove(name);
    }
    dress(&mut fields, &headers, codable, coding);
    let mut origin_fields = headers;
    for name in withheld.keys() {
        origin_fields.remove(name);
    }
    if part.is_some() {
        fields.remove(CONTENT_RANGE);
    }
    let head = Head {
        id: from.id,
        status,
        fields,
        source: from.source,
        vary: vary.unwrap_or_default(),
        lifetime: freshness::lifetime(
            lawful,
            &origin_fields,
            &directives,
            from.times,
            lifetimes,
            settings.terms.strict,
        ),
        response_time: from.times.response,
        initial_age: freshness::corrected_initial_age(&origin_fields, from.times),
        position: from.position,
        tags: tag::tags(&origin_fields, order.site.name()).tags,
        coding: coding.unwrap_or(Coding::Identity),
        etag: validators.etag,
        last_modified: validators.last_modified,
        codable,
        part,
        withheld,
        origin_fields,
    };
    Judged { head, verdict }
}

/// What this node was called when the origin was asked (see [`Order`]).
fn device(asked: &HeaderMap) -> Option<&[u8]> {
    let said = asked.get(&SURROGATE_CAPABILITY)?.as_bytes();
    said.split(|byte| *byte == b'=').next()
}

/// The part that an answer is, of what an application serves. Those of a bucket are asked for because the whole is too
/// large to be kept.
fn part_of(order: &Order, status: StatusCode, headers: &HeaderMap, length: Option<u64>) -> Option<Part> {
    let wanted = status == StatusCode::PARTIAL_CONTENT && order.site.settings().relays;
    wanted.then(|| Part::from_fields(headers, length)).flatten()
}

/// Whether an answer may be an error because of the range that was asked for.
fn may_be_of_range(status: StatusCode) -> bool {
    let is_error = status.is_client_error() || status.is_server_error();
    is_error && !matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE)
}

/// `stored` after the origin confirmed it with the fields `news` (RFC 9111 3.2, 4.3.4), and whether it may stay stored. Its forms
/// stay, their fields are made anew.
pub fn freshened(
    stored: &StoredResponse,
    order: &Order,
    news: &HeaderMap,
    from: Provenance,
) -> (StoredResponse, Result<(), NotStored>) {
    let headers = validation::freshen(&stored.head.origin_fields, news);
    let length = stored.own_form().map(|form| form.body.len());
    let Judged { head, verdict } = judge(order, stored.head.status, &headers, length, from);
    let head = Arc::new(head);
    let form = |old: &Arc<Form>| {
        let mut form = form(&head, old.coding, old.suffix, old.body.clone());
        form.improvable = old.improvable;
        Arc::new(form)
    };
    let forms = stored.forms.iter().map(form).collect();
    (StoredResponse::with_forms(head, forms), verdict)
}

/// The head without what is meant for one client.
pub(super) fn for_all(head: &Arc<Head>) -> Arc<Head> {
    match head.withheld.is_empty() {
        true => Arc::clone(head),
        false => Arc::new(Head {
            withheld: HeaderMap::new(),
            ..(**head).clone()
        }),
    }
}

/// The form as the origin keeps it.
pub fn own_form(head: &Head, body: impl Into<Content>) -> Form {
    form(head, head.coding, "", body)
}

/// A form of `head` in `coding`, made as `suffix` says (empty for the origin's own).
pub fn form(head: &Head, coding: Coding, suffix: &'static str, body: impl Into<Content>) -> Form {
    // What is no entity tag validates nothing, but is sent on as it came.
    let as_it_came = || head.origin_fields.get(ETAG).filter(|_| suffix.is_empty());
    Form {
        coding,
        suffix,
        body: body.into(),
        etag: form_etag(head, suffix).or_else(|| as_it_came().cloned()),
        dressed: Dressed::default(),
        improvable: false,
    }
}

/// The fields of a form, but for its length.
pub fn form_fields(head: &Head, coding: Coding, suffix: &str) -> HeaderMap {
    let mut fields = head.fields.clone();
    match form_etag(head, suffix) {
        Some(etag) => {
            fields.insert(ETAG, etag);
        }
        // What is no entity tag validates nothing here, and goes on as it came.
        None if suffix.is_empty() => {
            for value in head.origin_fields.get_all(ETAG) {
                fields.append(ETAG, value.clone());
            }
        }
        None => {}
    }
    if !suffix.is_empty() {
        for name in &DIGESTS {
            fields.remove(name);
        }
    }
    // An unknown coding of the origin's own stays as the origin wrote it.
    if suffix.is_empty() {
        for value in head.origin_fields.get_all(CONTENT_ENCODING) {
            if let Some(value) = without_aws_chunked(value) {
                fields.append(CONTENT_ENCODING, value);
            }
        }
    } else if let Some(token) = coding.content_encoding() {
        fields.insert(CONTENT_ENCODING, token);
    }
    fields
}

/// The entity tag of the form that `suffix` names.
pub fn form_etag(head: &Head, suffix: &str) -> Option<HeaderValue> {
    let base = head.etag.as_ref()?;
    if suffix.is_empty() {
        Some(base.clone())
    } else {
        validator::coded_etag(base, suffix)
    }
}

/// The coding in which the origin sent the body; `None` for one (or several) that we do not know.
fn coding_of(headers: &HeaderMap) -> Option<Coding> {
    let mut codings =
        lists::members(headers.get_all(CONTENT_ENCODING)).filter(|coding| !is_aws_chunked(coding));
    let Some(first) = codings.next() else {
        return Some(Coding::Identity);
    };
    if codings.next().is_some() {
        None
    } else {
        Coding::from_token(first)
    }
}

/// Uploads that were streamed to S3 in signed chunks leave this in Content-Encoding; the body has nothing of it.
fn is_aws_chunked(coding: &str) -> bool {
    coding.eq_ignore_ascii_case("aws-chunked")
}

fn without_aws_chunked(value: &HeaderValue) -> Option<HeaderValue> {
    let kept: Vec<&str> = lists::members([value])
        .filter(|coding| !is_aws_chunked(coding))
        .collect();
    (!kept.is_empty())
        .then(|| HeaderValue::try_from(kept.join(", ")).ok())
        .flatten()
}

/// Whether other codings may be made of the body.
fn is_codable(
    status: StatusCode,
    headers: &HeaderMap,
    directives: &ResponseDirectives,
    coding: Option<Coding>,
    length: Option<u64>,
) -> bool {
    let media_type = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    status == StatusCode::OK
        && coding == Some(Coding::Identity)
        && !directives.no_transform
        && !forbids_transform(headers)
        && !headers.contains_key(CONTENT_RANGE)
        && length.is_none_or(|length| length > coding::SMALL_BYTES)
        && coding::compressible(media_type)
}

/// `no-transform` binds us wherever it stands, also when a targeted field rules the rest.
fn forbids_transform(headers: &HeaderMap) -> bool {
    lists::members(headers.get_all(CACHE_CONTROL)).any(|member| member.eq_ignore_ascii_case("no-transform"))
}

/// Puts the fields into the shape in which they are sent on.
fn dress(fields: &mut HeaderMap, origin: &HeaderMap, codable: bool, coding: Option<Coding>) {
    for name in &NOT_SENT_ON {
        fields.remove(name);
    }
    let tagged = |name: &HeaderName| name.as_str().starts_with("x-amz-");
    let noise: Vec<HeaderName> = fields.keys().filter(|name| tagged(name)).cloned().collect();
    for name in noise {
        fields.remove(name);
    }
    let negotiated = codable || coding.is_some_and(|coding| coding != Coding::Identity);
    let named: Vec<&str> = lists::members(fields.get_all(VARY)).collect();
    let says_it = named
        .iter()
        .any(|name| name.eq_ignore_ascii_case("accept-encoding"));
    let starred = lists::members(origin.get_all(VARY)).any(|name| name == "*");
    if negotiated && !says_it && !starred {
        fields.append(VARY, HeaderValue::from_static("Accept-Encoding"));
    }
}
