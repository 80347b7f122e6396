//! Origins that speak HTTP/1.1: one server, one attempt at a time, with its vitals told of what came.
//!
//! Every final status is an answer here, redirects and 5xx among them: what it is worth is policy's matter. What is no
//! sound HTTP, or was not asked for, is an error. Nothing is followed, and nothing is kept.

mod body;
mod connect;
mod fields;
mod names;
mod pool;
mod verdict;

use std::sync::{Arc, Mutex};

use ::http::{Method, Request, Response, StatusCode};
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;

use super::failover::Failover;
use super::health::Admission;
use super::retry::Budget;
use super::vitals::Vitals;
use super::{Answer, Ask, BucketStatus, Error, Kind, Metrics, Outcome, StartError};
use crate::clock::Clock;
use crate::config;
use crate::drain::Drain;

pub use body::Body;
use connect::Connector;
use fields::Fields;
use pool::Pool;

/// What is sent as a request's content.
type Content = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// Servers of the same application, in order of preference.
#[derive(Debug)]
pub struct HttpOrigin(Failover<Server>);

impl HttpOrigin {
    pub(super) fn start(
        config: &config::HttpOrigin,
        name: &str,
        drain: &Drain,
        metrics: Metrics,
        clock: Clock,
    ) -> Result<Self, StartError> {
        if config.servers.is_empty() {
            return Err(StartError::NoServer);
        }
        let budget = Arc::new(Mutex::new(Budget::new(clock.now())));
        let connector = Connector::new(config)?;
        let servers = config.servers.iter().map(|place| {
            let pool = Pool::new(connector.to(place)?, config, clock.clone(), drain);
            Ok(Arc::new(Server {
                vitals: Vitals::new(place.url().into(), metrics.clone(), clock.clone()),
                fields: Fields::new(config, place, name),
                prefix: place.prefix.clone(),
                timeouts: config.timeouts.clone(),
                pool,
                metrics: metrics.clone(),
                clock: clock.clone(),
            }))
        });
        let servers = servers.collect::<Result<Vec<_>, StartError>>()?;
        Ok(Self(Failover::start(
            servers,
            &config.timeouts,
            budget,
            metrics,
            clock,
            drain,
        )))
    }

    pub(super) async fn fetch(&self, ask: Ask) -> Result<Answer, Error> {
        self.0.fetch(&ask).await
    }

    pub(super) fn status(&self) -> Vec<BucketStatus> {
        self.0.status()
    }
}

/// One server.
#[derive(Debug)]
struct Server {
    vitals: Vitals,
    fields: Fields,
    prefix: String,
    timeouts: config::OriginTimeouts,
    pool: Arc<Pool>,
    metrics: Metrics,
    clock: Clock,
}

impl super::failover::Server for Server {
    fn vitals(&self) -> &Vitals {
        &self.vitals
    }

    async fn fetch(self: &Arc<Self>, ask: &Ask, admission: Admission) -> Result<Answer, Error> {
        let answer = self.attempt(ask).await;
        self.metrics.requests.inc(Outcome::of(&answer));
        match &answer {
            Ok(_) => self.vitals.note_success(admission),
            Err(error) => self.vitals.note_failure(admission, error, &ask.path),
        }
        answer
    }

    async fn probe(&self) {
        self.vitals.begin_probe();
        match self.pool.connect().await {
            Ok(lease) => {
                self.pool.keep_when_done(lease);
                self.vitals.note_success(Admission::Probe);
            }
            Err(error) => self.vitals.note_failure(Admission::Probe, &error, "(probe)"),
        }
    }

    /// Where another server follows, one that says it cannot answer now is passed over.
    fn counts(answer: Answer, _ask: &Ask, _place: usize, last: bool) -> Result<Answer, Error> {
        let is_gateway_error = matches!(
            answer.status,
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
        );
        match is_gateway_error && !last {
            true => Err(Error::new(
                Kind::OriginStatus5xx,
                format!("status {}", answer.status.as_u16()),
            )),
            false => Ok(answer),
        }
    }

    /// RFC 9110 9.2.2 would let a GET be repeated after any failure. A server that took a request and gave no answer is
    /// not asked the same again at once: only what never reached it is.
    fn is_worth_another_try(error: &Error) -> bool {
        matches!(
            error.kind,
            Kind::ConnectionRefused | Kind::ConnectionTimeout | Kind::DnsError | Kind::DnsTimeout
        )
    }
}

impl Server {
    async fn attempt(self: &Arc<Self>, ask: &Ask) -> Result<Answer, Error> {
        let answer = self.send(|| self.request(ask)).await?;
        let (head, stream) = answer.into_parts();
        let length = verdict::judge(head.status, &head.headers, ask)?;
        let bare =
            ask.head || head.status == StatusCode::NO_CONTENT || head.status == StatusCode::NOT_MODIFIED;
        let body = match bare || length == Some(0) {
            true => super::Body::Empty,
            false => super::Body::Http(Box::new(Body::new(Arc::clone(self), stream, length))),
        };
        Ok(Answer {
            status: head.status,
            headers: fields::incoming(head.headers),
            // A 204 and a 304 have no content, whatever they announce; to HEAD the length is that of the content which
            // GET would have got.
            length: if bare && !ask.head { None } else { length },
            body,
            source: Arc::clone(self.vitals.id()),
        })
    }

    /// One HTTP exchange up to the head of the answer. On a connection that was used before and is closed without a byte,
    /// the server has most likely seen nothing of the request (RFC 9112 9.3.1): it is sent once more, on a new one.
    async fn send(
        &self,
        request: impl Fn() -> Result<Request<Content>, Error>,
    ) -> Result<Response<Incoming>, Error> {
        let began = self.clock.now();
        let sending = async {
            if let Some(lease) = self.pool.take() {
                match self.pool.send(lease, request()?).await {
                    Ok(response) => return Ok(response),
                    Err(failed) if failed.is_unanswered => {}
                    Err(failed) => return Err(failed.error),
                }
            }
            let lease = self.pool.connect().await?;
            self.pool
                .send(lease, request()?)
                .await
                .map_err(|failed| failed.error)
        };
        let response = match tokio::time::timeout(self.timeouts.attempt, sending).await {
            Ok(response) => response?,
            Err(_) => {
                let detail = format!("no head within {:?}", self.timeouts.attempt);
                return Err(Error::new(Kind::HttpResponseTimeout, detail));
            }
        };
        self.metrics.first_byte.observe(self.clock.now().since(began));
        Ok(response)
    }

    fn request(&self, ask: &Ask) -> Result<Request<Content>, Error> {
        let target = match &ask.query {
            Some(query) => format!("{}{}?{query}", self.prefix, ask.path),
            None => format!("{}{}", self.prefix, ask.path),
        };
        let mut request = Request::new(no_content());
        *request.method_mut() = if ask.head { Method::HEAD } else { Method::GET };
        *request.uri_mut() = target
            .parse()
            .map_err(|_| Error::new(Kind::ProxyInternalError, "the target is no URI"))?;
        *request.headers_mut() = self.fields.of_ask(ask);
        Ok(request)
    }
}

fn no_content() -> Content {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}
