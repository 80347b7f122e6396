//! From a stored or arriving response to an answer: which form, then preconditions, then range, then the fields that
//! are made anew each time (RFC 9110 sections 12, 13, 14).

use std::sync::Arc;

use http::header::{AGE, CACHE_CONTROL, CONTENT_LENGTH, DATE, LAST_MODIFIED, VIA};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::answer::{self, Answer, arriving_answer, evaluate, is_missing, missing, whole};
use super::asks::Asks;
use super::fetch::Arriving;
use super::message::{Body, Request, Response, Scheme};
use super::record::Record;
use super::select::{Plan, Subject, plan};
use super::wait::{Wait, Waiting};
use super::{Exchange, Routed, Routes, error, intake, tier};
use crate::cache::key::Key;
use crate::cache::status::{Detail, Forward, Handling, Outcome, Status};
use crate::cache::store::{Content, Form, Head, Reservation, StoredResponse};
use crate::clock::Timestamp;
use crate::fields::{dates, number};
use crate::representation::precondition;
use crate::site::{Rule, Site};
use crate::telemetry::metrics::Label as _;

/// The largest delta-seconds (RFC 9111 section 1.2.2).
const AGE_MAX: u64 = 1 << 31;

/// Where a request leads, and when: all that an answer needs to know of it besides its fields.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) routes: &'a Routes,
    pub(super) site: &'a Arc<Site>,
    pub(super) rule: &'a Rule,
    pub(super) asks: Asks,
    /// The time of the decision, from which ages count.
    pub(super) now: Timestamp,
}

/// What is said of the cache's part.
#[derive(Clone, Copy, Debug)]
pub(super) struct Said {
    pub(super) status: Status,
    pub(super) outcome: Outcome,
}

