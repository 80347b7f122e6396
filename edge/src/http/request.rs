//! The one validator: what came in under any version of HTTP either becomes a [`Request`] or is refused here.
//!
//! hyper and h2 see to syntax and framing. What they let through is settled here, before anything routes by it or
//! makes a key of it: which host is meant, the form of the target, content where there must be none. Nothing below
//! this file looks at `Host` or at the framing of a request.

use std::net::{IpAddr, Ipv6Addr};

use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version, header};

use crate::clock::Timestamp;
use crate::exchange::Refused;
use crate::exchange::error::{BadRequest, Failure};
use crate::exchange::message::{Request, Scheme};
use crate::fields::hop;

/// Says that a node before this one took the request before its handshake was over (RFC 8470 section 5.1).
const EARLY_DATA: HeaderName = HeaderName::from_static("early-data");

/// What is known about a request besides its head.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// The client's address.
    pub client: IpAddr,
    /// How the client reached us.
    pub scheme: Scheme,
    /// When the header block had arrived.
    pub received: Timestamp,
    /// Whether content follows, or may follow.
    pub has_content: bool,
    /// Whether the head says two things of its content's length. The parser forgets one of them.
    pub is_ambiguous: bool,
    /// Whether it came before the handshake was over.
    pub is_early: bool,
}

/// The limits that are checked here.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    /// Bytes of a request target.
    pub uri_bytes: usize,
    /// Fields in a header block.
    pub header_count: usize,
}

/// A request that was refused, and why.
#[derive(Debug)]
pub struct Rejection {
    /// What is known of it, for the log.
    pub refused: Refused,
    /// Why.
    pub failure: Failure,
}

/// Reads a head as a request. `takes_content` says of its host whether requests with any method may have content there.
///
/// # Errors
///
/// The first reason why it is none.
pub fn validate(
    head: http::request::Parts,
    arrival: Arrival,
    limits: HeadLimits,
    takes_content: impl FnOnce(&str) -> bool,
) -> Result<Request, Box<Rejection>> {
    match check(&head, arrival, limits, takes_content) {
        Ok((host, present)) => Ok(accept(head, arrival, host, present)),
        Err(failure) => Err(Box::new(Rejection {
            refused: describe(&head, arrival),
            failure,
        })),
    }
}

/// All checks in the order of their weight: framing first, then size, then target, then host. Returns the host.
fn check(
    head: &http::request::Parts,
    arrival: Arrival,
    limits: HeadLimits,
    takes_content: impl FnOnce(&str) -> bool,
) -> Result<(Box<str>, Present), Failure> {
    let present = Present::among(&head.headers);
    let host = target_host(head, present);
    check_framing(head, arrival, present)?;
    if (arrival.has_content || present.transfer_encoding)
        && !host.as_ref().is_ok_and(|host| takes_content(host))
    {
        check_content(head, arrival, present)?;
    }
    if head.headers.len() > limits.header_count {
        return Err(Failure::FieldsTooLarge);
    }
    if head.method == Method::CONNECT {
        return Err(Failure::MethodNotAllowed);
    }
    check_target(&head.method, &head.uri, limits.uri_bytes)?;
    if present.expect {
        check_expectation(head)?;
    }
    let host = host.map_err(Failure::BadRequest)?;
    Ok((host, present))
}

/// Which of the fields that are checked here are there, found in one pass: nearly every request has `Host` alone, or none.
#[derive(Clone, Copy, Debug, Default)]
struct Present {
    expect: bool,
    host: bool,
    transfer_encoding: bool,
}

impl Present {
    fn among(headers: &HeaderMap) -> Self {
        let mut present = Self::default();
        for name in headers.keys() {
            present.expect |= *name == header::EXPECT;
            present.host |= *name == header::HOST;
            present.transfer_encoding |= *name == header::TRANSFER_ENCODING;
        }
        present
    }
}

