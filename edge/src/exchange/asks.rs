//! What a request asks for beyond the thing itself, found in one pass over its fields: most ask for nothing, and whoever
//! reads directives, conditions or ranges need not look for them again.

use http::HeaderMap;
use http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    IF_UNMODIFIED_SINCE, PRAGMA, RANGE,
};

/// Which of the fields are there that steer an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asks(u8);

const CACHES: u8 = 1;
const CODING: u8 = 2;
const CONDITION: u8 = 4;
const RANGES: u8 = 8;

impl Asks {
    /// What a request with these fields asks for.
    pub fn of(headers: &HeaderMap) -> Self {
        let mut bits = 0;
        for name in headers.keys() {
            if *name == ACCEPT_ENCODING {
                bits |= CODING;
            } else if *name == CACHE_CONTROL || *name == PRAGMA {
                bits |= CACHES;
            } else if *name == RANGE || *name == IF_RANGE {
                bits |= RANGES;
            } else if *name == IF_NONE_MATCH
                || *name == IF_MODIFIED_SINCE
                || *name == IF_MATCH
                || *name == IF_UNMODIFIED_SINCE
            {
                bits |= CONDITION;
            }
        }
        Self(bits)
    }

    /// `Cache-Control` or `Pragma`.
    pub fn of_caches(self) -> bool {
        self.0 & CACHES != 0
    }

    /// `Accept-Encoding`.
    pub fn for_coding(self) -> bool {
        self.0 & CODING != 0
    }

    /// A condition; `If-Range` is not among them (RFC 9110 section 13.1.5).
    pub fn for_condition(self) -> bool {
        self.0 & CONDITION != 0
    }

    /// `Range` or `If-Range`.
    pub fn for_range(self) -> bool {
        self.0 & RANGES != 0
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;
    use http::HeaderValue;

    use super::*;

    #[test]
    fn each_field_that_steers_is_seen() {
        let check = |names: &[&'static str], expected: u8| {
            let name = |name: &&'static str| (HeaderName::from_static(name), HeaderValue::from_static("x"));
            let headers = names.iter().map(name).collect();
            assert_eq!(Asks::of(&headers), Asks(expected), "{names:?}");
        };
        check(&[], 0);
        check(&["accept", "user-agent", "x-range", "if-so"], 0);
        check(&["accept", "accept-encoding"], CODING);
        for name in ["cache-control", "pragma"] {
            check(&[name], CACHES);
        }
        for name in ["range", "if-range"] {
            check(&[name], RANGES);
        }
        for name in [
            "if-match",
            "if-none-match",
            "if-modified-since",
            "if-unmodified-since",
        ] {
            check(&["accept", name], CONDITION);
        }
        check(
            &["if-none-match", "pragma", "accept-encoding", "range"],
            CACHES | CODING | CONDITION | RANGES,
        );
    }
}
