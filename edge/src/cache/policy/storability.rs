//! Whether a response may be stored, and which of its fields (RFC 9111 section 3).
//!
//! This does not say for how long it can be used, nor whether there is room for it.
//!
//! Beyond the RFC, a site stores no response with Set-Cookie unless `public` or `s-maxage` says that it is meant for
//! everybody: RFC 9111 section 7.3 leaves that trap to the origin, and one cookie served to all is somebody else's
//! session. A site may say that its origin knows the trap, and a strict one has said so.

use http::header::{AUTHORIZATION, ETAG, EXPIRES, LAST_MODIFIED, SET_COOKIE, VARY};
use http::{HeaderMap, Method, StatusCode};

use super::directives::{RequestDirectives, ResponseDirectives};
use crate::config::{Lifetimes, Terms};
use crate::fields::hop;

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
    /// Nothing says how long it could be used: neither a field nor its status nor a validator.
    NoLifetime,
    /// `no-store`, of the response or, on a strict site, of the request.
    NoStore,
    /// The memory for bodies in flight is used up.
    OverBudget,
    /// It is about a range, and not a part of something that can be told what of.
    Partial,
    /// `private`.
    Private,
    /// A purge came while it was fetched.
    Purged,
    /// It carries Set-Cookie and is not marked as shared.
    SetCookie,
    /// Its status is not final, or `must-understand` and it is not understood.
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
    terms: Terms,
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
    if (directives.no_store && !directives.must_understand)
        || (terms.request_directives && request.directives.no_store)
    {
        return Err(NotStored::NoStore);
    }
    if directives.private.is_whole() {
        return Err(NotStored::Private);
    }
    let shared = directives.public || directives.s_maxage.is_some();
    if request.authorization && !shared && !directives.must_revalidate {
        return Err(NotStored::Authorization);
    }
    if !terms.store_set_cookie && !shared && sets_cookie(headers, directives) {
        return Err(NotStored::SetCookie);
    }
    if headers.get_all(VARY).iter().any(super::vary::is_star) {
        return Err(NotStored::VaryStar);
    }
    worth_storing(status, headers, directives, lifetimes, terms.strict)
}

