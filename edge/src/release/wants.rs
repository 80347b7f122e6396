//! Which form of a file a client takes (RFC 9110 section 12.5.3, RFC 9842 section 6.1): the smallest one. Pure.

use http::header::ACCEPT_ENCODING;
use http::{HeaderMap, HeaderName};
use origin_sync::release::{CodingName, File, Sha256};

use crate::fields::lists;
use crate::fields::structured::{BareItem, Item};
use crate::representation::coding::{AcceptEncoding, Coding};

/// How a client names what it holds (RFC 9842 section 2.2).
pub const AVAILABLE_DICTIONARY: HeaderName = HeaderName::from_static("available-dictionary");

/// What a client takes.
#[derive(Clone, Debug)]
pub struct Wants {
    codings: AcceptEncoding,
    /// The dictionary that it holds, where it takes deltas.
    pub dictionary: Option<Sha256>,
}

/// A form in which a file may be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Form {
    /// Its coding; none is the file as it is.
    pub coding: Option<CodingName>,
    /// The digest of its bytes.
    pub sha256: Sha256,
    /// How many they are.
    pub size: u64,
}

impl Form {
    /// The file as it is.
    pub fn own(file: &File) -> Self {
        Self {
            coding: None,
            sha256: file.sha256,
            size: file.size,
        }
    }

    /// As Content-Encoding, metrics and logs say it.
    pub fn token(&self) -> &'static str {
        self.coding.map_or("identity", CodingName::as_str)
    }
}

impl Wants {
    /// What the fields of a request say. A delta has no ranges: who asks for one takes none.
    pub fn of(headers: &HeaderMap) -> Self {
        let deltas = takes_deltas(headers) && !headers.contains_key(http::header::RANGE);
        Self {
            codings: AcceptEncoding::parse(headers.get_all(ACCEPT_ENCODING)),
            dictionary: deltas.then(|| dictionary(headers)).flatten(),
        }
    }

    /// The forms of `file` that the client takes, the best one first: smaller ones before larger ones, but none that it
    /// ranks below identity before one that it does not.
    pub fn forms(&self, file: &File) -> Vec<Form> {
        let mut forms: Vec<(bool, Form)> = Vec::with_capacity(4);
        let mut add = |coding: Coding, form: Form| {
            let quality = self.codings.quality(coding);
            if quality > 0 {
                forms.push((quality < self.codings.quality(Coding::Identity), form));
            }
        };
        add(Coding::Identity, Form::own(file));
        for coding in &file.codings {
            let form = Form {
                coding: Some(coding.name),
                sha256: coding.sha256,
                size: coding.size,
            };
            match coding.name {
                CodingName::Br => add(Coding::Br, form),
                CodingName::Gzip => add(Coding::Gzip, form),
                // A dictionary that no manifest names chooses nothing.
                CodingName::Dcb => {}
            }
        }
        let held = self.dictionary.as_ref();
        let delta = held.and_then(|held| file.coding(CodingName::Dcb, Some(held)));
        forms.extend(delta.map(|delta| {
            let form = Form {
                coding: Some(delta.name),
                sha256: delta.sha256,
                size: delta.size,
            };
            (false, form)
        }));
        forms.sort_by_key(|(is_below, form)| (*is_below, form.size));
        forms.into_iter().map(|(_, form)| form).collect()
    }
}

/// Whether `dcb` is named in Accept-Encoding, and not refused. `*` says nothing of it: who holds no dictionary says `*` too.
fn takes_deltas(headers: &HeaderMap) -> bool {
    lists::members(headers.get_all(ACCEPT_ENCODING)).any(|member| {
        let (name, weight) = member.split_once(';').unwrap_or((member, "q=1"));
        let digits = weight.trim().trim_start_matches(['q', 'Q', '=']);
        name.trim().eq_ignore_ascii_case("dcb") && digits.bytes().any(|digit| (b'1'..=b'9').contains(&digit))
    })
}

fn dictionary(headers: &HeaderMap) -> Option<Sha256> {
    let item = Item::parse(headers.get_all(AVAILABLE_DICTIONARY)).ok()?;
    match item.value {
        BareItem::Bytes(bytes) => Some(Sha256::from(<[u8; 32]>::try_from(bytes).ok()?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use origin_sync::release::{Class, Coding as Coded, Sha384};

    use super::*;

    fn file() -> File {
        let coded = |name, size, dictionary| Coded {
            name,
            sha256: Sha256::of(&[size]),
            size: u64::from(size),
            dictionary,
        };
        File {
            path: "a.js".parse().unwrap(),
            sha256: Sha256::of(b"a"),
            sha384: Sha384::of(b"a"),
            size: 100,
            media_type: "text/javascript".into(),
            class: Class::Immutable,
            tags: Vec::new(),
            codings: vec![
                coded(CodingName::Dcb, 5, Some(Sha256::of(b"old"))),
                coded(CodingName::Br, 20, None),
                coded(CodingName::Gzip, 30, None),
            ],
            integrity: None,
        }
    }

    #[test]
    fn the_smallest_form_that_the_client_takes_comes_first() {
        let old = format!(":{}:", Sha256::of(b"old").base64());
        let other = format!(":{}:", Sha256::of(b"other").base64());
        let check = |accepted: &str, held: &str, range: bool, expected: &[&str]| {
            let mut headers = HeaderMap::new();
            if accepted != "-" {
                headers.insert(ACCEPT_ENCODING, HeaderValue::try_from(accepted).unwrap());
            }
            if !held.is_empty() {
                headers.insert(AVAILABLE_DICTIONARY, HeaderValue::try_from(held).unwrap());
            }
            if range {
                headers.insert("range", HeaderValue::from_static("bytes=0-1"));
            }
            let forms = Wants::of(&headers).forms(&file());
            let tokens: Vec<_> = forms.iter().map(Form::token).collect();
            assert_eq!(tokens, expected, "{accepted} {held} {range}");
        };
        check("-", "", false, &["identity"]);
        check("gzip, br", "", false, &["br", "gzip", "identity"]);
        check("gzip, br, dcb", &old, false, &["dcb", "br", "gzip", "identity"]);
        check("gzip, br, dcb", &old, true, &["br", "gzip", "identity"]);
        check("gzip, br, dcb", &other, false, &["br", "gzip", "identity"]);
        check("gzip, br, dcb", "old", false, &["br", "gzip", "identity"]);
        check("gzip, br, dcb;q=0", &old, false, &["br", "gzip", "identity"]);
        check("gzip, br, dcb;q=0.000", &old, false, &["br", "gzip", "identity"]);
        check("dcb", &old, false, &["dcb", "identity"]);
        check("*", &old, false, &["br", "gzip", "identity"]);
        check("gzip, br", &old, false, &["br", "gzip", "identity"]);
        check("identity, br;q=0.1", "", false, &["identity", "br"]);
        check("identity;q=0", "", false, &[]);
    }
}