/// RFC 9112, 6.1: one length, or `chunked` and nothing else. What two readers could see differently is how requests are
/// smuggled. hyper drops a `Content-Length` beside a transfer coding; the connection has seen both.
fn check_framing(head: &http::request::Parts, arrival: Arrival, present: Present) -> Result<(), Failure> {
    let is_chunked = || {
        let mut codings = head.headers.get_all(header::TRANSFER_ENCODING).iter();
        let plain = codings
            .next()
            .is_some_and(|coding| coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"));
        plain && head.version == Version::HTTP_11 && codings.next().is_none()
    };
    if arrival.is_ambiguous || (present.transfer_encoding && !is_chunked()) {
        return Err(Failure::BadRequest(BadRequest::TransferEncoding));
    }
    if arrival.has_content && matches!(head.method, Method::TRACE | Method::CONNECT) {
        return Err(Failure::BodyNotAllowed);
    }
    Ok(())
}

/// Where nobody reads content, a transfer coding is refused whatever the method. A method that the exchange does not know
/// may announce a length, so that its answer can be the right one; the connection ends with it.
fn check_content(head: &http::request::Parts, arrival: Arrival, present: Present) -> Result<(), Failure> {
    if present.transfer_encoding {
        return Err(Failure::BadRequest(BadRequest::TransferEncoding));
    }
    let defines_none = [
        Method::GET,
        Method::HEAD,
        Method::OPTIONS,
        Method::DELETE,
        Method::TRACE,
        Method::CONNECT,
    ];
    if arrival.has_content && defines_none.contains(&head.method) {
        return Err(Failure::BodyNotAllowed);
    }
    Ok(())
}

/// RFC 9112, 3.2: origin-form, or absolute-form of a scheme of ours. Authority-form belongs to CONNECT and
/// asterisk-form to OPTIONS, and neither is answered with anything but 405.
fn check_target(method: &Method, uri: &Uri, uri_bytes: usize) -> Result<(), Failure> {
    let bad = |why| Err(Failure::BadRequest(why));
    let Some(target) = uri.path_and_query() else {
        return bad(BadRequest::TargetForm);
    };
    if target.as_str().len() > uri_bytes {
        return Err(Failure::UriTooLong);
    }
    if target.path() == "*" {
        return if *method == Method::OPTIONS {
            Err(Failure::MethodNotAllowed)
        } else {
            bad(BadRequest::TargetForm)
        };
    }
    match uri.scheme_str() {
        None | Some("http" | "https") => {}
        Some(_) => return bad(BadRequest::TargetScheme),
    }
    if !target.path().starts_with('/') {
        return bad(BadRequest::TargetForm);
    }
    if !target.as_str().bytes().all(is_target_byte) {
        return bad(BadRequest::TargetCharacter);
    }
    Ok(())
}

/// RFC 3986 characters, and those that browsers are known to send unencoded. A backslash is not among them: some
/// origins take it for a slash.
fn is_target_byte(byte: u8) -> bool {
    matches!(byte, 0x21..=0x7e) && !matches!(byte, b'#' | b'<' | b'>' | b'\\')
}

/// RFC 9110, 10.1.1: an expectation that cannot be met is answered 417; a sender of HTTP/1.0 has none.
fn check_expectation(head: &http::request::Parts) -> Result<(), Failure> {
    if head.version < Version::HTTP_11 {
        return Ok(());
    }
    let met = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if head.headers.get_all(header::EXPECT).iter().all(met) {
        Ok(())
    } else {
        Err(Failure::ExpectationFailed)
    }
}

/// The host of the target URI (RFC 9110, 7.1). A target's own authority wins over `Host` (RFC 9112, 3.2.2), which must be
/// good all the same; under HTTP/2 and later both must say the same (RFC 9113, 8.3.1).
fn target_host(head: &http::request::Parts, present: Present) -> Result<Box<str>, BadRequest> {
    let field = match present.host {
        true => host_field(&head.headers)?,
        false => None,
    };
    let target = head
        .uri
        .authority()
        .map(Authority::as_str)
        .map(host_and_port)
        .transpose()?;
    match (target, field) {
        (Some(target), Some(field)) if head.version >= Version::HTTP_2 && target != field => {
            Err(BadRequest::AuthorityMismatch)
        }
        (Some(_), None) if head.version == Version::HTTP_11 => Err(BadRequest::HostMissing),
        (Some((host, _)), _) | (None, Some((host, _))) => Ok(host),
        (None, None) => Err(BadRequest::HostMissing),
    }
}

/// The one `Host`, read.
fn host_field(headers: &HeaderMap) -> Result<Option<HostAndPort>, BadRequest> {
    let mut values = headers.get_all(header::HOST).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(BadRequest::HostRepeated);
    }
    host_and_port(value.to_str().map_err(|_| BadRequest::HostInvalid)?).map(Some)
}

