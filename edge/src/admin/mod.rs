//! The operator's side: health, metrics, status, purge, on a listener of its own with limits and trust of its own.
//!
//! It runs on the control plane, so no amount of traffic delays a purge or a probe. It decides nothing about serving:
//! what it acts upon is handed in as [`Handles`].

mod auth;
mod cached;
pub mod client;
mod purge;
mod refusal;
mod releases;
mod routes;
mod server;

use std::sync::{Arc, OnceLock, Weak};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, request};
use hyper::body::Incoming;
use serde_json::{Map, Value, json};

use self::auth::{Known, Tokens};
pub use self::purge::{PurgeMethod, purge_of};
use self::refusal::Refusal;
use self::routes::{Access, Endpoint, Route};
use self::server::Limits;
pub use self::server::{Listener, bind};
use crate::cache::epoch::Epochs;
use crate::clock::{Clock, Timestamp};
use crate::config::{Config, Scope};
use crate::drain::{Degraded, Drain, NotReady, Readiness};
use crate::exchange::Exchange;
use crate::site::Router;
use crate::telemetry::access_log::rfc3339;
use crate::telemetry::metrics::{Family, Format, Gauge, Label, Registry};

/// The contract, for programs. Kept by hand; a test holds it against the routes.
const OPENAPI: &str = include_str!("openapi.json");

type Reply = Response<Bytes>;

/// What the operator's side acts upon.
pub struct Handles {
    /// The time.
    pub clock: Clock,
    /// For the listener's own tasks. Begun after the data plane's, so that a drain can be watched.
    pub drain: Drain,
    /// For `/metrics`.
    pub registry: Registry,
    /// For `/readyz`.
    pub readiness: Readiness,
    /// For purges.
    pub epochs: Arc<Epochs>,
    /// For inspecting and warming: the request path, once it stands. Held weakly, for it holds this side.
    pub exchange: Arc<OnceLock<Weak<Exchange>>>,
    /// More members for `/v1/status`: connections, cache, origins, certificates. Asked on the control plane.
    pub status: Box<dyn Fn() -> Map<String, Value> + Send + Sync>,
}

impl std::fmt::Debug for Handles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Handles(..)")
    }
}

/// The operator's side. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Admin(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    handles: Handles,
    limits: Limits,
    started: Timestamp,
    settings: ArcSwap<Settings>,
    metrics: Metrics,
}

/// What a reload changes.
#[derive(Debug)]
struct Settings {
    name: String,
    tokens: Tokens,
    hosts: Vec<String>,
    protect_health: bool,
    router: Arc<Router>,
}

impl Admin {
    /// The operator's side of a node with this configuration and these sites.
    pub fn new(config: &Config, router: Arc<Router>, handles: Handles) -> Self {
        Self::with_limits(config, router, handles, Limits::default())
    }

    fn with_limits(config: &Config, router: Arc<Router>, handles: Handles, limits: Limits) -> Self {
        Self(Arc::new(Inner {
            limits,
            started: handles.clock.now(),
            settings: ArcSwap::from_pointee(Settings::new(config, router)),
            metrics: Metrics::new(&handles.registry),
            handles,
        }))
    }

    /// Goes over to a new configuration: tokens, limits, sites. The listener's address stays.
    pub fn apply(&self, config: &Config, router: Arc<Router>) {
        self.0.settings.store(Arc::new(Settings::new(config, router)));
    }

    /// Answers a request of the admin listener. `local` is true on a Unix socket, which no browser reaches.
    async fn answer(&self, request: Request<Incoming>, local: bool, peer: &str) -> Reply {
        let (head, body) = request.into_parts();
        let settings = self.settings();
        let reply = match settings.admit(&head, local) {
            Ok((Endpoint::Purge, Some(known))) => self.purge(known, &head.headers, body, peer).await,
            Ok((Endpoint::Warm, Some(known))) => self.warm(known, &head.headers, body, peer).await,
            Ok((Endpoint::Verify, Some(known))) => self.verify(known, head.uri.query(), peer).await,
            Ok((Endpoint::Prewarm, Some(known))) => self.prewarm(known, &head.headers, body, peer).await,
            Ok((Endpoint::Releases, Some(_))) => self.releases(head.uri.query()).await,
            Ok((Endpoint::Cache, Some(_))) => self.cached(head.uri.query()).await,
            Ok((endpoint, _)) => Ok(self.show(endpoint, &head.headers)),
            Err(refusal) => Err(refusal),
        };
        let reply = reply.unwrap_or_else(|refusal| {
            refusal.tell(peer);
            refusal.reply()
        });
        self.0.metrics.requests.inc(Answer::of(reply.status()));
        reply
    }