/// An answer: whole, or one that waits.
pub(super) enum Begun {
    Done(Response),
    Waits(Waiting),
}

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
        let place = routed.place(&request, self.clock.now());
        match self.begin_answer(request, place, subject, Said { status, outcome }) {
            Begun::Done(response) => response,
            Begun::Waits(waiting) => self.go_on(routed, waiting).await,
        }
    }

    /// Answers `request` with `subject` as far as nothing has to be waited for.
    pub(super) fn begin_answer(
        self: &Arc<Self>,
        request: Request,
        place: Place<'_>,
        subject: Subject,
        said: Said,
    ) -> Begun {
        self.answer_within(request, place, subject, said, None)
    }

    /// As [`Exchange::begin_answer`], with what has been set aside for a body that is read from the disk.
    pub(super) fn answer_within(
        self: &Arc<Self>,
        request: Request,
        place: Place<'_>,
        subject: Subject,
        said: Said,
        room: Option<Reservation>,
    ) -> Begun {
        let head = subject.head();
        let plan = plan(&request.headers, place.asks, &subject);
        let conditional = place.asks.for_condition()
            && matches!(head.status, StatusCode::OK | StatusCode::PARTIAL_CONTENT)
            && !matches!(plan, Plan::Refused);
        if conditional {
            let etag = match &plan {
                Plan::Ready(form) => form.etag.clone(),
                Plan::Coded(_, suffix) => intake::form_etag(head, suffix),
                Plan::AsItComes | Plan::Refused => head.etag.clone(),
            };
            let answer = match evaluate(&request, head, etag.as_ref()) {
                precondition::Outcome::Failed => {
                    Some(Answer::bare(StatusCode::PRECONDITION_FAILED, HeaderMap::new()))
                }
                precondition::Outcome::NotModified(etag) => Some(Answer::not_modified(head, etag)),
                precondition::Outcome::Proceed => None,
            };
            if let Some(answer) = answer {
                return Begun::Done(self.complete(answer, request, place, head, said));
            }
        }
        let room = match read_from_disk(&plan, &subject).filter(|_| request.method != Method::HEAD) {
            None => None,
            Some(length) => match room.or_else(|| self.room_to_read(length)) {
                Some(room) => Some(room),
                None => {
                    let wait = Wait::Room(length);
                    return Begun::Waits(Waiting {
                        request,
                        subject,
                        said,
                        wait,
                    });
                }
            },
        };
        let answer = match plan {
            Plan::Ready(form) => self.answer_with(&request, place, head, form, room),
            Plan::AsItComes => as_it_comes(&request, place, &subject, room),
            Plan::Coded(coding, suffix) if request.method == Method::HEAD => Ok(Answer {
                coding,
                ..Answer::bare(head.status, intake::form_fields(head, coding, suffix))
            }),
            Plan::Coded(coding, suffix) => {
                let wait = Wait::Form(coding, suffix);
                return Begun::Waits(Waiting {
                    request,
                    subject,
                    said,
                    wait,
                });
            }
            Plan::Refused => Err(error::Failure::NotAcceptable),
        };
        Begun::Done(match answer {
            Ok(answer) => self.complete(answer, request, place, head, said),
            Err(failure) => self.fail(request, Some(place.site), failure),
        })
    }

    /// An answer in its last shape: with the fields that each gets anew, and with its record.
    pub(super) fn complete(
        &self,
        mut answer: Answer,
        request: Request,
        place: Place<'_>,
        head: &Head,
        said: Said,
    ) -> Response {
        self.finish_fields(&mut answer, &request, place, head, said);
        let head_only = request.method == Method::HEAD;
        let mut record = Box::new(Record::new(
            &self.sinks,
            request,
            place.site.shared_name(),
            answer.status,
            Some(said.outcome),
        ));
        record.set_coding(answer.coding);
        let body = if head_only { Body::Empty } else { answer.body };
        Response {
            status: answer.status,
            headers: answer.fields,
            body,
            record,
        }
    }

    /// The answer with a form that is all there, in memory or on disk: there is `room` to read it from there.
    pub(super) fn answer_with(
        self: &Arc<Self>,
        request: &Request,
        place: Place<'_>,
        head: &Arc<Head>,
        form: &Form,
        room: Option<Reservation>,
    ) -> Result<Answer, error::Failure> {
        let on_disk = match &form.body {
            Content::Memory(body) if body.is_empty() && is_missing(head.status, place.site) => {
                let fields = intake::form_fields(head, form.coding, form.suffix);
                return Ok(missing(head, fields, request.target.path()));
            }
            Content::Memory(body) => {
                let secure = request.scheme == Scheme::Https;
                let fields = form.dressed.by(place.rule.number(secure), || {
                    let mut fields = answer::form_fields(head, form);
                    dress(&mut fields, place, secure, head, head.status);
                    fields
                });
                return Ok(whole(request, place.asks, head, form, fields, body.clone()));
            }
            Content::Disk(on_disk) => on_disk,
        };
        let reader = match request.method {
            Method::HEAD => None,
            _ => {
                let room = room.ok_or(error::Failure::OverBudget)?;
                Some(self.read_from_disk(&place.key(request)?, head, form.suffix, on_disk, room))
            }
        };
        let fields = answer::form_fields(head, form);
        let etag = form.etag.as_ref();
        let answer = arriving_answer(request, head, fields, on_disk.length(), reader, etag);
        Ok(Answer {
            coding: form.coding,
            ..answer
        })
    }

    /// The fields that each answer gets anew, and those of the site where it has them not yet.
    pub(super) fn finish_fields(
        &self,
        answer: &mut Answer,
        request: &Request,
        place: Place<'_>,
        head: &Head,
        said: Said,
    ) {
        let Said { status, outcome } = said;
        let fields = &mut answer.fields;
        if !answer.dressed {
            if outcome == Outcome::Miss {
                fields.extend(head.withheld.clone());
            }
            dress(
                fields,
                place,
                request.scheme == Scheme::Https,
                head,
                answer.status,
            );
        }
        let age = head.age(place.now).as_secs().min(AGE_MAX);
        // RFC 9111 section 5.1: an Age says that this was not made for the client just now.
        if age > 0 || !matches!(outcome, Outcome::Miss | Outcome::Collapsed) {
            put(fields, &AGE, number(age));
        } else {
            fields.remove(AGE);
        }
        // RFC 9211 section 2: each cache adds itself behind those nearer to the origin.
        let settings = place.site.settings();
        let key = settings
            .cache_status_key
            .then(|| place.key(request).ok())
            .flatten();
        let mut said = status.write(&place.routes.name, key.as_ref());
        keep_unindexed(&mut said);
        match fields.get_mut(&CACHE_STATUS) {
            Some(room) if room.is_empty() => *room = said,
            _ => {
                fields.append(&CACHE_STATUS, said);
            }
        }
        if settings.x_cache {
            put(fields, &X_CACHE, HeaderValue::from_static(outcome.token()));
        }
    }
}

impl Routed {
    /// What an answer at `now` needs to know of it.
    pub(super) fn place(&self, request: &Request, now: Timestamp) -> Place<'_> {
        Place {
            routes: &self.routes,
            site: &self.site,
            rule: self.site.rule(self.key.path()),
            asks: Asks::of(&request.headers),
            now,
        }
    }
}

/// What is said of a hit.
pub(super) fn said(stored: &StoredResponse, detail: Option<Detail>, now: Timestamp) -> Said {
    let ttl = stored.head.lifetime.ttl(stored.head.age(now));
    let negative = matches!(stored.head.status, StatusCode::NOT_FOUND | StatusCode::GONE);
    let detail = detail.or_else(|| tier::is_on_disk(stored).then_some(Detail::Disk));
    let (outcome, detail) = match detail {
        None if ttl < 0 => (Outcome::HitStale, None),
        Some(Detail::Disk) if ttl >= 0 => (Outcome::HitDisk, detail),
        None if negative => (Outcome::HitNegative, Some(Detail::Negative)),
        None => (Outcome::Hit, None),
        stale => (Outcome::HitStale, stale),
    };
    let handling = Handling::Hit { ttl };
    Said {
        status: Status { handling, detail },
        outcome,
    }
}

