//! Origins that speak HTTP/1.1: one server, one attempt at a time, with its vitals told of what came.
//!
//! Every final status is an answer here, redirects and 5xx among them: what it is worth is policy's matter. What is no
//! sound HTTP, or was not asked for, is an error. Nothing is followed, and nothing is kept.

mod body;
mod connect;
mod fields;
mod names;
mod pool;
mod relay;
mod upload;
pub mod verdict;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use ::http::{Method, Request, Response, StatusCode, Uri};
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
pub(super) use pool::AHEAD_BYTES;
use pool::Pool;
pub use upload::{Course, Upload, UploadFault};

/// From one look at a server's health to the next.
const HEALTH_PAUSE: Duration = Duration::from_secs(5);

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
            let pool = Pool::new(
                connector.to(place)?,
                config,
                metrics.idle_connections.clone(),
                clock.clone(),
                drain,
            );
            Ok(Arc::new(Server {
                vitals: Vitals::new(place.url().into(), metrics.clone(), clock.clone()),
                fields: Fields::new(config, place, name),
                prefix: place.prefix.clone(),
                health: config.health.clone(),
                timeouts: config.timeouts.clone(),
                pool,
                metrics: metrics.clone(),
                clock: clock.clone(),
            }))
        });
        let servers = servers.collect::<Result<Vec<_>, StartError>>()?;
        if config.health.is_some() {
            for server in &servers {
                drain.spawn("origin-health", keep_looking(server, drain.clone()));
            }
        }
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
    health: Option<String>,
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
            Err(error) => self.vitals.note_failure_at(admission, error, &ask.path),
        }
        answer
    }

    async fn probe(&self) {
        self.vitals.begin_probe();
        match self.look().await {
            Ok(()) => self.vitals.note_success(Admission::Probe),
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
    /// Whether the server is well: it answers 2xx under its health path, or where there is none takes a connection.
    async fn look(&self) -> Result<(), Error> {
        let Some(path) = &self.health else {
            let lease = self.pool.connect().await?;
            self.pool.keep_when_done(lease);
            return Ok(());
        };
        let response = self
            .send(|| {
                let mut request = Request::new(no_content());
                *request.uri_mut() = target(&self.prefix, path, None)?;
                *request.headers_mut() = self.fields.of_ask(&Ask::default());
                Ok(request)
            })
            .await?;
        match response.status() {
            status if status.is_success() => Ok(()),
            status => Err(Error::new(
                Kind::OriginStatus5xx,
                format!("status {} under {path}", status.as_u16()),
            )),
        }
    }

    async fn attempt(self: &Arc<Self>, ask: &Ask) -> Result<Answer, Error> {
        let answer = self.send(|| self.request(ask)).await?;
        let (head, stream) = answer.into_parts();
        let length = verdict::judge(head.status, &head.headers, ask)?;
        let bare =
            ask.head || head.status == StatusCode::NO_CONTENT || head.status == StatusCode::NOT_MODIFIED;
        let body = match bare || length == Some(0) {
            true => super::Body::Empty,
            false => super::Body::Http(Box::new(Body::new(Arc::clone(self), stream, length, &ask.path))),
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
                    Err(failed) if failed.is_unanswered || failed.request.is_some() => {}
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
        let mut request = Request::new(no_content());
        *request.method_mut() = if ask.head { Method::HEAD } else { Method::GET };
        *request.uri_mut() = target(&self.prefix, &ask.path, ask.query.as_deref())?;
        *request.headers_mut() = self.fields.of_ask(ask);
        Ok(request)
    }
}

/// Looks after a server that has a health path again and again, so that one which is not well is left out before a
/// client meets it. While its breaker is open, that is the prober's matter.
fn keep_looking(server: &Arc<Server>, drain: Drain) -> impl Future<Output = ()> + Send + 'static {
    let server = Arc::downgrade(server);
    async move {
        let looking = async {
            loop {
                match server.upgrade() {
                    None => return,
                    Some(server) if server.vitals.probe_in().is_some() => {}
                    Some(server) => match server.look().await {
                        Ok(()) => server.vitals.note_success(Admission::Go),
                        Err(error) => server.vitals.note_failure(Admission::Go, &error, "(health)"),
                    },
                }
                tokio::time::sleep(HEALTH_PAUSE).await;
            }
        };
        tokio::select! {
            () = looking => {}
            () = drain.begun() => {}
        }
    }
}

fn target(prefix: &str, path: &str, query: Option<&str>) -> Result<Uri, Error> {
    let target = match query {
        Some(query) => format!("{prefix}{path}?{query}"),
        None => format!("{prefix}{path}"),
    };
    target
        .parse()
        .map_err(|_| Error::new(Kind::ProxyInternalError, "the target is no URI"))
}

fn no_content() -> Content {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}
