//! Cache tags: bounded in number and length, whatever the origin sends.
#![no_main]

use edge::cache::tag::{TAG_BYTES_MAX, TAGS_MAX, tags};
use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let names = [
        "surrogate-key",
        "cache-tag",
        "cache-groups",
        "x-amz-meta-surrogate-key",
        "x-amz-meta-cache-tag",
    ];
    let mut fields = HeaderMap::new();
    for (line, name) in data
        .split(|&byte| byte == b'\n')
        .zip(names.into_iter().cycle())
        .take(20)
    {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            fields.append(HeaderName::from_static(name), value);
        }
    }
    let tagging = tags(&fields, "cdn.example.com");
    assert!(tagging.tags.len() <= TAGS_MAX);
    assert!(tagging.tags.iter().all(|tag| tag.as_str().len() <= TAG_BYTES_MAX));
});
