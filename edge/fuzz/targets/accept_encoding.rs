//! Accept-Encoding: no list panics, and what is chosen was accepted.
#![no_main]

use edge::representation::{AcceptEncoding, Coding};
use http::HeaderValue;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let lines: Vec<_> = data
        .split(|&byte| byte == b'\n')
        .filter_map(|line| HeaderValue::from_bytes(line).ok())
        .collect();
    let accepted = AcceptEncoding::parse(&lines);
    for coding in Coding::ALL {
        assert!(accepted.quality(coding) <= 1000);
    }
    let sizes = Coding::ALL.into_iter().zip([30, 20, 40, 100]);
    if let Some(chosen) = accepted.smallest(sizes) {
        assert!(accepted.accepts(chosen));
    }
    assert!(accepted.order().all(|coding| accepted.accepts(coding)));
});
