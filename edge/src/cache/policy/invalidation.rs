//! What a successful unsafe request makes unusable (RFC 9111 section 4.4).
//!
//! This names what is to be invalidated; how a stored response is made unusable is the epochs' matter.

use http::header::{CONTENT_LOCATION, LOCATION};
use http::{HeaderMap, HeaderName, Method, StatusCode, Uri};

use crate::fields::structured::{BareItem, List};

/// Whether the answer to a request invalidates what is stored under its target: the method is not known to be safe,
/// and the status is no error.
pub fn invalidates(method: &Method, status: StatusCode) -> bool {
    !method.is_safe() && (status.is_success() || status.is_redirection())
}

/// The further targets, path and query, that such an answer names in Location and Content-Location.
///
/// Only those of the same host count, or any server could empty the cache of another. A relative reference is resolved
/// against `base`, the path of the target; dot segments are left for who makes a key of it, and refuses them.
pub fn named_targets<'a>(
    headers: &'a HeaderMap,
    host: &'a str,
    base: &'a str,
) -> impl Iterator<Item = String> + 'a {
    headers
        .get_all(LOCATION)
        .iter()
        .chain(headers.get_all(CONTENT_LOCATION))
        .filter_map(move |line| reference(line.to_str().ok()?.trim(), base))
        .filter(move |uri| uri.host().is_none_or(|named| named.eq_ignore_ascii_case(host)))
        .filter_map(|uri| uri.path_and_query().map(ToString::to_string))
        .filter(|target| target.starts_with('/'))
}

/// The groups that such an answer invalidates (RFC 9875 section 3), of its own origin only. A field that is not a list
/// of strings invalidates nothing.
pub fn named_groups(headers: &HeaderMap) -> Vec<String> {
    const CACHE_GROUP_INVALIDATION: HeaderName = HeaderName::from_static("cache-group-invalidation");
    let List(members) = List::parse(headers.get_all(CACHE_GROUP_INVALIDATION)).unwrap_or_default();
    members
        .iter()
        .filter_map(|member| match &member.as_item()?.value {
            BareItem::String(text) => Some(text.clone()),
            _ => None,
        })
        .collect()
}

/// A reference (RFC 3986 section 5.2): what begins with `//` names a host, and what has neither a scheme nor a slash
/// in front stands beside the last segment of `base`.
fn reference(text: &str, base: &str) -> Option<Uri> {
    let text = text.split_once('#').map_or(text, |(before, _)| before);
    if text.starts_with("//") {
        return format!("http:{text}").parse().ok();
    }
    let has_scheme = text
        .split(['/', '?'])
        .next()
        .is_some_and(|first| first.contains(':'));
    if has_scheme || text.starts_with('/') {
        return text.parse().ok();
    }
    let folder = match text.starts_with('?') {
        true => base,
        false => base.rsplit_once('/').map_or("", |(folder, _)| folder),
    };
    let slash = if text.starts_with('?') { "" } else { "/" };
    (!text.is_empty())
        .then(|| format!("{folder}{slash}{text}").parse().ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_answers_invalidate() {
        let check = |method: &str, status: u16, expected: bool| {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(invalidates(&method, status), expected, "{method} {status}");
        };
        for method in ["POST", "PUT", "DELETE", "PATCH", "M-SEARCH"] {
            check(method, 200, true);
            check(method, 204, true);
            check(method, 303, true);
            check(method, 404, false);
            check(method, 500, false);
        }
        for method in ["GET", "HEAD", "OPTIONS", "TRACE"] {
            check(method, 200, false);
        }
    }

    #[test]
    fn groups_are_strings() {
        let check = |value: &str, expected: &[&str]| {
            let mut fields = HeaderMap::new();
            fields.insert("cache-group-invalidation", value.parse().unwrap());
            assert_eq!(named_groups(&fields), expected, "{value}");
        };
        check("\"a\"", &["a"]);
        check("\"a\", \"b c\";x=1", &["a", "b c"]);
        check("\"a\", b", &["a"]);
        check("\"a\", ", &[]);
        check("", &[]);
    }

    #[test]
    fn only_targets_of_the_same_host_are_named() {
        let check = |location: &str, expected: Option<&str>| {
            for name in [LOCATION, CONTENT_LOCATION] {
                let mut fields = HeaderMap::new();
                fields.insert(name, location.parse().unwrap());
                let found: Vec<String> = named_targets(&fields, "cdn.example.com", "/x/y").collect();
                assert_eq!(found, Vec::from_iter(expected), "{location}");
            }
        };
        check("/a?b=c", Some("/a?b=c"));
        check("https://cdn.example.com/a", Some("/a"));
        check("https://CDN.example.com:8443/a", Some("/a"));
        check("https://other.example.com/a", None);
        check("//other.example.com/a", None);
        check("//cdn.example.com/a", Some("/a"));
        check("a/b", Some("/x/a/b"));
        check("a?b=/c:d", Some("/x/a?b=/c:d"));
        check("?q", Some("/x/y?q"));
        check("/a#b", Some("/a"));
        check("mailto:a@b", None);
        check("", None);
        check("https://", None);
    }
}
