//! Targeted fields (RFC 9213) and Surrogate-Control: what is malformed counts for nothing and Cache-Control rules, what is
//! sound rules alone; and a directive is read the same in whatever company.
#![no_main]

use edge::cache::policy::directives::{ResponseDirectives, effective};
use edge::fields::structured::Dictionary;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let own = HeaderName::from_static("cdn-cache-control");
    let surrogate = HeaderName::from_static("surrogate-control");
    let (mut fields, mut told) = (HeaderMap::new(), HeaderMap::new());
    let names = [&own, &header::CACHE_CONTROL, &own, &surrogate];
    for (line, name) in data
        .split(|&byte| byte == b'\n')
        .zip(names.into_iter().cycle())
        .take(16)
    {
        let Ok(value) = HeaderValue::from_bytes(line) else {
            continue;
        };
        match *name == surrogate {
            true => told.append(name.clone(), value),
            false => fields.append(name.clone(), value),
        };
    }
    let plain = ResponseDirectives::parse(&fields);
    assert!(!plain.targeted);
    let found = effective(&fields, std::slice::from_ref(&own), None);
    let is_sound = Dictionary::parse(fields.get_all(&own)).is_ok_and(|said| !said.0.is_empty());
    assert_eq!(found.targeted, is_sound);
    if !is_sound {
        assert_eq!(found, plain);
    }
    // A field that is not ours changes nothing, nor does one behind the first that counts.
    assert_eq!(effective(&fields, &[], None), plain);
    fields.extend(told);
    assert_eq!(effective(&fields, std::slice::from_ref(&own), None), found);
    if found.targeted {
        assert_eq!(effective(&fields, &[own, surrogate], Some(b"portico")), found);
    } else {
        let said = effective(&fields, &[surrogate], Some(b"portico"));
        assert!(said.targeted || said == plain);
    }
});
