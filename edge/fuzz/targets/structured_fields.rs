//! Structured fields (RFC 9651): what is read is written, and read again as the same.
#![no_main]

use edge::fields::structured::{Dictionary, Item, List};
use http::HeaderValue;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let lines: Vec<_> = data
        .split(|&byte| byte == b'\n')
        .filter_map(|line| HeaderValue::from_bytes(line).ok())
        .collect();
    let value = |text: String| HeaderValue::try_from(text).expect("what is written is a field value");
    if let Ok(list) = List::parse(&lines)
        && let Ok(text) = list.write()
    {
        assert_eq!(List::parse([&value(text)]), Ok(list));
    }
    if let Ok(dictionary) = Dictionary::parse(&lines)
        && let Ok(text) = dictionary.write()
    {
        assert_eq!(Dictionary::parse([&value(text)]), Ok(dictionary));
    }
    if let Ok(item) = Item::parse(&lines)
        && let Ok(text) = item.write()
    {
        assert_eq!(Item::parse([&value(text)]), Ok(item));
    }
});