    fn show(&self, endpoint: Endpoint, headers: &HeaderMap) -> Reply {
        match endpoint {
            Endpoint::Livez => text(StatusCode::OK, "alive\n"),
            Endpoint::Readyz => self.readyz(headers),
            Endpoint::Metrics => self.metrics(headers),
            Endpoint::Openapi => reply(StatusCode::OK, "application/json", OPENAPI),
            Endpoint::Status => json_reply(StatusCode::OK, &self.status()),
            // Their routes ask for a scope, so they came with a token and went elsewhere.
            Endpoint::Cache
            | Endpoint::Prewarm
            | Endpoint::Purge
            | Endpoint::Releases
            | Endpoint::Verify
            | Endpoint::Warm => Refusal::NoToken.reply(),
        }
    }

    /// Ready or not, and why not. It never looks at S3: a bucket that is away is no reason to send people elsewhere.
    fn readyz(&self, headers: &HeaderMap) -> Reply {
        let reasons: Vec<_> = self.reasons();
        let status = if reasons.is_empty() {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        if accepts(headers, "application/json") {
            return json_reply(
                status,
                &json!({ "ready": reasons.is_empty(), "reasons": reasons, "degraded": self.degraded() }),
            );
        }
        if reasons.is_empty() {
            let degraded = self.degraded();
            return match degraded.is_empty() {
                true => text(status, "ready\n"),
                false => text(status, format!("ready, degraded: {}\n", degraded.join(", "))),
            };
        }
        text(status, format!("not ready: {}\n", reasons.join(", ")))
    }

    fn metrics(&self, headers: &HeaderMap) -> Reply {
        let format = Format::negotiate(headers.get(ACCEPT).and_then(|value| value.to_str().ok()));
        let text = self.0.handles.registry.encode_as(format);
        reply(StatusCode::OK, format.content_type(), text)
    }

    fn status(&self) -> Value {
        let handles = &self.0.handles;
        let settings = self.settings();
        let sites: Vec<_> = settings
            .router
            .sites()
            .iter()
            .map(|site| json!({ "name": site.name(), "hosts": site.settings().hosts, "origin": site.settings().origin }))
            .collect();
        let mut members = (handles.status)();
        let own = [
            ("name", json!(settings.name)),
            ("version", json!(env!("CARGO_PKG_VERSION"))),
            ("started", json!(rfc3339(self.0.started))),
            (
                "uptime_seconds",
                json!(handles.clock.now().since(self.0.started).as_secs()),
            ),
            ("ready", json!(handles.readiness.is_ready())),
            ("not_ready", json!(self.reasons())),
            ("degraded", json!(self.degraded())),
            (
                "purges",
                json!({
                    "position": handles.epochs.last().number(),
                    "records": handles.epochs.records(),
                    "folds": handles.epochs.folds(),
                }),
            ),
            ("sites", json!(sites)),
        ];
        members.extend(own.map(|(name, value)| (name.to_owned(), value)));
        Value::Object(members)
    }

    fn reasons(&self) -> Vec<&'static str> {
        self.0.handles.readiness.reasons().map(NotReady::token).collect()
    }

    fn degraded(&self) -> Vec<&'static str> {
        self.0.handles.readiness.degraded().map(Degraded::token).collect()
    }

    /// The settings in force. A request keeps those that it began with.
    fn settings(&self) -> Arc<Settings> {
        self.0.settings.load_full()
    }
}

impl Settings {
    fn new(config: &Config, router: Arc<Router>) -> Self {
        Self {
            name: config.name.clone(),
            tokens: Tokens::new(&config.admin),
            hosts: config.admin.hosts.clone(),
            protect_health: config.admin.protect_health,
            router,
        }
    }