/// A host, and the port if one is named.
pub type HostAndPort = (Box<str>, Option<u16>);

/// `uri-host [":" port]` (RFC 9110, 7.2), lowercase, without the root's dot at its end.
///
/// # Errors
///
/// When it is anything else.
pub fn host_and_port(text: &str) -> Result<HostAndPort, BadRequest> {
    if text.is_empty() {
        return Err(BadRequest::HostEmpty);
    }
    if text.contains('@') {
        return Err(BadRequest::Userinfo);
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (literal, rest) = rest.split_once(']').ok_or(BadRequest::HostInvalid)?;
        let address: Ipv6Addr = literal.parse().map_err(|_| BadRequest::HostInvalid)?;
        return Ok((format!("[{address}]").into(), port(rest)?));
    }
    let (name, rest) = text
        .split_at_checked(text.find(':').unwrap_or(text.len()))
        .unwrap_or((text, ""));
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() || name.ends_with('.') || name.len() > 255 || !is_registered_name(name) {
        return Err(BadRequest::HostInvalid);
    }
    Ok((name.to_ascii_lowercase().into(), port(rest)?))
}

/// What follows a host: nothing, or a colon and digits. The digits may be missing (RFC 3986, 3.2.3).
fn port(rest: &str) -> Result<Option<u16>, BadRequest> {
    let digits = match rest.strip_prefix(':') {
        None if rest.is_empty() => return Ok(None),
        None => return Err(BadRequest::HostInvalid),
        Some("") => return Ok(None),
        Some(digits) => digits,
    };
    // `parse` would take a sign.
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(BadRequest::HostInvalid);
    }
    digits.parse().map(Some).map_err(|_| BadRequest::HostInvalid)
}

/// `reg-name` of RFC 3986, 3.2.2, but for the comma: a list of hosts is no host, whatever the grammar allows.
fn is_registered_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    while let Some(byte) = bytes.next() {
        let good = match byte {
            b'%' => [bytes.next(), bytes.next()]
                .iter()
                .all(|b| b.is_some_and(|b| b.is_ascii_hexdigit())),
            b'-' | b'.' | b'_' | b'~' => true,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b';' | b'=' => true,
            other => other.is_ascii_alphanumeric(),
        };
        if !good {
            return false;
        }
    }
    true
}

fn accept(head: http::request::Parts, arrival: Arrival, host: Box<str>, present: Present) -> Request {
    let mut headers = head.headers;
    hop::remove(&mut headers);
    if present.host {
        headers.remove(header::HOST);
    }
    let target = head.uri.into_parts().path_and_query;
    // RFC 8470 section 5.1: whatever its value is.
    let came_early = headers.remove(EARLY_DATA).is_some();
    Request {
        method: head.method,
        scheme: arrival.scheme,
        host,
        target: target.unwrap_or_else(|| PathAndQuery::from_static("/")),
        version: head.version,
        headers,
        client: arrival.client,
        received: arrival.received,
        content: None,
        is_early: arrival.is_early || came_early,
    }
}

