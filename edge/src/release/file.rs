//! A file that a path led to, and the fields that go with it: all of them said by whoever signed, none by the bucket.

use std::sync::Arc;
use std::time::Duration;

use http::header::{CACHE_CONTROL, CONTENT_TYPE, VARY};
use http::{HeaderMap, HeaderName, HeaderValue};
use origin_sync::release::coding::DICTIONARY_BYTES_MAX;
use origin_sync::release::integrity::Fields;
use origin_sync::release::{Class, File, Manifest};

use super::wants::Form;
use super::{Track, Under};
use crate::cache::tag::Tag;
use crate::representation::validator;

/// What every answer depends on, whichever form it has.
const DEPENDS_ON: HeaderValue = HeaderValue::from_static("Accept-Encoding, Available-Dictionary");
/// For what the file may be a dictionary (RFC 9842 section 2.1).
const USE_AS_DICTIONARY: HeaderName = HeaderName::from_static("use-as-dictionary");
const UNENCODED_DIGEST: HeaderName = HeaderName::from_static("unencoded-digest");
const SIGNATURE_INPUT: HeaderName = HeaderName::from_static("signature-input");
const SIGNATURE: HeaderName = HeaderName::from_static("signature");

/// Hexadecimal digits of a form's digest in its entity tag.
const SUFFIX_DIGITS: usize = 16;

/// A file of a release, and how it was asked for.
#[derive(Clone, Debug)]
pub struct Found {
    /// The release.
    pub track: Arc<Track>,
    /// The file.
    pub file: Arc<File>,
    /// By which alias; none where its version was named.
    pub under: Option<Under>,
}

impl Found {
    /// The entity tag of the file as it is: its digest. Those of other forms begin with it.
    pub fn etag(&self) -> HeaderValue {
        let tag = format!("\"{}\"", self.file.sha256);
        HeaderValue::try_from(tag).unwrap_or_else(|_| HeaderValue::from_static("\"\""))
    }

    /// The entity tag of a form: strong, for it names the very bytes.
    pub fn etag_of(&self, form: &Form) -> HeaderValue {
        let base = self.etag();
        if form.coding.is_none() {
            return base;
        }
        let mut suffix = form.sha256.to_string();
        suffix.truncate(SUFFIX_DIGITS);
        validator::coded_etag(&base, &suffix).unwrap_or(base)
    }

    /// The tags by which it is purged.
    pub fn tags(&self) -> Box<[Tag]> {
        let name = Manifest::name_tag(self.track.name());
        let tags = self.file.tags.iter().map(String::as_str);
        std::iter::once(name.as_str())
            .chain(tags)
            .filter_map(Tag::new)
            .collect()
    }

    /// The fields that every form of it has, at `now` in seconds since 1970; and how long the client may keep it.
    pub fn fields(&self, now: u64) -> (HeaderMap, Duration) {
        let mut fields = HeaderMap::with_capacity(16);
        let mut put = |name: HeaderName, value: &str| {
            // What was signed was checked when it was opened: it fits a field.
            if let Ok(value) = HeaderValue::try_from(value) {
                fields.insert(name, value);
            }
        };
        put(CONTENT_TYPE, &self.file.media_type);
        let vouched = self.vouched(now);
        let left = vouched
            .and_then(Fields::expires)
            .map(|end| end.saturating_sub(now));
        let (cache_control, fresh) = cache_control(self.class(), left);
        put(CACHE_CONTROL, &cache_control);
        if let Some(pattern) = self.pattern() {
            put(USE_AS_DICTIONARY, &format!("match=\"{pattern}\""));
        }
        if let Some(vouched) = vouched {
            put(UNENCODED_DIGEST, &vouched.unencoded_digest);
            if let (Some(input), Some(signature)) = (&vouched.signature_input, &vouched.signature) {
                put(SIGNATURE_INPUT, input);
                put(SIGNATURE, signature);
            }
        }
        fields.insert(VARY, DEPENDS_ON);
        (fields, fresh)
    }

    /// The same file path under the channel that was in force before, for as long as that may stand in.
    pub fn before(&self) -> Option<Self> {
        let under = self.under.as_ref()?;
        let channel = self.track.before()?;
        let release = channel.alias(under.alias.as_str())?;
        Some(Self {
            file: Arc::clone(release.file(self.file.path.as_str())?),
            track: Arc::clone(&self.track),
            under: Some(Under {
                alias: under.alias.clone(),
                channel,
            }),
        })
    }

    fn class(&self) -> Class {
        match (&self.under, self.file.class) {
            (None, class) => class,
            (Some(_), Class::Config) => Class::Config,
            (Some(_), Class::Alias | Class::Immutable) => Class::Alias,
        }
    }

    /// By what a browser checks it: never anything that has expired, for that would be refused by every browser.
    fn vouched(&self, now: u64) -> Option<&Fields> {
        let fields = match &self.under {
            None => self.file.integrity.as_ref(),
            Some(under) => under.channel.opened.document.integrity.get(&self.file.sha256),
        };
        fields.filter(|fields| fields.expires().is_none_or(|end| now < end))
    }

    /// The paths for which it may be a dictionary: its own, in every version. None where the path holds what patterns give
    /// a meaning to, or where the file is no use as one.
    fn pattern(&self) -> Option<String> {
        let path = self.file.path.as_str();
        let plain = !path.contains(['(', ')', '*', '+', ':', '?', '{', '}', '\\']);
        let serves = !self.file.codings.is_empty() && self.file.size <= DICTIONARY_BYTES_MAX as u64;
        (plain && serves).then(|| format!("/{}/*/{path}", self.track.name()))
    }
}

/// What is said of a class where the file's signature is good for `left` seconds: nothing outlives its signature.
fn cache_control(class: Class, left: Option<u64>) -> (String, Duration) {
    let (fresh, stale) = match class {
        Class::Alias => (300, 86_400),
        Class::Config => (60, 86_400),
        Class::Immutable => (31_536_000, 0),
    };
    match left.filter(|left| *left < fresh + stale) {
        None => (class.cache_control().to_owned(), Duration::from_secs(fresh)),
        Some(left) => {
            let fresh = fresh.min(left);
            (format!("public, max-age={fresh}"), Duration::from_secs(fresh))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_kept_for_longer_than_its_signature_is_good() {
        let check = |class, left, expected: &str, seconds| {
            let (value, fresh) = cache_control(class, left);
            assert_eq!((value.as_str(), fresh.as_secs()), (expected, seconds));
        };
        let alias = Class::Alias.cache_control();
        check(Class::Alias, None, alias, 300);
        check(Class::Alias, Some(1_000_000), alias, 300);
        check(Class::Alias, Some(86_699), "public, max-age=300", 300);
        check(Class::Alias, Some(7), "public, max-age=7", 7);
        let immutable = "public, max-age=31536000, immutable";
        check(Class::Immutable, None, immutable, 31_536_000);
        check(Class::Immutable, Some(1_000), "public, max-age=1000", 1_000);
    }
}
