//! Entity tags and the conditions made of them.
#![no_main]

use edge::fields::dates;
use edge::representation::encoder::SUFFIXES;
use edge::representation::precondition::{Current, Outcome, evaluate};
use edge::representation::validator::TagList;
use http::{HeaderMap, HeaderValue, Method, header};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let names = [
        header::IF_MATCH,
        header::IF_NONE_MATCH,
        header::IF_MODIFIED_SINCE,
        header::IF_UNMODIFIED_SINCE,
    ];
    let mut fields = HeaderMap::new();
    for (line, name) in data
        .split(|&byte| byte == b'\n')
        .zip(names.into_iter().cycle())
        .take(16)
    {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            fields.append(name, value);
        }
    }
    if let Some(list) = TagList::parse(fields.get_all(header::IF_NONE_MATCH)) {
        assert!(list.is_any() || list.tags().iter().all(|tag| list.matches_weakly(*tag)));
    }
    let etag = HeaderValue::from_static("\"base-br11\"");
    let base = HeaderValue::from_static("\"base\"");
    let current = Current {
        etag: Some(&etag),
        base: Some(&base),
        suffixes: &SUFFIXES,
        last_modified: dates::parse_str("Sun, 06 Nov 1994 08:49:37 GMT"),
    };
    if evaluate(&Method::GET, &fields, &current) == Outcome::Failed {
        assert!(fields.contains_key(header::IF_MATCH) || fields.contains_key(header::IF_UNMODIFIED_SINCE));
    }
});
