//! HTTP dates: what is read is written in the preferred form, and read again as the same second.
#![no_main]

use edge::fields::dates;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Some(time) = dates::parse_str(text) {
        assert_eq!(dates::parse_str(&dates::format(time)), Some(time));
    }
});