/// The fields of a response that are stored with it (RFC 9111 section 3.1): all but those that end with this
/// connection, that concern a proxy, or that a qualified `private` or `no-cache` names. The latter are given back as
/// well: they are for the client that asked, and for nobody after it.
pub fn stored_fields(headers: &HeaderMap, directives: &ResponseDirectives) -> (HeaderMap, HeaderMap) {
    let mut stored = headers.clone();
    hop::remove(&mut stored);
    let mut withheld = HeaderMap::new();
    let named = directives
        .private
        .fields()
        .iter()
        .chain(directives.no_cache.fields());
    for name in named {
        for value in stored.get_all(name) {
            withheld.append(name.clone(), value.clone());
        }
        stored.remove(name);
    }
    (stored, withheld)
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
    let mut dropped = directives
        .private
        .fields()
        .iter()
        .chain(directives.no_cache.fields());
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
        return Err(NotStored::NoLifetime);
    }
    if headers.contains_key(LAST_MODIFIED) || headers.contains_key(ETAG) {
        return Ok(());
    }
    Err(NotStored::NoLifetime)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::HeaderName;

    use super::*;

    fn fields(lines: &[(&str, &str)]) -> HeaderMap {
        let mut fields = HeaderMap::new();
        for (name, value) in lines {
            fields.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        fields
    }

    /// A site that says nothing but how long a 404 is kept.
    fn silent() -> Lifetimes {
        Lifetimes {
            ttl: None,
            ttl_default: None,
            ttl_min: None,
            ttl_max: None,
            ttl_negative: Duration::from_secs(10),
            stale_while_revalidate: None,
            stale_if_error: None,
            heuristic: true,
        }
    }

    struct Case<'a> {
        method: Method,
        request: &'a [(&'a str, &'a str)],
        lifetimes: Lifetimes,
    }

    impl Case<'_> {
        fn judge(&self, status: u16, lines: &[(&str, &str)], strict: bool) -> Result<(), NotStored> {
            let (request, response) = (fields(self.request), fields(lines));
            let directives = RequestDirectives::parse(&request);
            storable(
                &RequestFacts::new(&self.method, &request, &directives),
                StatusCode::from_u16(status).unwrap(),
                &response,
                &ResponseDirectives::parse(&response),
                &self.lifetimes,
                Terms::new(strict),
            )
        }
    }

    fn plain<'a>() -> Case<'a> {
        Case {
            method: Method::GET,
            request: &[],
            lifetimes: silent(),
        }
    }

    /// Both a strict site and another one answer `expected`.
    fn check(status: u16, lines: &[(&str, &str)], expected: Result<(), NotStored>) {
        for strict in [true, false] {
            assert_eq!(
                plain().judge(status, lines, strict),
                expected,
                "{status} {lines:?} strict={strict}"
            );
        }
    }

    const FRESH: (&str, &str) = ("cache-control", "max-age=60");

    #[test]
    fn statuses() {
        for status in [200, 203, 204, 302, 307, 404, 500, 503, 299, 499, 599, 799] {
            check(status, &[FRESH], Ok(()));
        }
        check(206, &[FRESH], Err(NotStored::Partial));
        check(304, &[FRESH], Err(NotStored::StatusNotUnderstood));
        check(103, &[FRESH], Err(NotStored::StatusNotUnderstood));
        let understand = ("cache-control", "max-age=60, must-understand, no-store");
        check(200, &[understand], Ok(()));
        check(599, &[understand], Err(NotStored::StatusNotUnderstood));
        check(299, &[understand], Err(NotStored::StatusNotUnderstood));
    }

    #[test]
    fn response_directives() {
        check(
            200,
            &[("cache-control", "max-age=60, no-store")],
            Err(NotStored::NoStore),
        );
        check(
            200,
            &[("cache-control", "max-age=60, private")],
            Err(NotStored::Private),
        );
        check(
            200,
            &[("cache-control", "public, private")],
            Err(NotStored::Private),
        );
        check(200, &[("cache-control", "max-age=60, private=\"a\"")], Ok(()));
        check(200, &[("cache-control", "no-cache"), ("etag", "\"a\"")], Ok(()));
        check(200, &[FRESH, ("vary", "a, *")], Err(NotStored::VaryStar));
        check(200, &[FRESH, ("vary", "a")], Ok(()));
    }

    #[test]
    fn something_must_say_how_long() {
        check(200, &[], Err(NotStored::NoLifetime));
        check(200, &[("etag", "\"a\"")], Ok(()));
        check(200, &[("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")], Ok(()));
        check(200, &[("expires", "0")], Ok(()));
        check(302, &[("etag", "\"a\"")], Err(NotStored::NoLifetime));
        check(302, &[("etag", "\"a\""), ("cache-control", "public")], Ok(()));
        check(302, &[("cache-control", "s-maxage=0")], Ok(()));
        check(503, &[("etag", "\"a\"")], Err(NotStored::NoLifetime));
        assert_eq!(plain().judge(404, &[], false), Ok(()));
        assert_eq!(plain().judge(404, &[], true), Err(NotStored::NoLifetime));
    }

    #[test]
    fn the_site_can_say_it_instead() {
        let site = |ttl, ttl_default| Case {
            lifetimes: Lifetimes {
                ttl,
                ttl_default,
                ..silent()
            },
            ..plain()
        };
        let minute = Some(Duration::from_secs(60));
        assert_eq!(site(minute, None).judge(200, &[], true), Ok(()));
        assert_eq!(site(None, minute).judge(200, &[], false), Ok(()));
        assert_eq!(
            site(None, minute).judge(200, &[], true),
            Err(NotStored::NoLifetime)
        );
        for failure in [403, 500, 503] {
            assert_eq!(
                site(minute, minute).judge(failure, &[], false),
                Err(NotStored::NoLifetime),
                "{failure}"
            );
        }
        let private = [("cache-control", "private")];
        assert_eq!(
            site(minute, None).judge(200, &private, false),
            Err(NotStored::Private)
        );
    }

    #[test]
    fn requests() {
        let post = Case {
            method: Method::POST,
            ..plain()
        };
        assert_eq!(post.judge(200, &[FRESH], false), Err(NotStored::Method));
        let head = Case {
            method: Method::HEAD,
            ..plain()
        };
        assert_eq!(head.judge(200, &[FRESH], false), Err(NotStored::Method));
        let no_store = Case {
            request: &[("cache-control", "no-store")],
            ..plain()
        };
        assert_eq!(no_store.judge(200, &[FRESH], true), Err(NotStored::NoStore));
        assert_eq!(no_store.judge(200, &[FRESH], false), Ok(()));
        let authorized = Case {
            request: &[("authorization", "Basic x")],
            ..plain()
        };
        assert_eq!(
            authorized.judge(200, &[FRESH], true),
            Err(NotStored::Authorization)
        );
        for allowing in ["public, max-age=1", "s-maxage=1", "must-revalidate, max-age=1"] {
            assert_eq!(
                authorized.judge(200, &[("cache-control", allowing)], true),
                Ok(()),
                "{allowing}"
            );
        }
    }

    #[test]
    fn a_cookie_is_stored_only_when_it_is_meant_for_everybody() {
        let check = |control: &str, expected: Result<(), NotStored>| {
            let lines = [("set-cookie", "a=b"), ("cache-control", control)];
            assert_eq!(plain().judge(200, &lines, false), expected, "{control}");
        };
        check("max-age=60", Err(NotStored::SetCookie));
        check("max-age=60, public", Ok(()));
        check("s-maxage=60", Ok(()));
        check("max-age=60, private=\"set-cookie\"", Ok(()));
        check("max-age=60, no-cache=\"set-cookie\"", Ok(()));
        assert_eq!(plain().judge(200, &[("set-cookie", "a=b"), FRESH], true), Ok(()));
    }

    #[test]
    fn fields_that_are_not_stored() {
        let received = fields(&[
            ("content-type", "text/plain"),
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("proxy-authenticate", "Basic"),
            ("x-secret", "1"),
            ("x-checked", "1"),
            ("x-kept", "1"),
            ("x-kept", "2"),
            ("cache-control", "private=\"x-secret\", no-cache=\"x-checked\""),
        ]);
        let (stored, withheld) = stored_fields(&received, &ResponseDirectives::parse(&received));
        assert_eq!(withheld, fields(&[("x-secret", "1"), ("x-checked", "1")]));
        let mut names: Vec<_> = stored.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["cache-control", "content-type", "x-kept", "x-kept"]);
    }
}