/// A request that went forward, for Cache-Status.
#[derive(Clone, Copy, Debug)]
pub(super) struct Forwarded {
    pub(super) why: Forward,
    pub(super) collapsed: bool,
}

impl Forwarded {
    pub(super) fn to(self, status: Option<u16>, stored: bool, ttl: Option<i64>) -> Handling {
        Handling::Forwarded {
            reason: self.why,
            status,
            stored,
            collapsed: self.collapsed,
            ttl,
        }
    }
}

/// The length of the body that is to be read from the disk, if one is, as far as that is known.
fn read_from_disk(plan: &Plan<'_>, subject: &Subject) -> Option<Option<u64>> {
    match (plan, subject) {
        (Plan::Ready(form), _) => on_disk(form),
        (Plan::AsItComes, Subject::Arriving(_)) => own_on_disk(subject),
        _ => None,
    }
}

pub(super) fn own_on_disk(subject: &Subject) -> Option<Option<u64>> {
    match subject {
        Subject::Stored(stored) => stored.own_form().and_then(|own| on_disk(own)),
        Subject::Arriving(arriving) => arriving.goes_to_disk().then_some(arriving.length),
    }
}

fn on_disk(form: &Form) -> Option<Option<u64>> {
    match &form.body {
        Content::Memory(_) => None,
        Content::Disk(on_disk) => Some(on_disk.length()),
    }
}

/// The origin's own form, as it arrives: there is `room` to read it where it goes to the disk.
pub(super) fn as_it_comes(
    request: &Request,
    place: Place<'_>,
    subject: &Subject,
    room: Option<Reservation>,
) -> Result<Answer, error::Failure> {
    let Subject::Arriving(arriving) = subject else {
        return Err(error::Failure::NotAcceptable);
    };
    let head = &arriving.head;
    let mut fields = intake::form_fields(head, head.coding, "");
    if is_missing(head.status, place.site) {
        return Ok(missing(head, fields, request.target.path()));
    }
    if let Some(length) = arriving.length {
        fields.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    let reader = match request.method {
        Method::HEAD => None,
        _ => Some(arriving.reader(room).ok_or_else(|| unreadable(arriving))?),
    };
    let etag = head.etag.as_ref();
    Ok(arriving_answer(
        request,
        head,
        fields,
        arriving.length,
        reader,
        etag,
    ))
}

/// Adds the fields of the site and of this node, and makes room for those that each answer gets anew: what is copied is then
/// never grown.
fn dress(fields: &mut HeaderMap, place: Place<'_>, secure: bool, head: &Head, status: StatusCode) {
    // What a rule says of caching is said of content, not of a 404 in its place.
    let is_content = matches!(
        status,
        StatusCode::OK | StatusCode::PARTIAL_CONTENT | StatusCode::NOT_MODIFIED
    );
    for (name, value) in place.rule.fields(secure) {
        if is_content || name != CACHE_CONTROL {
            fields.insert(name, value.clone());
        }
    }
    // RFC 9110 section 7.6.3.
    fields.append(VIA, place.routes.via.clone());
    if !fields.contains_key(DATE) {
        fields.insert(DATE, dates::to_value(head.response_time));
    }
    fields.insert(AGE, HeaderValue::from_static("0"));
    if !fields.contains_key(&CACHE_STATUS) {
        fields.insert(&CACHE_STATUS, ROOM);
    }
    if place.site.settings().x_cache {
        fields.insert(&X_CACHE, ROOM);
    }
    for name in [DATE, LAST_MODIFIED] {
        if let Some(value) = fields.get_mut(name) {
            keep_unindexed(value);
        }
    }
}

/// Keeps a value that hardly two answers of a connection share out of HPACK's table (RFC 7541, 7.1.3 says how). In it it would
/// push out those that come again, and h2 goes through all that it holds of a field for each answer.
fn keep_unindexed(value: &mut HeaderValue) {
    value.set_sensitive(true);
}

/// Stands where each answer writes its own value.
const ROOM: HeaderValue = HeaderValue::from_static("");

/// Replaces the first value, without looking whether there is room for one more.
fn put(fields: &mut HeaderMap, name: &'static HeaderName, value: HeaderValue) {
    match fields.get_mut(name) {
        Some(held) => *held = value,
        None => {
            fields.insert(name, value);
        }
    }
}

impl Place<'_> {
    /// The key of `request`, where somebody asks for it after all.
    fn key(&self, request: &Request) -> Result<Key, error::Failure> {
        self.site
            .key(request.target.path(), request.target.query())
            .map_err(error::Failure::BadPath)
    }
}

/// Why there is no reader of an arriving body.
fn unreadable(arriving: &Arriving) -> error::Failure {
    match arriving.goes_to_disk() {
        true => error::Failure::OverBudget,
        false => error::no_origin(),
    }
}

/// `Cache-Status` (RFC 9211).
pub(super) static CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

static X_CACHE: HeaderName = HeaderName::from_static("x-cache");
