//! HTTP/1.1 to one place: an edge's admin listener, or its public door under the name that browsers use. One connection,
//! one request at a time; everything with a deadline and a limit.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_rustls::ConfigBuilderExt as _;
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

const CONNECT: Duration = Duration::from_secs(5);

/// Where requests go.
#[derive(Clone)]
pub struct Place {
    shown: String,
    authority: String,
    peer: Peer,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

#[derive(Clone, Debug)]
enum Peer {
    Tcp(String),
    Unix(PathBuf),
}

/// An answer, read whole.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The fields.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The conversation broke off.
    #[error("{place} did not answer as HTTP does")]
    Broken {
        /// Where.
        place: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Nobody is there.
    #[error("nobody answers at {place}")]
    Connect {
        /// Where.
        place: String,
        /// Why.
        source: std::io::Error,
    },
    /// It took too long.
    #[error("{place} did not answer within {seconds} s")]
    Late {
        /// Where.
        place: String,
        /// The deadline.
        seconds: u64,
    },
    /// It cannot be used.
    #[error("{url}: {why}")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        why: String,
    },
}

impl Place {
    /// The place of a URL (`http://`, `https://`, `unix:/path`). With `via`, connections go to that host and port, whatever
    /// the URL's name resolves to. With `ca`, its certificates are trusted instead of the system's.
    pub fn new(url: &str, via: Option<&str>, ca: Option<&Path>) -> Result<Self, Error> {
        let wrong = |why: String| Error::Url {
            url: url.to_owned(),
            why,
        };
        if let Some(path) = url.strip_prefix("unix:") {
            return Ok(Self {
                shown: url.to_owned(),
                authority: "localhost".to_owned(),
                peer: Peer::Unix(path.into()),
                tls: None,
            });
        }
        let uri: Uri = url.parse().map_err(|_| wrong("this is not a URL".into()))?;
        let secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong("it must begin with http://, https:// or unix:".into())),
        };
        let authority = uri.authority().ok_or_else(|| wrong("it names no host".into()))?;
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(wrong("it must end with the host and the port".into()));
        }
        let port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let host = authority.host();
        let tls = match secure {
            false => None,
            true => {
                let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
                let name =
                    ServerName::try_from(name).map_err(|_| wrong("its host is no name for TLS".into()))?;
                Some((connector(ca).map_err(wrong)?, name))
            }
        };
        let shown = match via {
            Some(via) => format!("{url} at {via}"),
            None => url.to_owned(),
        };
        Ok(Self {
            shown,
            authority: authority.to_string(),
            peer: Peer::Tcp(via.map_or_else(|| format!("{host}:{port}"), str::to_owned)),
            tls,
        })
    }

    /// A connection that is made when it is first needed.
    pub fn line(&self) -> Line {
        Line {
            place: self.clone(),
            sender: None,
            tasks: JoinSet::new(),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.shown)
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Place({})", self.shown)
    }
}

/// A connection to a place, kept as long as both ends like.
#[derive(Debug)]
pub struct Line {
    place: Place,
    sender: Option<SendRequest<Full<Bytes>>>,
    tasks: JoinSet<()>,
}

