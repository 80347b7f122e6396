//! The one validator of request heads: what it lets through is in its one canonical form, and names exactly one host.
#![no_main]

use std::net::{IpAddr, Ipv4Addr};

use edge::clock::Timestamp;
use edge::exchange::message::Scheme;
use edge::http::request::{Arrival, HeadLimits, host_and_port, validate};
use http::{HeaderName, HeaderValue, Request, Version};
use libfuzzer_sys::fuzz_target;

const LIMITS: HeadLimits = HeadLimits {
    uri_bytes: 256,
    header_count: 16,
};

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok((host, port)) = host_and_port(text)
    {
        let again = match port {
            Some(port) => format!("{host}:{port}"),
            None => host.to_string(),
        };
        assert_eq!(host_and_port(&again), Ok((host, port)));
    }
    let Some((head, has_content, is_ambiguous)) = head(data) else {
        return;
    };
    let arrival = Arrival {
        client: IpAddr::V4(Ipv4Addr::LOCALHOST),
        scheme: Scheme::Https,
        received: Timestamp::from_unix_seconds(1),
        has_content,
        is_ambiguous,
        is_early: false,
    };
    let Ok(request) = validate(head, arrival, LIMITS, |host| host.len() % 2 == 0) else {
        return;
    };
    assert!(!is_ambiguous);
    assert!(!request.host.is_empty() && !request.host.contains(['@', '/', ',', '?', '#', '\\', ' ']));
    assert_eq!(*request.host, request.host.to_ascii_lowercase());
    assert_eq!(host_and_port(&request.host), Ok((request.host.clone(), None)));
    let target = request.target.as_str();
    assert!(target.starts_with('/') && target.len() <= LIMITS.uri_bytes + 1);
    assert!(
        target
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'\\' && byte != b'#')
    );
    assert!(request.headers.len() <= LIMITS.header_count);
    for gone in [
        "host",
        "connection",
        "transfer-encoding",
        "keep-alive",
        "te",
        "upgrade",
        "proxy-connection",
        "early-data",
    ] {
        assert!(!request.headers.contains_key(gone));
    }
});

/// A first line of version, method and target, then fields.
fn head(data: &[u8]) -> Option<(http::request::Parts, bool, bool)> {
    let (flags, data) = data.split_first()?;
    let mut lines = data.split(|&byte| byte == b'\n');
    let (method, target) = std::str::from_utf8(lines.next()?).ok()?.split_once(' ')?;
    let version = [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2][usize::from(flags % 3)];
    let mut request = Request::builder()
        .version(version)
        .method(method)
        .uri(target)
        .body(())
        .ok()?;
    for line in lines.take(24) {
        let Some(colon) = line.iter().position(|&byte| byte == b':') else {
            continue;
        };
        let (name, value) = line.split_at(colon);
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(&value[1..])) {
            request.headers_mut().append(name, value);
        }
    }
    Some((request.into_parts().0, flags & 0x80 != 0, flags & 0x40 != 0))
}