    /// What is asked for, and by which token if any was shown; or why it is refused.
    fn admit(&self, head: &request::Parts, local: bool) -> Result<(Endpoint, Option<&Known>), Refusal> {
        if head.uri.scheme().is_some() || head.uri.authority().is_some() {
            return Err(Refusal::Target);
        }
        // There is no page that may call this: no cookies, no CORS, and whatever a browser sends across sites says so.
        if head.headers.contains_key(http::header::ORIGIN) {
            return Err(Refusal::Browser);
        }
        let identified = self.tokens.identify(&head.headers);
        self.check_host(head, local || matches!(identified, Ok(Some(_))))?;
        let route = Route::at(head.uri.path()).ok_or(Refusal::NotFound)?;
        if !route.allows(&head.method) {
            return Err(Refusal::Method(route.allow()));
        }
        let scope = match route.access {
            Access::Open => return Ok((route.endpoint, None)),
            Access::Health if !self.protect_health => return Ok((route.endpoint, None)),
            Access::Health => Scope::Read,
            Access::Scope(scope) => scope,
        };
        let known = identified?.ok_or(Refusal::NoToken)?;
        known.require(scope)?;
        Ok((route.endpoint, Some(known)))
    }

    /// A page whose name was rebound to our address can make a browser ask us, but under the page's name. So the name
    /// must be one that no page can have, unless a token came along, which no page has.
    fn check_host(&self, head: &request::Parts, trusted: bool) -> Result<(), Refusal> {
        let mut fields = head.headers.get_all(http::header::HOST).iter();
        let host = match (fields.next(), fields.next()) {
            (Some(host), None) => host,
            // RFC 9112 section 3.2: HTTP/1.1 must say it, once.
            (None, _) if head.version == http::Version::HTTP_10 => return Ok(()),
            _ => return Err(Refusal::Host),
        };
        let name = host
            .to_str()
            .ok()
            .and_then(|text| text.parse::<http::uri::Authority>().ok())
            .ok_or(Refusal::Host)?;
        let name = name.host().to_ascii_lowercase();
        let address = name.trim_start_matches('[').trim_end_matches(']');
        let own = address.parse::<std::net::IpAddr>().is_ok()
            || name == "localhost"
            || name.ends_with(".localhost")
            || self.hosts.contains(&name);
        if own || trusted {
            Ok(())
        } else {
            Err(Refusal::ForeignHost)
        }
    }
}

#[derive(Debug)]
struct Metrics {
    requests: Family<Answer>,
    purges: Family<purge::Kind>,
    warmed: crate::telemetry::metrics::Counter,
    connections: Gauge,
    turned_away: crate::telemetry::metrics::Counter,
}

impl Metrics {
    fn new(registry: &Registry) -> Self {
        Self {
            requests: registry.family(
                "edge_admin_requests_total",
                "Requests to the admin listener, by answer.",
            ),
            purges: registry.family("edge_purged_members_total", "What purges named, by kind."),
            warmed: registry.counter("edge_warmed_urls_total", "URLs that were warmed."),
            connections: registry.gauge("edge_admin_connections", "Connections to the admin listener."),
            turned_away: registry.counter(
                "edge_admin_turned_away_total",
                "Connections to the admin listener beyond its limit.",
            ),
        }
    }
}

/// How the admin listener answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Done,
    Unauthorized,
    Forbidden,
    NotFound,
    TooOften,
    Bad,
    Unavailable,
}

impl Answer {
    fn of(status: StatusCode) -> Self {
        match status {
            StatusCode::UNAUTHORIZED => Self::Unauthorized,
            StatusCode::FORBIDDEN | StatusCode::MISDIRECTED_REQUEST => Self::Forbidden,
            StatusCode::NOT_FOUND => Self::NotFound,
            StatusCode::TOO_MANY_REQUESTS => Self::TooOften,
            status if status.is_client_error() => Self::Bad,
            status if status.is_server_error() => Self::Unavailable,
            _ => Self::Done,
        }
    }
}

impl Label for Answer {
    const NAME: &'static str = "answer";
    const VALUES: &'static [&'static str] = &[
        "done",
        "unauthorized",
        "forbidden",
        "not-found",
        "too-often",
        "bad",
        "unavailable",
    ];
    fn index(self) -> usize {
        self as usize
    }
}

fn accepts(headers: &HeaderMap, media_type: &str) -> bool {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
    accept.is_some_and(|accept| {
        let named = |range: &str| range.split(';').next().map(str::trim) == Some(media_type);
        accept.split(',').any(named)
    })
}

fn text(status: StatusCode, text: impl Into<Bytes>) -> Reply {
    reply(status, "text/plain; charset=utf-8", text)
}

fn json_reply(status: StatusCode, value: &Value) -> Reply {
    reply(status, "application/json", format!("{value}\n"))
}

fn reply(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(body.into());
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    reply
}

#[cfg(test)]
mod tests;