impl Line {
    /// Sends a request whose URI is a path, and reads the answer; at most `bytes_max` of it.
    pub async fn call(
        &mut self,
        mut request: Request<Full<Bytes>>,
        deadline: Duration,
        bytes_max: usize,
    ) -> Result<Answer, Error> {
        let broken = |source: Box<dyn std::error::Error + Send + Sync>| Error::Broken {
            place: self.place.shown.clone(),
            source,
        };
        let host = self
            .place
            .authority
            .parse()
            .map_err(|error| broken(Box::new(error)))?;
        request.headers_mut().insert(HOST, host);
        let place = self.place.shown.clone();
        let late = Error::Late {
            place,
            seconds: deadline.as_secs(),
        };
        let answered = timeout(deadline, self.exchange(request, bytes_max)).await;
        let answered = answered.unwrap_or(Err(late));
        if answered.is_err() {
            // What is left of an answer must not be taken for the next one.
            self.sender = None;
            self.tasks.abort_all();
        }
        answered
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>, bytes_max: usize) -> Result<Answer, Error> {
        let place = self.place.shown.clone();
        let broken = |source: Box<dyn std::error::Error + Send + Sync>| Error::Broken { place, source };
        let mut sender = match self.sender.take() {
            Some(sender) if !sender.is_closed() => sender,
            _ => self.open().await?,
        };
        let answer = async {
            sender.ready().await?;
            let response = sender.send_request(request).await?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, bytes_max).collect().await?.to_bytes();
            Ok((parts, body))
        };
        let (parts, body) = answer.await.map_err(broken)?;
        self.sender = Some(sender);
        Ok(Answer {
            status: parts.status,
            headers: parts.headers,
            body,
        })
    }

    async fn open(&mut self) -> Result<SendRequest<Full<Bytes>>, Error> {
        let place = self.place.shown.clone();
        let failed = |source| Error::Connect {
            place: place.clone(),
            source,
        };
        let late = || failed(std::io::ErrorKind::TimedOut.into());
        match &self.place.peer {
            Peer::Unix(path) => {
                let connected = timeout(CONNECT, UnixStream::connect(path)).await;
                let stream = connected.map_err(|_| late())?.map_err(failed)?;
                self.shake(stream).await
            }
            Peer::Tcp(peer) => {
                let connected = timeout(CONNECT, TcpStream::connect(peer)).await;
                let stream = connected.map_err(|_| late())?.map_err(failed)?;
                match self.place.tls.clone() {
                    Some((connector, name)) => {
                        let connected = timeout(CONNECT, connector.connect(name, stream)).await;
                        let stream = connected.map_err(|_| late())?.map_err(failed)?;
                        self.shake(stream).await
                    }
                    None => self.shake(stream).await,
                }
            }
        }
    }

    async fn shake<S>(&mut self, stream: S) -> Result<SendRequest<Full<Bytes>>, Error>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream))
                .await
                .map_err(|error| Error::Broken {
                    place: self.place.shown.clone(),
                    source: Box::new(error),
                })?;
        // What it ends with is seen by whoever waits for an answer.
        self.tasks.spawn(async move {
            let _ = connection.await;
        });
        Ok(sender)
    }
}

fn connector(ca: Option<&Path>) -> Result<TlsConnector, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match ca {
        None => builder
            .with_native_roots()
            .map_err(|error| format!("no system certificates: {error}"))?,
        Some(path) => {
            let shown = path.display();
            let read = CertificateDer::pem_file_iter(path).map_err(|error| format!("{shown}: {error}"))?;
            let mut roots = rustls::RootCertStore::empty();
            for certificate in read {
                let certificate = certificate.map_err(|error| format!("{shown}: {error}"))?;
                roots
                    .add(certificate)
                    .map_err(|error| format!("{shown}: {error}"))?;
            }
            builder.with_root_certificates(roots)
        }
    };
    let mut config = builder.with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_hosts_and_ports() {
        let check = |url: &str, expected: Result<(&str, bool), &str>| {
            let place = Place::new(url, None, None).map_err(|error| error.to_string());
            match (place, expected) {
                (Ok(place), Ok((peer, secure))) => {
                    assert!(
                        matches!(&place.peer, Peer::Tcp(found) if found == peer),
                        "{place:?}"
                    );
                    assert_eq!(place.tls.is_some(), secure);
                }
                (Err(error), Err(expected)) => assert!(error.contains(expected), "{error}"),
                (found, expected) => panic!("{url}: {found:?} {expected:?}"),
            }
        };
        check("http://127.0.0.1:9180", Ok(("127.0.0.1:9180", false)));
        check("http://edge.example/", Ok(("edge.example:80", false)));
        check("edge.example", Err("must begin with"));
        check("ftp://edge.example", Err("must begin with"));
        check("http://edge.example/v1", Err("must end with the host"));
        check("http://edge.example?a", Err("must end with the host"));
        let unix = Place::new("unix:/run/portico/admin.sock", None, None).unwrap();
        assert!(matches!(unix.peer, Peer::Unix(_)));
        let via = Place::new("http://cdn.example", Some("127.0.0.1:1"), None).unwrap();
        assert_eq!(via.authority, "cdn.example");
        assert!(matches!(via.peer, Peer::Tcp(peer) if peer == "127.0.0.1:1"));
    }
}
