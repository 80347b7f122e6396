//! The answers that are this node's own: redirects, readiness, failures, and methods other than GET and HEAD.

use std::sync::Arc;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};

use super::error::{self, Failure};
use super::message::{Answering, Body, Request, Response, Scheme};
use super::record::{self, Record};
use super::{Exchange, READY_PATH, respond};
use crate::cache::status::Outcome;
use crate::site::Site;

/// A request that did not pass the validator: what is known of it.
#[derive(Debug)]
pub struct Refused {
    /// The method, if it could be read.
    pub method: Method,
    /// How the client reached us.
    pub scheme: Scheme,
    /// The host, as far as it could be read.
    pub host: Box<str>,
    /// The target, as far as it could be read.
    pub target: Box<str>,
    /// The version.
    pub version: Version,
    /// The client's address.
    pub client: std::net::IpAddr,
    /// When it came.
    pub received: crate::clock::Timestamp,
}

impl Exchange {
    /// Answers on the listener that only redirects to https.
    pub fn redirect(self: &Arc<Self>, request: Request) -> Answering {
        if request.target.path() == READY_PATH {
            return Answering::Now(self.ready(request));
        }
        if let Some(answer) = (self.challenges.0)(&request.host, request.target.path()) {
            let exchange = Arc::clone(self);
            return Answering::later(async move { exchange.challenge(request, answer.await) });
        }
        Answering::Now(self.to_https(request))
    }

    fn to_https(&self, request: Request) -> Response {
        let routes = self.routes.load();
        let Some(site) = routes.router.route(&request.host).cloned() else {
            return self.fail(request, None, Failure::Misdirected);
        };
        let port = match routes.https_port {
            443 => String::new(),
            port => format!(":{port}"),
        };
        let location = format!("https://{}{port}{}", request.host, request.target);
        let Ok(location) = HeaderValue::try_from(location) else {
            return self.fail(
                request,
                Some(&site),
                Failure::BadRequest(error::BadRequest::TargetCharacter),
            );
        };
        let fields = HeaderMap::from_iter([(LOCATION, location)]);
        self.plain(
            request,
            site.shared_name(),
            StatusCode::PERMANENT_REDIRECT,
            fields,
            Body::Empty,
            None,
        )
    }

    /// Answers a CA that looks whether the host is ours. Whoever else asks learns nothing by it.
    fn challenge(&self, request: Request, answer: Option<String>) -> Response {
        let (status, text) = match answer {
            Some(text) => (StatusCode::OK, text),
            None => (StatusCode::NOT_FOUND, String::new()),
        };
        let fields = HeaderMap::from_iter([
            (CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
            (http::header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
            (
                http::header::X_CONTENT_TYPE_OPTIONS,
                HeaderValue::from_static("nosniff"),
            ),
            (CONTENT_LENGTH, HeaderValue::from(text.len())),
        ]);
        let nowhere = Arc::clone(&self.nowhere);
        self.plain(request, nowhere, status, fields, Body::Full(text.into()), None)
    }

    /// Answers a request that did not pass the validator.
    pub fn refuse(&self, refused: Refused, failure: Failure) -> Response {
        let request = Request {
            method: refused.method,
            scheme: refused.scheme,
            host: refused.host,
            target: PathAndQuery::try_from(&*refused.target).unwrap_or_else(|_| record::unreadable()),
            version: refused.version,
            headers: HeaderMap::new(),
            client: refused.client,
            received: refused.received,
            content: None,
            is_early: false,
        };
        self.fail(request, None, failure)
    }

    /// Answers a request that the cache has no part in: by ourselves, by the origin where it is one of kind http, or not
    /// at all.
    pub(super) async fn other_method(self: &Arc<Self>, request: Request, site: &Arc<Site>) -> Response {
        if request.method.as_str() == "PURGE" && site.settings().purge_method {
            let (head, body) = (self.purge_method.0)(&request).await.into_parts();
            return self.plain(
                request,
                site.shared_name(),
                head.status,
                head.headers,
                Body::Full(body),
                None,
            );
        }
        let preflight = (request.method == Method::OPTIONS)
            .then(|| site.preflight(&request.headers))
            .flatten();
        let Some(preflight) = preflight else {
            let is_refused = matches!(request.method, Method::TRACE | Method::CONNECT);
            if site.settings().relays && !is_refused {
                return self.relay(request, site).await;
            }
            return self.fail(request, Some(site), Failure::MethodNotAllowed);
        };
        let fields = preflight.iter().cloned().collect();
        self.plain(
            request,
            site.shared_name(),
            StatusCode::NO_CONTENT,
            fields,
            Body::Empty,
            None,
        )
    }

    /// Whether this node wants traffic, for DNS health checks. No site is asked, and no origin.
    pub(super) fn ready(self: &Arc<Self>, request: Request) -> Response {
        let ready = self.readiness.is_ready();
        let status = if ready {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        let mut text = String::from(if ready { "ready\n" } else { "not ready:" });
        self.readiness
            .reasons()
            .for_each(|reason| text.extend([" ", reason.token()]));
        let fields = HeaderMap::from_iter([
            (
                CONTENT_TYPE,
                HeaderValue::from_static("text/plain; charset=utf-8"),
            ),
            (http::header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
            (CONTENT_LENGTH, HeaderValue::from(text.len())),
        ]);
        self.plain(
            request,
            Arc::clone(&self.nowhere),
            status,
            fields,
            Body::Full(text.into()),
            None,
        )
    }

    /// Answers with a failure: its status, its fields, and a body that suits the path.
    pub(super) fn fail(&self, request: Request, site: Option<&Arc<Site>>, failure: Failure) -> Response {
        let status = failure.status();
        let embeds = site.is_some_and(|site| site.settings().preset == crate::config::Preset::Embed);
        let path = request.target.path();
        let mut fields = HeaderMap::with_capacity(12);
        if let Some(site) = site {
            let rule = site.rule(path).fields(request.scheme == Scheme::Https);
            fields.extend(rule.iter().cloned());
        }
        // These come last: what a rule says of caching is not said of failures.
        fields.extend(failure.fields(if embeds { "GET, HEAD, OPTIONS" } else { "GET, HEAD" }));
        let body = error::fill(&mut fields, status, path);
        fields.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        let routes = self.routes.load();
        if let Some(value) = failure.cache_status(&routes.name) {
            fields.insert(&respond::CACHE_STATUS, value);
        }
        if status.is_server_error() {
            tracing::debug!(host = %request.host, target = %request.target, failure = failure.token(), "failed");
        }
        let name = site.map_or_else(|| Arc::clone(&self.nowhere), |site| site.shared_name());
        self.plain(request, name, status, fields, Body::Full(body), failure.outcome())
    }

    pub(super) fn plain(
        &self,
        request: Request,
        site: Arc<str>,
        status: StatusCode,
        headers: HeaderMap,
        body: Body,
        outcome: Option<Outcome>,
    ) -> Response {
        let body = if request.method == Method::HEAD {
            Body::Empty
        } else {
            body
        };
        let record = Box::new(Record::new(&self.sinks, request, site, status, outcome));
        Response {
            status,
            headers,
            body,
            record,
        }
    }
}
