//! What an exchange is given and what it gives back: one shape for every version of HTTP.

use std::net::IpAddr;
use std::pin::Pin;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, StatusCode, Version};
use http_body_util::BodyExt as _;
use http_body_util::combinators::BoxBody;

use super::record::Record;
use crate::cache::inflight::Reader;
use crate::clock::Timestamp;

/// A request that passed the one validator: framing, target, Host and `:authority` are known to be good.
#[derive(Debug)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// How the client reached us.
    pub scheme: Scheme,
    /// The host of the target URI (RFC 9110 7.1): lowercase, no port, no userinfo.
    pub host: Box<str>,
    /// Path and query as they came, still percent-encoded.
    pub target: PathAndQuery,
    /// The client's version of HTTP, for the log.
    pub version: Version,
    /// End-to-end fields: hop-by-hop ones, and those that `Connection` named, are gone.
    pub headers: HeaderMap,
    /// The client's address.
    pub client: IpAddr,
    /// When its header block had arrived.
    pub received: Timestamp,
    /// Its content, if there is any. It comes as fast as it is taken.
    pub content: Option<Content>,
    /// Whether somebody else may have sent a copy of it: it came before its handshake was over (RFC 8446 section 8), here or
    /// at a node before this one (RFC 8470 section 5.1).
    pub is_early: bool,
}

impl Request {
    /// The same, with content.
    pub fn with_content(self, content: Content) -> Self {
        Self {
            content: Some(content),
            ..self
        }
    }
}

/// Whether `request` does the same however often it comes, by what can be seen of it: a plain GET.
pub(super) fn may_come_twice(request: &Request) -> bool {
    request.method == Method::GET && request.target.query().is_none() && request.content.is_none()
}

/// The content of a request, to be taken piece by piece.
#[derive(Debug)]
pub struct Content(BoxBody<Bytes, ContentError>);

/// Why the content of a request did not come.
pub type ContentError = Box<dyn std::error::Error + Send + Sync>;

impl Content {
    /// Content that comes from `body`.
    pub fn new<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes> + Send + Sync + 'static,
        B::Error: Into<ContentError>,
    {
        Self(body.map_err(Into::into).boxed())
    }

    /// The content itself.
    pub fn into_body(self) -> BoxBody<Bytes, ContentError> {
        self.0
    }
}

/// How the client reached us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// In the clear.
    Http,
    /// TLS.
    Https,
}

impl Scheme {
    /// `http` or `https`.
    pub fn token(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// An answer, whole but for bodies that still arrive.
#[derive(Debug)]
pub struct Response {
    /// The status code.
    pub status: StatusCode,
    /// All fields but those of framing and `Date`, which the HTTP version adds.
    pub headers: HeaderMap,
    /// The body.
    pub body: Body,
    /// What is to be written down when the last byte has left.
    pub record: Box<Record>,
}

/// The answer to a request: at hand already, as nearly all are, or still to come. What is at hand costs no future, and
/// what is to come has a place of its own, so that the many do not carry the size of the few.
pub enum Answering {
    /// At hand.
    Now(Response),
    /// To come.
    Later(Pin<Box<dyn Future<Output = Response> + Send>>),
}

impl Answering {
    /// The answer that `future` will give.
    pub fn later(future: impl Future<Output = Response> + Send + 'static) -> Self {
        Self::Later(Box::pin(future))
    }
}

impl std::fmt::Debug for Answering {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Now(response) => f.debug_tuple("Now").field(response).finish(),
            Self::Later(_) => f.write_str("Later(..)"),
        }
    }
}

/// The body of an answer.
#[derive(Debug, Default)]
pub enum Body {
    /// None.
    #[default]
    Empty,
    /// All of it, in one piece.
    Full(Bytes),
    /// All of it, in pieces in order: multipart/byteranges.
    Parts(std::collections::VecDeque<Bytes>),
    /// Still arriving.
    Inflight(Reader),
}

impl Body {
    /// The exact length in bytes, when it is known already.
    pub fn length(&self) -> Option<u64> {
        match self {
            Self::Empty => Some(0),
            Self::Full(bytes) => Some(bytes.len() as u64),
            Self::Parts(parts) => Some(parts.iter().map(|part| part.len() as u64).sum()),
            Self::Inflight(reader) => reader.length(),
        }
    }
}