/// What the log can say about a head that is no request.
fn describe(head: &http::request::Parts, arrival: Arrival) -> Refused {
    let named = head
        .headers
        .get(header::HOST)
        .and_then(|value| value.to_str().ok());
    let host = head
        .uri
        .authority()
        .map(Authority::as_str)
        .or(named)
        .unwrap_or_default();
    let target = head
        .uri
        .path_and_query()
        .map(PathAndQuery::as_str)
        .unwrap_or_default();
    Refused {
        method: head.method.clone(),
        scheme: arrival.scheme,
        host: host.chars().take(255).collect(),
        target: target.into(),
        version: head.version,
        client: arrival.client,
        received: arrival.received,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const LIMITS: HeadLimits = HeadLimits {
        uri_bytes: 64,
        header_count: 5,
    };

    fn arrival(has_content: bool) -> Arrival {
        Arrival {
            client: Ipv4Addr::LOCALHOST.into(),
            scheme: Scheme::Https,
            received: Timestamp::from_unix_seconds(1),
            has_content,
            is_ambiguous: false,
            is_early: false,
        }
    }

    fn nowhere(_: &str) -> bool {
        false
    }

    fn head(version: Version, method: &str, target: &str, fields: &[(&str, &str)]) -> http::request::Parts {
        let mut builder = http::Request::builder()
            .version(version)
            .method(method)
            .uri(target);
        for (name, value) in fields {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap().into_parts().0
    }

    fn check_one(
        version: Version,
        (method, target): (&str, &str),
        fields: &[(&str, &str)],
        expected: Result<(&str, &str), Failure>,
    ) {
        let result = validate(
            head(version, method, target, fields),
            arrival(false),
            LIMITS,
            nowhere,
        );
        let result = result
            .map(|r| (r.host.to_string(), r.target.to_string()))
            .map_err(|r| r.failure);
        let expected = expected.map(|(host, target)| (host.to_owned(), target.to_owned()));
        assert_eq!(result, expected, "{version:?} {method} {target} {fields:?}");
    }

    fn bad(why: BadRequest) -> Result<(&'static str, &'static str), Failure> {
        Err(Failure::BadRequest(why))
    }

    #[test]
    fn a_host_is_read_by_its_grammar() {
        let check = |text: &str, expected: Result<(&str, Option<u16>), BadRequest>| {
            let result = host_and_port(text);
            assert_eq!(
                result,
                expected.map(|(host, port)| (host.into(), port)),
                "{text:?}"
            );
        };
        check("a.example", Ok(("a.example", None)));
        check("A.Example:443", Ok(("a.example", Some(443))));
        check("a.example.", Ok(("a.example", None)));
        check("a.example.:80", Ok(("a.example", Some(80))));
        check("a:", Ok(("a", None)));
        check("127.0.0.1:8443", Ok(("127.0.0.1", Some(8443))));
        check("[::1]", Ok(("[::1]", None)));
        check("[0:0::1]:8443", Ok(("[::1]", Some(8443))));
        check("xn--bcher-kva.example", Ok(("xn--bcher-kva.example", None)));
        check("a%2Db", Ok(("a%2db", None)));
        check("", Err(BadRequest::HostEmpty));
        check("u@a", Err(BadRequest::Userinfo));
        check("u:p@a", Err(BadRequest::Userinfo));
        for text in [
            ":80",
            ".",
            "a,b",
            "a, b",
            "..",
            "a..",
            "a/b",
            "a b",
            "a?b",
            "a#b",
            "a\\b",
            "a%",
            "a%2",
            "a%zz",
            "b\u{fc}cher",
            "a:80:80",
            "a:+80",
            "a:8a",
            "a:65536",
            "a:99999999999",
            "[::1",
            "[::1]x",
            "[::1%25eth0]",
            "[v1.a]",
            "[127.0.0.1]",
            "::1",
            "a\tb",
            "<a>",
            "\"a\"",
            " a",
            "a ",
        ] {
            check(text, Err(BadRequest::HostInvalid));
        }
        check(&"a".repeat(256), Err(BadRequest::HostInvalid));
    }

    #[test]
    fn http1_needs_exactly_one_good_host() {
        let check = |target, fields: &[(&str, &str)], expected| {
            check_one(Version::HTTP_11, ("GET", target), fields, expected);
        };
        check("/x?y", &[("host", "A.example:8443")], Ok(("a.example", "/x?y")));
        check("/", &[], bad(BadRequest::HostMissing));
        check("/", &[("host", "")], bad(BadRequest::HostEmpty));
        check(
            "/",
            &[("host", "a"), ("host", "a")],
            bad(BadRequest::HostRepeated),
        );
        check(
            "/",
            &[("host", "a"), ("host", "b")],
            bad(BadRequest::HostRepeated),
        );
        check("/", &[("host", "a, b")], bad(BadRequest::HostInvalid));
        check("/", &[("host", "user@a")], bad(BadRequest::Userinfo));
        check("/", &[("host", "a/path")], bad(BadRequest::HostInvalid));
        check_one(Version::HTTP_10, ("GET", "/"), &[], bad(BadRequest::HostMissing));
        check_one(Version::HTTP_10, ("GET", "/"), &[("host", "a")], Ok(("a", "/")));
        check_one(Version::HTTP_10, ("GET", "http://a/"), &[], Ok(("a", "/")));
    }

    #[test]
    fn an_absolute_target_wins_over_host() {
        let check = |target, fields: &[(&str, &str)], expected| {
            check_one(Version::HTTP_11, ("GET", target), fields, expected);
        };
        check("http://b.example/x", &[("host", "a")], Ok(("b.example", "/x")));
        check("https://b.example", &[("host", "a")], Ok(("b.example", "/")));
        check("http://b.example/", &[], bad(BadRequest::HostMissing));
        check(
            "http://b.example/",
            &[("host", "a/b")],
            bad(BadRequest::HostInvalid),
        );
        check("http://u@b.example/", &[("host", "a")], bad(BadRequest::Userinfo));
        check(
            "ftp://b.example/",
            &[("host", "a")],
            bad(BadRequest::TargetScheme),
        );
    }

    #[test]
    fn each_method_has_its_form_of_target() {
        let host = [("host", "a")];
        let check = |method, target, expected| check_one(Version::HTTP_11, (method, target), &host, expected);
        check("GET", "*", bad(BadRequest::TargetForm));
        check("OPTIONS", "*", Err(Failure::MethodNotAllowed));
        check("CONNECT", "a:443", Err(Failure::MethodNotAllowed));
        check("GET", "a:443", bad(BadRequest::TargetForm));
        check("GET", "a", bad(BadRequest::TargetForm));
        check("PURGE", "/x", Ok(("a", "/x")));
        check("GET", "//b/x", Ok(("a", "//b/x")));
    }

    #[test]
    fn a_target_holds_only_what_a_uri_may_hold() {
        let host = [("host", "a")];
        let check = |target, expected| check_one(Version::HTTP_11, ("GET", target), &host, expected);
        check("/a%00b", Ok(("a", "/a%00b")));
        check("/a|b", Ok(("a", "/a|b")));
        check("/a\\b", bad(BadRequest::TargetCharacter));
        check("/b\u{fc}cher", bad(BadRequest::TargetCharacter));
        check("/a?b\u{fc}", bad(BadRequest::TargetCharacter));
        let (longest, longer) = (format!("/{}", "a".repeat(63)), format!("/{}", "a".repeat(64)));
        check(&longest, Ok(("a", &longest)));
        check(&longer, Err(Failure::UriTooLong));
    }

    #[test]
    fn http2_takes_the_authority_and_a_host_that_agrees() {
        let check = |target, fields: &[(&str, &str)], expected| {
            check_one(Version::HTTP_2, ("GET", target), fields, expected);
        };
        check("https://A.example/x", &[], Ok(("a.example", "/x")));
        check(
            "https://a.example/x",
            &[("host", "a.example")],
            Ok(("a.example", "/x")),
        );
        check(
            "https://a.example/x",
            &[("host", "b.example")],
            bad(BadRequest::AuthorityMismatch),
        );
        check(
            "https://a.example/x",
            &[("host", "a.example:1")],
            bad(BadRequest::AuthorityMismatch),
        );
        check(
            "https://a/x",
            &[("host", "a"), ("host", "a")],
            bad(BadRequest::HostRepeated),
        );
        check("https://u@a.example/x", &[], bad(BadRequest::Userinfo));
        check("/x", &[("host", "a.example")], Ok(("a.example", "/x")));
        check("/x", &[], bad(BadRequest::HostMissing));
        check("/x", &[("host", "")], bad(BadRequest::HostEmpty));
        check("*", &[("host", "a")], bad(BadRequest::TargetForm));
    }

    #[test]
    fn content_is_refused_and_never_read() {
        let refusal = |method, has_content, fields: &[(&str, &str)]| {
            let head = head(Version::HTTP_11, method, "/", fields);
            validate(head, arrival(has_content), LIMITS, nowhere)
                .err()
                .map(|r| r.failure)
        };
        let host = ("host", "a");
        for method in ["GET", "HEAD", "OPTIONS", "DELETE", "TRACE"] {
            assert_eq!(
                refusal(method, true, &[host]),
                Some(Failure::BodyNotAllowed),
                "{method}"
            );
            assert_eq!(refusal(method, false, &[host]), None, "{method}");
        }
        assert_eq!(refusal("POST", true, &[host]), None);
        let coded = Some(Failure::BadRequest(BadRequest::TransferEncoding));
        for method in ["GET", "POST"] {
            assert_eq!(
                refusal(method, true, &[host, ("transfer-encoding", "chunked")]),
                coded
            );
        }
    }

    #[test]
    fn where_content_is_taken_only_its_framing_is_looked_at() {
        let refusal = |version, method, is_ambiguous, fields: &[(&str, &str)]| {
            let arrival = Arrival {
                is_ambiguous,
                ..arrival(true)
            };
            let fields = [&[("host", "a")], fields].concat();
            validate(head(version, method, "/", &fields), arrival, LIMITS, |host| {
                host == "a"
            })
            .err()
            .map(|r| r.failure)
        };
        let chunked = [("transfer-encoding", "chunked")];
        for method in ["GET", "HEAD", "OPTIONS", "DELETE", "POST", "BREW"] {
            assert_eq!(refusal(Version::HTTP_11, method, false, &[]), None, "{method}");
            assert_eq!(
                refusal(Version::HTTP_11, method, false, &chunked),
                None,
                "{method}"
            );
        }
        let framing = Some(Failure::BadRequest(BadRequest::TransferEncoding));
        assert_eq!(refusal(Version::HTTP_11, "POST", true, &[]), framing);
        assert_eq!(refusal(Version::HTTP_10, "POST", false, &chunked), framing);
        assert_eq!(refusal(Version::HTTP_2, "POST", false, &chunked), framing);
        let coded = [("transfer-encoding", "gzip, chunked")];
        assert_eq!(refusal(Version::HTTP_11, "POST", false, &coded), framing);
        assert_eq!(
            refusal(Version::HTTP_11, "POST", false, &[chunked, chunked].concat()),
            framing
        );
        assert_eq!(
            refusal(Version::HTTP_11, "TRACE", false, &[]),
            Some(Failure::BodyNotAllowed)
        );
    }

    #[test]
    fn only_one_expectation_can_be_met() {
        let check = |version, value: &str, expected| {
            check_one(
                version,
                ("GET", "/"),
                &[("host", "a"), ("expect", value)],
                expected,
            );
        };
        check(Version::HTTP_11, "100-Continue", Ok(("a", "/")));
        check(Version::HTTP_11, "200-ok", Err(Failure::ExpectationFailed));
        check(Version::HTTP_11, "", Err(Failure::ExpectationFailed));
        check(
            Version::HTTP_2,
            "100-continue, x",
            Err(Failure::ExpectationFailed),
        );
        check(Version::HTTP_10, "200-ok", Ok(("a", "/")));
    }

    #[test]
    fn more_fields_than_the_limit_are_refused() {
        let fields = [
            ("host", "a"),
            ("x", "1"),
            ("x", "2"),
            ("y", "1"),
            ("z", "1"),
            ("z", "2"),
        ];
        check_one(
            Version::HTTP_11,
            ("GET", "/"),
            &fields,
            Err(Failure::FieldsTooLarge),
        );
        check_one(Version::HTTP_11, ("GET", "/"), &fields[..5], Ok(("a", "/")));
    }

    #[test]
    fn only_end_to_end_fields_go_on() {
        let fields = [
            ("host", "a"),
            ("connection", "x-hop, upgrade"),
            ("upgrade", "foo"),
            ("x-hop", "1"),
            ("accept", "*/*"),
        ];
        let request = validate(
            head(Version::HTTP_11, "GET", "/", &fields),
            arrival(false),
            LIMITS,
            nowhere,
        )
        .unwrap();
        let names: Vec<_> = request.headers.keys().map(|name| name.as_str()).collect();
        assert_eq!(names, ["accept"]);
    }

    #[test]
    fn a_refusal_says_what_was_asked() {
        let head = head(Version::HTTP_11, "GET", "/x", &[("host", "a/b")]);
        let rejection = validate(head, arrival(false), LIMITS, nowhere).unwrap_err();
        assert_eq!(
            (&*rejection.refused.host, &*rejection.refused.target),
            ("a/b", "/x")
        );
    }
}
