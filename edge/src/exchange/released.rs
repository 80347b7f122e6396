//! The answer to a request for a file of a release: where its path leads, which form the client takes, and that form.
//!
//! There is nothing to revalidate here: what a path leads to is known, and a form is what its digest says. So a condition
//! is answered without the bytes, and a purge of an alias has nothing to forget that is not known better already.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, ETAG, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::answer::{self, Answer};
use super::asks::Asks;
use super::error::Failure;
use super::fill::How;
use super::intake;
use super::message::{Body, Request, Response};
use super::record::Record;
use super::respond::Said;
use super::{Exchange, Routed};
use crate::cache::policy::freshness::{Lifetime, Source};
use crate::cache::status::{Detail, Forward, Handling, Outcome, Status};
use crate::cache::store::{Form, Head};
use crate::origin::{Error, Kind};
use crate::release::file::Found;
use crate::release::wants::{self, Wants};
use crate::release::{Look, Track};
use crate::representation::coding::Coding;
use crate::representation::precondition::{self, Current};
use crate::telemetry::metrics::Label as _;

/// A form with its bytes, and how it was had.
struct Served {
    found: Found,
    form: wants::Form,
    bytes: Bytes,
    status: Status,
    outcome: Outcome,
}

impl Exchange {
    /// Answers a request on a site with releases.
    pub(super) async fn released(self: &Arc<Self>, request: Request, routed: &Routed) -> Response {
        let found = match self.find_released(routed).await {
            Ok(Some(found)) => found,
            Ok(None) => return self.fail(request, Some(&routed.site), Failure::NotFound),
            Err(error) => return self.fail(request, Some(&routed.site), Failure::from_origin(&error)),
        };
        let wants = Wants::of(&request.headers);
        let forms = wants.forms(&found.file);
        let Some(best) = forms.first() else {
            return self.fail(request, Some(&routed.site), Failure::NotAcceptable);
        };
        match condition(&request, &found, best) {
            precondition::Outcome::Proceed => {}
            precondition::Outcome::Failed => {
                let answer = Answer::bare(StatusCode::PRECONDITION_FAILED, HeaderMap::new());
                return self.finish_released(request, routed, &found, answer, None);
            }
            precondition::Outcome::NotModified(etag) => {
                let answer = Answer::not_modified(&self.head_of(&found), etag);
                return self.finish_released(request, routed, &found, answer, None);
            }
        }
        match self.serve_released(&found, &wants, &forms).await {
            Ok(served) => self.hand_over(request, routed, served),
            Err(error) => self.fail(request, Some(&routed.site), Failure::from_origin(&error)),
        }
    }

    /// Where the path leads. What is not known yet is asked for on the control plane.
    async fn find_released(self: &Arc<Self>, routed: &Routed) -> Result<Option<Found>, Error> {
        let releases = &routed.routes.releases;
        let look = || releases.look(routed.site.name(), routed.key.path());
        let (track, segment) = match look() {
            Look::Found(found) => return Ok(Some(found)),
            Look::Nothing => return Ok(None),
            Look::Unknown(track, segment) => (track, segment),
        };
        self.learn(track, segment).await?;
        match look() {
            Look::Found(found) => Ok(Some(found)),
            Look::Nothing | Look::Unknown(..) => Ok(None),
        }
    }

    async fn learn(&self, track: Arc<Track>, segment: Box<str>) -> Result<(), Error> {
        let (told, learned) = tokio::sync::oneshot::channel();
        self.drain.spawn_on(&self.control, "release", async move {
            // Whoever asked may be gone.
            let _ = told.send(track.learn(&segment).await);
        });
        let given_up = |_| Err(Error::new(Kind::ProxyInternalError, "the node is draining"));
        learned.await.unwrap_or_else(given_up)
    }

    /// The first of `forms` that can be had; where none can, what the alias led to before, if that is at hand.
    async fn serve_released(
        self: &Arc<Self>,
        found: &Found,
        wants: &Wants,
        forms: &[wants::Form],
    ) -> Result<Served, Arc<Error>> {
        let ttl = seconds(found.fields(self.unix_now()).1);
        if let Some((form, bytes)) = self.delta(found, wants).await {
            return Ok(Served::new(found, form, bytes, How::Memory, ttl));
        }
        let mut first = None;
        for form in forms {
            match self.blob(found, form).await {
                Ok((bytes, how)) => return Ok(Served::new(found, form.clone(), bytes, how, ttl)),
                Err(error) => drop(first.get_or_insert(error)),
            }
        }
        let error = first.unwrap_or_else(|| Arc::new(Error::new(Kind::ProxyInternalError, "no form")));
        if let Some(before) = found.before() {
            for form in wants.forms(&before.file) {
                if let Some(bytes) = self.blob_at_hand(&before, &form).await {
                    let served = Served::new(&before, form, bytes, How::Memory, 0);
                    return Ok(served.instead_of(&error));
                }
            }
        }
        Err(error)
    }

