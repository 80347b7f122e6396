//! Vary: a response is kept for the request it came for, and its key is bounded whatever the fields are.
#![no_main]

use edge::cache::policy::vary::{FIELDS_MAX, VALUE_BYTES_MAX, Vary, VaryKey, vary};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (mut answer, mut request) = (HeaderMap::new(), HeaderMap::new());
    for line in data.split(|&byte| byte == b'\n').take(16) {
        let value = |bytes: &[u8]| HeaderValue::from_bytes(bytes).ok();
        match line.iter().position(|&byte| byte == b':') {
            None => {
                if let Some(value) = value(line) {
                    answer.append(header::VARY, value);
                }
            }
            Some(colon) => {
                let (name, rest) = line.split_at(colon);
                if let (Ok(name), Some(value)) = (HeaderName::from_bytes(name), value(&rest[1..])) {
                    request.append(name, value);
                }
            }
        }
    }
    let Vary::Key(key) = vary(&answer, &request, &[]) else {
        return;
    };
    assert!(key.matches(&request), "it came for this request");
    let names: Vec<_> = key.names().collect();
    assert!(!names.is_empty() && names.len() <= FIELDS_MAX);
    assert!(names.windows(2).all(|pair| pair[0].as_str() < pair[1].as_str()));
    assert!(
        key.fields()
            .all(|(_, value)| value.is_none_or(|value| value.len() <= VALUE_BYTES_MAX))
    );
    // Another value in one of the fields is another request.
    for (name, value) in key.fields() {
        let mut other = request.clone();
        match value {
            Some(_) => other.remove(name),
            None => other.insert(name, HeaderValue::from_static("x")),
        };
        assert!(!key.matches(&other));
    }
    let again = key
        .fields()
        .map(|(name, value)| (name.clone(), value.map(Into::into)));
    assert_eq!(VaryKey::of_fields(again.collect()), key);
});
