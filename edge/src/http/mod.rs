//! The versions of HTTP, behind one [`Door`]. Nothing below this module knows a version.
//!
//! A connection comes in with the protocol that ALPN chose; nothing is ever guessed from its bytes. Each request passes
//! the one validator (`request`) and is handed to an [`Answer`]. What a client may cost is bounded here: deadlines by
//! `watchdog`, floods by the byte budget in `io`, streams and header blocks by the settings in `h1` and `h2`.

mod body;
mod content;
mod h1;
mod h2;
mod io;
pub mod lines;
mod metrics;
mod pulse;
mod records;
pub mod request;
mod service;
mod stream;
mod watchdog;

use std::net::IpAddr;
use std::sync::Arc;

use self::io::Link;
pub use self::io::Transport;
use self::metrics::Metrics;
pub use self::metrics::RequestRefused;
pub use self::pulse::Closed;
use self::pulse::{Pulse, Verdict};
use self::request::HeadLimits;
use self::service::Visit;
pub use self::stream::TlsStream;
pub use self::watchdog::Watchdog;
use crate::clock::Clock;
use crate::config::Limits;
use crate::drain::Drain;
use crate::exchange::error::Failure;
use crate::exchange::message::{Answering, Request, Response, Scheme};
use crate::exchange::{Exchange, Refused};
use crate::telemetry::metrics::Registry;

/// What gives the answers: the exchange, or a test in its place.
pub trait Answer: Send + Sync + 'static {
    /// Answers a request.
    fn run(self: &Arc<Self>, request: Request) -> Answering;
    /// Answers a request on a listener that only redirects.
    fn redirect(self: &Arc<Self>, request: Request) -> Answering;
    /// Answers what did not become a request, or one whose answer failed.
    fn refuse(&self, refused: Refused, failure: Failure) -> Response;
    /// Whether requests for `host` may have content, with any method and in chunks.
    fn takes_content(&self, _host: &str) -> bool {
        false
    }
}

impl Answer for Exchange {
    fn run(self: &Arc<Self>, request: Request) -> Answering {
        Self::run(self, request)
    }

    fn redirect(self: &Arc<Self>, request: Request) -> Answering {
        Self::redirect(self, request)
    }

    fn refuse(&self, refused: Refused, failure: Failure) -> Response {
        Self::refuse(self, refused, failure)
    }

    fn takes_content(&self, host: &str) -> bool {
        Self::takes_content(self, host)
    }
}

/// The protocol of a connection, as ALPN chose it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1 and HTTP/1.0.
    H1,
    /// HTTP/2.
    H2,
}

/// What a listener's connections are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The whole site over TLS.
    Https,
    /// Redirects to https.
    Redirect,
    /// The whole site without TLS.
    Plain,
}

impl Kind {
    /// The scheme of its requests.
    pub fn scheme(self) -> Scheme {
        match self {
            Self::Https => Scheme::Https,
            Self::Redirect | Self::Plain => Scheme::Http,
        }
    }

    /// The word for start-up lines and logs.
    pub fn token(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Redirect => "http",
            Self::Plain => "plain",
        }
    }
}

/// Who is on the other end of a connection, and what for.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    /// The client's address.
    pub address: IpAddr,
    /// The listener's kind.
    pub kind: Kind,
}

/// The way in for every connection, whatever its version. Cheap to clone.
pub struct Door<A = Exchange>(Arc<Inner<A>>);

struct Inner<A> {
    answer: Arc<A>,
    limits: Limits,
    clock: Clock,
    drain: Drain,
    metrics: Metrics,
    h1: hyper::server::conn::http1::Builder,
    h2: hyper::server::conn::http2::Builder<h2::Streams>,
}

impl<A: Answer> Door<A> {
    /// A door to `answer`.
    pub fn new(answer: Arc<A>, limits: &Limits, clock: Clock, drain: Drain, registry: &Registry) -> Self {
        Self(Arc::new(Inner {
            answer,
            limits: limits.clone(),
            clock,
            metrics: Metrics::new(registry),
            h1: h1::builder(limits),
            h2: h2::builder(limits, &drain),
            drain,
        }))
    }

    /// Serves one connection to its end. `watchdog` is the one of the caller's thread.
    pub async fn serve(
        &self,
        transport: Transport,
        protocol: Protocol,
        client: Client,
        watchdog: &Watchdog,
    ) -> Closed {
        let pulse = Pulse::new(protocol);
        let _gone = Gone(&pulse);
        watchdog.watch(&pulse);
        if protocol == Protocol::H2 && self.0.drain.is_draining() {
            pulse.decide(Verdict::Wind(Closed::Drain));
        }
        let limits = &self.0.limits;
        let link = Link::new(
            transport,
            Arc::clone(&pulse),
            limits.unproductive_bytes,
            limits.header_bytes as u64,
        );
        let visit = Arc::new(Visit {
            answer: Arc::clone(&self.0.answer),
            clock: self.0.clock.clone(),
            drain: self.0.drain.clone(),
            metrics: self.0.metrics.clone(),
            limits: HeadLimits {
                uri_bytes: limits.uri_bytes,
                header_count: limits.header_count,
            },
            client,
            pulse: Arc::clone(&pulse),
        });
        let result = match protocol {
            Protocol::H1 => h1::serve(&self.0.h1, link, visit).await,
            Protocol::H2 => h2::serve(&self.0.h2, link, visit).await,
        };
        if let Err(error) = &result
            && (error.is_parse() || error.is_parse_too_large())
        {
            self.0.metrics.refused.inc(RequestRefused::Syntax);
        }
        let why = why_closed(&pulse, result);
        self.0.metrics.closed.inc(why);
        why
    }
}

impl<A> Clone for Door<A> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<A> std::fmt::Debug for Door<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Door(..)")
    }
}

/// Tells the watchdog that the connection is over, however that came.
struct Gone<'a>(&'a Pulse);

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        self.0.set_gone();
    }
}

fn why_closed(pulse: &Pulse, result: Result<(), hyper::Error>) -> Closed {
    match (pulse.verdict(), result) {
        (Some(Verdict::End(why)), _) => why,
        (_, Err(error)) if error.is_parse() || error.is_parse_too_large() => Closed::Protocol,
        (_, Err(error)) if error.is_incomplete_message() || error.is_canceled() => Closed::Client,
        (_, Err(_)) if pulse.is_broken() => Closed::Transport,
        (_, Err(error)) if pulse.protocol == Protocol::H1 && error.is_user() => Closed::Transport,
        (_, Err(_)) => Closed::Protocol,
        (_, Ok(())) if pulse.is_refused() => Closed::Refused,
        (Some(Verdict::Wind(why)), Ok(())) => why,
        (None, Ok(())) => Closed::Client,
    }
}
