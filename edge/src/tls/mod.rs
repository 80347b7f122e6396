//! TLS towards clients: a handshake under a deadline, with a certificate for the name that was asked for.
//!
//! The version of HTTP is what ALPN says and nothing else (RFC 7301). Which certificates there are is the business of
//! `certs`, and when their files are read again that of [`reload`]. Nothing here reads a request.

pub mod config;
pub mod reload;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use certs::Resolver;
use rustls::ServerConfig;
use rustls::server::Acceptor as HelloReader;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use crate::telemetry::metrics::{Counter, Family, Label, Registry};

/// The fatal alert `unrecognized_name` (RFC 6066 section 3) as a record of its own. rustls would say `access_denied`,
/// which tells an operator at the other end nothing.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// Answers handshakes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Acceptor {
    config: Arc<ServerConfig>,
    resolver: Arc<Resolver>,
    metrics: Metrics,
}

impl Acceptor {
    /// An acceptor with the certificates of `resolver`; its metrics are registered once, so make one and clone it.
    pub fn new(resolver: Arc<Resolver>, registry: &Registry) -> Result<Self, rustls::Error> {
        Ok(Self {
            config: config::server(Arc::clone(&resolver))?,
            resolver,
            metrics: Metrics::new(registry),
        })
    }

    /// Shakes hands with the client behind `stream`, in `deadline` at most.
    pub async fn accept<IO>(&self, stream: IO, deadline: Duration) -> Result<Accepted<IO>, Refusal>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let result = match tokio::time::timeout(deadline, self.handshake(stream)).await {
            Ok(result) => result,
            Err(_) => Err(Refusal::Deadline),
        };
        match &result {
            Ok(_) => self.metrics.handshakes.inc(),
            Err(refusal) => self.metrics.refusals.inc(refusal.reason()),
        }
        result
    }

    async fn handshake<IO>(&self, stream: IO) -> Result<Accepted<IO>, Refusal>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let start = LazyConfigAcceptor::new(HelloReader::default(), stream)
            .await
            .map_err(Refusal::from_hello)?;
        let server_name: Option<Box<str>> = start.client_hello().server_name().map(Into::into);
        if let Err(refusal) = self.resolver.admit(server_name.as_deref()) {
            let mut stream = start.io;
            // Whether the alert arrives changes nothing: the connection ends here.
            let _ = stream.write_all(&UNRECOGNIZED_NAME).await;
            let _ = stream.shutdown().await;
            return Err(Refusal::Certificate(refusal));
        }
        let stream = start
            .into_stream(Arc::clone(&self.config))
            .await
            .map_err(Refusal::from_handshake)?;
        let protocol = match stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => Protocol::H2,
            _ => Protocol::H1,
        };
        Ok(Accepted {
            stream,
            protocol,
            server_name,
        })
    }
}

/// A connection whose handshake is done.
#[derive(Debug)]
pub struct Accepted<IO> {
    /// The connection.
    pub stream: TlsStream<IO>,
    /// What ALPN agreed on.
    pub protocol: Protocol,
    /// The host that the client named (RFC 6066), lowercase; `None` when it named none.
    pub server_name: Option<Box<str>>,
}

/// The version of HTTP that ALPN agreed on; HTTP/1.1 for a client without ALPN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    H1,
    /// HTTP/2.
    H2,
}

/// Why a handshake came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// There is no certificate for this client.
    #[error("no certificate: {0:?}")]
    Certificate(certs::Refusal),
    /// The client went away.
    #[error("the client went away")]
    Closed(#[source] io::Error),
    /// The client took too long.
    #[error("the handshake took too long")]
    Deadline,
    /// The client offers only protocols that are not ours (alert 120, RFC 7301 section 3.2).
    #[error("the client offers no protocol of ours")]
    NoProtocol,
    /// What the client sent is no TLS.
    #[error("this is not TLS")]
    NotTls,
    /// The client and this node could not agree, or the client broke the protocol.
    #[error("the handshake failed")]
    Tls(#[source] io::Error),
}

impl Refusal {
    /// As a label for metrics and logs.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Certificate(certs::Refusal::NoCompatibleKey) => Reason::NoCompatibleKey,
            Self::Certificate(certs::Refusal::NoServerName) => Reason::NoServerName,
            Self::Certificate(certs::Refusal::UnknownName) => Reason::UnknownName,
            Self::Closed(_) => Reason::Closed,
            Self::Deadline => Reason::Deadline,
            Self::NoProtocol => Reason::NoProtocol,
            Self::NotTls => Reason::NotTls,
            Self::Tls(_) => Reason::Tls,
        }
    }

    fn from_hello(error: io::Error) -> Self {
        match tls_error(&error) {
            Some(rustls::Error::InvalidMessage(_)) => Self::NotTls,
            Some(_) => Self::Tls(error),
            None => Self::Closed(error),
        }
    }

    fn from_handshake(error: io::Error) -> Self {
        match tls_error(&error) {
            Some(rustls::Error::NoApplicationProtocol) => Self::NoProtocol,
            // The name was admitted, so the resolver can only have missed a key that fits (rustls has no error of its
            // own for a resolver that returns nothing).
            Some(rustls::Error::General(_)) => Self::Certificate(certs::Refusal::NoCompatibleKey),
            Some(_) => Self::Tls(error),
            None => Self::Closed(error),
        }
    }
}

fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// A [`Refusal`] without its details.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The client went away.
    Closed,
    /// The client took too long.
    Deadline,
    /// The client can check none of the signatures that the keys for this name make.
    NoCompatibleKey,
    /// The client offers only protocols that are not ours.
    NoProtocol,
    /// The client named no host, and there is no default certificate.
    NoServerName,
    /// What the client sent is no TLS.
    NotTls,
    /// The client and this node could not agree.
    Tls,
    /// There is no certificate for the name.
    UnknownName,
}

impl Label for Reason {
    const NAME: &'static str = "reason";
    const VALUES: &'static [&'static str] = &[
        "closed",
        "deadline",
        "no-compatible-key",
        "no-protocol",
        "no-server-name",
        "not-tls",
        "tls",
        "unknown-name",
    ];

    fn index(self) -> usize {
        self as usize
    }
}

#[derive(Clone, Debug)]
struct Metrics {
    handshakes: Counter,
    refusals: Family<Reason>,
}

impl Metrics {
    fn new(registry: &Registry) -> Self {
        Self {
            handshakes: registry.counter("edge_tls_handshakes_total", "TLS handshakes that were completed."),
            refusals: registry.family(
                "edge_tls_handshake_failures_total",
                "TLS handshakes that came to nothing, by reason.",
            ),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
