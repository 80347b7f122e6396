//! Paths: a canonical path stays as it is, and its object key walks nowhere.
#![no_main]

use edge::cache::key::{canonical_path, object_key};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|raw: &str| {
    let Ok(canonical) = canonical_path(raw) else {
        return;
    };
    assert!(canonical.starts_with('/'));
    assert_eq!(canonical_path(&canonical).as_deref(), Ok(&*canonical));
    let key = object_key(&canonical);
    assert!(key.split('/').all(|segment| segment != "." && segment != ".."));
    assert!(!key.contains('\0'));
});
