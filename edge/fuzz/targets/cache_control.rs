//! Cache-Control of requests and responses, the targeted fields, and the lifetime that follows from them.
#![no_main]

use edge::cache::policy::directives::{RequestDirectives, ResponseDirectives, effective};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let targeted = HeaderName::from_static("cdn-cache-control");
    let mut fields = HeaderMap::new();
    for (index, line) in data.split(|&byte| byte == b'\n').take(16).enumerate() {
        let name = if index % 4 == 3 {
            targeted.clone()
        } else {
            header::CACHE_CONTROL
        };
        if let Ok(value) = HeaderValue::from_bytes(line) {
            fields.append(name, value);
        }
    }
    let _ = RequestDirectives::parse(&fields);
    let _ = ResponseDirectives::parse(&fields);
    let _ = effective(&fields, &[targeted], Some(b"portico"));
});
