//! What the answer to an unsafe request names: targets of the same host only, each a path, and groups that are strings.
#![no_main]

use edge::cache::policy::invalidation::{named_groups, named_targets};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let names = [
        header::LOCATION,
        header::CONTENT_LOCATION,
        HeaderName::from_static("cache-group-invalidation"),
    ];
    let mut fields = HeaderMap::new();
    for (line, name) in data
        .split(|&byte| byte == b'\n')
        .zip(names.iter().cycle())
        .take(12)
    {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            fields.append(name, value);
        }
    }
    for target in named_targets(&fields, "cdn.test", "/folder/page") {
        assert!(target.starts_with('/'));
        assert!(target.parse::<http::uri::PathAndQuery>().is_ok(), "{target:?}");
    }
    // Elsewhere, only what has no host of its own names anything.
    for line in fields.get_all(header::LOCATION) {
        let alone = HeaderMap::from_iter([(header::LOCATION, line.clone())]);
        let (here, there) = (
            named_targets(&alone, "cdn.test", "/").count(),
            named_targets(&alone, "other.test", "/").count(),
        );
        let text = line.to_str().unwrap_or_default();
        assert!(here <= 1 && there <= 1);
        assert!(
            here == 0 || there == 0 || !text.trim().starts_with("//"),
            "{text:?}"
        );
    }
    // Lines are one list, joined by a comma and a space (RFC 9110 section 5.3), also within a string.
    let bytes: usize = fields.get_all(&names[2]).iter().map(|line| line.len() + 2).sum();
    assert!(named_groups(&fields).iter().map(String::len).sum::<usize>() <= bytes);
});
