//! One request: validated, answered, and turned back into what hyper sends.

use std::any::Any;
use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use http_body::Body as _;
use hyper::body::Incoming;

use super::body::Outgoing;
use super::content::{Arriving, End};
use super::metrics::{Metrics, RequestRefused};
use super::pulse::{Pulse, UnderWay};
use super::request::{self, Arrival, HeadLimits};
use super::{Answer, Client, Kind};
use crate::clock::Clock;
use crate::drain::{Drain, panic_message};
use crate::exchange::Refused;
use crate::exchange::error::Failure;
use crate::exchange::message::{Answering, Body, Content, Request, Response};

/// What the requests of one connection share.
pub(super) struct Visit<A> {
    pub answer: Arc<A>,
    pub clock: Clock,
    pub drain: Drain,
    pub metrics: Metrics,
    pub limits: HeadLimits,
    pub client: Client,
    pub pulse: Arc<Pulse>,
}

/// What one request is answered by, without the request itself.
struct Asked<A> {
    visit: Arc<Visit<A>>,
    under_way: UnderWay,
    known: Known,
    arrival: Arrival,
    version: Version,
    head_only: bool,
    /// The connection ends with this answer.
    is_last: bool,
    /// Whether the content has been read to its end, if there is any.
    content: End,
}

/// What hyper waits for: the answer itself, or the future that gives it. A panic on the way is a 500 of that request
/// alone, so it never fails.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every answer is the large variant, and it lives for a moment"
)]
pub(super) enum Answered {
    Now(Option<http::Response<Outgoing>>),
    Later(Pin<Box<dyn Future<Output = http::Response<Outgoing>> + Send>>),
}

impl Future for Answered {
    type Output = Result<http::Response<Outgoing>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Now(response) => response
                .take()
                .map_or(Poll::Pending, |response| Poll::Ready(Ok(response))),
            Self::Later(future) => future.as_mut().poll(cx).map(Ok),
        }
    }
}

impl<A: Answer> Visit<A> {
    /// Answers one request.
    pub(super) fn answer(self: &Arc<Self>, request: http::Request<Incoming>) -> Answered {
        let under_way = UnderWay::begin(&self.pulse);
        let (head, content) = request.into_parts();
        let arrival = Arrival {
            client: self.client.address,
            scheme: self.client.kind.scheme(),
            received: self.clock.now(),
            has_content: !content.is_end_stream(),
            is_ambiguous: self.pulse.is_ambiguous(),
            is_early: self.pulse.is_early(),
        };
        let end = End::default();
        let asked = Asked {
            visit: Arc::clone(self),
            under_way,
            known: Known::of(&head),
            arrival,
            version: head.version,
            head_only: head.method == Method::HEAD,
            is_last: false,
            content: end.clone(),
        };
        let takes = |host: &str| self.client.kind != Kind::Redirect && self.answer.takes_content(host);
        let request = match request::validate(head, arrival, self.limits, takes) {
            Ok(request) if arrival.has_content => {
                let content = Arriving::new(content, Arc::clone(&self.pulse), end);
                request.with_content(Content::new(content))
            }
            Ok(request) => request,
            Err(rejection) => return Answered::Now(Some(asked.reject(*rejection))),
        };
        match catch_unwind(AssertUnwindSafe(|| self.ask(request))) {
            Ok(Answering::Now(response)) => Answered::Now(Some(asked.finish(response))),
            Ok(Answering::Later(future)) => Answered::Later(Box::pin(async move {
                match (Caught { future }).await {
                    Ok(response) => asked.finish(response),
                    Err(panic) => asked.panicked(&*panic),
                }
            })),
            Err(panic) => Answered::Now(Some(asked.panicked(&*panic))),
        }
    }

    fn ask(&self, request: Request) -> Answering {
        match self.client.kind {
            Kind::Redirect => self.answer.redirect(request),
            Kind::Https | Kind::Plain => self.answer.run(request),
        }
    }
}