    fn hand_over(&self, request: Request, routed: &Routed, served: Served) -> Response {
        let Served {
            found,
            form,
            bytes,
            status,
            outcome,
        } = served;
        let head = self.head_of(&found);
        let etag = found.etag_of(&form);
        let mut fields = head.fields.clone();
        fields.insert(ETAG, etag.clone());
        fields.insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
        if form.coding.is_some() {
            fields.insert(CONTENT_ENCODING, HeaderValue::from_static(form.token()));
        }
        let sent = Form {
            etag: Some(etag),
            ..intake::own_form(&head, bytes.clone())
        };
        let asks = Asks::of(&request.headers);
        // Nobody keeps these fields, so those of the site are added with the rest.
        let answer = Answer {
            dressed: false,
            ..answer::whole(&request, asks, &head, &sent, fields, bytes)
        };
        let how = Some((Said { status, outcome }, form.token()));
        self.finish_released(request, routed, &found, answer, how)
    }

    /// The fields that every answer of the site has, and the record.
    fn finish_released(
        &self,
        request: Request,
        routed: &Routed,
        found: &Found,
        mut answer: Answer,
        how: Option<(Said, &'static str)>,
    ) -> Response {
        let head = self.head_of(found);
        let ttl = head.lifetime.ttl(Duration::ZERO);
        let hit = Said {
            status: Status::hit(ttl),
            outcome: Outcome::Hit,
        };
        let (said, token) = how.unwrap_or((hit, "-"));
        let place = routed.place(&request, self.clock.now());
        self.finish_fields(&mut answer, &request, place, &head, said);
        let is_head = request.method == Method::HEAD;
        let name = routed.site.shared_name();
        let mut record = Record::new(&self.sinks, request, name, answer.status, Some(said.outcome));
        record.set_coding_token(token);
        Response {
            status: answer.status,
            headers: answer.fields,
            body: if is_head { Body::Empty } else { answer.body },
            record: Box::new(record),
        }
    }

    /// What answers say of a file: made now, for nobody keeps it.
    fn head_of(&self, found: &Found) -> Head {
        let (fields, fresh) = found.fields(self.unix_now());
        Head {
            id: 0,
            status: StatusCode::OK,
            fields,
            origin_fields: HeaderMap::new(),
            source: Arc::clone(&self.nowhere),
            vary: None,
            lifetime: Lifetime {
                fresh,
                stale_while_revalidate: Duration::ZERO,
                stale_if_error: Duration::ZERO,
                must_revalidate: false,
                no_cache: false,
                source: Source::MaxAge,
            },
            response_time: self.clock.now(),
            initial_age: Duration::ZERO,
            position: self.cache.epochs.last(),
            tags: Box::default(),
            coding: Coding::Identity,
            etag: Some(found.etag()),
            last_modified: None,
            codable: false,
            part: None,
            withheld: HeaderMap::new(),
        }
    }

    fn unix_now(&self) -> u64 {
        u64::try_from(self.clock.now().unix_seconds()).unwrap_or_default()
    }
}

impl Served {
    fn new(found: &Found, form: wants::Form, bytes: Bytes, how: How, ttl: i64) -> Self {
        let forwarded = |collapsed| Handling::Forwarded {
            reason: Forward::UriMiss,
            status: Some(200),
            stored: true,
            collapsed,
            ttl: Some(ttl),
        };
        let (handling, detail, outcome) = match how {
            How::Memory => (Handling::Hit { ttl }, None, Outcome::Hit),
            How::Disk => (Handling::Hit { ttl }, Some(Detail::Disk), Outcome::HitDisk),
            How::Collapsed => (forwarded(true), None, Outcome::Collapsed),
            How::Fetched => (forwarded(false), None, Outcome::Miss),
        };
        Self {
            found: found.clone(),
            form,
            bytes,
            status: Status { handling, detail },
            outcome,
        }
    }

    fn instead_of(mut self, error: &Error) -> Self {
        self.status.detail = Some(Detail::StaleOnError(error.kind.token()));
        self.outcome = Outcome::StaleError;
        self
    }
}

/// What the conditions of a request ask for. Any form of the file that the client names will do.
fn condition(request: &Request, found: &Found, best: &wants::Form) -> precondition::Outcome {
    let (base, etag) = (found.etag(), found.etag_of(best));
    let named = named(&request.headers, &base);
    let suffixes: Vec<&str> = named.iter().map(String::as_str).collect();
    let current = Current {
        etag: Some(&etag),
        base: Some(&base),
        suffixes: &suffixes,
        last_modified: None,
    };
    precondition::evaluate(&request.method, &request.headers, &current)
}

/// The forms of this very file that If-None-Match names, deltas that were made here among them: their tags begin with the
/// digest of the file, and so stand for the same content.
fn named(headers: &HeaderMap, base: &HeaderValue) -> Vec<String> {
    let Some(digest) = base.to_str().ok().map(|base| base.trim_matches('"')) else {
        return Vec::new();
    };
    let values = headers.get_all(IF_NONE_MATCH).iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split('"'))
        .filter_map(|tag| tag.strip_prefix(digest)?.strip_prefix('-'))
        .map(str::to_owned)
        .collect()
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}
