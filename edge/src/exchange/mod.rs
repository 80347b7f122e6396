//! The request path.

pub mod error;
pub mod message;
pub mod record;

use std::net::IpAddr;

use http::{HeaderMap, Method, StatusCode, Version};

use self::error::Failure;
use self::message::{Body, Request, Response, Scheme};
use crate::clock::Timestamp;

/// A request that did not become one: what is known of it, for the log.
#[derive(Clone, Debug)]
pub struct Refused {
    /// The method.
    pub method: Method,
    /// How the client reached us.
    pub scheme: Scheme,
    /// The host, as far as it could be read; may be empty.
    pub host: Box<str>,
    /// The target as it came.
    pub target: Box<str>,
    /// The client's version of HTTP.
    pub version: Version,
    /// The client's address.
    pub client: IpAddr,
    /// When its header block had arrived.
    pub received: Timestamp,
}

/// Answers requests.
#[derive(Debug)]
pub struct Exchange;

impl Exchange {
    /// Answers a request.
    pub async fn run(&self, _request: Request) -> Response {
        plain(StatusCode::OK)
    }

    /// Answers a request that came in on the redirecting listener.
    pub fn redirect(&self, _request: Request) -> Response {
        plain(StatusCode::PERMANENT_REDIRECT)
    }

    /// Answers what the validator refused.
    pub fn refuse(&self, _refused: Refused, failure: Failure) -> Response {
        plain(failure.status())
    }
}

fn plain(status: StatusCode) -> Response {
    Response { status, headers: HeaderMap::new(), body: Body::Empty, record: Box::default() }
}
