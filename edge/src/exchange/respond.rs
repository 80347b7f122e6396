//! From a stored or arriving response to an answer: which form, then preconditions, then range, then the fields that
//! are made anew each time (RFC 9110 sections 12, 13, 14).

use std::sync::Arc;

use http::header::{AGE, CACHE_CONTROL, CONTENT_LENGTH, DATE, ETAG, VIA};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::answer::{Answer, arriving_answer, evaluate, is_missing, missing, whole};
use super::fetch::Arriving;
use super::message::{Body, Request, Response, Scheme};
use super::record::Record;
use super::select::{Plan, Subject, plan, takes_own};
use super::{Exchange, Routed, error, intake, recode};
use crate::cache::status::{Outcome, Status};
use crate::cache::store::{Content, Form, Head};
use crate::fields::dates;
use crate::representation::coding::Coding;
use crate::representation::precondition;

const X_CACHE: HeaderName = HeaderName::from_static("x-cache");

/// The largest delta-seconds (RFC 9111 section 1.2.2).
const AGE_MAX: u64 = 1 << 31;

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
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => evaluate(&request, &head, etag.as_ref()),
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
            (Plan::Ready(form), _) => self.answer_with(request, routed, head, &form, etag),
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
                    Some(arriving.reader().ok_or_else(|| unreadable(arriving))?)
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

    /// The answer with a form that is all there, in memory or on disk.
    fn answer_with(
        self: &Arc<Self>,
        request: &Request,
        routed: &Routed,
        head: &Arc<Head>,
        form: &Form,
        etag: Option<&HeaderValue>,
    ) -> Result<Answer, error::Failure> {
        let on_disk = match &form.body {
            Content::Memory(body) => return Ok(whole(request, routed, head, form, body.clone(), etag)),
            Content::Disk(on_disk) => on_disk,
        };
        let reader = (request.method != Method::HEAD)
            .then(|| {
                self.read_from_disk(&routed.key, head, form.suffix, on_disk)
                    .ok_or(error::Failure::OverBudget)
            })
            .transpose()?;
        let fields = form.fields.clone();
        let mut answer = arriving_answer(request, head, fields, on_disk.length(), reader, etag);
        answer.coding = form.coding;
        Ok(answer)
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
            Some(recode::Following::Made(form)) => self.answer_with(request, routed, head, &form, etag),
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
                    self.answer_with(request, routed, head, own, etag.as_ref())
                }
                Subject::Arriving(arriving) => {
                    let reader = arriving.reader().ok_or_else(|| unreadable(arriving))?;
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
        let age = head.age(now).as_secs().min(AGE_MAX);
        // RFC 9111 section 5.1: an Age says that this was not made for the client just now.
        if age > 0 || !matches!(outcome, Outcome::Miss | Outcome::Collapsed) {
            answer.fields.insert(AGE, HeaderValue::from(age));
        }
        if outcome == Outcome::Miss {
            answer.fields.extend(head.withheld.clone());
        }
        self.dress(answer, routed, request.scheme);
        let fields = &mut answer.fields;
        // RFC 9211 section 2: each cache adds itself behind those nearer to the origin.
        let settings = routed.site.settings();
        let key = settings.cache_status_key.then_some(&routed.key);
        fields.append(CACHE_STATUS, status.write(&routed.routes.name, key));
        if settings.x_cache {
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
        // RFC 9110 section 7.6.3.
        answer.fields.append(VIA, routed.routes.via.clone());
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
pub(super) const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
