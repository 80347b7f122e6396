//! TLS handshakes.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// The protocol that ALPN chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    H1,
    /// HTTP/2.
    H2,
}

/// A finished handshake.
#[derive(Debug)]
pub struct Accepted {
    /// The connection.
    pub stream: TlsStream<TcpStream>,
    /// The protocol.
    pub protocol: Protocol,
}

/// Why a handshake did not come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It took too long.
    #[error("the handshake took too long")]
    Timeout,
    /// It failed.
    #[error("the handshake failed")]
    Failed,
}

/// Performs a handshake.
pub async fn accept(acceptor: TlsAcceptor, tcp: TcpStream, deadline: Duration) -> Result<Accepted, Refusal> {
    let stream = tokio::time::timeout(deadline, acceptor.accept(tcp))
        .await
        .map_err(|_| Refusal::Timeout)?
        .map_err(|_| Refusal::Failed)?;
    let protocol = match stream.get_ref().1.alpn_protocol() {
        Some(b"h2") => Protocol::H2,
        _ => Protocol::H1,
    };
    Ok(Accepted { stream, protocol })
}
