//! Fields that end at each hop (RFC 9110, 7.6.1).
//!
//! Called once on each request that goes inward and once on each response before it is stored; what is added for the next
//! hop is added afterwards.

use http::header::{self, HeaderMap, HeaderName};

use super::lists;

/// Fields that concern one connection only, whether or not `Connection` names them.
pub static FIELDS: [HeaderName; 10] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    HeaderName::from_static("proxy-authentication-info"),
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Removes the fields of this hop: the fixed ones, and those that `Connection` lists.
///
/// A name in `Connection` that is meant for every recipient is not obeyed. RFC 9110 forbids senders to list such a field,
/// and whoever does it is trying to take a condition, a credential or a routing field away between two hops. See
/// [`is_end_to_end`].
pub fn remove(fields: &mut HeaderMap) {
    // Most messages of HTTP/2 have none: one pass finds that out without looking each name up, or allocating.
    let fixed: Vec<HeaderName> = fields.keys().filter(|name| is_fixed(name)).cloned().collect();
    if fixed.is_empty() {
        return;
    }
    let listed: Vec<HeaderName> = lists::members(fields.get_all(header::CONNECTION))
        .filter_map(|option| HeaderName::from_bytes(option.as_bytes()).ok())
        .filter(|name| !is_end_to_end(name))
        .collect();
    for name in listed.iter().chain(&fixed) {
        fields.remove(name);
    }
}

/// Whether it is one of [`FIELDS`].
fn is_fixed(name: &HeaderName) -> bool {
    *name == header::CONNECTION
        || *name == header::TE
        || *name == header::TRAILER
        || *name == header::TRANSFER_ENCODING
        || *name == header::UPGRADE
        || *name == header::PROXY_AUTHENTICATE
        || *name == header::PROXY_AUTHORIZATION
        || matches!(
            name.as_str(),
            "keep-alive" | "proxy-authentication-info" | "proxy-connection"
        )
}

/// Whether `Connection` may never take this field away: it frames, routes, keys, selects, validates, ages or authorises, or
/// says who asked.
pub fn is_end_to_end(name: &HeaderName) -> bool {
    let name = name.as_str();
    END_TO_END.binary_search(&name).is_ok()
        || END_TO_END_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Sorted, for the binary search.
const END_TO_END: [&str; 30] = [
    "age",
    "authorization",
    "cache-control",
    "cache-status",
    "cdn-cache-control",
    "cdn-loop",
    "cookie",
    "date",
    "etag",
    "expires",
    "forwarded",
    "host",
    "last-modified",
    "location",
    "max-forwards",
    "origin",
    "pragma",
    "range",
    "referer",
    "set-cookie",
    "signature",
    "signature-input",
    "strict-transport-security",
    "surrogate-control",
    "surrogate-key",
    "unencoded-digest",
    "user-agent",
    "vary",
    "via",
    "www-authenticate",
];

const END_TO_END_PREFIXES: [&str; 7] = [
    "accept",
    "access-control-",
    "content-",
    "if-",
    "sec-",
    "x-amz-",
    "x-forwarded-",
];

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn fields(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs.iter();
        pairs
            .map(|&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[track_caller]
    fn check(before: &[(&'static str, &'static str)], after: &[(&'static str, &'static str)]) {
        let mut map = fields(before);
        remove(&mut map);
        assert_eq!(map, fields(after));
    }

    #[test]
    fn all_that_concern_one_connection_are_known() {
        assert!(FIELDS.iter().all(is_fixed));
        assert!(![header::HOST, header::VIA, header::EXPECT].iter().any(is_fixed));
    }

    #[test]
    fn the_fixed_fields_go_even_when_nothing_names_them() {
        let mut map: HeaderMap = FIELDS
            .iter()
            .map(|name| (name.clone(), HeaderValue::from_static("x")))
            .collect();
        map.insert("x-kept", HeaderValue::from_static("x"));
        remove(&mut map);
        assert_eq!(map, fields(&[("x-kept", "x")]));
    }

    #[test]
    fn named_fields_go_from_every_line() {
        check(
            &[
                ("connection", "close, X-One"),
                ("connection", "x-two, not a name, ,"),
                ("x-one", "1"),
                ("x-two", "2"),
                ("x-three", "3"),
            ],
            &[("x-three", "3")],
        );
    }

    #[test]
    fn nobody_can_name_away_what_is_meant_for_everybody() {
        let kept = [
            ("host", "cdn.example"),
            ("if-none-match", "\"a\""),
            ("cache-control", "no-store"),
            ("content-length", "3"),
            ("authorization", "Bearer x"),
            ("x-forwarded-for", "192.0.2.1"),
            ("accept-encoding", "gzip"),
            ("range", "bytes=0-1"),
        ];
        let mut sent = vec![(
            "connection",
            "Host, If-None-Match, cache-control, content-length, authorization, X-Forwarded-For, accept-encoding, range",
        )];
        sent.extend(kept);
        check(&sent, &kept);
    }

    #[test]
    fn the_table_can_be_searched() {
        assert!(END_TO_END.is_sorted());
        assert!(is_end_to_end(&header::VIA) && is_end_to_end(&header::IF_MATCH));
        assert!(FIELDS.iter().all(|name| !is_end_to_end(name)));
    }
}
