//! Comma-separated lists: members are trimmed, never empty, and their parameters end.
#![no_main]

use edge::fields::lists;
use http::HeaderValue;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let lines: Vec<_> = data
        .split(|&byte| byte == b'\n')
        .filter_map(|line| HeaderValue::from_bytes(line).ok())
        .collect();
    for member in lists::members(&lines) {
        assert!(!member.is_empty());
        assert_eq!(member, member.trim_matches([' ', '\t']));
        let (_, parameters) = lists::parameters(member);
        assert!(parameters.count() <= member.len());
        let _ = lists::unquote(member);
    }
});
