//! The way to a server: its addresses, one of them that takes a connection, and TLS.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::names::Names;
use crate::config;
use crate::origin::{Error, Kind, StartError};

/// How long one address is waited for before the next is tried beside it (RFC 8305 section 5).
const STAGGER: Duration = Duration::from_millis(250);

/// What the servers of one origin share.
pub(super) struct Connector {
    tls: Option<Arc<ClientConfig>>,
    names: Arc<Names>,
}

impl Connector {
    pub(super) fn new(config: &config::HttpOrigin) -> Result<Self, StartError> {
        let is_secure = config.servers.iter().any(|server| server.secure);
        // Without TLS no roots are needed: reading them takes time, and a small container may have none.
        let tls = is_secure.then(|| tls(config.ca.as_deref())).transpose()?;
        Ok(Self {
            tls,
            names: Arc::new(Names::new(config.timeouts.connect / 2)),
        })
    }

    /// The way to `server`.
    pub(super) fn to(&self, server: &config::HttpServer) -> Result<Target, StartError> {
        let name = server
            .host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let tls = match self.tls.as_ref().filter(|_| server.secure) {
            None => None,
            Some(tls) => {
                let named = ServerName::try_from(name.clone());
                let named = named.map_err(|_| StartError::Endpoint(server.url()))?;
                Some((Arc::clone(tls), named))
            }
        };
        Ok(Target {
            name,
            port: server.port,
            tls,
            names: Arc::clone(&self.names),
        })
    }
}

/// Where a server is, and who it must prove to be.
pub(super) struct Target {
    name: String,
    port: u16,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    names: Arc<Names>,
}

impl Target {
    /// A connection, over which nothing has been said but for TLS. The caller bounds its time.
    pub(super) async fn connect(&self) -> Result<Stream, Error> {
        let addresses = match self.name.parse::<IpAddr>() {
            Ok(address) => vec![address],
            Err(_) => self.names.addresses(&self.name).await?,
        };
        let addresses = alternate(addresses);
        let addresses = addresses
            .into_iter()
            .map(|address| SocketAddr::new(address, self.port));
        let tcp = first_of(addresses)
            .await
            .map_err(|error| Error::from_causes(&error, Kind::DestinationUnavailable))?;
        let _ = tcp.set_nodelay(true);
        let Some((tls, name)) = &self.tls else {
            return Ok(Stream::Plain(tcp));
        };
        let stream = TlsConnector::from(Arc::clone(tls))
            .connect(name.clone(), tcp)
            .await;
        stream
            .map(|stream| Stream::Tls(Box::new(stream)))
            .map_err(|error| match Error::from_causes(&error, Kind::TlsProtocolError) {
                // A peer that hangs up in the midst of a handshake speaks no TLS.
                error if error.kind == Kind::ConnectionTerminated => Error {
                    kind: Kind::TlsProtocolError,
                    ..error
                },
                error => error,
            })
    }
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Target({}:{})", self.name, self.port)
    }
}

/// The client's side of TLS: verified by the system's authorities, or by those of the file alone.
fn tls(ca: Option<&Path>) -> Result<Arc<ClientConfig>, StartError> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(file) => {
            let unusable = |why: String| StartError::Ca(file.to_owned(), why);
            let certificates =
                CertificateDer::pem_file_iter(file).map_err(|error| unusable(error.to_string()))?;
            for certificate in certificates {
                let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
                roots
                    .add(certificate)
                    .map_err(|error| unusable(error.to_string()))?;
            }
            if roots.is_empty() {
                return Err(unusable("holds no certificate".to_owned()));
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
            if roots.is_empty() {
                return Err(StartError::Roots);
            }
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| StartError::Tls)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// One family after the other, beginning with the first address's (RFC 8305 section 4).
fn alternate(addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let Some(first) = addresses.first().map(IpAddr::is_ipv6) else {
        return addresses;
    };
    let (same, other): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv6() == first);
    let mut other = other.into_iter();
    let mut mixed: Vec<_> = same
        .into_iter()
        .flat_map(|address| [Some(address), other.next()])
        .flatten()
        .collect();
    mixed.extend(other);
    mixed
}

type Attempt = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>;

/// The first of the addresses that takes a connection. The next is tried when one fails, or takes its time.
async fn first_of(mut addresses: impl Iterator<Item = SocketAddr>) -> io::Result<TcpStream> {
    let mut attempts: Vec<Attempt> = Vec::new();
    let mut last = None;
    loop {
        match addresses.next() {
            Some(address) => attempts.push(Box::pin(TcpStream::connect(address))),
            None if attempts.is_empty() => {
                return Err(last.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into()));
            }
            None => {}
        }
        match tokio::time::timeout(STAGGER, any(&mut attempts)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = Some(error),
            Err(_) => {}
        }
    }
}

/// What the first of `attempts` to end came to; it is taken out.
async fn any(attempts: &mut Vec<Attempt>) -> io::Result<TcpStream> {
    std::future::poll_fn(|cx| {
        let mut ended = None;
        for (at, attempt) in attempts.iter_mut().enumerate() {
            if let Poll::Ready(result) = attempt.as_mut().poll(cx) {
                ended = Some((at, result));
                break;
            }
        }
        match ended {
            Some((at, result)) => {
                drop(attempts.swap_remove(at));
                Poll::Ready(result)
            }
            None => Poll::Pending,
        }
    })
    .await
}

/// A connection's bytes.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