impl<A: Answer> Asked<A> {
    fn reject(mut self, rejection: request::Rejection) -> http::Response<Outgoing> {
        self.is_last = true;
        self.visit.pulse.set_refused();
        if let Some(why) = RequestRefused::of(&rejection.failure) {
            self.visit.metrics.refused.inc(why);
        }
        let response = self.visit.answer.refuse(rejection.refused, rejection.failure);
        self.finish(response)
    }

    fn panicked(self, panic: &(dyn Any + Send)) -> http::Response<Outgoing> {
        self.visit.drain.count_panic();
        tracing::error!(
            host = self.known.host(),
            target = self.known.target(),
            message = panic_message(panic),
            "an exchange panicked"
        );
        let refused = self.known.refused(self.version, self.arrival);
        let response = self.visit.answer.refuse(refused, Failure::Panicked);
        self.finish(response)
    }

    /// Turns an answer into what hyper sends.
    fn finish(mut self, response: Response) -> http::Response<Outgoing> {
        // Content that nobody has read to its end is on its way still: nothing can follow it.
        if self.arrival.has_content && !self.content.has_come() {
            self.visit.pulse.want_linger();
            self.is_last = true;
        }
        let mut response = outgoing(response, self.head_only, self.under_way);
        // In a drain each connection is told to go with the next answer; HTTP/2 is told by GOAWAY.
        if (self.is_last || self.visit.drain.is_draining()) && self.version <= Version::HTTP_11 {
            response
                .headers_mut()
                .insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// Adds the framing that hyper needs, and takes away content that may not be sent.
fn outgoing(response: Response, head_only: bool, under_way: UnderWay) -> http::Response<Outgoing> {
    let Response {
        status,
        mut headers,
        body,
        record,
    } = response;
    let bare = status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED;
    // RFC 9110, 8.6: to HEAD the length is that of the content which GET would have got; an empty body to HEAD says
    // nothing of it.
    let says_nothing = bare || (head_only && matches!(body, Body::Empty));
    if !says_nothing
        && let Some(length) = body.length()
        && !says(&headers, length)
    {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    let body = if bare || head_only { Body::Empty } else { body };
    let mut message = http::Response::new(Outgoing::new(body, record, under_way));
    *message.status_mut() = status;
    *message.headers_mut() = headers;
    message
}

/// Whether the fields say this length already, as those of what is stored do.
fn says(headers: &HeaderMap, length: u64) -> bool {
    let said = headers.get(&header::CONTENT_LENGTH).map(HeaderValue::as_bytes);
    said == Some(itoa::Buffer::new().format(length).as_bytes())
}

/// What is kept of a request for the case that its answer panics: three reference counts, no copy.
struct Known {
    method: Method,
    authority: Option<Authority>,
    field: Option<HeaderValue>,
    target: Option<PathAndQuery>,
}

impl Known {
    fn of(head: &http::request::Parts) -> Self {
        let authority = head.uri.authority().cloned();
        let field = if authority.is_some() {
            None
        } else {
            head.headers.get(header::HOST).cloned()
        };
        Self {
            method: head.method.clone(),
            authority,
            field,
            target: head.uri.path_and_query().cloned(),
        }
    }

    fn host(&self) -> &str {
        let field = || self.field.as_ref().and_then(|value| value.to_str().ok());
        self.authority
            .as_ref()
            .map(Authority::as_str)
            .or_else(field)
            .unwrap_or_default()
    }

    fn target(&self) -> &str {
        self.target.as_ref().map(PathAndQuery::as_str).unwrap_or_default()
    }

    fn refused(&self, version: Version, arrival: Arrival) -> Refused {
        Refused {
            method: self.method.clone(),
            scheme: arrival.scheme,
            host: self.host().into(),
            target: self.target().into(),
            version,
            client: arrival.client,
            received: arrival.received,
        }
    }
}

/// A future whose panic is a value.
struct Caught {
    future: Pin<Box<dyn Future<Output = Response> + Send>>,
}

impl Future for Caught {
    type Output = Result<Response, Box<dyn Any + Send>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match catch_unwind(AssertUnwindSafe(|| self.future.as_mut().poll(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    }
}
