//! Our own client: TLS 1.3 with the one cipher that all servers have, HTTP/1.1 or HTTP/2.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};
use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpSocket;
use tokio_rustls::TlsConnector;

use super::{Outcome, start};

/// The host that is asked for.
pub(crate) const HOST: &str = "localhost";

/// Nothing on this machine takes longer to connect, however busy it is.
const CONNECT_MAX: Duration = Duration::from_secs(120);

/// The version of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Protocol {
    H1,
    H2,
}

impl Protocol {
    /// Both.
    pub(crate) const ALL: [Self; 2] = [Self::H1, Self::H2];

    /// `h1` or `h2`.
    pub(crate) fn token(self) -> &'static str {
        match self {
            Self::H1 => "h1",
            Self::H2 => "h2",
        }
    }
}

/// Which key exchange is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Groups {
    /// What every server has.
    Classic,
    /// The hybrid one that browsers ask for first.
    Hybrid,
}

/// Where connections go, and how.
#[derive(Clone)]
pub(crate) struct Door {
    address: SocketAddr,
    tls: TlsConnector,
    protocol: Protocol,
}

/// A connection that answers.
pub(crate) struct Connection {
    sender: Sender,
    /// How its handshake went.
    pub(crate) handshake: Option<HandshakeKind>,
}

#[derive(Debug)]
enum Sender {
    H1(http1::SendRequest<Empty<Bytes>>),
    H2(http2::SendRequest<Empty<Bytes>>),
}

impl Door {
    /// Connections to `address`, whose certificate comes from the authority in `ca`. With `resumed`, they share what
    /// servers give for the next time.
    pub(crate) fn new(
        address: SocketAddr,
        protocol: Protocol,
        ca: &Path,
        groups: Groups,
        resumed: bool,
    ) -> Outcome<Self> {
        let mut provider = aws_lc_rs::default_provider();
        provider.cipher_suites = vec![cipher_suite::TLS13_AES_128_GCM_SHA256];
        provider.kx_groups = match groups {
            Groups::Classic => vec![kx_group::X25519],
            Groups::Hybrid => vec![kx_group::X25519MLKEM768],
        };
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_file(ca).map_err(|error| error.to_string())?;
        roots.add(authority).map_err(|error| error.to_string())?;
        let mut tls = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![match protocol {
            Protocol::H1 => b"http/1.1".to_vec(),
            Protocol::H2 => b"h2".to_vec(),
        }];
        if !resumed {
            tls.resumption = Resumption::disabled();
        }
        Ok(Self {
            address,
            tls: TlsConnector::from(Arc::new(tls)),
            protocol,
        })
    }

    /// Host and port, as requests name them: the same as h2load and wrk do, since caches tell hosts apart.
    pub(crate) fn authority(&self) -> String {
        format!("{HOST}:{}", self.address.port())
    }

    /// The version of HTTP that is spoken behind it.
    pub(crate) fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Opens a connection, from one of 200 addresses of loopback: a client that is not one client but many.
    pub(crate) async fn connect(&self, number: usize) -> Outcome<Connection> {
        let connecting = tokio::time::timeout(CONNECT_MAX, self.handshake(number));
        connecting
            .await
            .unwrap_or_else(|_| Err("no connection within 120 s".to_owned()))
    }

    async fn handshake(&self, number: usize) -> Outcome<Connection> {
        let said = |what: &str, error: &dyn std::fmt::Display| format!("cannot {what}: {error}");
        let socket = TcpSocket::new_v4().map_err(|error| said("make a socket", &error))?;
        let source = Ipv4Addr::new(127, 0, 0, 2 + u8::try_from(number % 200).unwrap_or(0));
        socket
            .bind((source, 0).into())
            .map_err(|error| said("bind", &error))?;
        let tcp = socket
            .connect(self.address)
            .await
            .map_err(|error| said("connect", &error))?;
        tcp.set_nodelay(true)
            .map_err(|error| said("set an option", &error))?;
        let name = ServerName::try_from(HOST).map_err(|error| error.to_string())?;
        let stream = self
            .tls
            .connect(name, tcp)
            .await
            .map_err(|error| said("shake hands", &error))?;
        let tls = stream.get_ref().1;
        let handshake = tls.handshake_kind();
        let wanted = (self.protocol == Protocol::H2).then_some(&b"h2"[..]);
        if tls.alpn_protocol().filter(|protocol| *protocol == b"h2") != wanted {
            return Err(format!("it does not speak {}", self.protocol.token()));
        }
        let stream = TokioIo::new(stream);
        let sender = match self.protocol {
            Protocol::H1 => {
                let (sender, connection) = http1::handshake(stream)
                    .await
                    .map_err(|error| said("begin", &error))?;
                start(connection);
                Sender::H1(sender)
            }
            Protocol::H2 => {
                // As much as h2load gives: no answer waits for its client.
                let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                    .initial_stream_window_size((1 << 30) - 1)
                    .initial_connection_window_size((1 << 30) - 1)
                    .handshake(stream)
                    .await
                    .map_err(|error| said("begin", &error))?;
                start(connection);
                Sender::H2(sender)
            }
        };
        Ok(Connection { sender, handshake })
    }
}

impl Connection {
    /// A second user of the same connection; only HTTP/2 has room for one.
    pub(crate) fn shared(&self) -> Option<Self> {
        match &self.sender {
            Sender::H1(_) => None,
            Sender::H2(sender) => Some(Self {
                sender: Sender::H2(sender.clone()),
                handshake: self.handshake,
            }),
        }
    }

    /// Sends a request, whose target is a path, and waits for the head of the answer.
    pub(crate) async fn send(&mut self, request: Request<Empty<Bytes>>) -> Outcome<Response<Incoming>> {
        let answer = match &mut self.sender {
            Sender::H1(sender) => {
                sender.ready().await.map_err(|error| error.to_string())?;
                sender.send_request(request).await
            }
            Sender::H2(sender) => {
                sender.ready().await.map_err(|error| error.to_string())?;
                sender.send_request(request).await
            }
        };
        answer.map_err(|error| format!("no answer: {}", chain(&error)))
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
