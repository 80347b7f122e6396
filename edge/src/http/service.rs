//! One request: validated, answered, and turned back into what hyper sends.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::uri::{Authority, PathAndQuery};
use http::{HeaderValue, Method, StatusCode, Version, header};
use http_body::Body as _;
use hyper::body::Incoming;
use pin_project_lite::pin_project;

use super::body::Outgoing;
use super::metrics::{Metrics, RequestRefused};
use super::pulse::{Pulse, UnderWay};
use super::request::{self, Arrival, HeadLimits};
use super::{Answer, Client, Kind};
use crate::clock::Clock;
use crate::drain::{Drain, panic_message};
use crate::exchange::Refused;
use crate::exchange::error::Failure;
use crate::exchange::message::{Body, Request, Response};

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

impl<A: Answer> Visit<A> {
    /// Answers one request. Never fails: a panic becomes a 500 of that request alone.
    pub(super) async fn answer(
        self: Arc<Self>,
        request: http::Request<Incoming>,
    ) -> Result<http::Response<Outgoing>, Infallible> {
        let under_way = UnderWay::begin(&self.pulse);
        let (head, content) = request.into_parts();
        let arrival = Arrival {
            client: self.client.address,
            scheme: self.client.kind.scheme(),
            received: self.clock.now(),
            has_content: !content.is_end_stream(),
        };
        let known = Known::of(&head);
        let (head_only, version) = (head.method == Method::HEAD, head.version);
        let mut last = arrival.has_content;
        let response = match request::validate(head, arrival, self.limits) {
            Ok(request) => match (Caught {
                future: self.ask(request),
            })
            .await
            {
                Ok(response) => response,
                Err(panic) => {
                    self.drain.count_panic();
                    tracing::error!(
                        host = known.host(),
                        target = known.target(),
                        message = panic_message(&*panic),
                        "an exchange panicked"
                    );
                    self.answer
                        .refuse(known.refused(version, arrival), Failure::Panicked)
                }
            },
            Err(rejection) => {
                last = true;
                self.pulse.set_refused();
                if let Some(why) = RequestRefused::of(&rejection.failure) {
                    self.metrics.refused.inc(why);
                }
                self.answer.refuse(rejection.refused, rejection.failure)
            }
        };
        if arrival.has_content {
            self.pulse.want_linger();
        }
        let mut response = outgoing(response, head_only, under_way);
        // In a drain each connection is told to go with the next answer; HTTP/2 is told by GOAWAY.
        if (last || self.drain.is_draining()) && version <= Version::HTTP_11 {
            response
                .headers_mut()
                .insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response)
    }

    async fn ask(&self, request: Request) -> Response {
        match self.client.kind {
            Kind::Redirect => self.answer.redirect(request),
            Kind::Https | Kind::Plain => self.answer.run(request).await,
        }
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
    if !says_nothing && let Some(length) = body.length() {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    let body = if bare || head_only { Body::Empty } else { body };
    let mut message = http::Response::new(Outgoing::new(body, record, under_way));
    *message.status_mut() = status;
    *message.headers_mut() = headers;
    message
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

pin_project! {
    /// A future whose panic is a value. Unlike `drain::CatchPanic` it costs no allocation: every request passes here.
    struct Caught<F> {
        #[pin]
        future: F,
    }
}

impl<F: Future> Future for Caught<F> {
    type Output = Result<F::Output, Box<dyn std::any::Any + Send>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let future = self.project().future;
        match catch_unwind(AssertUnwindSafe(|| future.poll(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    }
}
