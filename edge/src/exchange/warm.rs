//! Warming: a request of the operator's own, so that the first client finds what it asks for.
//!
//! It takes the path of every request, and so it can put nothing into the cache that a client could not.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use http::header::ACCEPT_ENCODING;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version};

use super::message::{Answering, Body, Request, Scheme};
use super::{Exchange, respond};
use crate::clock::Timestamp;

/// What came of warming one URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warmed {
    /// The status that a client would have got.
    pub status: StatusCode,
    /// What Cache-Status said.
    pub cache_status: String,
    /// The bytes of the body.
    pub bytes: u64,
    /// Whether the body came whole.
    pub whole: bool,
}

/// Why a URL cannot be warmed or looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadUrl {
    /// It is not an http or https URL.
    #[error("is not an http:// or https:// URL")]
    NotHttp,
    /// No site has its host.
    #[error("no site answers to this host")]
    NoSite,
    /// Its path can be no key.
    #[error(transparent)]
    Path(#[from] crate::cache::key::PathError),
}

/// A URL taken apart.
struct Target {
    scheme: Scheme,
    host: Box<str>,
    target: PathAndQuery,
}

impl Target {
    fn parse(url: &str) -> Result<Self, BadUrl> {
        let parts = url.parse::<Uri>().map_err(|_| BadUrl::NotHttp)?.into_parts();
        let scheme = match parts.scheme.as_ref().map(http::uri::Scheme::as_str) {
            Some("https") => Scheme::Https,
            Some("http") => Scheme::Http,
            _ => return Err(BadUrl::NotHttp),
        };
        let authority = parts.authority.ok_or(BadUrl::NotHttp)?;
        Ok(Self {
            scheme,
            host: authority.host().to_ascii_lowercase().into(),
            target: parts
                .path_and_query
                .unwrap_or_else(|| PathAndQuery::from_static("/")),
        })
    }
}

impl Exchange {
    /// Asks for `url` as a client would that takes these codings, and reads the answer to its end.
    ///
    /// # Errors
    ///
    /// When the URL leads nowhere.
    pub async fn warm(self: &Arc<Self>, url: &str, codings: &HeaderValue) -> Result<Warmed, BadUrl> {
        let fields = HeaderMap::from_iter([(ACCEPT_ENCODING, codings.clone())]);
        let request = plain(url, fields, self.clock.now())?;
        {
            let routes = self.routes();
            let site = routes.router.route(&request.host).ok_or(BadUrl::NoSite)?;
            site.key(request.target.path(), request.target.query())?;
        }
        let response = match self.run(request) {
            Answering::Now(response) => response,
            Answering::Later(response) => response.await,
        };
        let said = response
            .headers
            .get_all(&respond::CACHE_STATUS)
            .iter()
            .next_back();
        let cache_status = said
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        let (bytes, whole) = drained(response.body).await;
        Ok(Warmed {
            status: response.status,
            cache_status,
            bytes,
            whole,
        })
    }
}

/// A GET of `url` from this machine.
pub(super) fn plain(url: &str, headers: HeaderMap, received: Timestamp) -> Result<Request, BadUrl> {
    let Target { scheme, host, target } = Target::parse(url)?;
    Ok(Request {
        method: Method::GET,
        scheme,
        host,
        target,
        version: Version::HTTP_11,
        headers,
        client: IpAddr::V4(Ipv4Addr::LOCALHOST),
        received,
        content: None,
        is_early: false,
    })
}

/// The bytes of a body, and whether it ended well.
async fn drained(body: Body) -> (u64, bool) {
    let length = body.length().unwrap_or(0);
    let Body::Inflight(mut reader) = body else {
        return (length, true);
    };
    let mut bytes = 0;
    while let Some(chunk) = reader.chunk().await {
        match chunk {
            Ok(chunk) => bytes += chunk.len() as u64,
            Err(_) => return (bytes, false),
        }
    }
    (bytes, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let check = |url: &str, expected: Option<(&str, &str, &str)>| {
            let found = Target::parse(url).ok();
            let found = found
                .as_ref()
                .map(|found| (found.scheme.token(), &*found.host, found.target.as_str()));
            assert_eq!(found, expected, "{url}");
        };
        check("https://CDN.test/a?b", Some(("https", "cdn.test", "/a?b")));
        check("http://cdn.test:8080", Some(("http", "cdn.test", "/")));
        for bad in [
            "",
            "/a",
            "cdn.test/a",
            "ftp://cdn.test/",
            "https://",
            "https:///a",
        ] {
            check(bad, None);
        }
    }
}
