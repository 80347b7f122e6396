//! Queries: what a rule keeps stays as it is under the same rule.
#![no_main]

use edge::cache::key::canonical_query;
use edge::config::Query;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|raw: &str| {
    for rule in [
        Query::Ignore,
        Query::Keep,
        Query::Sort,
        Query::Allow(vec!["v".to_owned()]),
    ] {
        let Some(kept) = canonical_query(Some(raw), &rule) else {
            continue;
        };
        assert_eq!(canonical_query(Some(&kept), &rule).as_deref(), Some(&*kept));
    }
});
