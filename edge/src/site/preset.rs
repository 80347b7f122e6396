//! Presets: what a kind of site says on every response, and what its origin may not say in its place.
//!
//! Scripts that other people's pages load are the same for every page. So the answer to "may this origin read it" is
//! the constant `*`, and a bucket's own CORS, which answers each origin differently and would be cached for the next
//! one, is taken away, cookies with it.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::config::Preset;

const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
const TIMING_ALLOW_ORIGIN: HeaderName = HeaderName::from_static("timing-allow-origin");
const ANY: HeaderValue = HeaderValue::from_static("*");

/// The fields that a preset sets.
pub(super) fn fields(preset: Preset) -> Vec<(HeaderName, HeaderValue)> {
    match preset {
        Preset::Embed => vec![
            (header::ACCESS_CONTROL_ALLOW_ORIGIN, ANY),
            (
                CROSS_ORIGIN_RESOURCE_POLICY,
                HeaderValue::from_static("cross-origin"),
            ),
            (TIMING_ALLOW_ORIGIN, ANY),
            (
                header::X_CONTENT_TYPE_OPTIONS,
                HeaderValue::from_static("nosniff"),
            ),
        ],
        Preset::Plain => Vec::new(),
    }
}

/// Takes away what the preset speaks for.
pub(super) fn strip(preset: Preset, fields: &mut HeaderMap) {
    if preset == Preset::Plain {
        return;
    }
    let spoken_for: Vec<_> = fields
        .keys()
        .filter(|name| is_spoken_for(name))
        .cloned()
        .collect();
    for name in spoken_for {
        fields.remove(name);
    }
    strip_vary(fields);
}

/// The Fetch standard, section 3.3.5 (CORS-preflight fetch): a preflight is an OPTIONS request with these two fields.
pub(super) fn preflight(preset: Preset, headers: &HeaderMap) -> Option<&'static [(HeaderName, HeaderValue)]> {
    static ANSWER: [(HeaderName, HeaderValue); 4] = [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, ANY),
        (
            header::ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static("GET, HEAD, OPTIONS"),
        ),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, ANY),
        (header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400")),
    ];
    let asks =
        headers.contains_key(header::ORIGIN) && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    (preset == Preset::Embed && asks).then_some(&ANSWER)
}

fn is_spoken_for(name: &HeaderName) -> bool {
    name.as_str().starts_with("access-control-")
        || name == header::SET_COOKIE
        || name == CROSS_ORIGIN_RESOURCE_POLICY
        || name == TIMING_ALLOW_ORIGIN
        || name == header::X_CONTENT_TYPE_OPTIONS
}

/// Takes the members of Vary away that are there for CORS alone; the others stay in order.
fn strip_vary(fields: &mut HeaderMap) {
    let values: Result<Vec<_>, _> = fields
        .get_all(header::VARY)
        .iter()
        .map(HeaderValue::to_str)
        .collect();
    // A value that is not text says we know not what: it stays whole.
    let Ok(values) = values else {
        return;
    };
    let kept: Vec<_> = values
        .iter()
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|member| !member.is_empty() && !is_for_cors(member))
        .collect();
    let Ok(joined) = HeaderValue::from_str(&kept.join(", ")) else {
        return;
    };
    if joined.is_empty() {
        fields.remove(header::VARY);
    } else {
        fields.insert(header::VARY, joined);
    }
}

fn is_for_cors(member: &str) -> bool {
    [
        "origin",
        "access-control-request-headers",
        "access-control-request-method",
    ]
    .iter()
    .any(|name| member.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn what_a_bucket_says_on_cors_and_cookies_is_taken_away() {
        let check = |before: &[(&'static str, &'static str)], after: &[(&'static str, &'static str)]| {
            let mut fields = map(before);
            strip(Preset::Embed, &mut fields);
            assert_eq!(fields, map(after), "{before:?}");
        };
        check(&[("set-cookie", "a=1"), ("etag", "\"x\"")], &[("etag", "\"x\"")]);
        check(
            &[
                ("access-control-allow-origin", "https://a.example"),
                ("access-control-allow-credentials", "true"),
                ("access-control-expose-headers", "etag"),
                (
                    "vary",
                    "Origin, Access-Control-Request-Headers, Access-Control-Request-Method",
                ),
            ],
            &[],
        );
        check(
            &[("vary", "Accept-Encoding, ORIGIN"), ("vary", "Accept-Language")],
            &[("vary", "Accept-Encoding, Accept-Language")],
        );
        check(&[("vary", "*")], &[("vary", "*")]);
        check(&[("timing-allow-origin", "https://a.example")], &[]);
    }

    #[test]
    fn a_plain_site_keeps_what_its_origin_says() {
        let before = map(&[("set-cookie", "a=1"), ("vary", "Origin")]);
        let mut fields = before.clone();
        strip(Preset::Plain, &mut fields);
        assert_eq!(fields, before);
    }

    #[test]
    fn only_a_preflight_of_an_embedded_site_is_answered() {
        let asking = map(&[
            ("origin", "https://a.example"),
            ("access-control-request-method", "GET"),
        ]);
        let fields = preflight(Preset::Embed, &asking).unwrap();
        assert!(
            fields
                .iter()
                .any(|(name, value)| { name == "access-control-max-age" && value == "86400" })
        );
        assert!(preflight(Preset::Plain, &asking).is_none());
        assert!(preflight(Preset::Embed, &map(&[("origin", "https://a.example")])).is_none());
        assert!(preflight(Preset::Embed, &HeaderMap::new()).is_none());
    }
}
