//! Listing: one page of keys out of an ordered index, with prefix, delimiter and a place to go on from.
//!
//! Pure. Order is that of the bytes of the keys, as S3 has it.

use std::collections::BTreeMap;
use std::ops::Bound;

/// What is asked of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// Only keys that begin with it.
    pub prefix: String,
    /// Keys that have it behind the prefix are rolled up into a common prefix. Empty: none are.
    pub delimiter: String,
    /// Only what comes after it.
    pub after: Option<After>,
    /// How many keys and common prefixes a page holds at most.
    pub limit: usize,
}

/// Where a page goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum After {
    /// Behind this key.
    Key(String),
    /// Behind all keys of this common prefix.
    Prefix(String),
}

/// One page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The entries, in key order.
    pub entries: Vec<T>,
    /// The common prefixes, in order.
    pub prefixes: Vec<String>,
    /// Where the next page goes on; nothing when this is the last.
    pub next: Option<After>,
}

impl After {
    /// As an opaque token for the client.
    pub fn token(&self) -> String {
        match self {
            Self::Key(key) => hex::encode(format!("k{key}")),
            Self::Prefix(prefix) => hex::encode(format!("p{prefix}")),
        }
    }

    /// From a token that [`After::token`] made; nothing when it is not one.
    pub fn from_token(token: &str) -> Option<Self> {
        let text = String::from_utf8(hex::decode(token).ok()?).ok()?;
        let (kind, rest) = text.split_at_checked(1)?;
        match kind {
            "k" => Some(Self::Key(rest.to_owned())),
            "p" => Some(Self::Prefix(rest.to_owned())),
            _ => None,
        }
    }

    fn bound(&self) -> Bound<Vec<u8>> {
        match self {
            Self::Key(key) => Bound::Excluded(key.clone().into_bytes()),
            Self::Prefix(prefix) => Bound::Included(behind(prefix)),
        }
    }
}

/// Lists one page of `index`, whose keys are the bytes of UTF-8 strings.
pub(super) fn list<T: Clone>(index: &BTreeMap<Vec<u8>, T>, query: &Query) -> Page<T> {
    let mut page = Page {
        entries: Vec::new(),
        prefixes: Vec::new(),
        next: None,
    };
    if query.limit == 0 {
        return page;
    }
    let mut from = Bound::Included(query.prefix.clone().into_bytes());
    if let Some(after) = &query.after {
        from = later(from, after.bound());
    }
    let mut last: Option<After> = None;
    while let Some((key, value)) = index.range((from.clone(), Bound::Unbounded)).next() {
        let Some(key) = std::str::from_utf8(key)
            .ok()
            .filter(|key| key.starts_with(&query.prefix))
        else {
            break;
        };
        if page.entries.len() + page.prefixes.len() == query.limit {
            page.next = last;
            break;
        }
        let place = match common_prefix(key, query) {
            Some(prefix) => {
                page.prefixes.push(prefix.clone());
                After::Prefix(prefix)
            }
            None => {
                page.entries.push(value.clone());
                After::Key(key.to_owned())
            }
        };
        from = place.bound();
        last = Some(place);
    }
    page
}

fn common_prefix(key: &str, query: &Query) -> Option<String> {
    if query.delimiter.is_empty() {
        return None;
    }
    let rest = key.strip_prefix(query.prefix.as_str())?;
    let (head, _) = rest.split_once(query.delimiter.as_str())?;
    Some(format!("{}{head}{}", query.prefix, query.delimiter))
}

/// The least bytes that come after everything that begins with `prefix`. UTF-8 has no byte 0xFF, so the last
/// byte can always be raised by one.
fn behind(prefix: &str) -> Vec<u8> {
    let mut bytes = prefix.as_bytes().to_vec();
    if let Some(last) = bytes.last_mut() {
        *last = last.saturating_add(1);
    }
    bytes
}

fn later(a: Bound<Vec<u8>>, b: Bound<Vec<u8>>) -> Bound<Vec<u8>> {
    let bytes = |bound: &Bound<Vec<u8>>| match bound {
        Bound::Included(bytes) => (bytes.clone(), false),
        Bound::Excluded(bytes) => (bytes.clone(), true),
        Bound::Unbounded => (Vec::new(), false),
    };
    if bytes(&a) >= bytes(&b) { a } else { b }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(keys: &[&str]) -> BTreeMap<Vec<u8>, String> {
        keys.iter()
            .map(|key| (key.as_bytes().to_vec(), (*key).to_owned()))
            .collect()
    }

    /// Goes through all pages; shows keys as they are and common prefixes in brackets.
    fn walk(keys: &[&str], prefix: &str, delimiter: &str, limit: usize) -> Vec<String> {
        let index = index(keys);
        let mut query = Query {
            prefix: prefix.into(),
            delimiter: delimiter.into(),
            after: None,
            limit,
        };
        let mut pages = Vec::new();
        loop {
            let page = list(&index, &query);
            let prefixes = page.prefixes.iter().map(|prefix| format!("[{prefix}]"));
            let mut shown: Vec<String> = page.entries.iter().cloned().chain(prefixes).collect();
            shown.sort_by_key(|entry| entry.trim_matches(['[', ']']).to_owned());
            pages.push(shown.join(" "));
            let Some(next) = page.next else { return pages };
            query.after = Some(After::from_token(&next.token()).unwrap());
        }
    }

    #[test]
    fn pages_are_in_the_order_of_bytes() {
        let keys = ["b", "a/1", "a/2", "a-1", "a", "Z", "ä", "日本"];
        assert_eq!(walk(&keys, "", "", 100), ["Z a a-1 a/1 a/2 b ä 日本"]);
        assert_eq!(walk(&keys, "", "", 3), ["Z a a-1", "a/1 a/2 b", "ä 日本"]);
        assert_eq!(walk(&keys, "a", "", 2), ["a a-1", "a/1 a/2"]);
        assert_eq!(walk(&keys, "nothing", "", 2), [""]);
    }

    #[test]
    fn a_delimiter_rolls_up_and_counts_once() {
        let keys = ["a/1", "a/2", "a/3", "a0", "b/x/y", "c"];
        assert_eq!(walk(&keys, "", "/", 100), ["[a/] a0 [b/] c"]);
        assert_eq!(walk(&keys, "", "/", 1), ["[a/]", "a0", "[b/]", "c"]);
        assert_eq!(walk(&keys, "b/", "/", 1), ["[b/x/]"]);
        assert_eq!(walk(&["a--1", "a--2", "a-b"], "", "--", 1), ["[a--]", "a-b"]);
    }

    #[test]
    fn a_full_last_page_is_not_truncated() {
        assert_eq!(walk(&["a", "b"], "", "", 2), ["a b"]);
        assert_eq!(list(&index(&["a"]), &Query::default()).next, None);
    }

    #[test]
    fn a_start_before_the_prefix_is_the_prefix() {
        let query = Query {
            prefix: "m/".into(),
            after: Some(After::Key("a".into())),
            limit: 10,
            ..Query::default()
        };
        assert_eq!(list(&index(&["a", "b", "m/1", "n"]), &query).entries, ["m/1"]);
    }

    #[test]
    fn a_strange_token_is_refused() {
        for token in ["", "zz", "6b61f", "71", "ff"] {
            assert_eq!(After::from_token(token), None, "{token}");
        }
    }
}
