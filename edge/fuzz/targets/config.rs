//! The configuration file: whatever it holds, it is a configuration or a list of mistakes.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Err(errors) = edge::config::parse(text, "edge.toml", Path::new(".")) {
        assert!(!errors.to_string().is_empty());
    }
});
