//! One request to an admin listener and its answer.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Node, printable};
use crate::config::{self, AdminListen};

/// Where an edge's admin listener is unless something says otherwise.
const DEFAULT_URL: &str = "http://127.0.0.1:9180";

/// The environment variable that holds the token.
const TOKEN_VARIABLE: &str = "EDGE_ADMIN_TOKEN";

/// From the first packet to the answer's last byte.
const DEADLINE: Duration = Duration::from_secs(30);

/// Bytes of an answer.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Why nothing, or not all, was done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The arguments make no sense.
    #[error("{0}")]
    Usage(String),
    /// The token cannot be read.
    #[error("the token file {path} cannot be read")]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nobody answers at the address.
    #[error("no edge answers at {address}: is it running, and is this its listen.admin?")]
    Connect {
        /// The address.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The conversation broke off.
    #[error("{address} did not answer as an admin listener does")]
    Exchange {
        /// The address.
        address: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It took too long.
    #[error("{address} did not answer within {seconds} s", seconds = DEADLINE.as_secs())]
    Deadline {
        /// The address.
        address: String,
    },
    /// The node refused.
    #[error("the edge refused ({status}): {detail}")]
    Refused {
        /// The status code.
        status: StatusCode,
        /// What it said.
        detail: String,
    },
    /// Nobody takes what is printed.
    #[error("the output cannot be written")]
    Output(#[from] io::Error),
}

/// An admin listener, and the token for it.
pub(super) struct Connection {
    address: Address,
    token: Option<HeaderValue>,
}

enum Address {
    /// Host and port.
    Tcp(String),
    Unix(PathBuf),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(authority) => write!(f, "http://{authority}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Address {
    fn of(node: &Node) -> Result<Self, Error> {
        if let Some(path) = &node.socket {
            return Ok(Self::Unix(path.clone()));
        }
        if let Some(url) = &node.url {
            return Self::parse(url);
        }
        match &node.config {
            Some(path) => Self::of_config(path),
            None => Self::parse(DEFAULT_URL),
        }
    }

    fn parse(url: &str) -> Result<Self, Error> {
        if let Some(path) = url.strip_prefix("unix:") {
            return Ok(Self::Unix(path.into()));
        }
        let usage = |why: &str| Error::Usage(format!("--url {url}: {why}"));
        let uri: Uri = url.parse().map_err(|_| usage("this is not a URL"))?;
        if uri.scheme_str() != Some("http") {
            return Err(usage(
                "the admin listener speaks plain http; from elsewhere, go through a tunnel",
            ));
        }
        let plain = matches!(
            uri.path_and_query().map(|path| path.as_str()),
            None | Some("/" | "")
        );
        match uri.authority() {
            Some(authority) if plain && !authority.as_str().contains('@') => {
                let port = authority.port_u16().unwrap_or(80);
                Ok(Self::Tcp(format!("{}:{port}", authority.host())))
            }
            _ => Err(usage(
                "only host and port are wanted, such as http://127.0.0.1:9180",
            )),
        }
    }

    fn of_config(path: &Path) -> Result<Self, Error> {
        let usage = |why: String| Error::Usage(format!("--config {}: {why}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| usage(error.to_string()))?;
        let base = path.parent().unwrap_or(Path::new("."));
        let config = config::parse(&text, &path.display().to_string(), base)
            .map_err(|errors| usage(errors.to_string()))?;
        match config.admin.listen {
            Some(AdminListen::Unix(path)) => Ok(Self::Unix(path)),
            Some(AdminListen::Tcp(mut address)) => {
                // An edge that listens everywhere listens here.
                if address.ip().is_unspecified() {
                    let loopback: std::net::IpAddr = match address {
                        std::net::SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
                        std::net::SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
                    };
                    address.set_ip(loopback);
                }
                Ok(Self::Tcp(address.to_string()))
            }
            None => Err(usage("listen.admin is off".into())),
        }
    }
}

impl Connection {
    pub(super) fn new(node: &Node) -> Result<Self, Error> {
        let address = Address::of(node)?;
        let token = match &node.token_file {
            Some(path) => Some(std::fs::read_to_string(path).map_err(|source| Error::TokenFile {
                path: path.clone(),
                source,
            })?),
            None => std::env::var(TOKEN_VARIABLE).ok(),
        };
        let token = token.map(|token| bearer(&token)).transpose()?;
        Ok(Self { address, token })
    }

    /// Asks, and gives the answer's JSON.
    pub(super) async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Error> {
        let asked = tokio::time::timeout(DEADLINE, async {
            match &self.address {
                Address::Tcp(authority) => {
                    let stream = tokio::net::TcpStream::connect(authority).await;
                    let stream = stream.map_err(|source| self.unreachable(source))?;
                    self.exchange(stream, method, path, body).await
                }
                Address::Unix(socket) => {
                    let stream = tokio::net::UnixStream::connect(socket).await;
                    let stream = stream.map_err(|source| self.unreachable(source))?;
                    self.exchange(stream, method, path, body).await
                }
            }
        });
        let address = || self.address.to_string();
        asked.await.map_err(|_| Error::Deadline { address: address() })?
    }

    async fn exchange<S>(
        &self,
        stream: S,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, Error>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let request = self.request(method, path, body)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.broken(error))?;
        let conversation = async {
            let answer = sender
                .send_request(request)
                .await
                .map_err(|error| self.broken(error))?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| self.broken(error))?.to_bytes();
            self.judge(head.status, &body)
        };
        // The connection works while it is polled; it ends with the conversation.
        tokio::pin!(conversation, connection);
        tokio::select! {
            answer = &mut conversation => answer,
            ended = &mut connection => match ended {
                Ok(()) => conversation.await,
                Err(error) => Err(self.broken(error)),
            },
        }
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Request<Full<Bytes>>, Error> {
        let host = match &self.address {
            Address::Tcp(authority) => authority.as_str(),
            Address::Unix(_) => "localhost",
        };
        let mut request = Request::builder().method(method).uri(path).header(HOST, host);
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, token);
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let body = body.map(Value::to_string).unwrap_or_default();
        request
            .body(Full::new(body.into()))
            .map_err(|error| self.broken(error))
    }

    fn judge(&self, status: StatusCode, body: &[u8]) -> Result<Value, Error> {
        let value = serde_json::from_slice::<Value>(body);
        if status.is_success() {
            return value.map_err(|error| self.broken(error));
        }
        let detail = value
            .ok()
            .and_then(|problem| problem.get("detail").and_then(Value::as_str).map(printable))
            .unwrap_or_else(|| "without a reason".into());
        Err(Error::Refused { status, detail })
    }

    fn unreachable(&self, source: io::Error) -> Error {
        let address = self.address.to_string();
        Error::Connect { address, source }
    }

    fn broken(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        Error::Exchange {
            address: self.address.to_string(),
            source: source.into(),
        }
    }
}

fn bearer(token: &str) -> Result<HeaderValue, Error> {
    let token = token.trim();
    if token.is_empty() {
        return Err(Error::Usage("the token is empty".into()));
    }
    let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
        .map_err(|_| Error::Usage("the token holds characters that no token has".into()))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found() {
        let check = |url: &str, expected: Option<&str>| {
            let found = Address::parse(url).ok().map(|address| address.to_string());
            assert_eq!(found.as_deref(), expected, "{url}");
        };
        check("http://127.0.0.1:9180", Some("http://127.0.0.1:9180"));
        check("http://[::1]:9180/", Some("http://[::1]:9180"));
        check("http://edge.internal", Some("http://edge.internal:80"));
        check("unix:/run/edge.sock", Some("unix:/run/edge.sock"));
        check("https://127.0.0.1:9180", None);
        check("http://me@127.0.0.1:9180", None);
        check("http://127.0.0.1:9180/v1/purge", None);
        check("127.0.0.1:9180", None);
        check("nonsense url", None);
    }
}
