//! TLS towards clients: a handshake under a deadline, with a certificate for the name that was asked for.
//!
//! The version of HTTP is what ALPN says and nothing else (RFC 7301). Which certificates there are is the business of
//! `certs`, when their files are read again that of [`reload`], and what an operator does with them that of [`command`].
//! Nothing here reads a request.

pub mod command;
pub mod config;
mod managed;
pub mod reload;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use certs::{Resolver, Tickets};
use rustls::server::{Acceptor as HelloReader, ClientHello};
use rustls::{HandshakeKind, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio_rustls::LazyConfigAcceptor;

use self::reload::Certificates;
use crate::clock::Clock;
use crate::config::Config;
use crate::http::TlsStream;
use crate::telemetry::metrics::{Counter, Family, Label, Registry};

/// The fatal alert `unrecognized_name` (RFC 6066 section 3) as a record of its own. rustls would say `access_denied`,
/// which tells an operator at the other end nothing.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];
/// The fatal alert `handshake_failure` (RFC 8446 section 6.2), for a client that no key of ours suits.
const HANDSHAKE_FAILURE: [u8; 7] = [21, 3, 3, 0, 2, 2, 40];

/// Answers handshakes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Acceptor {
    config: Arc<ServerConfig>,
    /// For clients of TLS 1.3, where early data is taken.
    early: Option<Arc<ServerConfig>>,
    resolver: Arc<Resolver>,
    certificates: Option<Certificates>,
    metrics: Metrics,
}

impl Acceptor {
    /// An acceptor with the certificates of `resolver`; its metrics are registered once, so make one and clone it.
    pub fn new(resolver: Arc<Resolver>, registry: &Registry) -> Result<Self, rustls::Error> {
        Ok(Self {
            config: config::server(Arc::clone(&resolver), None)?,
            early: None,
            resolver,
            certificates: None,
            metrics: Metrics::new(registry),
        })
    }

    /// The acceptor of a node: with the proofs of its certificates, and the tickets of its fleet.
    pub fn of(
        config: &Config,
        certificates: &Certificates,
        clock: &Clock,
        registry: &Registry,
    ) -> Result<Self, rustls::Error> {
        let mut acceptor =
            Self::new(Arc::clone(certificates.resolver()), registry)?.with_proofs(certificates);
        if config.early_data {
            acceptor = acceptor.with_early_data()?;
        }
        match config::tickets(config, clock) {
            Some(tickets) => acceptor.with_tickets(tickets),
            None => Ok(acceptor),
        }
    }

    /// Answers CAs that look whether a name is ours as well (TLS-ALPN-01, RFC 8737).
    pub fn with_proofs(self, certificates: &Certificates) -> Self {
        Self {
            certificates: Some(certificates.clone()),
            ..self
        }
    }

    /// Seals session tickets so that other nodes resume them.
    pub fn with_tickets(self, tickets: Tickets) -> Result<Self, rustls::Error> {
        let config = config::server(Arc::clone(&self.resolver), Some(Arc::new(tickets)))?;
        Ok(Self { config, ..self })
    }

    /// Takes requests that come before the handshake is over.
    pub fn with_early_data(self) -> Result<Self, rustls::Error> {
        let early = Some(config::early(Arc::clone(&self.resolver))?);
        Ok(Self { early, ..self })
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
            Ok(accepted) => {
                self.metrics.handshakes.inc();
                if accepted.stream.session().handshake_kind() == Some(HandshakeKind::Resumed) {
                    self.metrics.resumed.inc();
                }
                if accepted.stream.is_early() {
                    self.metrics.early.inc();
                }
            }
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
        let proof = self
            .certificates
            .as_ref()
            .and_then(|certificates| certificates.proof(&start.client_hello()));
        if let Some(proof) = proof {
            // RFC 8737 section 3: the certificate is all that is wanted.
            let mut stream = TlsStream::start(start.accepted, start.io, proof)
                .await
                .map_err(Refusal::from_handshake)?;
            let _ = stream.shutdown().await;
            return Err(Refusal::Proof);
        }
        let admitted = self.resolver.admit_hello(&start.client_hello());
        if let Err(refusal) = admitted {
            let alert = match refusal {
                certs::Refusal::NoCompatibleKey => HANDSHAKE_FAILURE,
                certs::Refusal::NoServerName | certs::Refusal::UnknownName => UNRECOGNIZED_NAME,
            };
            let mut stream = start.io;
            // Whether the alert arrives changes nothing: the connection ends here.
            let _ = stream.write_all(&alert).await;
            let _ = stream.shutdown().await;
            return Err(Refusal::Certificate(refusal));
        }
        let early = self
            .early
            .as_ref()
            .filter(|_| offers_tls13(&start.client_hello()));
        let config = Arc::clone(early.unwrap_or(&self.config));
        let stream = TlsStream::start(start.accepted, start.io, config)
            .await
            .map_err(Refusal::from_handshake)?;
        let protocol = match stream.session().alpn_protocol() {
            Some(b"h2") => Protocol::H2,
            _ => Protocol::H1,
        };
        Ok(Accepted {
            stream: Box::new(stream),
            protocol,
            server_name,
        })
    }
}

/// A connection that requests can be read from.
#[derive(Debug)]
pub struct Accepted<IO> {
    /// The connection. The handshake is done, or the client has asked for something already.
    pub stream: Box<TlsStream<IO>>,
    /// What ALPN agreed on.
    pub protocol: Protocol,
    /// The host that the client named (RFC 6066), lowercase; `None` when it named none.
    pub server_name: Option<Box<str>>,
}

/// Whether a client could speak TLS 1.3, which alone has early data.
fn offers_tls13(hello: &ClientHello<'_>) -> bool {
    let mut names = hello.cipher_suites().iter().filter_map(|suite| suite.as_str());
    names.any(|name| name.starts_with("TLS13_"))
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
    /// A CA looked whether the name is ours, and saw that it is.
    #[error("a CA looked whether the name is ours")]
    Proof,
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
            Self::Proof => Reason::Proof,
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
    /// A CA looked whether the name is ours.
    Proof,
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
        "proof",
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
    resumed: Counter,
    early: Counter,
    refusals: Family<Reason>,
}

impl Metrics {
    fn new(registry: &Registry) -> Self {
        Self {
            handshakes: registry.counter("edge_tls_handshakes_total", "TLS handshakes that were completed."),
            resumed: registry.counter(
                "edge_tls_handshakes_resumed_total",
                "TLS handshakes that went on from an earlier session.",
            ),
            early: registry.counter(
                "edge_tls_early_data_total",
                "TLS handshakes in which requests came before the end and were taken.",
            ),
            refusals: registry.family(
                "edge_tls_handshake_failures_total",
                "TLS handshakes that came to nothing, by reason.",
            ),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
