//! Whether a response may be stored, and which of its fields (RFC 9111 section 3).
//!
//! This does not say for how long it can be used, nor whether there is room for it.
//!
//! Beyond the RFC, a site that is not `strict` stores no response with Set-Cookie unless `public` or `s-maxage` says
//! that it is meant for everybody: RFC 9111 section 7.3 leaves that trap to the origin, and one cookie served to all
//! is somebody else's session. A strict site follows the RFC.

use http::header::{
    AUTHORIZATION, CONNECTION, EXPIRES, LAST_MODIFIED, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, SET_COOKIE, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE, VARY,
};
use http::{HeaderMap, HeaderName, Method, StatusCode};

use super::directives::{RequestDirectives, ResponseDirectives};
use crate::config::Lifetimes;

/// What storability needs to know of the request.
#[derive(Clone, Copy, Debug)]
pub struct RequestFacts<'a> {
    /// The method that was sent to the origin.
    pub method: &'a Method,
    /// Whether the client's request carried Authorization.
    pub authorization: bool,
    /// The client's directives.
    pub directives: &'a RequestDirectives,
}

impl<'a> RequestFacts<'a> {
    /// The facts of a request with these fields.
    pub fn new(method: &'a Method, headers: &HeaderMap, directives: &'a RequestDirectives) -> Self {
        Self {
            method,
            authorization: headers.contains_key(AUTHORIZATION),
            directives,
        }
    }
}

/// Why a response is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotStored {
    /// The request carried Authorization, and no directive allows sharing (RFC 9111 section 3.5).
    Authorization,
    /// The body did not match its digest.
    Corrupt,
    /// The body did not arrive whole.
    Incomplete,
    /// Its method is not GET.
    Method,
    /// Nothing says how long it could be used, and nothing could revalidate it.
    NoLifetime,
    /// `no-store`, of the response or, on a strict site, of the request.
    NoStore,
    /// The memory for bodies in flight is used up.
    OverBudget,
    /// It is a 206.
    Partial,
    /// `private`.
    Private,
    /// A purge came while it was fetched.
    Purged,
    /// It carries Set-Cookie and is not marked as shared.
    SetCookie,
    /// Its status is not final, not understood, or not one that is stored without being told to.
    StatusNotUnderstood,
    /// Its body is larger than the store takes.
    TooLarge,
    /// `Vary: *`.
    VaryStar,
    /// Vary names too many fields, or their values are too long.
    VaryTooWide,
}

impl NotStored {
    /// The one word for this reason, in Cache-Status, logs and metrics.
    pub const fn token(self) -> &'static str {
        match self {
            Self::Authorization => "authorization",
            Self::Corrupt => "corrupt",
            Self::Incomplete => "incomplete",
            Self::Method => "method",
            Self::NoLifetime => "no-lifetime",
            Self::NoStore => "no-store",
            Self::OverBudget => "over-budget",
            Self::Partial => "partial",
            Self::Private => "private",
            Self::Purged => "purged",
            Self::SetCookie => "set-cookie",
            Self::StatusNotUnderstood => "status-not-understood",
            Self::TooLarge => "too-large",
            Self::VaryStar => "vary-star",
            Self::VaryTooWide => "vary-too-wide",
        }
    }
}

/// Whether a response may be stored: RFC 9111 section 3, in its order, then what makes storing worth it.
pub fn storable(
    request: &RequestFacts<'_>,
    status: StatusCode,
    headers: &HeaderMap,
    directives: &ResponseDirectives,
    lifetimes: &Lifetimes,
    strict: bool,
) -> Result<(), NotStored> {
    if request.method != Method::GET {
        return Err(NotStored::Method);
    }
    if status == StatusCode::PARTIAL_CONTENT {
        return Err(NotStored::Partial);
    }
    let understood = is_understood(status);
    let final_status = !status.is_informational() && status != StatusCode::NOT_MODIFIED;
    if !final_status || (directives.must_understand && !understood) {
        return Err(NotStored::StatusNotUnderstood);
    }
    // RFC 9111 section 5.2.2.3: must-understand lifts no-store where the status is understood.
    if (directives.no_store && !directives.must_understand) || (strict && request.directives.no_store) {
        return Err(NotStored::NoStore);
    }
    if directives.private.is_whole() {
        return Err(NotStored::Private);
    }
    let shared = directives.public || directives.s_maxage.is_some();
    if request.authorization && !shared && !directives.must_revalidate {
        return Err(NotStored::Authorization);
    }
    if !strict && !shared && sets_cookie(headers, directives) {
        return Err(NotStored::SetCookie);
    }
    if headers.get_all(VARY).iter().any(super::vary::is_star) {
        return Err(NotStored::VaryStar);
    }
    worth_storing(status, headers, directives, lifetimes, strict)
}

/// The fields of a response that are stored with it (RFC 9111 section 3.1): all but those that end with this
/// connection, that concern a proxy, or that a qualified `private` or `no-cache` names.
pub fn stored_fields(headers: &HeaderMap, directives: &ResponseDirectives) -> HeaderMap {
    let mut stored = headers.clone();
    for name in NEVER_STORED {
        stored.remove(name);
    }
    for name in connection_options(headers) {
        stored.remove(name);
    }
    let named = directives.private.fields().iter().chain(directives.no_cache.fields());
    for name in named {
        stored.remove(name);
    }
    stored
}

/// Fields that RFC 9111 section 3.1 and RFC 9110 section 7.6.1 keep out of a store.
pub(super) const NEVER_STORED: [HeaderName; 10] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    PROXY_AUTHENTICATE,
    HeaderName::from_static("proxy-authentication-info"),
    PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-connection"),
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// The fields that Connection names.
pub(super) fn connection_options(headers: &HeaderMap) -> impl Iterator<Item = HeaderName> + '_ {
    headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
}

/// Statuses that may be stored without being told to: RFC 9110 section 15.1, less 206.
pub fn is_heuristically_cacheable(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        200 | 203 | 204 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501
    )
}

/// Final statuses of which we implement everything that RFC 9110 says about caching them.
fn is_understood(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        200..=205 | 300..=303 | 305 | 307 | 308 | 400..=411 | 413..=415 | 417 | 421 | 422 | 426 | 428 | 429 | 431 | 451 | 500..=505 | 511
    )
}

/// Whether a client would be sent a Set-Cookie out of the store.
fn sets_cookie(headers: &HeaderMap, directives: &ResponseDirectives) -> bool {
    let mut dropped = directives.private.fields().iter().chain(directives.no_cache.fields());
    headers.contains_key(SET_COOKIE) && !dropped.any(|name| *name == SET_COOKIE)
}

/// The last condition of RFC 9111 section 3, and whether the response could ever be used.
fn worth_storing(
    status: StatusCode,
    headers: &HeaderMap,
    directives: &ResponseDirectives,
    lifetimes: &Lifetimes,
    strict: bool,
) -> Result<(), NotStored> {
    let expires = !directives.targeted && headers.contains_key(EXPIRES);
    if directives.max_age.is_some() || directives.s_maxage.is_some() || expires {
        return Ok(());
    }
    let ruled = lifetimes.ttl.is_some() && super::freshness::takes_rule(status);
    let defaulted = !strict && super::freshness::site_default(status, lifetimes).is_some();
    if ruled || defaulted {
        return Ok(());
    }
    if !directives.public && !is_heuristically_cacheable(status) {
        return Err(NotStored::StatusNotUnderstood);
    }
    if headers.contains_key(LAST_MODIFIED) || headers.contains_key(http::header::ETAG) {
        return Ok(());
    }
    Err(NotStored::NoLifetime)
}
